"""Custom resources on the embedded API server, the project's own among them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from nvdra_kube.api import Resource
from nvdra_kube.errors import ApiError, BadRequest, Invalid, NotFound
from nvdra_sim.cluster.apiserver import ClusterStore, LocalApi
from nvdra_testing.server_objects import DEFINITIONS, WIDGETS, a_definition

if TYPE_CHECKING:
    from nvdra_kube.api import Body

CRDS = Path(__file__).parents[2] / "crds"
DOMAINS = Resource("resource.nvidia.com", "v1beta1", "computedomains", "ComputeDomain")


@pytest.fixture
def api() -> LocalApi:
    return LocalApi(ClusterStore())


def a_widget(**spec: Any) -> Body:
    return {"metadata": {"name": "w", "namespace": "default"}, "spec": {"size": 1, **spec}}


async def test_a_definition_is_served_at_once(api: LocalApi) -> None:
    with pytest.raises(NotFound):
        await api.list(WIDGETS)
    definition = await api.create(DEFINITIONS, a_definition())
    assert {c["type"] for c in definition["status"]["conditions"]} == {
        "Established",
        "NamesAccepted",
    }
    assert (await api.list(WIDGETS))["kind"] == "WidgetList"


async def test_deleting_the_definition_deletes_its_objects(api: LocalApi) -> None:
    await api.create(DEFINITIONS, a_definition())
    await api.create(WIDGETS, a_widget())
    await api.delete(DEFINITIONS, "widgets.example.com")
    with pytest.raises(NotFound, match="could not find the requested resource"):
        await api.list(WIDGETS)
    await api.create(DEFINITIONS, a_definition())
    assert (await api.list(WIDGETS))["items"] == []


async def test_defaults_come_from_the_schema(api: LocalApi) -> None:
    await api.create(DEFINITIONS, a_definition())
    created = await api.create(WIDGETS, a_widget())
    assert created["spec"] == {"size": 1, "mode": "Single"}
    assert created["metadata"]["generation"] == 1


async def test_unknown_fields_are_pruned(api: LocalApi) -> None:
    await api.create(DEFINITIONS, a_definition())
    assert "color" not in (await api.create(WIDGETS, a_widget(color="red")))["spec"]


async def test_strict_refuses_unknown_fields() -> None:
    api = LocalApi(ClusterStore(), field_validation="Strict")
    await api.create(DEFINITIONS, a_definition())
    with pytest.raises(BadRequest, match=r'unknown field "spec\.color"'):
        await api.create(WIDGETS, a_widget(color="red"))


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"size": "1"}, r"spec\.size: .*must be of type integer"),
        ({"size": 0}, r"spec\.size: .*greater than or equal to 1"),
        ({"mode": "Many"}, r'spec\.mode: Unsupported value: "Many"'),
    ],
)
async def test_the_schema_is_enforced(api: LocalApi, spec: Body, problem: str) -> None:
    await api.create(DEFINITIONS, a_definition())
    with pytest.raises(Invalid, match=problem):
        await api.create(WIDGETS, a_widget(**spec))


async def test_required_fields_are_required(api: LocalApi) -> None:
    await api.create(DEFINITIONS, a_definition())
    with pytest.raises(Invalid, match=r"spec\.size: Required value"):
        await api.create(WIDGETS, {"metadata": {"name": "w", "namespace": "default"}, "spec": {}})


async def test_an_immutable_spec_stays(api: LocalApi) -> None:
    await api.create(DEFINITIONS, a_definition())
    created = await api.create(WIDGETS, a_widget())
    created["spec"]["size"] = 2
    with pytest.raises(Invalid, match=r"A widget\.spec is immutable"):
        await api.update(WIDGETS, created)


async def test_the_status_has_its_own_door(api: LocalApi) -> None:
    await api.create(DEFINITIONS, a_definition())
    created = await api.create(WIDGETS, {**a_widget(), "status": {"phase": "x"}})
    assert "status" not in created
    created["status"] = {"phase": "Ready"}
    after = await api.update(WIDGETS, created, subresource="status")
    assert (after["status"], after["metadata"]["generation"]) == ({"phase": "Ready"}, 1)


async def test_without_the_subresource_there_is_no_such_door(api: LocalApi) -> None:
    await api.create(DEFINITIONS, a_definition(subresources={}))
    created = await api.create(WIDGETS, {**a_widget(), "status": {"phase": "x"}})
    assert created["status"] == {"phase": "x"}
    with pytest.raises(NotFound):
        await api.update(WIDGETS, created, subresource="status")


async def test_custom_resources_are_not_merged_strategically(api: LocalApi) -> None:
    await api.create(DEFINITIONS, a_definition())
    await api.create(WIDGETS, a_widget())
    with pytest.raises(ApiError, match="strategic-merge-patch"):
        await api.patch(
            WIDGETS,
            "w",
            {},
            namespace="default",
            patch_type="application/strategic-merge-patch+json",
        )


async def test_custom_resources_are_not_updated_blindly(api: LocalApi) -> None:
    await api.create(DEFINITIONS, a_definition())
    await api.create(WIDGETS, a_widget())
    with pytest.raises(Invalid, match="must be specified for an update"):
        await api.update(WIDGETS, a_widget())


async def test_only_served_versions_answer(api: LocalApi) -> None:
    await api.create(DEFINITIONS, a_definition())
    with pytest.raises(NotFound):
        await api.list(replace(WIDGETS, version="v2"))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"scope": "Galaxy"}, r'spec\.scope: Unsupported value: "Galaxy"'),
        ({"versions": []}, r"spec\.versions: Required value"),
        ({"group": ""}, r"spec\.group: Required value"),
        ({"group": "other.com"}, r"metadata\.name: .*spec\.names\.plural"),
        ({"versions": [{"name": "v1", "storage": True}]}, "openAPIV3Schema: Required value"),
    ],
)
async def test_definitions_have_rules(api: LocalApi, change: Body, problem: str) -> None:
    definition = a_definition()
    definition["spec"] |= change
    with pytest.raises(Invalid, match=problem):
        await api.create(DEFINITIONS, definition)


@pytest.mark.parametrize("path", sorted(CRDS.glob("*.yaml")), ids=lambda path: path.stem)
async def test_the_project_s_own_definitions_are_taken(api: LocalApi, path: Path) -> None:
    await api.create(DEFINITIONS, yaml.safe_load(path.read_text()))


async def test_compute_domains_behave(api: LocalApi) -> None:
    path = CRDS / "resource.nvidia.com_computedomains.yaml"
    await api.create(DEFINITIONS, yaml.safe_load(path.read_text()))
    channel = {"resourceClaimTemplate": {"name": "t"}}
    body = {
        "metadata": {"name": "cd", "namespace": "default"},
        "spec": {"numNodes": 2, "channel": channel},
    }
    created = await api.create(DOMAINS, body)
    assert created["spec"]["channel"]["allocationMode"] == "Single"
    created["status"] = {"nodes": [{"name": "n", "ipAddress": "1.2.3.4", "cliqueID": "a.0"}]}
    after = await api.update(DOMAINS, created, subresource="status")
    assert after["status"]["status"] == "NotReady"
    after["spec"]["numNodes"] = 3
    with pytest.raises(Invalid, match="immutable"):
        await api.update(DOMAINS, after)


async def test_list_maps_have_unique_keys(api: LocalApi) -> None:
    path = CRDS / "resource.nvidia.com_computedomains.yaml"
    await api.create(DEFINITIONS, yaml.safe_load(path.read_text()))
    channel = {"resourceClaimTemplate": {"name": "t"}}
    meta = {"name": "cd", "namespace": "default"}
    created = await api.create(DOMAINS, {"metadata": meta, "spec": {"channel": channel}})
    node = {"name": "n", "ipAddress": "1.2.3.4", "cliqueID": ""}
    created["status"] = {"nodes": [node, node]}
    with pytest.raises(Invalid, match=r"status\.nodes\[1\]: Duplicate value"):
        await api.update(DOMAINS, created, subresource="status")
