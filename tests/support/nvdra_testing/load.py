"""Many claims in flight on eight GPUs while everything around the agent fails now and then."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from nvdra_kube.resources import RESOURCE_CLAIMS
from nvdra_nodeagent.claims.locks import LockFile
from nvdra_sim.cluster.apiserver.faults import Fault
from nvdra_testing.claims import a_config_entry, a_result
from nvdra_testing.configs import a_config, time_slicing

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_sim.hardware import SimulatedHardware
    from nvdra_testing.process_node import ProcessNode

GPUS: Final = 8
LANES: Final = 64
GATES: Final = ("--feature-gates", "TimeSlicingSettings=true")

_OWNERS: Final = 2
"""Lanes of each GPU that want it for themselves; the others have admin access."""
_SETTLE_S: Final = 120.0
_PAUSE_S: Final = 0.05
_TROUBLE_EVERY: Final = 8

_REASON: Final = re.compile(r"\[([A-Za-z]+)\]$")
_SMI_CALLS: Final = ("time_slice", "set_time_slice", "compute_mode", "set_compute_mode")
_NVML_CALLS: Final = ("device", "uuid", "name", "memory_bytes", "pci_bus_id")


class BrokenPromise(Exception):
    """What must never happen has happened."""


@dataclass(slots=True)
class Tally:
    """What came of the calls. `longest_s` is of a prepare, with all its repetitions."""

    prepared: int = 0
    unprepared: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0
    in_flight: int = 0
    most_in_flight: int = 0


@dataclass(frozen=True, slots=True)
class _Lane:
    number: int
    claim: ClaimRef

    @property
    def gpu(self) -> int:
        return self.number % GPUS

    @property
    def is_owner(self) -> bool:
        return self.number // GPUS < _OWNERS


class Load:
    """Lanes, each with a claim that is prepared and unprepared again and again, as by a kubelet
    that does not give up; and somebody who breaks things."""

    def __init__(self, node: ProcessNode, hardware: SimulatedHardware, *, seed: int) -> None:
        self.tally = Tally()
        self._node = node
        self._hardware = hardware
        self._random = random.Random(seed)
        self._lanes: list[_Lane] = []
        self._owner: dict[int, str] = {}
        self._operations = 0

    async def run(self, *, cycles: int = 0, until: Callable[[], bool] = lambda: False) -> None:
        """So many cycles of each lane, or without a number until `until`; then quiet.

        :raises BrokenPromise: a GPU was granted twice, or something is left in the end.
        """
        self._lanes = [await self._lane(number) for number in range(LANES)]
        trouble = asyncio.create_task(self._make_trouble(), name="trouble")
        try:
            async with asyncio.TaskGroup() as group:
                for lane in self._lanes:
                    work = self._work(lane, cycles=cycles, until=until)
                    group.create_task(work, name=f"lane {lane.number}")
        finally:
            trouble.cancel()
            await asyncio.wait([trouble])
        await self._end_trouble()
        await self._assert_nothing_is_left()

    async def _lane(self, number: int) -> _Lane:
        owner = number // GPUS < _OWNERS
        extra: dict[str, Any] = {} if owner else {"adminAccess": True}
        slicing = a_config_entry(a_config(sharing=time_slicing(interval="Long")))
        claim = await self._node.claim(
            a_result(f"gpu-{number % GPUS}", **extra),
            name=f"claim-{number}",
            config=[slicing] if number % 3 == 0 else [],
        )
        return _Lane(number, claim)

    async def _work(self, lane: _Lane, *, cycles: int, until: Callable[[], bool]) -> None:
        done = 0
        while not (done >= cycles if cycles else until()):
            await self._prepare(lane)
            if self._random.random() < 0.2:  # the kubelet restarts and asks again
                await self._prepare(lane)
            await asyncio.sleep(self._random.uniform(0, _PAUSE_S))
            await self._unprepare(lane)
            done += 1

    async def _prepare(self, lane: _Lane) -> None:
        started = time.monotonic()
        while error := await self._call(self._node.prepare, lane.claim):
            self.tally.refused[_reason(error)] += 1
            await asyncio.sleep(self._random.uniform(0, _PAUSE_S))
        if lane.is_owner:
            owner = self._owner.setdefault(lane.gpu, lane.claim.uid)
            if owner != lane.claim.uid:
                raise BrokenPromise(f"GPU {lane.gpu} was granted to {owner} and {lane.claim}")
        self.tally.prepared += 1
        self.tally.longest_s = max(self.tally.longest_s, time.monotonic() - started)

    async def _unprepare(self, lane: _Lane) -> None:
        if lane.is_owner:
            del self._owner[lane.gpu]
        while error := await self._call(self._node.unprepare, lane.claim):
            self.tally.refused[_reason(error)] += 1
            await asyncio.sleep(self._random.uniform(0, _PAUSE_S))
        self.tally.unprepared += 1

    async def _call(self, call: Callable[..., Any], claim: ClaimRef) -> str:
        self._operations += 1
        self.tally.in_flight += 1
        self.tally.most_in_flight = max(self.tally.most_in_flight, self.tally.in_flight)
        try:
            answer: dict[str, str] = await call(claim)
        finally:
            self.tally.in_flight -= 1
        return answer[claim.name]

    async def _make_trouble(self) -> None:
        """One more after every few calls; each ends by itself after a few hits.

        All kinds in ever new orders: none is left out by chance.
        """
        kinds = [self._api_fails, self._api_is_slow, self._smi, self._nvml]
        for made in itertools.count():
            while made * _TROUBLE_EVERY >= self._operations:
                await asyncio.sleep(_PAUSE_S)
            if made % len(kinds) == 0:
                self._random.shuffle(kinds)
            kind = kinds[made % len(kinds)]
            self.tally.troubles[kind.__name__.strip("_")] += 1
            await kind()

    async def _api_fails(self) -> None:
        status = self._random.choice((409, 429, 500, 503))
        count = self._random.randint(1, 4)
        fault = Fault(verb="get", resource="resourceclaims", status=status, count=count)
        self._node.store.faults.add(fault)

    async def _api_is_slow(self) -> None:
        latency_s = self._random.uniform(0, 0.3)
        fault = Fault(resource="resourceclaims", latency_s=latency_s, count=5)
        self._node.store.faults.add(fault)

    async def _smi(self) -> None:
        await self._break(self._random.choice(_SMI_CALLS), code=self._random.choice((0, 10, 255)))

    async def _nvml(self) -> None:
        await self._break(self._random.choice(_NVML_CALLS), code=self._random.choice((0, 10, 999)))

    async def _break(self, call: str, *, code: int) -> None:
        gpu, times = self._random.randrange(GPUS), self._random.randint(1, 3)
        latency_s = self._random.uniform(0, 0.3)
        inject = partial(self._hardware.inject, call, code=code, gpu=gpu, times=times)
        await asyncio.to_thread(partial(inject, latency_s=latency_s))

    async def _end_trouble(self) -> None:
        self._node.store.faults.clear()
        await asyncio.to_thread(self._hardware.heal)

    async def _assert_nothing_is_left(self) -> None:
        """What was put off may take its time; then there is neither a file nor a lock nor a
        setting."""
        for lane in self._lanes:
            await self._node.api.delete(RESOURCE_CLAIMS, lane.claim.name, namespace="default")
        deadline = time.monotonic() + _SETTLE_S
        while left := await self._left():
            if time.monotonic() > deadline:
                raise BrokenPromise(f"left over: {', '.join(left)}")
            await asyncio.sleep(0.1)

    async def _left(self) -> list[str]:
        state = await asyncio.to_thread(self._hardware.state)
        settings = [
            f"GPU {number}: time slice {gpu.time_slice}, compute mode {gpu.compute_mode}"
            for number, gpu in enumerate(state.gpus)
            if gpu.time_slice or gpu.compute_mode
        ]
        return [*self._node.leftovers(), *settings, *self._locked()]

    def _locked(self) -> list[str]:
        keys = [f"claim {lane.claim.uid}" for lane in self._lanes]
        keys += [f"GPU {self._hardware.gpu_uuid(gpu)}" for gpu in range(GPUS)]
        locks = LockFile(self._node.state_dir / "locks")
        try:
            return [f"lock of {key}" for key in keys if not locks.is_free(key)]
        finally:
            locks.close()


def _reason(error: str) -> str:
    """What an answer to the kubelet complains of, in a word."""
    found = _REASON.search(error)
    return found[1] if found else error
