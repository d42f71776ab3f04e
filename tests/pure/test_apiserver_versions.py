"""One stored object, served in three versions of resource.k8s.io."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_kube.errors import NotFound
from nvdra_kube.resources import RESOURCE_CLAIM_TEMPLATES, RESOURCE_CLAIMS, RESOURCE_SLICES
from nvdra_sim.cluster.apiserver import ClusterStore, LocalApi
from nvdra_sim.cluster.apiserver.catalog import Catalog
from nvdra_sim.cluster.apiserver.fields.conversion import from_storage, to_storage
from nvdra_testing.dra_objects import (
    a_claim,
    a_claim_template,
    a_device,
    a_request,
    a_slice,
    first_available,
)

if TYPE_CHECKING:
    from nvdra_kube.api import Body

CLAIM = Catalog().at("resource.k8s.io", "v1", "resourceclaims")
SLICE = Catalog().at("resource.k8s.io", "v1", "resourceslices")

names = st.sampled_from(["gpu", "a", "b-1", "name", "basic", "exactly"])
flat_fields = st.fixed_dictionaries(
    {"deviceClassName": names},
    optional={
        "count": st.integers(1, 9),
        "allocationMode": st.sampled_from(["All", "ExactCount"]),
        "adminAccess": st.booleans(),
        "selectors": st.just([{"cel": {"expression": "true"}}]),
        "tolerations": st.just([{"operator": "Exists"}]),
    },
)
alternatives = st.lists(
    st.builds(lambda name, rest: {"name": name, **rest}, names, flat_fields), min_size=1, max_size=3
)
requests = st.one_of(
    st.builds(lambda name, rest: {"name": name, "exactly": rest}, names, flat_fields),
    st.builds(lambda name, subs: {"name": name, "firstAvailable": subs}, names, alternatives),
)
devices = st.fixed_dictionaries(
    {"name": names},
    optional={
        "attributes": st.dictionaries(names, st.builds(lambda n: {"int": n}, st.integers())),
        "capacity": st.dictionaries(names, st.just({"value": "1Gi"})),
        "nodeName": names,
        "taints": st.just([{"key": "a", "effect": "NoSchedule"}]),
    },
)


@given(st.lists(requests, max_size=4), st.sampled_from(["v1beta1", "v1beta2", "v1"]))
def test_claims_survive_the_way_out_and_in(wanted: list[Body], version: str) -> None:
    claim = {**a_claim(), "spec": {"devices": {"requests": wanted}}}
    assert to_storage(CLAIM, version, from_storage(CLAIM, version, claim)) == claim


@given(st.lists(devices, max_size=4), st.sampled_from(["v1beta1", "v1beta2", "v1"]))
def test_slices_survive_the_way_out_and_in(offered: list[Body], version: str) -> None:
    body = a_slice(offered)
    assert to_storage(SLICE, version, from_storage(SLICE, version, body)) == body


def spec_of(body: Body) -> Any:
    return body["spec"]["devices"]


async def test_a_beta_claim_is_stored_with_exactly() -> None:
    api = LocalApi(ClusterStore())
    flat = {"name": "gpu", "deviceClassName": "gpu.nvidia.com", "count": 2}
    beta = replace(RESOURCE_CLAIMS, version="v1beta1")
    body = {
        "metadata": {"name": "c", "namespace": "default"},
        "spec": {"devices": {"requests": [flat]}},
    }
    created = await api.create(beta, body)
    assert created["apiVersion"] == "resource.k8s.io/v1beta1"
    assert spec_of(created)["requests"] == [{**flat, "allocationMode": "ExactCount"}]
    [stored] = spec_of(await api.get(RESOURCE_CLAIMS, "c", namespace="default"))["requests"]
    assert stored["exactly"]["count"] == 2


async def test_alternatives_look_alike_in_all_versions() -> None:
    api = LocalApi(ClusterStore())
    request = first_available("gpu", a_request("big"), a_request("small"))
    await api.create(RESOURCE_CLAIMS, a_claim("c", request))
    beta = await api.get(replace(RESOURCE_CLAIMS, version="v1beta1"), "c", namespace="default")
    [flat] = spec_of(beta)["requests"]
    assert flat.keys() == {"name", "firstAvailable"}


async def test_beta_devices_are_basic() -> None:
    api = LocalApi(ClusterStore())
    await api.create(RESOURCE_SLICES, a_slice([a_device("gpu-0")], name="s"))
    [device] = spec_of(await api.get(replace(RESOURCE_SLICES, version="v1beta1"), "s"))
    assert device.keys() == {"name", "basic"}
    [device] = spec_of(await api.get(replace(RESOURCE_SLICES, version="v1beta2"), "s"))
    assert "attributes" in device


async def test_a_watch_speaks_the_version_it_was_asked_in() -> None:
    api = LocalApi(ClusterStore())
    await api.create(RESOURCE_CLAIM_TEMPLATES, a_claim_template())
    beta = replace(RESOURCE_CLAIM_TEMPLATES, version="v1beta1")
    async for event in api.watch(beta, resource_version="", timeout_s=0.0):
        [request] = spec_of(event.object["spec"])["requests"]
        assert request["deviceClassName"] == "gpu.nvidia.com"
        break


async def test_a_patch_is_understood_in_its_own_version() -> None:
    api = LocalApi(ClusterStore())
    await api.create(RESOURCE_SLICES, a_slice([a_device("gpu-0")], name="s"))
    taint = [{"key": "bad", "effect": "NoSchedule"}]
    patch: Any = [{"op": "add", "path": "/spec/devices/0/basic/taints", "value": taint}]
    beta = replace(RESOURCE_SLICES, version="v1beta1")
    await api.patch(beta, "s", patch, patch_type="application/json-patch+json")
    [device] = spec_of(await api.get(RESOURCE_SLICES, "s"))
    assert device["taints"][0]["key"] == "bad"


async def test_opaque_parameters_are_nobody_s_business() -> None:
    api = LocalApi(ClusterStore())
    parameters = {"requests": [{"count": 1}], "basic": None, "devices": [{"name": "x"}]}
    config = {"opaque": {"driver": "gpu.nvidia.com", "parameters": parameters}}
    await api.create(RESOURCE_CLAIMS, a_claim("c", config=[config]))
    beta = await api.get(replace(RESOURCE_CLAIMS, version="v1beta1"), "c", namespace="default")
    assert spec_of(beta)["config"][0]["opaque"]["parameters"] == parameters


@pytest.mark.parametrize(
    ("server", "version", "served"),
    [
        ("v1.36.3", "v1", True),
        ("v1.34.1", "v1", True),
        ("v1.33.0", "v1", False),
        ("v1.33.0", "v1beta2", True),
        ("v1.32.4-gke.1", "v1beta2", False),
        ("v1.32.4-gke.1", "v1beta1", True),
    ],
)
async def test_old_servers_serve_old_versions(server: str, version: str, served: bool) -> None:
    api = LocalApi(ClusterStore(version=server))
    resource = replace(RESOURCE_CLAIMS, version=version)
    if served:
        assert (await api.list(resource))["apiVersion"] == f"resource.k8s.io/{version}"
    else:
        with pytest.raises(NotFound, match="could not find the requested resource"):
            await api.list(resource)
