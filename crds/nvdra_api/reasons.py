"""Every reason that the driver gives for something: one entry each, for pages and programs.

A reason is what stands in brackets at the end of an error, and what Events, conditions of devices,
metrics and logs carry. Errors are raised by name where they happen; a test compares both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kind(StrEnum):
    """What the agent does about it."""

    PERMANENT = "permanent"
    """The same call can never succeed: answered at once."""
    RETRIED = "retried"
    """May pass: tried again within the kubelet's call, then answered with the last cause."""
    NODE = "node"
    """Somebody has to put the node right: tried again briefly, so that the cause is seen."""
    SLICES = "slices"
    """Publishing devices; tried again for ever, claims go on."""
    START = "start"
    """The program ends with it."""
    NOTICE = "notice"
    """An Event that reports, not an error."""


class Actor(StrEnum):
    """Who can do something about it."""

    USER = "whoever wrote the pod or the claim"
    NOBODY = "nobody: wait"
    NODE = "whoever runs the node"
    CLUSTER = "whoever runs the cluster"
    PROJECT = "the authors of the driver"


@dataclass(frozen=True, slots=True)
class Reason:
    """`meaning` says what is the case, `next_step` what the actor does; both plain sentences."""

    name: str
    kind: Kind
    actor: Actor
    meaning: str
    next_step: str


_PERMANENT: Final = (
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
        "DomainNotFound",
        Kind.PERMANENT,
        Actor.USER,
        "The ComputeDomain that the claim names does not exist in the claim's namespace.",
        "Use the claim template that the ComputeDomain names, in the domain's own namespace.",
    ),
    Reason(
        "DomainTerminating",
        Kind.PERMANENT,
        Actor.USER,
        "The ComputeDomain that the claim names is being deleted.",
        "Delete the pod; create the domain anew once it is gone.",
    ),
    Reason(
        "WrongNamespace",
        Kind.PERMANENT,
        Actor.USER,
        "A claim for a `daemon` device is not in a namespace of the driver.",
        "Nothing: such devices are for the driver's own pods.",
    ),
    Reason(
        "HostManaged",
        Kind.PERMANENT,
        Actor.CLUSTER,
        "A claim for a `daemon` device, though the hosts run `nvidia-imex` themselves.",
        "Delete the claim; with `imex.mode=hostManaged` nothing should make one.",
    ),
    Reason(
        "GateMissing",
        Kind.PERMANENT,
        Actor.CLUSTER,
        "The program was given a setting that a feature gate has to allow.",
        "Set the gate that the message names.",
    ),
    Reason(
        "NoDaemon",
        Kind.PERMANENT,
        Actor.USER,
        "A claim for a `daemon` device is for a pod that is no daemon of the ComputeDomain that it "
        "names.",
        "Nothing: such devices are for the driver's own pods.",
    ),
    Reason(
        "MalformedClaim",
        Kind.PERMANENT,
        Actor.CLUSTER,
        "The status of the claim is not understood.",
        "Compare the object with resource.k8s.io/v1; is the cluster newer than the driver?",
    ),
    Reason(
        "ApiRefused",
        Kind.PERMANENT,
        Actor.CLUSTER,
        "The API server found the driver's question for the claim wrong.",
        "Compare the versions of cluster and driver.",
    ),
    Reason(
        "DeviceConflict",
        Kind.PERMANENT,
        Actor.CLUSTER,
        "Two devices of one claim are on the same silicon.",
        "The scheduler's view of the node is wrong: look at the node's ResourceSlices, and for a "
        "second driver with the same name.",
    ),
    Reason(
        "RecordTooNew",
        Kind.PERMANENT,
        Actor.NODE,
        "A later version of the driver prepared the claim; this version cannot undo that.",
        "Install the later version again, at least until the pods of the claim have ended.",
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
)

_RETRIED: Final = (
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
        "DriverChanging",
        Kind.RETRIED,
        Actor.NODE,
        "The files of the NVIDIA driver on the node are being replaced, and some are not there "
        "yet: a container would get half a driver.",
        "Wait until the driver's installation on the node is complete.",
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
        "ClaimBusy",
        Kind.RETRIED,
        Actor.NOBODY,
        "Earlier work on the same claim has not ended yet.",
        "Wait; if it stays, the agent's log says what it is doing.",
    ),
    Reason(
        "GpuBusy",
        Kind.RETRIED,
        Actor.NOBODY,
        "Work of another claim on the same GPU has not ended yet.",
        "Wait; if it stays, look at the GPU: does `nvidia-smi` answer?",
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
        "DomainNotReady",
        Kind.RETRIED,
        Actor.NOBODY,
        "The workload waits for the IMEX daemon of its ComputeDomain on this node.",
        "Wait; if it stays, look at the domain's conditions and at the daemon's pod on the node: "
        "`kubectl -n dra-driver-nvidia-gpu get pods -o wide`.",
    ),
    Reason(
        "NodeInOtherDomain",
        Kind.RETRIED,
        Actor.USER,
        "The node is in another ComputeDomain, and can be in one only.",
        "Wait until the pods of the other domain have ended on the node.",
    ),
    Reason(
        "FabricNotReady",
        Kind.RETRIED,
        Actor.NODE,
        "The GPUs do not tell which NVLink clique they are in: they are not registered with the "
        "fabric yet, or that failed.",
        "Look at the fabric manager of the node or of its rack, and at `nvidia-smi -q`, section "
        "Fabric.",
    ),
    Reason(
        "Overtaken",
        Kind.RETRIED,
        Actor.NOBODY,
        "The claim was given back while it was being prepared.",
        "Nothing: the pod is gone.",
    ),
    Reason(
        "ApiUnavailable",
        Kind.RETRIED,
        Actor.CLUSTER,
        "The API server gave the driver no usable answer.",
        "Look at the API server, and at the network between it and the node.",
    ),
    Reason(
        "ApiThrottled",
        Kind.RETRIED,
        Actor.NOBODY,
        "The API server asks for patience.",
        "Wait; if it stays, look at the API server's load.",
    ),
    Reason(
        "ApiForbidden",
        Kind.RETRIED,
        Actor.CLUSTER,
        "The driver's account may not read claims.",
        "Grant it `get` on resourceclaims, as the chart does.",
    ),
    Reason(
        "InternalError",
        Kind.RETRIED,
        Actor.PROJECT,
        "A defect of the driver.",
        "Report it, with the traceback in the agent's log.",
    ),
)

