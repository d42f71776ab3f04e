"""Metrics that only ComputeDomains have: how long workloads waited, and what daemons here say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

from prometheus_client import Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from nvdra_nodeagent.computedomain.daemon_words import STATES
from nvdra_nodeagent.steps.domain_ready import WaitOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client import CollectorRegistry

    from nvdra_nodeagent.computedomain.daemon_words import DaemonWords

WAIT_BUCKETS_S: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 45.0, 120.0, 600.0, 3600.0)

_PREFIX: Final = "nvidia_dra_compute_domain"


class DomainMetrics:
    """Counts into the registry of the agent's other metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        waits = Histogram(
            f"{_PREFIX}_readiness_wait_seconds",
            "How long channel claims waited for the daemon of their domain on this node.",
            ("outcome",),
            buckets=WAIT_BUCKETS_S,
            registry=registry,
        )
        self._waits = {outcome: waits.labels(outcome) for outcome in get_args(WaitOutcome)}
        self._registry = registry

    def waited(self, outcome: WaitOutcome, wait_s: float) -> None:
        """In any thread."""
        self._waits[outcome].observe(wait_s)

    def watch_daemons(self, words: Callable[[], Mapping[str, DaemonWords]]) -> None:
        """Ask it for what daemons say, by domain, at each scrape from now on."""
        self._registry.register(_DaemonCollector(words))


class _DaemonCollector(Collector):
    """Series come and go with the daemons of this node, of which there is one as a rule."""

    def __init__(self, words: Callable[[], Mapping[str, DaemonWords]]) -> None:
        self._words = words

    def collect(self) -> Iterator[GaugeMetricFamily]:
        ready = GaugeMetricFamily(
            f"{_PREFIX}_daemon_ready",
            "Whether the domain's daemon on this node is ready.",
            labels=("domain",),
        )
        state = GaugeMetricFamily(
            f"{_PREFIX}_imex_domain_state",
            "State of the IMEX domain as this node sees it: 1 for the one it is in.",
            labels=("domain", "state"),
        )
        nodes = GaugeMetricFamily(
            f"{_PREFIX}_imex_nodes",
            "Nodes of the IMEX domain: all, and those that this node sees ready and connected.",
            labels=("domain", "which"),
        )
        for domain, words in self._words().items():
            ready.add_metric((domain,), words.is_ready)
            for each in STATES:
                state.add_metric((domain, each), each == words.domain_state)
            for which, count in zip(("connected", "all"), words.connected(), strict=True):
                nodes.add_metric((domain, which), count)
        yield from (ready, state, nodes)
