"""The devices of the driver: IMEX channels for workloads, and the place of a domain's daemon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nvdra_api.names import ATTRIBUTE_ID, ATTRIBUTE_TYPE, TYPE_CHANNEL, TYPE_DAEMON
from nvdra_nodeagent.slices.model import SliceContent, SliceDevice

if TYPE_CHECKING:
    from nvdra_nodeagent.slices.model import AttributeValue

CHANNELS: Final = 2048
"""As many as the driver's `NVreg_ImexChannelCount` makes by default."""


DEVICE_TYPES: Final = (TYPE_CHANNEL, TYPE_DAEMON, "unknown")


@dataclass(frozen=True, slots=True)
class DomainDevice:
    """`type` is channel or daemon, `number` the channel's number."""

    type: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.type}-{self.number}"

    def describe(self) -> SliceDevice:
        attributes: dict[str, AttributeValue] = {
            ATTRIBUTE_TYPE: self.type,
            ATTRIBUTE_ID: self.number,
        }
        return SliceDevice(self.name, attributes)


CHANNEL: Final = DomainDevice(TYPE_CHANNEL, 0)
DAEMON: Final = DomainDevice(TYPE_DAEMON, 0)


def find_device(name: str) -> DomainDevice | None:
    """The device of that name, also one that is not published."""
    if name == DAEMON.name:
        return DAEMON
    type_, _, number = name.partition("-")
    if type_ != TYPE_CHANNEL or not number.isdecimal() or int(number) >= CHANNELS:
        return None
    device = DomainDevice(TYPE_CHANNEL, int(number))
    return device if device.name == name else None


def published(*, with_daemon: bool = True) -> SliceContent:
    """The node's one slice. Of the channels only the first: a node is in one domain at a time."""
    devices = (CHANNEL, DAEMON) if with_daemon else (CHANNEL,)
    return SliceContent(tuple(device.describe() for device in devices))
