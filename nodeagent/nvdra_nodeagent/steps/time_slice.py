"""How long a process may keep a GPU that several use: the driver's compute policy for whole GPUs.

Sharing needs the compute mode `default` too: an exclusive one lets only one process in.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, ClassVar, Final

import msgspec

from nvdra_nodeagent.hardware.errors import NotSupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_nodeagent.hardware.ports import NvidiaSmi, Nvml
    from nvdra_nodeagent.steps.shared import SharedEffects, Value

_TIME_SLICE: Final = "time_slice"
_COMPUTE_MODE: Final = "compute_mode"


class TimeSliceStep(msgspec.Struct, frozen=True, tag_field="kind", tag="time_slice"):
    """The GPU has time slices of this length. `interval`: 0 default, 1 short, 2 medium, 3 long."""

    claim_uid: str
    gpu_uuid: str
    interval: int

    @property
    def gpu_uuids(self) -> frozenset[str]:
        return frozenset((self.gpu_uuid,))

    @property
    def value(self) -> Value:
        """What the effect sets."""
        return {_COMPUTE_MODE: 0, _TIME_SLICE: self.interval}


class TimeSliceSetting:
    """Time slice and compute mode of a GPU: a `GpuSetting`."""

    parts: ClassVar[tuple[str, ...]] = (_COMPUTE_MODE, _TIME_SLICE)

    def __init__(self, nvml: Nvml, smi: NvidiaSmi) -> None:
        self._nvml = nvml
        self._smi = smi

    def look(self, gpu_uuid: str) -> Value:
        self._nvml.init()
        device = self._nvml.device_by_uuid(gpu_uuid)
        found: Value = {}
        with contextlib.suppress(NotSupported):
            found[_COMPUTE_MODE] = device.compute_mode()
        with contextlib.suppress(NotSupported):
            interval = self._smi.time_slice(gpu_uuid)
            if interval is not None:
                found[_TIME_SLICE] = interval
        return found

    def set(self, gpu_uuid: str, value: Value, *, known: Value) -> None:
        for part, setter in (
            (_COMPUTE_MODE, self._set_compute_mode),
            (_TIME_SLICE, self._smi.set_time_slice),
        ):
            if part in value and known.get(part) != value[part]:
                _set_part(setter, gpu_uuid, value[part])

    def _set_compute_mode(self, gpu_uuid: str, mode: int) -> None:
        self._nvml.init()
        self._nvml.device_by_uuid(gpu_uuid).set_compute_mode(mode)


def _set_part(setter: Callable[[str, int], None], gpu_uuid: str, value: int) -> None:
    try:
        setter(gpu_uuid, value)
    except NotSupported:
        if value:
            raise


class TimeSliceHandler:
    """Applies and undoes `TimeSliceStep`; the result is what was found before."""

    can_wait: ClassVar[bool] = True
    outlasts_boot: ClassVar[bool] = False

    def __init__(self, effects: SharedEffects) -> None:
        self._effects = effects

    def apply(self, step: TimeSliceStep) -> dict[str, str]:
        """:raises AgentError: the GPU has no time slices (`Permanent`), or did not take it."""
        return {part: str(value) for part, value in sorted(self._effects.take(step).items())}

    def undo(self, step: TimeSliceStep, result: dict[str, str] | None = None) -> None:
        self._effects.drop(step)

    def forget(self, claim_uid: str) -> None:
        """Nothing: effects tell themselves who holds them."""

    def holds(self, step: TimeSliceStep, result: dict[str, str] | None = None) -> bool:
        """Without a result it is not known whether `apply` came to its end."""
        if result is None:
            return False
        found = {part: int(value) for part, value in result.items()}
        return self._effects.is_held(step, found=found)
