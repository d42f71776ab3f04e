"""Which opaque config is for which allocated device.

Configs of a device class come before those of the claim, later ones before earlier ones win, and
nothing is merged (KEP-4381, "DeviceAllocationConfiguration"). Every config of this driver has to be
right, also one that no device uses: whoever wrote it meant something by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nvdra_api import (
    ComputeDomainChannelConfig,
    ComputeDomainDaemonConfig,
    ConfigError,
    GpuConfig,
    MigDeviceConfig,
    OpaqueConfig,
    VfioDeviceConfig,
    load_config,
)
from nvdra_nodeagent.errors import Permanent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvdra_api import FeatureGates
    from nvdra_nodeagent.claims.allocation import ConfigEntry, DeviceResult

_SOURCES: Final = ("FromClass", "FromClaim")  # the order is the precedence, weakest first
_HINT: Final = "correct the config in the ResourceClaim, its template or its DeviceClass"

KIND_OF_TYPE: Final[dict[str, type[OpaqueConfig]]] = {
    "gpu": GpuConfig,
    "mig": MigDeviceConfig,
    "vfio": VfioDeviceConfig,
    "channel": ComputeDomainChannelConfig,
    "daemon": ComputeDomainDaemonConfig,
}
"""The kind of config that fits each type of device."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A decoded config and the requests that it names; none means all."""

    requests: tuple[str, ...]
    config: OpaqueConfig

    def names(self, result: DeviceResult) -> bool:
        return result.request in self.requests or result.main_request in self.requests


def select_configs(
    entries: Sequence[ConfigEntry],
    wanted: Sequence[tuple[DeviceResult, str]],
    *,
    driver: str,
    gates: FeatureGates,
) -> tuple[OpaqueConfig, ...]:
    """The config of each wanted device (its result and its type), in the same order.

    :raises Permanent: `InvalidConfig`, `ConfigMismatch`.
    """
    candidates = _decode(_by_precedence(entries, driver=driver), gates=gates)
    return tuple(_select(candidates, result, type_) for result, type_ in wanted)


def _select(candidates: Sequence[_Candidate], result: DeviceResult, type_: str) -> OpaqueConfig:
    fitting = KIND_OF_TYPE[type_]
    for candidate in reversed(candidates):
        fits = isinstance(candidate.config, fitting)
        if candidate.names(result):
            if not fits:
                raise _mismatch(candidate.config, result, type_)
            return candidate.config
        if fits and not candidate.requests:
            return candidate.config
    return fitting()


def _by_precedence(entries: Sequence[ConfigEntry], *, driver: str) -> list[ConfigEntry]:
    own = []
    for index, entry in enumerate(entries):
        if entry.opaque is None:
            raise Permanent(
                "InvalidConfig",
                f"allocation config {index} is not opaque, and other kinds are not known",
                hint="use the opaque configs of this driver",
            )
        if entry.opaque.driver != driver:
            continue
        if entry.source not in _SOURCES:
            raise Permanent(
                "InvalidConfig",
                f'allocation config {index} has the unknown source "{entry.source}"',
                hint=f"known: {', '.join(_SOURCES)}",
            )
        own.append(entry)
    return sorted(own, key=lambda entry: _SOURCES.index(entry.source))  # stable


def _decode(entries: Sequence[ConfigEntry], *, gates: FeatureGates) -> list[_Candidate]:
    candidates: list[_Candidate] = []
    problems: dict[str, None] = {}  # an entry naming N requests comes N times: say it once
    for entry in entries:
        parameters: Any = entry.opaque.parameters if entry.opaque else None
        try:
            config = load_config(parameters, gates)
        except ConfigError as error:
            problems[f"{_place(entry)}: {error}"] = None
            continue
        candidates.append(_Candidate(entry.requests or (), config))
    if problems:
        raise Permanent("InvalidConfig", "; ".join(problems), hint=_HINT)
    return candidates


def _place(entry: ConfigEntry) -> str:
    origin = "the device class" if entry.source == "FromClass" else "the claim"
    requests = f" for {', '.join(entry.requests)}" if entry.requests else ""
    return f"opaque config of {origin}{requests} is invalid"


def _mismatch(config: OpaqueConfig, result: DeviceResult, type_: str) -> Permanent:
    return Permanent(
        "ConfigMismatch",
        f"a {type(config).__name__} is given for request {result.request}, "
        f"but its device {result.device} is of type {type_}",
        hint=f"use a {KIND_OF_TYPE[type_].__name__} for it",
    )
