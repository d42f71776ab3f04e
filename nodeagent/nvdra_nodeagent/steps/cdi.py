"""The step that every claim has: the CDI file that tells the container runtime of its devices."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Protocol

import msgspec

from nvdra_nodeagent.errors import NodeFault, Retryable
from nvdra_nodeagent.hardware.errors import HardwareError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from nvdra_nodeagent.inventory.model import Device, Inventory


class CdiFiles(Protocol):
    """The CDI files of this driver, one per claim. Calls block and may raise `AgentError`."""

    def device_id(self, claim_uid: str, device_name: str) -> str:
        """The fully qualified name by which a container gets the device. Does not block."""
        ...

    def write(self, claim_uid: str, devices: Sequence[Device]) -> None:
        """Write the claim's file, durably and as a whole. May raise `HardwareError` too."""
        ...

    def is_current(self, claim_uid: str, devices: Sequence[Device]) -> bool:
        """Whether the claim's file is what `write` would write now. May raise as that does."""
        ...

    def basis(self) -> str:
        """Another one when the driver's files that every claim's file names have changed.

        Raises `AgentError` while no file could be written.
        """
        ...

    def remove(self, claim_uid: str) -> bool:
        """Remove the claim's file; False when there was none."""
        ...

    def claim_uids(self) -> Sequence[str]:
        """The claims that have a file."""
        ...

    def device_names(self, claim_uid: str) -> Sequence[str]:
        """The devices in a claim's file; none when it cannot be read."""
        ...

    def find_temporaries(self, *, older_than_s: float) -> Sequence[Path]:
        """Files that writers left when they died."""
        ...


class CdiDevice(msgspec.Struct, frozen=True):
    """A device by the name that the scheduler knows, and what that name meant when planned."""

    name: str
    uuid: str


class CdiStep(msgspec.Struct, frozen=True, tag_field="kind", tag="cdi"):
    """The claim's CDI file holds these devices, each once, in allocation order."""

    claim_uid: str
    devices: tuple[CdiDevice, ...] = ()

    @property
    def gpu_uuids(self) -> frozenset[str]:
        """None: the file is the claim's own, and changes nothing on a GPU."""
        return frozenset()


class CdiHandler:
    """Applies and undoes `CdiStep`. All that undoing needs is in the step, so results are None."""

    can_wait: ClassVar[bool] = False  # with the file left, a container could still get the devices
    outlasts_boot: ClassVar[bool] = False

    def __init__(self, files: CdiFiles, *, inventory: Callable[[], Inventory]) -> None:
        self._files = files
        self._inventory = inventory

    def apply(self, step: CdiStep) -> None:
        """:raises Retryable: a device is not what it was, or its CDI entry cannot be made."""
        devices = self._devices(step)
        with _described(devices):
            self._files.write(step.claim_uid, devices)

    def undo(self, step: CdiStep, result: dict[str, str] | None = None) -> None:
        self._files.remove(step.claim_uid)

    def forget(self, claim_uid: str) -> None:
        """Nothing: the file is undone as for a record, with what was salvaged of it."""

    def holds(self, step: CdiStep, result: dict[str, str] | None = None) -> bool:
        """Also untrue when the driver was replaced since: its libraries have other names now.

        :raises Retryable: as for `apply`, for a container could not start with what is missing.
        """
        devices = self._devices(step)
        with _described(devices):
            return self._files.is_current(step.claim_uid, devices)

    def _devices(self, step: CdiStep) -> list[Device]:
        inventory = self._inventory()
        return [_same_device(inventory, planned) for planned in step.devices]


@contextmanager
def _described(devices: Sequence[Device]) -> Iterator[None]:
    try:
        yield
    except HardwareError as error:
        names = ", ".join(device.name for device in devices)
        raise NodeFault("CdiIncomplete", f"cannot describe {names} for CDI: {error}") from error


def _same_device(inventory: Inventory, planned: CdiDevice) -> Device:
    device = inventory.devices.get(planned.name)
    if device is None or device.uuid != planned.uuid:
        now = f"is {device.uuid}" if device else "is not on this node"
        raise Retryable(
            "DeviceChanged",
            f"{planned.name} was {planned.uuid} when it was planned for this claim and now {now}",
            hint="check the GPU on the node; delete the pod to have it scheduled anew",
        )
    return device
