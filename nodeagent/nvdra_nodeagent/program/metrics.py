"""Prometheus metrics of the node agent: families that dashboards know, and a few of our own.

Every series exists with value 0 before the first claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from nvdra_nodeagent.claims.observer import ClaimObserver, StateKind
from nvdra_nodeagent.claims.sweeper import SweptKind
from nvdra_nodeagent.steps.registry import Verb, step_kinds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from nvdra_nodeagent.claims.model import PreparedDevice
    from nvdra_nodeagent.claims.observer import Attempt, Damage, Operation
    from nvdra_nodeagent.errors import AgentError

OPERATIONS = ("prepare", "unprepare")
DEVICE_TYPES = ("gpu", "mig", "vfio", "unknown")
ERROR_TYPES = ("lock_acquire", "{operation}_devices", "publish_resources")
REPORTS = ("event", "conditions")
LOCK_REASONS = ("ClaimBusy", "GpuBusy", "LockFailed")
DURATION_BUCKETS_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)
FINE_BUCKETS_S = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, *DURATION_BUCKETS_S, 45.0)


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
        self._node = node
        self._make_request_families()
        self._make_state_families()
        self._step_series = {
            (kind, verb): self._steps.labels(self._driver, kind, verb)
            for kind in step_kinds()
            for verb in get_args(Verb)
        }
        self._on_claim_path = {operation: self._series(operation) for operation in OPERATIONS}
        self._prepared_by_type = {
            kind: self._prepared.labels(self._node, self._driver, kind) for kind in device_types
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
        self._errors[operation].labels(self._driver, kind).inc()
        self._failures.labels(self._driver, operation, reason).inc()
        self._outcome.labels(self._driver, operation, "error").observe(attempt.duration_s)

    def in_flight(self, operation: Operation, change: int) -> None:
        self._on_claim_path[operation].in_flight.inc(change)

    def lock_waited(self, operation: Operation, *, wait_s: float) -> None:
        """How long a claim waited for other work on itself or its GPUs."""
        self._on_claim_path[operation].lock_wait.observe(wait_s)

    def step_done(self, kind: str, verb: Verb, duration_s: float) -> None:
        self._step_series[kind, verb].observe(duration_s)

    def quarantined(self, damage: Damage) -> None:
        """A file of the agent could not be used."""
        self._quarantined.labels(self._driver, damage.kind).inc()

    def swept(self, kind: str) -> None:
        self._swept.labels(self._driver, kind).inc()

    def would_sweep(self, counts: Mapping[str, int]) -> None:
        """What a dry run has found; absent kinds are 0."""
        for kind in get_args(SweptKind):
            self._sweepable.labels(self._driver, kind).set(counts.get(kind, 0))

    def role_changed(self, held: bool) -> None:
        """This agent took charge of slices and sweeps, or left it to another one."""
        self._role.labels(self._driver).set(held)
        self._role_changes.labels(self._driver, "taken" if held else "left").inc()

    def prepared_devices(self, counts: Mapping[str, int]) -> None:
        """Devices in prepared claims by type; absent types are 0."""
        for kind, gauge in self._prepared_by_type.items():
            gauge.set(counts.get(kind, 0))

    def watch_inventory(self, age_s: Callable[[], float]) -> None:
        """Ask it at each scrape from now on."""
        self._inventory_age.labels(self._driver).set_function(age_s)

    def watch_fences(self, count: Callable[[], int]) -> None:
        """Ask it at each scrape from now on."""
        self._fences.labels(self._driver).set_function(count)

    def watch_tombstones(self, count: Callable[[], int]) -> None:
        """Ask it at each scrape from now on."""
        self._tombstones.labels(self._driver).set_function(count)

    def report_failed(self, kind: str) -> None:
        """An Event or a condition did not get to the API server."""
        self._report_failures.labels(self._driver, kind).inc()

    def publish_failed(self, operation: str = "prepare") -> None:
        self._errors[operation].labels(self._driver, "publish_resources").inc()

    def count_slice_writes(self, writes: SliceWrites) -> None:
        """Publish these counts from now on, as they stand at each scrape."""
        self.registry.register(_SliceWriteCollector(self._driver, writes))

    def api_called(self, verb: str, resource: str, code: int) -> None:
        self._api_requests.labels(verb, resource, str(code)).inc()

    def defects(self, count: int) -> None:
        """How many devices or attributes of this node could not be read."""
        self._defects.labels(self._driver).set(count)

    def _make_request_families(self) -> None:
        labels, registry = ("driver", "operation"), self.registry
        self._requests = Counter(
            "nvidia_dra_requests", "Claims handled with success.", labels, registry=registry
        )
        self._duration = Histogram(
            "nvidia_dra_request_duration_seconds",
            "Duration of claims handled with success.",
            labels,
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self._outcome = Histogram(
            "nvidia_dra_claim_duration_seconds",
            "Duration of every claim by outcome, in fine buckets.",
            (*labels, "outcome"),
            buckets=FINE_BUCKETS_S,
            registry=registry,
        )
        self._lock_wait = Histogram(
            "nvidia_dra_claim_lock_wait_seconds",
            "Wait for other work on the same claim or GPU.",
            labels,
            buckets=FINE_BUCKETS_S,
            registry=registry,
        )
        self._steps = Histogram(
            "nvidia_dra_step_duration_seconds",
            "Duration of single steps of claims.",
            ("driver", "kind", "verb"),
            buckets=FINE_BUCKETS_S,
            registry=registry,
        )
        self._in_flight = Gauge(
            "nvidia_dra_requests_inflight", "Claims being handled.", labels, registry=registry
        )
        self._failures = Counter(
            "nvidia_dra_claim_failures",
            "Failures by reason.",
            (*labels, "reason"),
            registry=registry,
        )
        self._errors = {
            operation: Counter(
                f"nvidia_dra_node_{operation}_errors",
                f"Failures to {operation} by kind.",
                ("driver", "error_type"),
                registry=registry,
            )
            for operation in OPERATIONS
        }

    def _make_state_families(self) -> None:
        registry = self.registry
        self._prepared = Gauge(
            "nvidia_dra_prepared_devices",
            "Devices in prepared claims.",
            ("node", "driver", "device_type"),
            registry=registry,
        )
        self._role = Gauge(
            "nvidia_dra_role_held",
            "Whether this agent writes slices and sweeps; one per node and driver does.",
            ("driver",),
            registry=registry,
        )
        self._role_changes = Counter(
            "nvidia_dra_role_changes",
            "How often this agent took or left that role.",
            ("driver", "change"),
            registry=registry,
        )
        self._quarantined = Counter(
            "nvidia_dra_quarantined_records",
            "Files of the agent's state that were damaged and moved aside.",
            ("driver", "kind"),
            registry=registry,
        )
        self._swept = Counter(
            "nvidia_dra_swept",
            "Leftovers removed.",
            ("driver", "kind"),
            registry=registry,
        )
        self._sweepable = Gauge(
            "nvidia_dra_sweepable",
            "Leftovers that the last dry run of a sweep has found.",
            ("driver", "kind"),
            registry=registry,
        )
        self._fences = Gauge(
            "nvidia_dra_fences",
            "Claims that may hold devices without a usable record.",
            ("driver",),
            registry=registry,
        )
        self._tombstones = Gauge(
            "nvidia_dra_tombstones",
            "Claims of which something has yet to be undone.",
            ("driver",),
            registry=registry,
        )
        self._report_failures = Counter(
            "nvidia_dra_report_failures",
            "Events and conditions that did not get to the API server.",
            ("driver", "kind"),
            registry=registry,
        )
        self._api_requests = Counter(
            "nvidia_dra_kube_api_requests",
            "Calls to the Kubernetes API.",
            ("verb", "resource", "code"),
            registry=registry,
        )
        self._inventory_age = Gauge(
            "nvidia_dra_inventory_age_seconds",
            "Time since the hardware was last read.",
            ("driver",),
            registry=registry,
        )
        self._defects = Gauge(
            "nvidia_dra_inventory_defects",
            "Devices or attributes that could not be read.",
            ("driver",),
            registry=registry,
        )

    def _series(self, operation: str) -> _ClaimSeries:
        labels = (self._driver, operation)
        return _ClaimSeries(
            requests=self._requests.labels(*labels),
            duration=self._duration.labels(*labels),
            success=self._outcome.labels(*labels, "ok"),
            in_flight=self._in_flight.labels(*labels),
            lock_wait=self._lock_wait.labels(*labels),
        )

    def _touch_every_series(self) -> None:
        for operation in OPERATIONS:
            for kind in ERROR_TYPES:
                self._errors[operation].labels(self._driver, kind.format(operation=operation))
        for kind in get_args(StateKind):
            self._quarantined.labels(self._driver, kind)
        for kind in REPORTS:
            self._report_failures.labels(self._driver, kind)
        for gauge in (self._fences, self._tombstones, self._inventory_age):
            gauge.labels(self._driver)
        for kind in get_args(SweptKind):
            self._swept.labels(self._driver, kind)
        self.would_sweep({})
        self._role.labels(self._driver)
        for change in ("taken", "left"):
            self._role_changes.labels(self._driver, change)
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
