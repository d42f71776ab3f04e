"""Unknown and wrongly typed fields on their way into the embedded API server."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvdra_kube.errors import ApiError, BadRequest
from nvdra_kube.resources import (
    DEVICE_CLASSES,
    NAMESPACES,
    NODES,
    PODS,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
)
from nvdra_sim.cluster.apiserver import ClusterStore, LocalApi
from nvdra_sim.cluster.apiserver.bodies import own
from nvdra_sim.cluster.apiserver.catalog import Catalog
from nvdra_sim.cluster.apiserver.fields.decoding import decoded
from nvdra_testing.dra_objects import (
    a_claim,
    a_class,
    a_device,
    a_pod,
    a_request,
    a_slice,
    first_available,
    opaque,
)
from nvdra_testing.server_objects import (
    CONFIG_MAPS,
    DEFINITIONS,
    DEPLOYMENTS,
    SECRETS,
    SERVICES,
    a_config_map,
    a_definition,
    a_deployment,
)

if TYPE_CHECKING:
    from nvdra_kube.api import Body, Resource


@pytest.fixture
def strict() -> LocalApi:
    return LocalApi(ClusterStore(), field_validation="Strict")


async def test_strict_names_the_unknown_field(strict: LocalApi) -> None:
    with pytest.raises(BadRequest) as caught:
        await strict.create(PODS, a_pod(nodeSelektor={}))
    assert caught.value.message == (
        'Pod in version "v1" cannot be handled as a Pod: strict decoding error:'
        ' unknown field "spec.nodeSelektor"'
    )


async def test_strict_names_all_of_them(strict: LocalApi) -> None:
    claim = a_claim("c", a_request(cuont=1), a_request("b", selector=[]))
    with pytest.raises(BadRequest) as caught:
        await strict.create(RESOURCE_CLAIMS, claim)
    assert 'unknown field "spec.devices.requests[0].exactly.cuont"' in caught.value.message
    assert 'unknown field "spec.devices.requests[1].exactly.selector"' in caught.value.message


async def test_fields_of_the_other_version_are_unknown(strict: LocalApi) -> None:
    flat = {"name": "gpu", "deviceClassName": "gpu.nvidia.com"}
    with pytest.raises(BadRequest, match=r'"spec\.devices\.requests\[0\]\.deviceClassName"'):
        await strict.create(RESOURCE_CLAIMS, a_claim("c", flat))


async def test_lenient_drops_what_it_does_not_know() -> None:
    api = LocalApi(ClusterStore())
    created = await api.create(RESOURCE_CLAIMS, a_claim("c", a_request(cuont=1)))
    assert "cuont" not in created["spec"]["devices"]["requests"][0]["exactly"]


def test_warnings_are_for_those_who_want_them() -> None:
    kind = Catalog().at("", "v1", "pods")
    body, warnings = decoded(kind, "v1", a_pod(x=1), field_validation="Warn")
    assert warnings == ('unknown field "spec.x"',)
    assert "x" not in body["spec"]


@pytest.mark.parametrize(
    ("resource", "body", "problem"),
    [
        (PODS, a_pod(containers="x"), "spec.containers: expected a list, got a string"),
        (PODS, a_pod(hostNetwork="yes"), "spec.hostNetwork: expected a boolean, got a string"),
        (PODS, {**a_pod(), "spec": []}, "spec: expected an object, got a list"),
        (
            RESOURCE_CLAIMS,
            a_claim("c", a_request(count="2")),
            "spec.devices.requests[0].exactly.count: expected an integer, got a string",
        ),
        (
            DEPLOYMENTS,
            a_deployment(replicas=1.5),
            "spec.replicas: expected an integer, got a number",
        ),
        (
            CONFIG_MAPS,
            {**a_config_map(), "data": {"a": 1}},
            "data[a]: expected a string, got a number",
        ),
    ],
)
async def test_wrong_types_are_refused(resource: Resource, body: Body, problem: str) -> None:
    with pytest.raises(BadRequest) as caught:
        await LocalApi(ClusterStore()).create(resource, body)
    assert caught.value.message.endswith(problem)


async def test_labels_are_text_everywhere() -> None:
    api = LocalApi(ClusterStore())
    with pytest.raises(BadRequest, match=r"metadata\.labels\[a\]: expected a string"):
        await api.create(NODES, {"metadata": {"name": "n", "labels": {"a": 1}}})


async def test_nulls_mean_nothing() -> None:
    api = LocalApi(ClusterStore())
    body = a_pod(nodeSelector=None)
    body["metadata"]["creationTimestamp"] = None
    created = await api.create(PODS, body)
    assert "nodeSelector" not in created["spec"]
    assert created["metadata"]["creationTimestamp"]


async def test_counts_of_quantities_may_be_numbers() -> None:
    api = LocalApi(ClusterStore(), field_validation="Strict")
    container: dict[str, Any] = {"name": "c", "image": "i:1", "resources": {"limits": {"a.b/c": 1}}}
    await api.create(PODS, a_pod(containers=[container]))


async def test_an_object_is_an_object() -> None:
    with pytest.raises(BadRequest, match="must be a JSON object, not list"):
        decoded(Catalog().at("", "v1", "pods"), "v1", [], field_validation="Warn")


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-1, 1) | st.text("a/ .", max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=2), inner),
    max_leaves=4,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values below a body."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    found = []
    for name, value in pairs:
        found.append((*path, name))
        if isinstance(value, dict | list):
            found += places(value, (*path, name))
    return found


def put(body: Any, path: tuple[Any, ...], value: Any) -> None:
    for name in path[:-1]:
        body = body[name]
    body[path[-1]] = value


RICH: list[tuple[Resource, Body]] = [
    (PODS, a_pod(claim="c", tolerations=[{"key": "a"}], volumes=[{"name": "v"}])),
    (
        RESOURCE_CLAIMS,
        a_claim(
            "c",
            a_request("a", "true", tolerations=[{"key": "a"}], capacity={"requests": {"m": "1"}}),
            first_available("b", a_request("x")),
            constraints=[{"requests": ["a"], "matchAttribute": "a.b/c"}],
            config=[opaque(requests=["a"], kind="X")],
        ),
    ),
    (
        RESOURCE_SLICES,
        a_slice(
            [
                a_device(
                    "d",
                    taints=[{"key": "a", "effect": "NoSchedule"}],
                    consumesCounters=[{"counterSet": "s", "counters": {"m": {"value": "1"}}}],
                    bindingConditions=["a"],
                    bindingFailureConditions=["b"],
                )
            ]
        ),
    ),
    (DEVICE_CLASSES, a_class("c", "true", config=[opaque(kind="X")])),
    (DEPLOYMENTS, a_deployment()),
    (DEFINITIONS, a_definition()),
    (SECRETS, {"metadata": {"name": "s", "namespace": "default"}, "stringData": {"a": "b"}}),
    (SERVICES, {"metadata": {"name": "s", "namespace": "default"}, "spec": {"ports": [{}]}}),
    (NAMESPACES, {"metadata": {"name": "n", "labels": {"a": "b"}}}),
]


@given(st.data(), st.sampled_from(RICH), junk)
@settings(max_examples=300)
def test_whatever_is_sent_the_answer_is_an_object_or_a_refusal(
    data: st.DataObject, sent: tuple[Resource, Body], spoilt: Any
) -> None:
    resource, body = sent[0], own(sent[1])
    put(body, data.draw(st.sampled_from(places(body))), spoilt)
    with suppress(ApiError):
        asyncio.run(LocalApi(ClusterStore()).create(resource, body))
