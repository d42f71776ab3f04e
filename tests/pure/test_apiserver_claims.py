"""What the embedded API server refuses about claims, templates and classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nvdra_kube.errors import Invalid
from nvdra_kube.resources import (
    DEVICE_CLASSES,
    NAMESPACES,
    RESOURCE_CLAIM_TEMPLATES,
    RESOURCE_CLAIMS,
)
from nvdra_sim.cluster.apiserver import ClusterStore, LocalApi
from nvdra_testing.dra_objects import (
    a_claim,
    a_claim_template,
    a_class,
    a_request,
    first_available,
    opaque,
)

if TYPE_CHECKING:
    from nvdra_kube.api import Body

MATCH = {"requests": ["gpu"], "matchAttribute": "gpu.nvidia.com/uuid"}


@pytest.fixture
def api() -> LocalApi:
    return LocalApi(ClusterStore())


async def causes(api: LocalApi, claim: Body) -> list[str]:
    with pytest.raises(Invalid) as caught:
        await api.create(RESOURCE_CLAIMS, claim)
    return [cause["field"] for cause in caught.value.details["causes"]]


async def test_a_plain_claim_is_completed(api: LocalApi) -> None:
    created = await api.create(RESOURCE_CLAIMS, a_claim())
    exactly = created["spec"]["devices"]["requests"][0]["exactly"]
    assert (exactly["allocationMode"], exactly["count"]) == ("ExactCount", 1)


async def test_everything_that_is_allowed_is_taken(api: LocalApi) -> None:
    claim = a_claim(
        "c",
        a_request("gpu", "true", allocationMode="All", tolerations=[{"operator": "Exists"}]),
        first_available("any", a_request("big", count=2), a_request("small")),
        a_request("part", capacity={"requests": {"memory": "10240Mi"}}),
        constraints=[MATCH, {"requests": ["any/big"], "distinctAttribute": "a.b/c"}],
        config=[opaque(requests=["any", "any/small"], kind="GpuConfig")],
    )
    created = await api.create(RESOURCE_CLAIMS, claim)
    part = created["spec"]["devices"]["requests"][2]["exactly"]
    assert part["capacity"]["requests"]["memory"] == "10Gi"


REQUESTS = "spec.devices.requests"


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"name": "gpu"}, f"{REQUESTS}[0]"),
        (
            {**a_request(), "firstAvailable": [{"name": "a", "deviceClassName": "c"}]},
            f"{REQUESTS}[0]",
        ),
        ({"exactly": {"deviceClassName": "c"}}, f"{REQUESTS}[0].name"),
        (a_request("Gpu"), f"{REQUESTS}[0].name"),
        (a_request("a" * 64), f"{REQUESTS}[0].name"),
        (a_request(device_class=""), f"{REQUESTS}[0].exactly.deviceClassName"),
        (a_request(device_class="Not_Dns"), f"{REQUESTS}[0].exactly.deviceClassName"),
        (a_request(allocationMode="Some"), f"{REQUESTS}[0].exactly.allocationMode"),
        (a_request(allocationMode="All", count=2), f"{REQUESTS}[0].exactly.count"),
        (a_request(count=-1), f"{REQUESTS}[0].exactly.count"),
        (a_request("gpu", *["true"] * 33), f"{REQUESTS}[0].exactly.selectors"),
        (a_request("gpu", ""), f"{REQUESTS}[0].exactly.selectors[0].cel.expression"),
        (a_request("gpu", "x" * 10241), f"{REQUESTS}[0].exactly.selectors[0].cel.expression"),
        (a_request(selectors=[{}]), f"{REQUESTS}[0].exactly.selectors[0].cel"),
        (
            a_request(tolerations=[{"operator": "Exists"}] * 17),
            f"{REQUESTS}[0].exactly.tolerations",
        ),
        (
            a_request(tolerations=[{"value": "x"}]),
            f"{REQUESTS}[0].exactly.tolerations[0].operator",
        ),
        (
            a_request(tolerations=[{"operator": "Exists", "effect": "Never"}]),
            f"{REQUESTS}[0].exactly.tolerations[0].effect",
        ),
        (
            a_request(capacity={"requests": {"memory": "much"}}),
            f"{REQUESTS}[0].exactly.capacity.requests[memory]",
        ),
        (
            first_available("gpu", *(a_request(f"r{n}") for n in range(9))),
            f"{REQUESTS}[0].firstAvailable",
        ),
        (
            first_available("gpu", a_request("x"), a_request("x")),
            f"{REQUESTS}[0].firstAvailable[1]",
        ),
        (first_available("gpu", a_request("X")), f"{REQUESTS}[0].firstAvailable[0].name"),
    ],
)
async def test_requests_have_rules(api: LocalApi, request_: Body, field: str) -> None:
    assert field in await causes(api, a_claim("c", request_))


async def test_requests_are_named_once(api: LocalApi) -> None:
    assert await causes(api, a_claim("c", a_request("a"), a_request("a"))) == [f"{REQUESTS}[1]"]


async def test_32_requests_are_the_limit(api: LocalApi) -> None:
    requests = [a_request(f"r{number}") for number in range(33)]
    assert await causes(api, a_claim("c", *requests)) == [REQUESTS]
    await api.create(RESOURCE_CLAIMS, a_claim("c", *requests[:32]))


@pytest.mark.parametrize(
    ("constraint", "field"),
    [
        ({"requests": ["gpu"]}, "spec.devices.constraints[0]"),
        ({**MATCH, "distinctAttribute": "a.b/c"}, "spec.devices.constraints[0]"),
        ({**MATCH, "requests": ["other"]}, "spec.devices.constraints[0].requests[0]"),
        ({**MATCH, "requests": ["gpu", "gpu"]}, "spec.devices.constraints[0].requests[1]"),
        ({"matchAttribute": "uuid"}, "spec.devices.constraints[0].matchAttribute"),
        ({"matchAttribute": "a.b/not-c"}, "spec.devices.constraints[0].matchAttribute"),
        ({"matchAttribute": f"a.b/{'c' * 33}"}, "spec.devices.constraints[0].matchAttribute"),
    ],
)
async def test_constraints_have_rules(api: LocalApi, constraint: Body, field: str) -> None:
    assert field in await causes(api, a_claim("c", constraints=[constraint]))


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({}, "opaque"),
        ({"opaque": {"parameters": {}}}, "opaque.driver"),
        ({"opaque": {"driver": "Bad_", "parameters": {}}}, "opaque.driver"),
        ({"opaque": {"driver": "a.b"}}, "opaque.parameters"),
        ({"opaque": {"driver": "a.b", "parameters": [1]}}, "opaque.parameters"),
        ({"opaque": {"driver": "a.b", "parameters": {"x": "y" * 10240}}}, "opaque.parameters"),
        (opaque(requests=["nobody"]), "requests[0]"),
    ],
)
async def test_configs_have_rules(api: LocalApi, config: Body, field: str) -> None:
    assert await causes(api, a_claim("c", config=[config])) == [f"spec.devices.config[0].{field}"]


async def test_every_problem_is_named_at_once(api: LocalApi) -> None:
    claim = a_claim("c", a_request("A"), a_request(count=-1), config=[{}])
    assert len(await causes(api, claim)) == 3


async def test_a_refusal_reads_like_kubernetes_own(api: LocalApi) -> None:
    with pytest.raises(Invalid) as caught:
        await api.create(RESOURCE_CLAIMS, a_claim("c", a_request(allocationMode="Some")))
    assert caught.value.message == (
        'ResourceClaim.resource.k8s.io "c" is invalid:'
        ' spec.devices.requests[0].exactly.allocationMode: Unsupported value: "Some":'
        ' supported values: "All", "ExactCount"'
    )


async def test_the_spec_of_a_claim_never_changes(api: LocalApi) -> None:
    claim = await api.create(RESOURCE_CLAIMS, a_claim())
    claim["spec"]["devices"]["requests"][0]["exactly"]["count"] = 2
    with pytest.raises(Invalid, match="spec: Invalid value: object: field is immutable"):
        await api.update(RESOURCE_CLAIMS, claim)


async def test_the_labels_of_a_claim_do(api: LocalApi) -> None:
    claim = await api.create(RESOURCE_CLAIMS, a_claim())
    claim["metadata"]["labels"] = {"a": "b"}
    assert (await api.update(RESOURCE_CLAIMS, claim))["metadata"]["labels"] == {"a": "b"}


async def test_templates_follow_the_same_rules(api: LocalApi) -> None:
    with pytest.raises(Invalid, match=r"spec\.spec\.devices\.requests\[0\]\.exactly\.count"):
        template = a_claim_template("t", a_request(count=-1))
        await api.create(RESOURCE_CLAIM_TEMPLATES, template)


async def test_the_spec_of_a_template_never_changes(api: LocalApi) -> None:
    template = await api.create(RESOURCE_CLAIM_TEMPLATES, a_claim_template())
    template["spec"]["metadata"] = {"labels": {"a": "b"}}
    with pytest.raises(Invalid, match="field is immutable"):
        await api.update(RESOURCE_CLAIM_TEMPLATES, template)


async def test_classes_have_rules_and_can_change(api: LocalApi) -> None:
    created = await api.create(DEVICE_CLASSES, a_class("c", "true"))
    assert created["metadata"]["generation"] == 1
    created["spec"]["config"] = [{}]
    with pytest.raises(Invalid, match=r"spec\.config\[0\]\.opaque: Required value"):
        await api.update(DEVICE_CLASSES, created)
    created["spec"]["config"] = [opaque(kind="X")]
    assert (await api.update(DEVICE_CLASSES, created))["metadata"]["generation"] == 2


async def test_admin_access_needs_a_labelled_namespace(api: LocalApi) -> None:
    claim = a_claim("c", a_request(adminAccess=True), namespace="ops")
    await api.create(NAMESPACES, {"metadata": {"name": "ops"}})
    with pytest.raises(Invalid, match="admin-access: true` label on the containing namespace"):
        await api.create(RESOURCE_CLAIMS, claim)
    label = {"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}}
    await api.patch(NAMESPACES, "ops", label)
    await api.create(RESOURCE_CLAIMS, claim)


RESULT = {"request": "gpu", "driver": "gpu.nvidia.com", "pool": "node-a", "device": "gpu-0"}
KEY = {"driver": "gpu.nvidia.com", "pool": "node-a", "device": "gpu-0"}
CONSUMER = {"resource": "pods", "name": "pod", "uid": "u1"}


def allocation(*results: Body, **extra: Any) -> Body:
    return {"devices": {"results": list(results or (RESULT,)), **extra}}


async def with_status(api: LocalApi, **status: Any) -> Body:
    """Write a status onto the claim, which is made where it is missing."""
    if not (await api.list(RESOURCE_CLAIMS))["items"]:
        await api.create(RESOURCE_CLAIMS, a_claim())
    claim = await api.get(RESOURCE_CLAIMS, "claim", namespace="default")
    return await api.update(RESOURCE_CLAIMS, {**claim, "status": status}, subresource="status")


async def test_an_allocation_is_taken_once(api: LocalApi) -> None:
    await with_status(api, allocation=allocation())
    other = {**RESULT, "device": "gpu-1"}
    with pytest.raises(Invalid, match=r"status\.allocation: .*field is immutable"):
        await with_status(api, allocation=allocation(other))


async def test_an_allocation_can_be_removed_whole(api: LocalApi) -> None:
    await with_status(api, allocation=allocation(), devices=[KEY])
    assert (await with_status(api))["status"] == {}


async def test_removing_the_allocation_removes_the_device_status(api: LocalApi) -> None:
    await with_status(api, allocation=allocation(), devices=[KEY])
    assert "devices" not in (await with_status(api, devices=[KEY]))["status"]


@pytest.mark.parametrize(
    ("result", "field"),
    [
        ({**RESULT, "request": "other"}, "request"),
        ({**RESULT, "driver": ""}, "driver"),
        ({**RESULT, "pool": "a//b"}, "pool"),
        ({**RESULT, "device": "GPU"}, "device"),
        ({**RESULT, "shareID": "not-a-uuid"}, "shareID"),
    ],
)
async def test_results_have_rules(api: LocalApi, result: Body, field: str) -> None:
    with pytest.raises(Invalid, match=rf"status\.allocation\.devices\.results\[0\]\.{field}"):
        await with_status(api, allocation=allocation(result))


async def test_only_an_allocated_claim_is_reserved(api: LocalApi) -> None:
    with pytest.raises(Invalid, match="may not be specified when `allocated` is not set"):
        await with_status(api, reservedFor=[CONSUMER])


async def test_consumers_are_unique(api: LocalApi) -> None:
    with pytest.raises(Invalid, match=r"status\.reservedFor\[1\]: Duplicate value"):
        await with_status(api, allocation=allocation(), reservedFor=[CONSUMER, CONSUMER])


async def test_257_consumers_are_too_many(api: LocalApi) -> None:
    consumers = [{**CONSUMER, "uid": f"u{number}"} for number in range(257)]
    with pytest.raises(Invalid, match=r"status\.reservedFor: Too many: 257"):
        await with_status(api, allocation=allocation(), reservedFor=consumers)


async def test_a_dying_claim_takes_no_new_consumers(api: LocalApi) -> None:
    claim = a_claim()
    claim["metadata"]["finalizers"] = ["example.com/x"]
    await api.create(RESOURCE_CLAIMS, claim)
    await with_status(api, allocation=allocation())
    await api.delete(RESOURCE_CLAIMS, "claim", namespace="default")
    with pytest.raises(Invalid, match="while the claim is being deleted"):
        await with_status(api, allocation=allocation(), reservedFor=[CONSUMER])


CONDITION = {
    "type": "Ready",
    "status": "True",
    "reason": "Prepared",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


@pytest.mark.parametrize(
    ("device", "problem"),
    [
        ({**KEY, "device": "gpu-7"}, "must be an allocated device in the claim"),
        ({**KEY, "conditions": [CONDITION] * 9}, "conditions: Too many: 9"),
        ({**KEY, "conditions": [{**CONDITION, "reason": ""}]}, r"conditions\[0\]\.reason"),
        ({**KEY, "conditions": [{**CONDITION, "reason": "not so"}]}, "a condition reason must"),
        ({**KEY, "conditions": [{**CONDITION, "status": "No"}]}, r"status: Unsupported value"),
        ({**KEY, "conditions": [{**CONDITION, "message": "x" * 32769}]}, "message: Too long"),
        ({**KEY, "data": "text"}, "data: .*must be a valid JSON object"),
        ({**KEY, "data": {"x": "y" * 10240}}, "data: Too long"),
        ({**KEY, "networkData": {"ips": ["10.0.0.1"]}}, "canonical CIDR form"),
        ({**KEY, "networkData": {"interfaceName": "x" * 257}}, "interfaceName: Too long"),
    ],
)
async def test_device_status_has_rules(api: LocalApi, device: Body, problem: str) -> None:
    with pytest.raises(Invalid, match=problem):
        await with_status(api, allocation=allocation(), devices=[device])


async def test_device_status_goes_with_the_allocation(api: LocalApi) -> None:
    await api.create(RESOURCE_CLAIMS, a_claim())
    await with_status(api, allocation=allocation(), devices=[{**KEY, "conditions": [CONDITION]}])
    after = await with_status(api, devices=[{**KEY, "conditions": [CONDITION]}])
    assert "devices" not in after["status"]


async def test_a_device_that_was_never_allocated_has_no_status(api: LocalApi) -> None:
    with pytest.raises(Invalid, match="must be an allocated device in the claim"):
        await with_status(api, devices=[KEY])


async def test_good_device_status_is_taken(api: LocalApi) -> None:
    device = {
        **KEY,
        "conditions": [CONDITION],
        "data": {"anything": [1]},
        "networkData": {"interfaceName": "eth0", "ips": ["10.0.0.1/24", "2001:db8::1/64"]},
    }
    after = await with_status(api, allocation=allocation(), devices=[device])
    assert after["status"]["devices"] == [device]


@pytest.mark.parametrize("expression", ["device.driver ==", "devise.driver == 'x'", "'yes'"])
async def test_a_selector_that_does_not_compile_is_refused(api: LocalApi, expression: str) -> None:
    claim = a_claim("c", a_request("gpu", expression))
    field = "spec.devices.requests[0].exactly.selectors[0].cel.expression"
    assert await causes(api, claim) == [field]


async def test_a_class_whose_selector_does_not_compile_is_refused(api: LocalApi) -> None:
    with pytest.raises(Invalid, match="compilation failed: <input>:1:4: Syntax error"):
        await api.create(DEVICE_CLASSES, a_class("broken", "1 +"))
