"""What a claim asks for, and what becomes of its request."""

from __future__ import annotations

from typing import Final

from nvdra_api.reasons.model import Actor, Kind, Reason

REASONS: Final = (
    Reason(
        "InvalidConfig",
        Kind.PERMANENT,
        Actor.USER,
        "A configuration for the driver, in the claim or its DeviceClass, is wrong: an unknown "
        "field, a bad value, or a kind that does not exist.",
        "Correct what the message names (it gives the place), then delete the pod and its claim: "
        "a claim's configuration cannot be changed.",
    ),
    Reason(
        "ConfigMismatch",
        Kind.PERMANENT,
        Actor.USER,
        "A configuration names a request whose device is of another type, e.g. a GpuConfig for a "
        "MIG device.",
        "Use the kind that the message names, or name other requests.",
    ),
    Reason(
        "SharingUnsupported",
        Kind.PERMANENT,
        Actor.USER,
        "The configuration asks for a way of sharing that cannot be had on this device.",
        "Remove `sharing`; containers may share a claim without it.",
    ),
    Reason(
        "NotAllocated",
        Kind.PERMANENT,
        Actor.USER,
        "The claim has no device of this driver.",
        "Usually the scheduler is not done yet, and the pod starts by itself. A pod with "
        "`nodeName` was never scheduled: remove `nodeName`.",
    ),
    Reason(
        "WrongNode",
        Kind.PERMANENT,
        Actor.USER,
        "The claim's devices are on another node than the pod.",
        "Delete the pod and let the scheduler choose the node.",
    ),
    Reason(
        "ClaimNotFound",
        Kind.PERMANENT,
        Actor.USER,
        "The claim that the pod names does not exist any more.",
        "Delete the pod if it does not go by itself; create the claim first if it is your own.",
    ),
    Reason(
        "ClaimReplaced",
        Kind.PERMANENT,
        Actor.USER,
        "The claim was deleted, and another one has its name now.",
        "Delete the pod; it was made for the earlier claim.",
    ),
    Reason(
        "MalformedClaim",
        Kind.PERMANENT,
        Actor.CLUSTER,
        "The status of the claim is not understood.",
        "Compare the object with resource.k8s.io/v1; is the cluster newer than the driver?",
    ),
    Reason(
        "InvalidUid",
        Kind.PERMANENT,
        Actor.PROJECT,
        "The kubelet named a claim by something that is no UID.",
        "Report it, with the versions of the cluster.",
    ),
    Reason(
        "CdiSpecInvalid",
        Kind.PERMANENT,
        Actor.PROJECT,
        "The names in the claim cannot be expressed in CDI.",
        "Report it, with the text of the error.",
    ),
    Reason(
        "ClaimBusy",
        Kind.RETRIED,
        Actor.NOBODY,
        "Earlier work on the same claim has not ended yet.",
        "Wait; if it stays, the agent's log says what it is doing.",
    ),
    Reason(
        "Overtaken",
        Kind.RETRIED,
        Actor.NOBODY,
        "The claim was given back while it was being prepared.",
        "Nothing: the pod is gone.",
    ),
    Reason(
        "Prepared",
        Kind.NOTICE,
        Actor.NOBODY,
        "The devices of a claim are ready for its pods: the reason of a condition that is true.",
        "Nothing.",
    ),
    Reason(
        "ClaimRecovered",
        Kind.NOTICE,
        Actor.NOBODY,
        "A claim that could not be prepared, or given back, was so after all.",
        "Nothing.",
    ),
)