_NODE: Final = (
    Reason(
        "DriverMissing",
        Kind.NODE,
        Actor.NODE,
        "A file of the NVIDIA driver was not found, or the driver does not answer.",
        "Install the driver, or set `nvidiaDriverRoot` to where it is; does `nvidia-smi` answer on "
        "the node?",
    ),
    Reason(
        "CdiHookMissing",
        Kind.NODE,
        Actor.NODE,
        "`nvidia-cdi-hook` is not there or cannot be run.",
        "Put it there, or set `nvidiaCDIHookPath`.",
    ),
    Reason(
        "HostImexMissing",
        Kind.NODE,
        Actor.NODE,
        "`nvidia-imex-ctl` cannot be run, so nobody knows whether the host's `nvidia-imex` is "
        "ready.",
        "Install `nvidia-imex` on the host, or use `imex.mode=driverManaged`.",
    ),
    Reason(
        "NodeNotFound",
        Kind.NODE,
        Actor.CLUSTER,
        "The node's own object is not in the API.",
        "Check `--node-name`; the kubelet registers the node.",
    ),
    Reason(
        "DeviceNodeMissing",
        Kind.NODE,
        Actor.NODE,
        "A device node of the GPU is not under `/dev`.",
        "Load the kernel modules; running `nvidia-smi` on the node makes the device nodes.",
    ),
    Reason(
        "CdiIncomplete",
        Kind.NODE,
        Actor.NODE,
        "The hardware did not answer while the claim was described for containers.",
        "Look at the GPU that the message names, and at the kernel's log.",
    ),
    Reason(
        "GpuLost",
        Kind.NODE,
        Actor.NODE,
        "The GPU does not answer any more.",
        "Look at the kernel's log for XID errors; reset the GPU, or reboot the node.",
    ),
    Reason(
        "ProgramTimedOut",
        Kind.NODE,
        Actor.NODE,
        "A program of the NVIDIA driver, such as `nvidia-smi`, did not end in time.",
        "Run it on the node; a GPU that hangs needs a reset.",
    ),
    Reason(
        "EffectTooNew",
        Kind.NODE,
        Actor.NODE,
        "A later version of the driver keeps the GPU's settings; this version cannot read them.",
        "Install the later version again, at least until the pods on that GPU have ended.",
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
)

_SLICES: Final = (
    Reason(
        "ResourceSlicePublishFailed",
        Kind.SLICES,
        Actor.CLUSTER,
        "The API server refused a ResourceSlice or did not answer; what was published before "
        "stands.",
        "Look at the API server and at the account's rights; the write is repeated.",
    ),
    Reason(
        "ResourceSlicesNotServed",
        Kind.SLICES,
        Actor.CLUSTER,
        "The API server serves no version of resource.k8s.io that the driver knows.",
        "Enable Dynamic Resource Allocation in the cluster.",
    ),
    Reason(
        "ResourceSlicesRefused",
        Kind.SLICES,
        Actor.CLUSTER,
        "The API server finds the slices invalid.",
        "Switch the feature gate off here, or on in the cluster.",
    ),
    Reason(
        "ResourceSliceFieldsDropped",
        Kind.SLICES,
        Actor.CLUSTER,
        "The API server stored less than it was sent.",
        "Enable the feature gate of the cluster that the message names.",
    ),
)

_START: Final = (
    Reason(
        "DirectoryUnusable",
        Kind.START,
        Actor.NODE,
        "The plugin or CDI directory cannot be made.",
        "Look at its parent and its owner.",
    ),
    Reason(
        "SocketUnusable",
        Kind.START,
        Actor.NODE,
        "A socket cannot be had at its path.",
        "Move away what is there; look at the directory.",
    ),
    Reason(
        "SocketPathTooLong",
        Kind.START,
        Actor.NODE,
        "The path of a socket is longer than 107 bytes.",
        "Choose shorter directories.",
    ),
    Reason(
        "HealthPortUnusable",
        Kind.START,
        Actor.NODE,
        "The port of the liveness service is taken.",
        "Give `--healthcheck-port` another one.",
    ),
)

_NOTICES: Final = (
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

CATALOGUE: Final = (*_PERMANENT, *_RETRIED, *_NODE, *_SLICES, *_START, *_NOTICES)

REASONS: Final[Mapping[str, Reason]] = {reason.name: reason for reason in CATALOGUE}
"""Every reason by its name."""
