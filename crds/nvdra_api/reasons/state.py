"""What the driver keeps on the node: records, effects, locks, and what is left to undo."""

from __future__ import annotations

from typing import Final

from nvdra_api.reasons.model import Actor, Kind, Reason

REASONS: Final = (
    Reason(
        "RecordTooNew",
        Kind.PERMANENT,
        Actor.NODE,
        "A later version of the driver prepared the claim; this version cannot undo that.",
        "Install the later version again, at least until the pods of the claim have ended.",
    ),
    Reason(
        "EffectTooNew",
        Kind.NODE,
        Actor.NODE,
        "A later version of the driver keeps the GPU's settings; this version cannot read them.",
        "Install the later version again, at least until the pods on that GPU have ended.",
    ),
    Reason(
        "NotReserved",
        Kind.RETRIED,
        Actor.NOBODY,
        "The record of a claim was lost and is not made anew: the claim is reserved for no pod.",
        "Nothing: its devices become free when the claim is deleted or deallocated.",
    ),
    Reason(
        "NotPrepared",
        Kind.RETRIED,
        Actor.NOBODY,
        "The record of a claim was lost and is not made anew: its CDI file is not of the devices "
        "that it has now.",
        "Nothing: its devices become free with the claim's next prepare or unprepare.",
    ),
    Reason(
        "DiskFull",
        Kind.NODE,
        Actor.NODE,
        "There is no space, or no quota, for the driver's files.",
        "Free space where the message says.",
    ),
    Reason(
        "StorageUnwritable",
        Kind.NODE,
        Actor.NODE,
        "A file of the driver cannot be written, read or removed.",
        "Look at the path that the message names: owner, mode, read-only file system.",
    ),
    Reason(
        "StorageUnreadable",
        Kind.NODE,
        Actor.NODE,
        "The directory of the driver's records cannot be listed.",
        "Look at the directory and its disk.",
    ),
    Reason(
        "CheckpointBusy",
        Kind.NODE,
        Actor.NODE,
        "Another driver for the same GPUs still runs on the node, and its state cannot be taken "
        "over.",
        "Stop the earlier driver's plugin on the node.",
    ),
    Reason(
        "LockFailed",
        Kind.NODE,
        Actor.NODE,
        "The driver's lock file cannot be used.",
        "The kubelet's plugin directory has to be on a local file system.",
    ),
    Reason(
        "StateQuarantined",
        Kind.NOTICE,
        Actor.NODE,
        "A file in which the driver keeps what a claim holds was damaged; it was moved aside, and "
        "the claim's devices are given to nobody else.",
        "Look at the node's disk. The devices are free again when the claim's pods have ended.",
    ),
    Reason(
        "UndoPostponed",
        Kind.NOTICE,
        Actor.NODE,
        "The pods of a claim have ended, but something of it cannot be undone now. The GPU is "
        "given to nobody until it is.",
        "Look at the GPU that the message names: does `nvidia-smi` answer? It is tried again.",
    ),
    Reason(
        "UndoCompleted",
        Kind.NOTICE,
        Actor.NOBODY,
        "What had been put off is undone, and the GPU is free.",
        "Nothing.",
    ),
)
