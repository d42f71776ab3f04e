"""Pods and what makes them, on the embedded API server: defaults and refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nvdra_kube.api import Resource
from nvdra_kube.errors import Invalid
from nvdra_kube.resources import PODS
from nvdra_sim.cluster.apiserver import ClusterStore, LocalApi
from nvdra_testing.dra_objects import a_pod
from nvdra_testing.server_objects import CONFIG_MAPS, DEPLOYMENTS, a_config_map, a_deployment

if TYPE_CHECKING:
    from nvdra_kube.api import Body

JOBS = Resource("batch", "v1", "jobs", "Job")
CTR = {"name": "ctr", "image": "ubuntu:22.04"}


@pytest.fixture
def api() -> LocalApi:
    return LocalApi(ClusterStore())


async def causes(api: LocalApi, resource: Resource, body: Body) -> list[str]:
    with pytest.raises(Invalid) as caught:
        await api.create(resource, body)
    return [cause["field"] for cause in caught.value.details["causes"]]


async def test_a_pod_is_completed(api: LocalApi) -> None:
    pod = await api.create(PODS, a_pod())
    spec = pod["spec"]
    assert (spec["restartPolicy"], spec["terminationGracePeriodSeconds"]) == ("Always", 30)
    assert spec["schedulerName"] == "default-scheduler"
    assert pod["status"] == {"phase": "Pending", "qosClass": "BestEffort"}


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("ubuntu", "Always"),
        ("ubuntu:latest", "Always"),
        ("host:5000/ubuntu", "Always"),
        ("host:5000/ubuntu:22.04", "IfNotPresent"),
    ],
)
async def test_images_without_version_are_always_pulled(
    api: LocalApi, image: str, policy: str
) -> None:
    pod = await api.create(PODS, a_pod(containers=[{"name": "c", "image": image}]))
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == policy


async def test_a_lost_node_is_tolerated_for_a_while(api: LocalApi) -> None:
    pod = await api.create(PODS, a_pod(tolerations=[{"key": "a", "operator": "Exists"}]))
    assert [toleration["key"] for toleration in pod["spec"]["tolerations"]] == [
        "a",
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"containers": []}, "spec.containers"),
        ({"containers": [{"name": "c"}]}, "spec.containers[0].image"),
        ({"containers": [{"image": "x"}]}, "spec.containers[0].name"),
        ({"containers": [{**CTR, "name": "C_1"}]}, "spec.containers[0].name"),
        ({"containers": [CTR, CTR]}, "spec.containers[1]"),
        ({"restartPolicy": "Sometimes"}, "spec.restartPolicy"),
        ({"resourceClaims": [{"name": "gpu"}]}, "spec.resourceClaims[0]"),
        (
            {"resourceClaims": [{"name": "gpu", "resourceClaimName": "Bad_"}]},
            "spec.resourceClaims[0].resourceClaimName",
        ),
        (
            {"resourceClaims": [{"name": "Gpu", "resourceClaimName": "a"}]},
            "spec.resourceClaims[0].name",
        ),
        (
            {"resourceClaims": [{"name": "gpu", "resourceClaimName": "a"}] * 2},
            "spec.resourceClaims[1]",
        ),
        (
            {"containers": [{**CTR, "resources": {"claims": [{"name": "gpu"}]}}]},
            "spec.containers[0].resources.claims[0].name",
        ),
        (
            {"containers": [{**CTR, "resources": {"limits": {"nvidia.com/gpu": "many"}}}]},
            "spec.containers[0].resources.limits[nvidia.com/gpu]",
        ),
        (
            {"containers": [{**CTR, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]},
            "spec.containers[0].volumeMounts[0].name",
        ),
        ({"containers": [{**CTR, "env": [{"value": "x"}]}]}, "spec.containers[0].env[0].name"),
    ],
)
async def test_pods_have_rules(api: LocalApi, spec: Body, field: str) -> None:
    assert field in await causes(api, PODS, a_pod(**spec))


async def test_a_claim_has_one_source(api: LocalApi) -> None:
    both = {"name": "g", "resourceClaimName": "a", "resourceClaimTemplateName": "b"}
    assert await causes(api, PODS, a_pod(resourceClaims=[both])) == ["spec.resourceClaims[0]"]


async def test_the_spec_of_a_pod_hardly_changes(api: LocalApi) -> None:
    pod = await api.create(PODS, a_pod())
    pod["spec"]["containers"][0]["command"] = ["false"]
    with pytest.raises(Invalid, match="pod updates may not change fields other than"):
        await api.update(PODS, pod)


async def test_the_image_of_a_pod_may_change(api: LocalApi) -> None:
    pod = await api.create(PODS, a_pod())
    pod["spec"]["containers"][0]["image"] = "ubuntu:24.04"
    after = await api.update(PODS, pod)
    assert after["metadata"]["generation"] == 2


async def test_tolerations_are_only_added(api: LocalApi) -> None:
    pod = await api.create(PODS, a_pod(tolerations=[{"key": "a", "operator": "Exists"}]))
    pod["spec"]["tolerations"].append({"key": "b", "operator": "Exists"})
    pod = await api.update(PODS, pod)
    pod["spec"]["tolerations"] = []
    with pytest.raises(Invalid, match="existing toleration can not be modified"):
        await api.update(PODS, pod)


async def test_a_deployment_is_completed(api: LocalApi) -> None:
    spec = (await api.create(DEPLOYMENTS, a_deployment()))["spec"]
    assert spec["replicas"] == 1
    assert spec["template"]["spec"]["restartPolicy"] == "Always"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"selector": None}, "spec.selector"),
        ({"selector": {"matchLabels": {"app": "other"}}}, "spec.template.metadata.labels"),
        ({"template": {"spec": {}}}, "spec.template.spec.containers"),
        (
            {"template": {"spec": {"containers": [CTR], "restartPolicy": "Never"}}},
            "spec.template.spec.restartPolicy",
        ),
    ],
)
async def test_deployments_have_rules(api: LocalApi, change: Body, field: str) -> None:
    assert field in await causes(api, DEPLOYMENTS, a_deployment(**change))


async def test_the_selector_of_a_deployment_never_changes(api: LocalApi) -> None:
    body = await api.create(DEPLOYMENTS, a_deployment())
    labels = {"app": "web", "more": "x"}
    body["spec"]["template"]["metadata"]["labels"] = labels
    body["spec"]["selector"] = {"matchLabels": labels}
    with pytest.raises(Invalid, match=r"spec\.selector: .*field is immutable"):
        await api.update(DEPLOYMENTS, body)


async def test_a_deployment_is_scaled_through_its_own_door(api: LocalApi) -> None:
    await api.create(DEPLOYMENTS, a_deployment())
    scale = await api.patch(
        DEPLOYMENTS, "web", {"spec": {"replicas": 3}}, namespace="default", subresource="scale"
    )
    assert (scale["kind"], scale["spec"], scale["status"]["selector"]) == (
        "Scale",
        {"replicas": 3},
        "app=web",
    )
    assert (await api.get(DEPLOYMENTS, "web", namespace="default"))["spec"]["replicas"] == 3


async def test_nothing_is_scaled_below_zero(api: LocalApi) -> None:
    await api.create(DEPLOYMENTS, a_deployment())
    with pytest.raises(Invalid, match=r"spec\.replicas: Invalid value: -1"):
        await api.patch(
            DEPLOYMENTS, "web", {"spec": {"replicas": -1}}, namespace="default", subresource="scale"
        )


def a_job(**template: Any) -> Body:
    spec = {"containers": [CTR], "restartPolicy": "Never", **template}
    return {
        "metadata": {"name": "job", "namespace": "default"},
        "spec": {"template": {"spec": spec}},
    }


async def test_a_job_finds_its_pods_by_its_uid(api: LocalApi) -> None:
    job = await api.create(JOBS, a_job())
    uid = job["metadata"]["uid"]
    assert job["spec"]["selector"]["matchLabels"] == {"batch.kubernetes.io/controller-uid": uid}
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert labels["batch.kubernetes.io/job-name"] == "job"


async def test_a_job_does_not_restart_always(api: LocalApi) -> None:
    field = "spec.template.spec.restartPolicy"
    assert await causes(api, JOBS, a_job(restartPolicy="Always")) == [field]


@pytest.mark.parametrize(
    ("meta", "field"),
    [
        ({"labels": {"a b": "x"}}, "metadata.labels"),
        ({"labels": {"a": "x y"}}, "metadata.labels"),
        ({"labels": {"a": "x" * 64}}, "metadata.labels"),
        ({"annotations": {"a/b/c": "x"}}, "metadata.annotations"),
        ({"annotations": {"a": "x" * 262145}}, "metadata.annotations"),
        ({"finalizers": ["a b"]}, "metadata.finalizers[0]"),
        ({"ownerReferences": [{"kind": "Node"}]}, "metadata.ownerReferences[0].uid"),
    ],
)
async def test_metadata_has_rules(api: LocalApi, meta: Body, field: str) -> None:
    body = a_config_map()
    body["metadata"] |= meta
    assert field in await causes(api, CONFIG_MAPS, body)
