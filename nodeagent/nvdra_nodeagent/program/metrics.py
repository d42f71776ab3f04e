"""Prometheus metrics of the node agent, and what counts in them.

Every series exists with value 0 before the first claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, get_args

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.core import CounterMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from nvdra_nodeagent.claims.observer import ClaimObserver, StateKind
from nvdra_nodeagent.claims.sweeper import SweptKind
from nvdra_nodeagent.program.families import OPERATIONS, CallFamilies, StateFamilies
from nvdra_nodeagent.steps.registry import Verb, step_kinds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from prometheus_client import Counter, Gauge, Histogram

    from nvdra_nodeagent.claims.model import PreparedDevice
    from nvdra_nodeagent.claims.observer import Attempt, Damage, Operation
    from nvdra_nodeagent.errors import AgentError

DEVICE_TYPES = ("gpu", "mig", "vfio", "unknown")
ERROR_TYPES = ("lock_acquire", "{operation}_devices", "publish_resources")
REPORTS = ("event", "conditions")
LOCK_REASONS = ("ClaimBusy", "GpuBusy", "LockFailed")


class SliceWrites(Protocol):
    """Writes of ResourceSlices so far."""

    created: int
    updated: int
    deleted: int


@dataclass(frozen=True, slots=True)
class _ClaimSeries:
    """What every claim touches, looked up once: a look-up costs more than the count."""

    requests: Counter
    duration: Histogram
    success: Histogram
    in_flight: Gauge
    lock_wait: Histogram


class AgentMetrics(ClaimObserver):
    """All metrics of one driver on one node, in a registry of their own."""

    def __init__(
        self, *, driver: str, node: str, device_types: Sequence[str] = DEVICE_TYPES
    ) -> None:
        # No second family, of time stamps, beside each counter and histogram.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._driver = driver
        self._calls = CallFamilies(self.registry)
        self._state = StateFamilies(self.registry)
        self._step_series = {
            (kind, verb): self._calls.steps.labels(self._driver, kind, verb)
            for kind in step_kinds()
            for verb in get_args(Verb)
        }
        self._on_claim_path = {operation: self._series(operation) for operation in OPERATIONS}
        self._prepared_by_type = {
            kind: self._state.prepared.labels(node, driver, kind) for kind in device_types
        }
        self._touch_every_series()

    def finished(self, attempt: Attempt, *, devices: Sequence[PreparedDevice]) -> None:
        """A claim was prepared or unprepared. Its UID stays out of the labels: it is unbounded."""
        series = self._on_claim_path[attempt.operation]
        series.requests.inc()
        series.duration.observe(attempt.duration_s)
        series.success.observe(attempt.duration_s)

    def failed(self, attempt: Attempt, *, error: AgentError) -> None:
        """A claim could not be prepared or unprepared."""
        operation, reason = attempt.operation, error.reason
        kind = "lock_acquire" if reason in LOCK_REASONS else f"{operation}_devices"
        self._calls.errors[operation].labels(self._driver, kind).inc()
        self._calls.failures.labels(self._driver, operation, reason).inc()
        self._calls.outcome.labels(self._driver, operation, "error").observe(attempt.duration_s)

    def in_flight(self, operation: Operation, change: int) -> None:
        self._on_claim_path[operation].in_flight.inc(change)

    def lock_waited(self, operation: Operation, *, wait_s: float) -> None:
        """How long a claim waited for other work on itself or its GPUs."""
        self._on_claim_path[operation].lock_wait.observe(wait_s)

    def step_done(self, kind: str, verb: Verb, duration_s: float) -> None:
        self._step_series[kind, verb].observe(duration_s)

    def quarantined(self, damage: Damage) -> None:
        """A file of the agent could not be used."""
        self._state.quarantined.labels(self._driver, damage.kind).inc()

    def swept(self, kind: str) -> None:
        self._state.swept.labels(self._driver, kind).inc()

    def would_sweep(self, counts: Mapping[str, int]) -> None:
        """What a dry run has found; absent kinds are 0."""
        for kind in get_args(SweptKind):
            self._state.sweepable.labels(self._driver, kind).set(counts.get(kind, 0))

    def role_changed(self, held: bool) -> None:
        """This agent took charge of slices and sweeps, or left it to another one."""
        self._state.role.labels(self._driver).set(held)
        self._state.role_changes.labels(self._driver, "taken" if held else "left").inc()

    def prepared_devices(self, counts: Mapping[str, int]) -> None:
        """Devices in prepared claims by type; absent types are 0."""
        for kind, gauge in self._prepared_by_type.items():
            gauge.set(counts.get(kind, 0))

    def watch_inventory(self, age_s: Callable[[], float]) -> None:
        """Ask it at each scrape from now on."""
        self._state.inventory_age.labels(self._driver).set_function(age_s)

    def watch_fences(self, count: Callable[[], int]) -> None:
        """Ask it at each scrape from now on."""
        self._state.fences.labels(self._driver).set_function(count)

    def watch_tombstones(self, count: Callable[[], int]) -> None:
        """Ask it at each scrape from now on."""
        self._state.tombstones.labels(self._driver).set_function(count)

    def report_failed(self, kind: str) -> None:
        """An Event or a condition did not get to the API server."""
        self._state.report_failures.labels(self._driver, kind).inc()

    def publish_failed(self, operation: str = "prepare") -> None:
        self._calls.errors[operation].labels(self._driver, "publish_resources").inc()

    def count_slice_writes(self, writes: SliceWrites) -> None:
        """Publish these counts from now on, as they stand at each scrape."""
        self.registry.register(_SliceWriteCollector(self._driver, writes))

    def api_called(self, verb: str, resource: str, code: int) -> None:
        self._calls.api_requests.labels(verb, resource, str(code)).inc()

    def defects(self, count: int) -> None:
        """How many devices or attributes of this node could not be read."""
        self._state.defects.labels(self._driver).set(count)

    def _series(self, operation: str) -> _ClaimSeries:
        labels = (self._driver, operation)
        return _ClaimSeries(
            requests=self._calls.requests.labels(*labels),
            duration=self._calls.duration.labels(*labels),
            success=self._calls.outcome.labels(*labels, "ok"),
            in_flight=self._calls.in_flight.labels(*labels),
            lock_wait=self._calls.lock_wait.labels(*labels),
        )

    def _touch_every_series(self) -> None:
        for operation in OPERATIONS:
            for kind in ERROR_TYPES:
                self._calls.errors[operation].labels(self._driver, kind.format(operation=operation))
        for kind in get_args(StateKind):
            self._state.quarantined.labels(self._driver, kind)
        for kind in REPORTS:
            self._state.report_failures.labels(self._driver, kind)
        for gauge in (self._state.fences, self._state.tombstones, self._state.inventory_age):
            gauge.labels(self._driver)
        for kind in get_args(SweptKind):
            self._state.swept.labels(self._driver, kind)
        self.would_sweep({})
        self._state.role.labels(self._driver)
        for change in ("taken", "left"):
            self._state.role_changes.labels(self._driver, change)
        self.prepared_devices({})
        self.defects(0)


class _SliceWriteCollector(Collector):
    """Reads the counts where they are kept, instead of keeping them twice."""

    def __init__(self, driver: str, writes: SliceWrites) -> None:
        self._driver = driver
        self._writes = writes

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(
            "nvidia_dra_resourceslice_writes",
            "ResourceSlices written.",
            labels=("driver", "verb"),
        )
        for verb in ("created", "updated", "deleted"):
            family.add_metric((self._driver, verb), getattr(self._writes, verb))
        yield family
