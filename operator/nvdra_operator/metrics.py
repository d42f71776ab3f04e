"""Prometheus metrics of the controller: the family that dashboards know, and some of our own.

Counts of domains are taken from the mirror at each scrape, so they are right from the first one
after a restart, and zero on a replica that does not lead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from nvdra_api.domains import NOT_READY, READY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from nvdra_kube.transport import Exchange

FORMATION_BUCKETS_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_NONE: Final = {READY: 0, NOT_READY: 0}


class Counts(Protocol):
    """What is counted at a scrape."""

    @property
    def depth(self) -> int: ...

    def counts(self) -> Mapping[str, int]: ...

    def node_counts(self) -> Mapping[str, int]: ...


class ControllerMetrics:
    """All metrics of the program. `domains` is None while the replica stands by."""

    def __init__(self) -> None:
        # No second family, of time stamps, beside each counter and histogram.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.domains: Counts | None = None
        self.registry.register(_Live(self))
        self._formation = Histogram(
            "nvidia_dra_compute_domain_formation_seconds",
            "From a domain's first node until all its nodes were ready.",
            buckets=FORMATION_BUCKETS_S,
            registry=self.registry,
        )
        self._requests = Counter(
            "nvidia_dra_kube_api_requests",
            "Calls to the Kubernetes API.",
            ("verb", "resource", "code"),
            registry=self.registry,
        )
        self._request_time = Histogram(
            "nvidia_dra_kube_api_request_duration_seconds",
            "Duration of calls to the Kubernetes API; watches left out.",
            ("verb",),
            registry=self.registry,
        )

    def formed(self, duration_s: float) -> None:
        """A domain became ready."""
        self._formation.observe(duration_s)

    def api_called(self, exchange: Exchange) -> None:
        """Any thread may tell of a call."""
        verb = exchange.verb
        self._requests.labels(verb, exchange.resource, str(exchange.status)).inc()
        if verb != "watch":
            self._request_time.labels(verb).observe(exchange.duration_s)


class _Live(Collector):
    """Gauges that are read from the controller as it is."""

    def __init__(self, metrics: ControllerMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[GaugeMetricFamily]:
        domains = self._metrics.domains
        yield _by_status(
            "nvidia_dra_compute_domain_info",
            "ComputeDomains by their status.",
            domains.counts() if domains else _NONE,
        )
        yield _by_status(
            "nvidia_dra_compute_domain_nodes",
            "Nodes of ComputeDomains by their status.",
            domains.node_counts() if domains else _NONE,
        )
        depth = GaugeMetricFamily(
            "nvidia_dra_workqueue_depth", "Domains that wait to be looked at.", labels=["queue"]
        )
        depth.add_metric(["compute-domains"], domains.depth if domains else 0)
        yield depth
        leads = "nvidia_dra_controller_leader"
        yield GaugeMetricFamily(leads, "Whether this replica works.", value=int(bool(domains)))


def _by_status(name: str, text: str, counts: Mapping[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["status"])
    for status, count in sorted(counts.items()):
        family.add_metric([status], count)
    return family
