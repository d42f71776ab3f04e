"""The metric families of a node agent: names, labels and buckets, as dashboards know them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client import CollectorRegistry

OPERATIONS: Final = ("prepare", "unprepare")
DURATION_BUCKETS_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)
FINE_BUCKETS_S: Final = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, *DURATION_BUCKETS_S, 45.0)

_PREFIX: Final = "nvidia_dra_"
_CALL: Final = ("driver", "operation")


class _Families:
    """Makes families in one registry; names without the prefix that all have."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, meaning, labels, registry=self._registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(_PREFIX + name, meaning, labels, registry=self._registry)

    def _histogram(
        self, name: str, meaning: str, *labels: str, buckets: Sequence[float] = FINE_BUCKETS_S
    ) -> Histogram:
        return Histogram(_PREFIX + name, meaning, labels, buckets=buckets, registry=self._registry)


class CallFamilies(_Families):
    """What calls of the kubelet and the API come to."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.requests = self._counter("requests", "Claims handled with success.", *_CALL)
        self.duration = self._histogram(
            "request_duration_seconds",
            "Duration of claims handled with success.",
            *_CALL,
            buckets=DURATION_BUCKETS_S,
        )
        self.outcome = self._histogram(
            "claim_duration_seconds",
            "Duration of every claim by outcome, in fine buckets.",
            *_CALL,
            "outcome",
        )
        self.lock_wait = self._histogram(
            "claim_lock_wait_seconds", "Wait for other work on the same claim or GPU.", *_CALL
        )
        self.steps = self._histogram(
            "step_duration_seconds", "Duration of single steps of claims.", "driver", "kind", "verb"
        )
        self.in_flight = self._gauge("requests_inflight", "Claims being handled.", *_CALL)
        self.failures = self._counter("claim_failures", "Failures by reason.", *_CALL, "reason")
        self.errors = {
            each: self._counter(
                f"node_{each}_errors", f"Failures to {each} by kind.", "driver", "error_type"
            )
            for each in OPERATIONS
        }
        self.api_requests = self._counter(
            "kube_api_requests", "Calls to the Kubernetes API.", "verb", "resource", "code"
        )


class StateFamilies(_Families):
    """What the agent holds, keeps in order and has found."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.prepared = self._gauge(
            "prepared_devices", "Devices in prepared claims.", "node", "driver", "device_type"
        )
        self.role = self._gauge(
            "role_held",
            "Whether this agent writes slices and sweeps; one per node and driver does.",
            "driver",
        )
        self.role_changes = self._counter(
            "role_changes", "How often this agent took or left that role.", "driver", "change"
        )
        self.quarantined = self._counter(
            "quarantined_records",
            "Files of the agent's state that were damaged and moved aside.",
            "driver",
            "kind",
        )
        self.swept = self._counter("swept", "Leftovers removed.", "driver", "kind")
        self.sweepable = self._gauge(
            "sweepable", "Leftovers that the last dry run of a sweep has found.", "driver", "kind"
        )
        self.report_failures = self._counter(
            "report_failures",
            "Events and conditions that did not get to the API server.",
            "driver",
            "kind",
        )
        self._make_gauges_of_the_driver()

    def _make_gauges_of_the_driver(self) -> None:
        self.fences = self._gauge(
            "fences", "Claims that may hold devices without a usable record.", "driver"
        )
        self.tombstones = self._gauge(
            "tombstones", "Claims of which something has yet to be undone.", "driver"
        )
        self.inventory_age = self._gauge(
            "inventory_age_seconds", "Time since the hardware was last read.", "driver"
        )
        self.defects = self._gauge(
            "inventory_defects", "Devices or attributes that could not be read.", "driver"
        )
