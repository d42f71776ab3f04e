"""Metrics and probes over HTTP."""

from __future__ import annotations

import aiohttp
import pytest

from nvdra_kube.endpoints import http_endpoint
from nvdra_kube.errors import ConfigurationError
from nvdra_nodeagent.claims.observer import Attempt
from nvdra_nodeagent.errors import Retryable
from nvdra_nodeagent.program.metrics import AgentMetrics
from nvdra_testing.claims import a_ref


def fine() -> str:
    return ""


async def fetch(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}{path}") as response:
            return response.status, await response.text()


async def test_every_known_series_stands_at_zero_before_the_first_claim() -> None:
    metrics = AgentMetrics(driver="gpu.nvidia.com", node="n1")
    async with http_endpoint(
        "127.0.0.1:0", metrics_path="metrics", registry=metrics.registry, healthy=fine, ready=fine
    ) as port:
        _, text = await fetch(port, "/metrics")
    for series in (
        'nvidia_dra_requests_total{driver="gpu.nvidia.com",operation="prepare"} 0.0',
        'nvidia_dra_request_duration_seconds_count{driver="gpu.nvidia.com",operation="unprepare"}',
        'nvidia_dra_requests_inflight{driver="gpu.nvidia.com",operation="prepare"} 0.0',
        'nvidia_dra_prepared_devices{device_type="vfio",driver="gpu.nvidia.com",node="n1"} 0.0',
        'nvidia_dra_node_prepare_errors_total{driver="gpu.nvidia.com",error_type="lock_acquire"}',
        'error_type="unprepare_devices"} 0.0',
    ):
        assert series in text
    assert "_created" not in text


def test_a_claim_that_waited_in_vain_for_a_lock_is_counted_as_such() -> None:
    metrics = AgentMetrics(driver="d", node="n")
    metrics.failed(Attempt("prepare", a_ref(), 30.0), error=Retryable("GpuBusy", "x"))
    counted = {
        kind: metrics.registry.get_sample_value(
            "nvidia_dra_node_prepare_errors_total", {"driver": "d", "error_type": kind}
        )
        for kind in ("lock_acquire", "prepare_devices")
    }
    assert counted == {"lock_acquire": 1.0, "prepare_devices": 0.0}


async def test_a_probe_answers_with_what_is_wrong() -> None:
    metrics = AgentMetrics(driver="d", node="n")
    async with http_endpoint(
        "127.0.0.1:0",
        metrics_path="/metrics",
        registry=metrics.registry,
        healthy=fine,
        ready=lambda: "slices are not published",
    ) as port:
        assert await fetch(port, "/healthz") == (200, "ok")
        assert await fetch(port, "/readyz") == (503, "slices are not published")


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:99999"])
async def test_an_unusable_address_is_named(address: str) -> None:
    with pytest.raises(ConfigurationError, match=address):
        async with http_endpoint(
            address,
            metrics_path="",
            registry=AgentMetrics(driver="d", node="n").registry,
            healthy=fine,
            ready=fine,
        ):
            pass
