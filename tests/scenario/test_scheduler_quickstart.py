"""The public quickstart specs, as they are, up to the devices that their pods are bound with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from nvdra_kube.api import Resource
from nvdra_kube.resources import PODS, RESOURCE_SLICES
from nvdra_testing.control_plane import ControlPlane, control_plane
from nvdra_testing.dra_objects import a_mig, a_slice

if TYPE_CHECKING:
    from nvdra_kube.api import Body

SPECS = Path(__file__).parents[3] / "shared" / "inputs" / "public-specs" / "quickstart"

pytestmark = pytest.mark.skipif(not SPECS.is_dir(), reason="the public specs are not here")

PLURALS = {
    "Namespace": "namespaces",
    "Pod": "pods",
    "Deployment": "deployments",
    "ResourceClaim": "resourceclaims",
    "ResourceClaimTemplate": "resourceclaimtemplates",
}


async def apply(plane: ControlPlane, path: Path) -> str:
    """Create everything in the file and return its namespace."""
    namespace = ""
    for body in yaml.safe_load_all(path.read_text()):
        group, _, version = body["apiVersion"].rpartition("/")
        namespaced = body["kind"] != "Namespace"
        resource = Resource(
            group, version, PLURALS[body["kind"]], body["kind"], namespaced=namespaced
        )
        namespace = body["metadata"].get("namespace", namespace)
        await plane.api.create(resource, body, namespace=namespace if namespaced else None)
    return namespace


async def bound_pods(plane: ControlPlane, namespace: str, *, count: int) -> list[Body]:
    async def found() -> list[Body]:
        pods: list[Body] = (await plane.api.list(PODS, namespace=namespace))["items"]
        ready = len(pods) == count and all(pod["spec"].get("nodeName") for pod in pods)
        return pods if ready else []

    return await plane.until(found)


async def devices_by_claim(plane: ControlPlane, namespace: str) -> list[list[str]]:
    return [
        [result["device"] for result in claim["status"]["allocation"]["devices"]["results"]]
        for claim in await plane.claims(namespace)
    ]


@pytest.mark.parametrize(
    ("spec", "pods", "devices"),
    [
        ("v1/gpu-test1.yaml", 2, [["gpu-0"], ["gpu-1"]]),
        ("v1beta1/gpu-test1.yaml", 2, [["gpu-0"], ["gpu-1"]]),
        ("v1/gpu-test2.yaml", 1, [["gpu-0"]]),
        ("v1beta1/gpu-test2.yaml", 1, [["gpu-0"]]),
        ("v1/gpu-test3.yaml", 2, [["gpu-0"]]),
        ("v1beta1/gpu-test3.yaml", 2, [["gpu-0"]]),
        ("v1/gpu-test5.yaml", 1, [["gpu-0", "gpu-1"]]),
        ("v1beta1/gpu-test5.yaml", 1, [["gpu-0", "gpu-1"]]),
        ("v1/gpu-test-mps.yaml", 1, [["gpu-0"]]),
        ("gpu-test7.yaml", 1, [["gpu-0"], ["gpu-1"]]),
        ("gpu-test8.yaml", 1, [["gpu-0", "gpu-1"]]),
    ],
)
async def test_the_pods_of_a_spec_are_bound_with_the_devices_it_promises(
    spec: str, pods: int, devices: list[list[str]]
) -> None:
    async with control_plane() as plane:
        await plane.add_node(gpus=8)
        namespace = await apply(plane, SPECS / spec)
        await bound_pods(plane, namespace, count=pods)
        assert sorted(await devices_by_claim(plane, namespace)) == devices


@pytest.mark.parametrize("flavour", ["v1", "v1beta1"])
async def test_each_replica_of_gpu_test4_has_all_its_mig_devices_on_one_gpu(flavour: str) -> None:
    layout = ["1g.5gb", "1g.5gb", "2g.10gb", "3g.20gb"]
    devices = [
        a_mig(f"gpu-{gpu}-mig-{number}", profile=profile, parent=f"GPU-{gpu}")
        for number, profile in enumerate(layout)
        for gpu in range(4)
    ]
    parents = {d["name"]: d["attributes"]["parentUUID"]["string"] for d in devices}
    async with control_plane() as plane:
        await plane.add_node()
        await plane.add(RESOURCE_SLICES, a_slice(devices))
        namespace = await apply(plane, SPECS / flavour / "gpu-test4.yaml")
        await bound_pods(plane, namespace, count=4)
        granted = await devices_by_claim(plane, namespace)
        assert sorted({parents[name] for name in names}.pop() for names in granted) == [
            f"GPU-{gpu}" for gpu in range(4)
        ]
        assert all(len({parents[name] for name in names}) == 1 for names in granted)
