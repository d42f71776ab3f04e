"""The devices of claims: what they are, who has them, how they are set."""

from __future__ import annotations

from typing import Final

from nvdra_api.reasons.model import Actor, Kind, Reason

REASONS: Final = (
    Reason(
        "DeviceConflict",
        Kind.PERMANENT,
        Actor.CLUSTER,
        "Two devices of one claim are on the same silicon.",
        "The scheduler's view of the node is wrong: look at the node's ResourceSlices, and for a "
        "second driver with the same name.",
    ),
    Reason(
        "DeviceNotFound",
        Kind.RETRIED,
        Actor.NODE,
        "The allocated device is not on the node any more.",
        "Look at the GPU: `nvidia-smi -L` on the node. Delete the pod to have it scheduled anew.",
    ),
    Reason(
        "DeviceChanged",
        Kind.RETRIED,
        Actor.NODE,
        "The device's name stands for other hardware than when the claim was prepared.",
        "Delete the pod to have it scheduled anew.",
    ),
    Reason(
        "DeviceInUse",
        Kind.RETRIED,
        Actor.NOBODY,
        "Another claim still holds that GPU or a part of it; the message names the claim.",
        "It becomes free when the pods of that claim have ended. Are they stuck in Terminating?",
    ),
    Reason(
        "DeviceFenced",
        Kind.RETRIED,
        Actor.NODE,
        "The record of another claim was lost or damaged, and that claim may hold the device.",
        "Delete the pods of the claim that the message names; its devices are free afterwards.",
    ),
    Reason(
        "EffectConflict",
        Kind.RETRIED,
        Actor.USER,
        "Another claim on the same GPU has set the GPU in another way, e.g. with another time "
        "slice.",
        "Use the same `sharing` settings in all claims that share a GPU, or wait until the pods of "
        "the other claim have ended.",
    ),
    Reason(
        "GpuSettingFailed",
        Kind.RETRIED,
        Actor.NODE,
        "The driver did not take a setting of the GPU, e.g. its time slice.",
        "Try the command that the message names on the node.",
    ),
    Reason(
        "GpuBusy",
        Kind.RETRIED,
        Actor.NOBODY,
        "Work of another claim on the same GPU has not ended yet.",
        "Wait; if it stays, look at the GPU: does `nvidia-smi` answer?",
    ),
)
