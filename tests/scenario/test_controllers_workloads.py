"""Deployments, DaemonSets and Jobs become pods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nvdra_kube.resources import NODES, PODS, RESOURCE_CLAIM_TEMPLATES
from nvdra_sim.cluster.controllers.kinds import DAEMON_SETS, DEPLOYMENTS, JOBS, REPLICA_SETS
from nvdra_testing.control_plane import ControlPlane, control_plane
from nvdra_testing.dra_objects import a_claim_template, a_pod

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_kube.api import Body, Resource


def a_workload(resource: Resource, *, pod: Body | None = None, **spec: Any) -> Body:
    pod_spec = (pod or a_pod(restartPolicy="Never" if resource == JOBS else "Always"))["spec"]
    template = {"metadata": {"labels": {"app": "demo"}}, "spec": pod_spec}
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": "demo", "namespace": "default"},
        "spec": {
            "template": template,
            **({} if resource == JOBS else {"selector": {"matchLabels": {"app": "demo"}}}),
            **spec,
        },
    }


async def pods_when(plane: ControlPlane, wanted: Callable[[list[Body]], bool]) -> list[Body]:
    """All pods, as soon as they are as wanted."""

    async def found() -> list[list[Body]]:
        pods = (await plane.api.list(PODS, namespace="default"))["items"]
        return [pods] if wanted(pods) else []

    return (await plane.until(found))[0]


async def status_when(
    plane: ControlPlane, resource: Resource, wanted: Callable[[Body], bool]
) -> Body:
    async def found() -> Body:
        body = await plane.api.get(resource, "demo", namespace="default")
        status: Body = body.get("status") or {}
        return status if status and wanted(status) else {}

    return await plane.until(found)


async def set_ready(plane: ControlPlane, pods: list[Body]) -> None:
    for pod in pods:
        fresh = await plane.pod(pod["metadata"]["name"])
        fresh["status"]["phase"] = "Running"
        ready = {"type": "Ready", "status": "True"}
        fresh["status"]["conditions"] = [*fresh["status"].get("conditions", []), ready]
        await plane.api.update(PODS, fresh, subresource="status")


def all_bound(count: int) -> Callable[[list[Body]], bool]:
    return lambda pods: len(pods) == count and all(p["spec"].get("nodeName") for p in pods)


async def test_a_deployment_gets_its_pods_each_with_a_claim_of_its_own() -> None:
    async with control_plane() as plane:
        await plane.add_node(gpus=4)
        await plane.add(RESOURCE_CLAIM_TEMPLATES, a_claim_template("t"))
        pod = a_pod(template="t")
        await plane.add(DEPLOYMENTS, a_workload(DEPLOYMENTS, pod=pod, replicas=4))
        pods = await pods_when(plane, all_bound(4))
        assert {pod["metadata"]["labels"]["app"] for pod in pods} == {"demo"}
        assert len(await plane.claims()) == 4


async def test_the_status_of_a_deployment_counts_ready_pods() -> None:
    async with control_plane() as plane:
        await plane.add_node()
        await plane.add(DEPLOYMENTS, a_workload(DEPLOYMENTS, replicas=2))
        await set_ready(plane, await pods_when(plane, all_bound(2)))
        status = await status_when(plane, DEPLOYMENTS, lambda s: s.get("readyReplicas") == 2)
        assert status["conditions"][0] == {"type": "Available", "status": "True"}


async def test_a_deleted_or_failed_pod_is_replaced() -> None:
    async with control_plane() as plane:
        await plane.add_node()
        await plane.add(DEPLOYMENTS, a_workload(DEPLOYMENTS, replicas=1))
        (first,) = await pods_when(plane, all_bound(1))
        await plane.remove(first["metadata"]["name"])
        (second,) = await pods_when(plane, lambda p: all_bound(1)(p) and p[0] != first)
        assert second["metadata"]["name"] != first["metadata"]["name"]


async def test_scaling_down_deletes_pods() -> None:
    async with control_plane() as plane:
        await plane.add(DEPLOYMENTS, a_workload(DEPLOYMENTS, replicas=3))
        await pods_when(plane, lambda pods: len(pods) == 3)
        await plane.api.patch(DEPLOYMENTS, "demo", {"spec": {"replicas": 1}}, namespace="default")
        await pods_when(plane, lambda pods: len(pods) == 1)


async def test_a_changed_template_replaces_the_pods() -> None:
    async with control_plane() as plane:
        await plane.add(DEPLOYMENTS, a_workload(DEPLOYMENTS, replicas=2))
        old = await pods_when(plane, lambda pods: len(pods) == 2)
        labels = {"spec": {"template": {"metadata": {"labels": {"version": "2"}}}}}
        await plane.api.patch(DEPLOYMENTS, "demo", labels, namespace="default")
        names = {pod["metadata"]["name"] for pod in old}
        await pods_when(
            plane,
            lambda pods: len(pods) == 2 and not names & {pod["metadata"]["name"] for pod in pods},
        )


async def test_a_deleted_deployment_takes_its_pods_along() -> None:
    async with control_plane() as plane:
        await plane.add(DEPLOYMENTS, a_workload(DEPLOYMENTS, replicas=2))
        await pods_when(plane, lambda pods: len(pods) == 2)
        await plane.api.delete(DEPLOYMENTS, "demo", namespace="default")
        await pods_when(plane, lambda pods: not pods)
        assert (await plane.api.list(REPLICA_SETS, namespace="default"))["items"] == []


async def test_a_daemon_set_has_one_pod_on_each_node_also_on_later_ones() -> None:
    async with control_plane() as plane:
        await plane.add_node("node-a")
        await plane.add(DAEMON_SETS, a_workload(DAEMON_SETS))
        await pods_when(plane, all_bound(1))
        await plane.add_node("node-b")
        pods = await pods_when(plane, all_bound(2))
        assert {pod["spec"]["nodeName"] for pod in pods} == {"node-a", "node-b"}


async def test_a_daemon_set_leaves_a_node_that_it_no_longer_selects() -> None:
    async with control_plane() as plane:
        await plane.add_node("node-a", labels={"gpu": "yes"})
        pod = a_pod(nodeSelector={"gpu": "yes"})
        await plane.add(DAEMON_SETS, a_workload(DAEMON_SETS, pod=pod))
        (bound,) = await pods_when(plane, all_bound(1))
        node = await plane.api.get(NODES, "node-a")
        node["metadata"]["labels"] = {}
        await plane.api.update(NODES, node)

        async def dying() -> bool:
            found = await plane.pod(bound["metadata"]["name"])
            return "deletionTimestamp" in found["metadata"]

        await plane.until(dying)


async def test_the_status_of_a_daemon_set_counts_nodes() -> None:
    async with control_plane() as plane:
        await plane.add_node()
        await plane.add(DAEMON_SETS, a_workload(DAEMON_SETS))
        await set_ready(plane, await pods_when(plane, all_bound(1)))
        status = await status_when(plane, DAEMON_SETS, lambda s: s["numberReady"] == 1)
        assert status["desiredNumberScheduled"] == 1


async def test_a_job_is_complete_when_its_pods_succeeded() -> None:
    async with control_plane() as plane:
        await plane.add_node()
        await plane.add(JOBS, a_workload(JOBS, completions=2, parallelism=1))
        done: set[str] = set()
        while len(done) < 2:
            pods = await pods_when(plane, all_bound(len(done) + 1))
            (name,) = {pod["metadata"]["name"] for pod in pods} - done
            await plane.finish(name)
            done.add(name)
        status = await status_when(plane, JOBS, lambda s: s["succeeded"] == 2)
        assert status["conditions"][0]["type"] == "Complete"


async def test_a_job_fails_after_too_many_failed_pods() -> None:
    async with control_plane() as plane:
        await plane.add_node()
        await plane.add(JOBS, a_workload(JOBS, backoffLimit=0))
        (pod,) = await pods_when(plane, all_bound(1))
        await plane.finish(pod["metadata"]["name"], phase="Failed")
        status = await status_when(plane, JOBS, lambda s: s["failed"] == 1)
        assert status["conditions"][0]["type"] == "Failed"
