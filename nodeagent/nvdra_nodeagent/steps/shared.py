"""Effects that belong to a GPU and not to a claim: claims take and drop references to them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeAlias

from nvdra_nodeagent.errors import NodeFault, Permanent, Retryable
from nvdra_nodeagent.hardware.errors import (
    DriverMissing,
    GpuLost,
    HardwareError,
    NotSupported,
    ProgramTimedOut,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nvdra_nodeagent.steps.registry import SharedStep

Value: TypeAlias = dict[str, int]
"""What a setting of a GPU consists of, by name. 0 is what the driver begins with."""


class GpuSetting(Protocol):
    """Something of a GPU that can be looked at and set. Calls block, with the GPU locked.

    All may raise `HardwareError`; `NotFound` says that the driver does not have the GPU any more.
    """

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of all parts."""
        ...

    def look(self, gpu_uuid: str) -> Value:
        """What it is now; without the parts that the driver does not tell."""
        ...

    def set(self, gpu_uuid: str, value: Value, *, known: Value) -> None:
        """Make it `value`; parts that are so already, as `known` says, are left alone.

        A part that this GPU does not have may be set to 0.
        """
        ...


class SharedEffects(Protocol):
    """Counts who holds an effect: the first to come makes it, the last to go undoes it.

    Each call may be repeated after a crash anywhere in an earlier one. All may raise `AgentError`.
    """

    def take(self, step: SharedStep) -> Value:
        """The step's claim holds the effect from now on; answers what was found before it."""
        ...

    def drop(self, step: SharedStep) -> None:
        """It holds it no more; nothing is done where it did not. A GPU that is gone is undone."""
        ...

    def is_held(self, step: SharedStep, *, found: Value) -> bool:
        """Whether the claim took it, and nothing has happened since that could have ended it, nor
        changed what was `found` before it."""
        ...


@contextmanager
def hardware_asked(what: str) -> Iterator[None]:
    """Errors of the hardware as those of a claim; `what` is tried inside, e.g. "set ... of ..."."""
    try:
        yield
    except HardwareError as error:
        raise _as_agent_error(f"cannot {what}: {error}", error) from error


def _as_agent_error(message: str, error: HardwareError) -> Permanent | Retryable:
    if isinstance(error, NotSupported):
        hint = "this GPU cannot be set so: remove `sharing` from the config, or ask for another GPU"
        return Permanent("SharingUnsupported", message, hint=hint)
    if isinstance(error, GpuLost):
        return NodeFault("GpuLost", message, hint="reset the GPU or reboot the node")
    if isinstance(error, ProgramTimedOut):
        hint = "run the command on the node; a GPU that hangs needs a reset"
        return NodeFault("ProgramTimedOut", message, hint=hint)
    if isinstance(error, DriverMissing):
        return NodeFault("DriverMissing", message)
    return Retryable("GpuSettingFailed", message, hint="ask the driver on the node: nvidia-smi -q")
