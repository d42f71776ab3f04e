"""Effects of a GPU against a model of who holds them, with deaths anywhere in between."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nvdra_nodeagent.claims.effects import GpuEffects
from nvdra_nodeagent.claims.record import Record, StepEntry
from nvdra_nodeagent.errors import AgentError, Retryable
from nvdra_nodeagent.hardware.errors import ProgramFailed
from nvdra_nodeagent.steps.time_slice import TimeSliceHandler, TimeSliceStep
from nvdra_testing.claims import FolderGpus, a_ref, gpu_uuid

if TYPE_CHECKING:
    from nvdra_nodeagent.claims.model import ClaimRef

NAMES = ("a", "b", "c")
TROUBLE = ProgramFailed("nvidia-smi", outcome="ended with status 255", output="")


class Died(BaseException):
    """The process ended here."""


def step_of(ref: ClaimRef, interval: int) -> TimeSliceStep:
    return TimeSliceStep(ref.uid, gpu_uuid(0), interval)


class Effects(RuleBasedStateMachine):
    """Claims take and drop one GPU's time slice, as the executor has them do it: a record is there
    before the step is applied, gets its result after it, and goes when the step is undone."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.gpus = FolderGpus(self.root / "gpus")
        self.records: dict[str, Record] = {}
        self.found = 0
        self.boots = 0
        self.start()

    @initialize(found=st.integers(0, 3))
    def somebody_else_has_set_the_gpu(self, found: int) -> None:
        self.gpus.make(time_slice=found)
        self.found = found

    def start(self) -> None:
        effects = GpuEffects(
            self.root / "state",
            settings={TimeSliceStep: self.gpus},
            holdings=lambda: self.records.values(),
            boot_id=f"boot {self.boots}",
            driver_load=lambda: "load",
        )
        self.handler = TimeSliceHandler(effects)

    def teardown(self) -> None:
        for name in [*self.records]:
            self.drop(name)
        assert self.gpus.value() == ({"time_slice": self.found} if self.found else {})
        assert [path for path in self.root.rglob("*.json") if "quarantine" not in str(path)] == []
        self.folder.cleanup()

    @property
    def interval(self) -> int | None:
        """What the holders agree on."""
        for record in self.records.values():
            return record.steps[0].step.interval  # type: ignore[union-attr]
        return None

    @rule(name=st.sampled_from(NAMES), interval=st.integers(0, 3))
    def take(self, name: str, interval: int) -> None:
        held = self.interval
        if name in self.records:
            interval = held or 0
        try:
            self.apply(name, interval)
        except Retryable as error:
            assert error.reason == "EffectConflict"
            assert held not in (None, interval)
            self.records.pop(name)
        else:
            assert held in (None, interval)

    def apply(self, name: str, interval: int) -> None:
        ref = a_ref(name)
        step = step_of(ref, interval)
        known = self.records.setdefault(name, Record(ref, "", "", (), (StepEntry(step),)))
        if self.handler.holds(step, known.steps[0].result):
            return
        result = self.handler.apply(step)
        self.records[name] = Record(ref, "", "", (), (StepEntry(step, result),))

    @rule(name=st.sampled_from(NAMES))
    def drop(self, name: str) -> None:
        if name in self.records:
            (entry,) = self.records[name].steps
            self.handler.undo(entry.step, entry.result)  # type: ignore[arg-type]
            del self.records[name]

    @rule(name=st.sampled_from(NAMES), taking=st.booleans(), after=st.integers(0, 12))
    def die(self, name: str, *, taking: bool, after: int) -> None:
        """At some call of the hardware, before it is made; the next process repeats the work."""
        left = iter(range(after))
        self.gpus.on_call = lambda verb, gpu: _die(next(left, None) is None)
        interval = 3 if self.interval is None else self.interval
        try:
            if taking:
                self.apply(name, interval)
            else:
                self.drop(name)
        except Died:
            self.start()
        self.gpus.on_call = lambda verb, gpu: None
        if taking:
            self.apply(name, interval)
        else:
            self.drop(name)

    @rule(name=st.sampled_from(NAMES))
    def fail(self, name: str) -> None:
        """Nothing is lost when the program fails: the claim is dropped later."""
        self.gpus.failing = TROUBLE
        try:
            self.drop(name)
        except AgentError:
            pass
        finally:
            self.gpus.failing = None

    @rule()
    def reboot(self) -> None:
        """What was set is gone, also by others; claims are prepared anew one by one."""
        self.boots += 1
        self.gpus.make()
        self.found = 0
        self.start()
        for name, record in self.records.items():
            self.apply(name, record.steps[0].step.interval)  # type: ignore[union-attr]

    @rule()
    def restart(self) -> None:
        self.start()

    @precondition(lambda self: self.records)
    @rule(damage=st.sampled_from([None, b"", b"{}"]))
    def lose_the_file(self, damage: bytes | None) -> None:
        for path in (self.root / "state" / "effects").glob("*.json"):
            path.unlink()
            if damage is not None:
                path.write_bytes(damage)

    @invariant()
    def the_gpu_is_as_its_holders_want_it(self) -> None:
        done = [r.steps[0] for r in self.records.values() if r.steps[0].result is not None]
        held = [e for e in done if self.handler.holds(e.step, e.result)]  # type: ignore[arg-type]
        if held:
            assert self.gpus.value().get("time_slice", 0) == self.interval


def _die(now: bool) -> None:
    if now:
        raise Died


TestEffects = Effects.TestCase
TestEffects.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
