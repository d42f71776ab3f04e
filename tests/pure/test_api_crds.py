"""The CRDs: their schema is fixed by existing clusters, and the types follow it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from nvdra_api import ComputeDomain, ComputeDomainClique, ConfigError, decode_object
from nvdra_api.domains import (
    CliqueDaemon,
    ComputeDomainNode,
    ComputeDomainSpec,
    ComputeDomainStatus,
    Condition,
)
from nvdra_api.names import API_GROUP, API_VERSION, API_VERSION_NAME

CRDS = Path(__file__).parents[2] / "crds"
STATUS = {"type": "string", "enum": ["Ready", "NotReady"], "default": "NotReady"}
MEMBER: dict[str, Any] = {"ipAddress": {"type": "string"}, "cliqueID": {"type": "string"}}
MEMBER |= {"index": {"type": "integer"}, "status": STATUS}


def the_crd(plural: str) -> dict[str, Any]:
    text = (CRDS / f"resource.nvidia.com_{plural}.yaml").read_text()
    crd: dict[str, Any] = yaml.safe_load(text)
    return crd


def the_schema(plural: str) -> dict[str, Any]:
    [version] = the_crd(plural)["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def undescribed(schema: Any) -> Any:
    """The schema without its prose."""
    if isinstance(schema, list):
        return [undescribed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: undescribed(value)
        for key, value in schema.items()
        if key != "description" or not isinstance(value, str)
    }


def field_names(type_: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(type_)}


@pytest.mark.parametrize(
    ("plural", "kind"),
    [("computedomains", "ComputeDomain"), ("computedomaincliques", "ComputeDomainClique")],
)
def test_names_scope_and_version(plural: str, kind: str) -> None:
    crd = the_crd(plural)
    assert crd["metadata"]["name"] == f"{plural}.{API_GROUP}"
    assert crd["spec"]["group"] == API_GROUP
    assert crd["spec"]["scope"] == "Namespaced"
    names = crd["spec"]["names"]
    assert (names["kind"], names["listKind"]) == (kind, f"{kind}List")
    assert (names["plural"], names["singular"]) == (plural, kind.lower())
    [version] = crd["spec"]["versions"]
    assert (version["name"], version["served"], version["storage"]) == (
        API_VERSION_NAME,
        True,
        True,
    )


def test_the_spec_of_a_domain() -> None:
    schema = undescribed(the_schema("computedomains"))
    assert "required" not in schema
    spec = schema["properties"]["spec"]
    [rule] = spec.pop("x-kubernetes-validations")
    assert rule["rule"] == "self == oldSelf"
    assert "immutable" in rule["message"]
    reference = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}},
    }
    mode = {"type": "string", "enum": ["All", "Single"], "default": "Single"}
    assert spec == {
        "type": "object",
        "required": ["channel"],
        "properties": {
            "numNodes": {"type": "integer", "minimum": 0, "default": 0},
            "channel": {
                "type": "object",
                "required": ["resourceClaimTemplate"],
                "properties": {"resourceClaimTemplate": reference, "allocationMode": mode},
            },
        },
    }


def test_the_status_of_a_domain() -> None:
    [version] = the_crd("computedomains")["spec"]["versions"]
    assert version["subresources"] == {"status": {}}
    status = undescribed(the_schema("computedomains"))["properties"]["status"]
    conditions = status["properties"].pop("conditions")
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert status == {
        "type": "object",
        "required": ["status"],
        "properties": {
            "status": STATUS,
            "nodes": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {
                    "type": "object",
                    "required": ["name", "ipAddress", "cliqueID"],
                    "properties": {"name": {"type": "string"}} | MEMBER,
                },
            },
        },
    }


def test_a_clique_holds_its_daemons_at_the_top() -> None:
    [version] = the_crd("computedomaincliques")["spec"]["versions"]
    assert "subresources" not in version
    properties = undescribed(the_schema("computedomaincliques"))["properties"]
    assert set(properties) == {"apiVersion", "kind", "metadata", "daemons"}
    assert properties["daemons"] == {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["nodeName"],
        "items": {
            "type": "object",
            "required": ["nodeName", "ipAddress", "cliqueID"],
            "properties": {"nodeName": {"type": "string"}} | MEMBER,
        },
    }


def test_the_types_have_the_fields_of_the_schemas() -> None:
    domain = the_schema("computedomains")["properties"]
    status = domain["status"]["properties"]
    daemons = the_schema("computedomaincliques")["properties"]["daemons"]
    assert field_names(ComputeDomainSpec) == set(domain["spec"]["properties"])
    assert field_names(ComputeDomainStatus) == set(status)
    assert field_names(ComputeDomainNode) == set(status["nodes"]["items"]["properties"])
    assert field_names(Condition) == set(status["conditions"]["items"]["properties"])
    assert field_names(CliqueDaemon) == set(daemons["items"]["properties"])


def test_a_domain_from_the_api_is_decoded() -> None:
    raw = {
        "apiVersion": API_VERSION,
        "kind": "ComputeDomain",
        "metadata": {"name": "job", "namespace": "team", "uid": "u", "managedFields": [{}]},
        "spec": {"channel": {"resourceClaimTemplate": {"name": "job-channel"}}},
        "status": {"status": "Ready", "nodes": [a_member(name="node-1")]},
    }
    domain = decode_object(raw, ComputeDomain)
    assert domain.spec and domain.status
    assert domain.metadata.uid == "u"
    assert domain.spec.channel.resource_claim_template.name == "job-channel"
    assert (domain.spec.num_nodes, domain.spec.channel.allocation_mode) == (0, "Single")
    assert domain.status.nodes[0].clique_id == "c.1"


def test_a_clique_from_the_api_is_decoded() -> None:
    raw = {"apiVersion": API_VERSION, "kind": "ComputeDomainClique", "daemons": [a_member()]}
    [daemon] = decode_object(raw, ComputeDomainClique).daemons
    assert (daemon.node_name, daemon.index, daemon.status) == ("node-1", 3, "NotReady")


def test_a_domain_without_spec_and_status_exists() -> None:
    domain = decode_object({"apiVersion": API_VERSION, "kind": "ComputeDomain"}, ComputeDomain)
    assert (domain.spec, domain.status) == (None, None)


def test_problems_inside_lists_are_named_with_their_index() -> None:
    daemons = [a_member(), {"nodeName": "node-2", "index": "3"}]
    raw = {"apiVersion": API_VERSION, "kind": "ComputeDomainClique", "daemons": daemons}
    with pytest.raises(ConfigError) as failure:
        decode_object(raw, ComputeDomainClique)
    assert str(failure.value) == "daemons[1].index: expected a whole number, got string"
    del daemons[1]["index"]
    with pytest.raises(ConfigError, match=r"daemons\[1\]\.ipAddress: is required"):
        decode_object(raw, ComputeDomainClique)


def test_an_object_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected ComputeDomain, got ComputeDomainClique"):
        decode_object({"apiVersion": API_VERSION, "kind": "ComputeDomainClique"}, ComputeDomain)


def a_member(**fields: Any) -> dict[str, Any]:
    key = {} if "name" in fields else {"nodeName": "node-1"}
    return {"ipAddress": "10.0.0.1", "cliqueID": "c.1", "index": 3} | key | fields
