"""Names of a driver's sockets, and whether instances may have their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from nvdra_api.names import COMPUTE_DOMAIN_DRIVER, GPU_DRIVER
from nvdra_kube.resources import NODES
from nvdra_nodeagent.kubelet.names import SocketNames, is_service_name, kubelet_takes_several
from nvdra_sim.cluster.apiserver import ClusterStore, LocalApi

UID = "0a1b2c3d-1111-4222-8333-444455556666"


def of_pod(root: str, driver: str = GPU_DRIVER, uid: str = UID) -> SocketNames:
    return SocketNames.of_pod(
        uid,
        driver=driver,
        plugin_dir=Path(root, "plugins", driver),
        registrar_dir=Path(root, "plugins_registry"),
    )


def test_fixed_names_are_those_of_the_contract() -> None:
    names = SocketNames.fixed(GPU_DRIVER, plugin_dir=Path("/p"), registrar_dir=Path("/r"))
    assert names == SocketNames(Path("/p/dra.sock"), Path("/r/gpu.nvidia.com-reg.sock"))


@pytest.mark.parametrize("driver", [GPU_DRIVER, COMPUTE_DOMAIN_DRIVER])
def test_under_the_usual_directory_names_carry_the_whole_uid(driver: str) -> None:
    names = of_pod("/var/lib/kubelet", driver)
    assert names.service.name == f"dra-{UID}.sock"
    assert names.registration.name == f"{driver}-{UID}-reg.sock"


@pytest.mark.parametrize(
    ("root", "registration"),
    [
        ("/var/lib/k0s/kubelet", "compute-domain.nvidia.com-gnqFHJ38Mn8-reg.sock"),
        (
            "/var/snap/microk8s/common/var/lib/kubelet/and-more",
            "dra-e8OdvbcYQW8w9nPHNZntbw-reg.sock",
        ),
    ],
)
def test_names_get_shorter_where_the_directory_is_long(root: str, registration: str) -> None:
    names = of_pod(root, COMPUTE_DOMAIN_DRIVER)
    assert names.registration.name == registration
    for path in (names.service, names.registration):
        assert len(os.fsencode(path)) <= 107


def test_names_differ_by_pod_and_driver_and_stay_the_same_for_one() -> None:
    deep = "/var/" + "d" * 50
    every = [
        of_pod(deep, driver, uid)
        for driver in (GPU_DRIVER, COMPUTE_DOMAIN_DRIVER)
        for uid in (UID, UID.replace("0a", "0b"))
    ]
    assert len({names.registration for names in every}) == 4
    assert len({names.service for names in every}) == 4
    assert of_pod(deep) == of_pod(deep)


@pytest.mark.parametrize(
    ("name", "is_ours"),
    [
        ("dra.sock", True),
        (f"dra-{UID}.sock", True),
        ("dra-rqfGURJ-_WE.sock", True),
        ("other.sock", False),
        ("dra-.sock", False),
    ],
)
def test_service_sockets_are_known_by_name(name: str, is_ours: bool) -> None:
    assert is_service_name(name) is is_ours


@pytest.mark.parametrize(
    ("version", "several"),
    [
        ("v1.32.13", False),
        ("v1.33.0", True),
        ("v1.36.3-gke.1000", True),
        ("v2.0.0", True),
        ("", False),
        ("unknown", False),
    ],
)
async def test_the_nodes_kubelet_decides_about_several_instances(
    version: str, several: bool
) -> None:
    api = LocalApi(ClusterStore())
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}
    made = await api.create(NODES, node)
    made["status"] = {"nodeInfo": {"kubeletVersion": version}}
    await api.update(NODES, made, subresource="status")
    assert await kubelet_takes_several(api, "n") is several


async def test_a_node_that_says_nothing_of_its_kubelet_gets_fixed_names() -> None:
    api = LocalApi(ClusterStore())
    await api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}})
    assert not await kubelet_takes_several(api, "n")


async def test_a_node_that_cannot_be_read_gets_fixed_names_and_the_log_says_why() -> None:
    with capture_logs() as lines:
        assert not await kubelet_takes_several(LocalApi(ClusterStore()), "gone")
    (line,) = lines
    assert "gone" in line["cause"]
