"""What `nvdra simulate` says of ComputeDomains that are not as their users may have thought."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from nvdra_testing.compute_domains import a_domain
from nvdra_testing.simulation import simulate

pytestmark = pytest.mark.timeout(240)

SHOW = "ls /dev/nvidia-caps-imex-channels; trap 'exit 0' TERM; sleep 9999 & wait"


def a_job(*, num_nodes: int) -> str:
    """A domain and one pod in it."""
    container = {
        "name": "ctr",
        "image": "ubuntu:24.04",
        "command": ["bash", "-c", SHOW],
        "resources": {"claims": [{"name": "channel"}]},
    }
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "worker"},
        "spec": {
            "containers": [container],
            "resourceClaims": [{"name": "channel", "resourceClaimTemplateName": "job-channels"}],
        },
    }
    return yaml.safe_dump_all([a_domain(num_nodes=num_nodes), pod])


def test_a_domain_that_lacks_nodes_says_how_many_it_waits_for() -> None:
    done = simulate("--profile", "gb200", "-", text=a_job(num_nodes=3))
    domain = done.domains["job"]
    assert domain["status"] == "NotReady"
    assert domain["why"].startswith("WaitingForNodes: 1 of 3 nodes have joined")
    assert "ComputeDomain default/job NotReady: WaitingForNodes: 1 of 3" in done.errors
    [daemon] = domain["daemons"]
    assert "nvidia-imex started" in daemon["logs"]["compute-domain-daemon"]


def test_a_node_without_a_fabric_is_released_without_a_channel_and_this_is_said() -> None:
    done = simulate("--profile", "h100", "-", text=a_job(num_nodes=1))
    assert done.status == 0, done.errors
    domain = done.domains["job"]
    reasons = {one["type"]: one["reason"] for one in domain["conditions"]}
    assert reasons["Connected"] == "NodesWithoutFabric"
    assert [node["clique"] for node in domain["nodes"]] == [""]
    assert "No such file" in done.pods["worker"]["logs"]["ctr"]


def test_a_field_that_no_domain_has_is_refused_with_its_place() -> None:
    text = a_job(num_nodes=1).replace("numNodes", "numbNodes")
    done = simulate("--profile", "gb200", "-", text=text)
    assert done.status == 2
    assert "standard input:1: ComputeDomain default/job" in done.errors
    assert "numbNodes" in done.errors
