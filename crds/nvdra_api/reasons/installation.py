"""What the node has of the NVIDIA driver, and whether it answers."""

from __future__ import annotations

from typing import Final

from nvdra_api.reasons.model import Actor, Kind, Reason

REASONS: Final = (
    Reason(
        "DriverChanging",
        Kind.RETRIED,
        Actor.NODE,
        "The files of the NVIDIA driver on the node are being replaced, and some are not there "
        "yet: a container would get half a driver.",
        "Wait until the driver's installation on the node is complete.",
    ),
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
)
