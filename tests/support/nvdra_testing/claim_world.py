"""A model of who may have which GPU, small enough to be believed, for random sequences of events.

What it knows of a claim: whether the kubelet was told that it is prepared (`granted`), whether
something of it may be there (`unclear`), and whether undoing it was put off (`left`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from nvdra_nodeagent.inventory.model import Inventory
from nvdra_testing.claims import a_config_entry, a_gpu, a_mig, a_ref, a_result
from nvdra_testing.configs import a_config, time_slicing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from nvdra_kube.api import Body

MIGS: Final = (a_mig(1, start=0, size=4), a_mig(1, start=4, size=4, gi=8))
GPUS: Final = range(3)
INTERVALS: Final = {0: "Default", 1: "Short", 2: "Medium", 3: "Long"}

_SLICES: Final[Mapping[str, frozenset[tuple[int, int]]]] = {
    **{f"gpu-{gpu}": frozenset((gpu, part) for part in range(8)) for gpu in GPUS},
    MIGS[0].name: frozenset((1, part) for part in range(4)),
    MIGS[1].name: frozenset((1, part) for part in range(4, 8)),
    "gpu-vfio-2": frozenset((2, part) for part in range(8)),
}
"""The silicon behind the names: eighths of GPUs."""


@dataclass(frozen=True, slots=True)
class Want:
    """What a claim is allocated; `interval` is the time slice that it asks for."""

    devices: tuple[str, ...]
    interval: int | None = None
    share: bool = False
    admin: bool = False

    @property
    def silicon(self) -> frozenset[tuple[int, int]]:
        if self.admin:
            return frozenset()
        return frozenset[tuple[int, int]]().union(*(_SLICES[name] for name in self.devices))

    @property
    def sliced(self) -> frozenset[int]:
        """The GPUs whose time slices it sets."""
        if self.interval is None:
            return frozenset()
        return frozenset(gpu for gpu, _ in self.silicon)

    def excludes(self, other: Want) -> bool:
        both_share = self.share and other.share and self.devices == other.devices
        if both_share and None not in (self.interval, other.interval):
            return self.interval != other.interval
        return not both_share and self.meets(other)

    def meets(self, other: Want) -> bool:
        return bool(self.silicon & other.silicon)

    def results(self, name: str) -> list[Body]:
        more: dict[str, Any] = {"shareID": f"share of {name}"} if self.share else {}
        more |= {"adminAccess": True} if self.admin else {}
        return [
            a_result(device, request=f"request-{number}", **more)
            for number, device in enumerate(self.devices)
        ]

    def config(self) -> Sequence[Body]:
        if self.interval is None:
            return ()
        interval = INTERVALS[self.interval]
        return (a_config_entry(a_config(sharing=time_slicing(interval=interval))),)


WANTS: Final[Mapping[str, Want]] = {
    "plain": Want(("gpu-0",)),
    "long": Want(("gpu-0",), interval=3),
    "share a": Want(("gpu-0",), interval=3, share=True),
    "share b": Want(("gpu-0",), interval=3, share=True),
    "share c": Want(("gpu-0",), interval=1, share=True),
    "two": Want(("gpu-0", "gpu-2"), interval=2),
    "admin": Want(("gpu-0",), admin=True),
    "whole": Want(("gpu-1",)),
    "left half": Want((MIGS[0].name,)),
    "right half": Want((MIGS[1].name,)),
    "third": Want(("gpu-2",), interval=0),
}
TWIN: Final = "twin"
"""A claim of an earlier driver: it gave the third GPU to a virtual machine."""
REFS: Final = {name: a_ref(name.replace(" ", "-")) for name in (*WANTS, TWIN)}


@dataclass
class Model:
    wants: dict[str, Want] = field(default_factory=lambda: dict(WANTS))
    granted: dict[str, Want] = field(default_factory=dict)
    unclear: dict[str, list[Want]] = field(default_factory=dict)
    left: set[int] = field(default_factory=set)
    base: dict[int, int] = field(default_factory=lambda: dict.fromkeys(GPUS, 0))
    lost: frozenset[int] = frozenset()
    cut: bool = False
    programs_fail: bool = False
    loads: int = 0

    def inventory(self) -> Inventory:
        gpus = [a_gpu(gpu, migs=MIGS if self.cut and gpu == 1 else ()) for gpu in GPUS]
        there = tuple(gpu for gpu in gpus if gpu.minor not in self.lost)
        return Inventory(there, driver_version="570.158.01", driver_load=f"load {self.loads}")

    def check_grant(self, name: str) -> None:
        """Nobody else was told that he has what this claim has now."""
        want = self.wants[name]
        for other, held in self.granted.items():
            assert other == name or not want.excludes(held), f"{name} and {other} at once"

    def may_be_refused(self, name: str) -> bool:
        """Whether there is a reason why the claim cannot be prepared now."""
        want = self.wants[name]
        missing = set(want.devices) - set(self.inventory().devices)
        waits = {gpu for gpu, _ in want.silicon} & self.left
        return bool(
            missing
            or waits
            or self.programs_fail
            or any(want.excludes(held) for each, held in self.granted.items() if each != name)
            or any(
                want.meets(maybe)
                for each, wants in self.unclear.items()
                for maybe in wants
                if each != name
            )
        )

    def grant(self, name: str) -> None:
        self.granted[name] = self.wants[name]
        self.unclear.pop(name, None)

    def doubt(self, name: str) -> None:
        """Something of the claim may be there; if it was granted, that was another allocation."""
        maybe = [*self.unclear.get(name, []), self.wants[name]]
        if name in self.granted and self.granted[name] != self.wants[name]:
            maybe.append(self.granted.pop(name))
        self.unclear[name] = maybe

    def revoke(self, name: str) -> None:
        """Its unprepare was begun."""
        if name in self.granted:
            self.unclear.setdefault(name, []).append(self.granted.pop(name))

    def end(self, name: str) -> None:
        """It was unprepared; what could not be undone is left."""
        self.revoke(name)
        gone = self.unclear.pop(name, [])
        if self.programs_fail:
            self.left |= {gpu for want in gone for gpu in want.sliced}

    def change(self, name: str, interval: int) -> None:
        self.wants[name] = replace(self.wants[name], interval=interval)

    def forget_settings(self) -> None:
        """What a boot or a load of the driver does."""
        self.loads += 1
        self.base = dict.fromkeys(GPUS, 0)

    def settled(self) -> bool:
        return not (self.programs_fail or self.lost or self.unclear)

    def expected_interval(self, gpu: int) -> int:
        """Of a settled node."""
        holders: Iterable[Want] = self.granted.values()
        held = {want.interval for want in holders if gpu in want.sliced}
        return held.pop() or 0 if held else self.base[gpu]
