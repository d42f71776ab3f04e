"""Pods, claims and devices on the embedded control plane, with the test as the kubelet."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from nvdra_kube.resources import (
    DEVICE_CLASSES,
    EVENTS,
    NODES,
    PODS,
    RESOURCE_CLAIM_TEMPLATES,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
)
from nvdra_sim.cluster.apiserver import Fault
from nvdra_sim.cluster.scheduler import Scheduler
from nvdra_testing.control_plane import ControlPlane, control_plane
from nvdra_testing.dra_objects import (
    a_claim,
    a_claim_template,
    a_pod,
    a_request,
    a_slice,
    some_gpus,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from nvdra_kube.api import Body

TEMPLATE = a_claim_template("single-gpu")


async def test_two_pods_get_two_gpus_and_the_third_is_told_why_it_waits() -> None:
    async with control_plane() as plane:
        await plane.add_node(gpus=2)
        await plane.add(RESOURCE_CLAIM_TEMPLATES, TEMPLATE)
        await plane.add(PODS, *(a_pod(f"pod{n}", template="single-gpu") for n in range(3)))
        taken = {*await plane.devices_of("pod0"), *await plane.devices_of("pod1")}
        assert taken == {"gpu-0", "gpu-1"}
        # What was said of the pod before its claim was there is no news.
        reason = await plane.why_pending("pod2", about="0/1 nodes are available: ")
        assert "node-a: claim default/pod2-gpu-" in reason
        assert "gpu-0: in use by claim default/pod" in reason


async def test_a_waiting_pod_gets_the_gpu_of_a_pod_that_ended() -> None:
    async with control_plane() as plane:
        await plane.add_node(gpus=1)
        await plane.add(RESOURCE_CLAIM_TEMPLATES, TEMPLATE)
        await plane.add(PODS, a_pod("first", template="single-gpu"))
        await plane.node_of("first")
        await plane.add(PODS, a_pod("second", template="single-gpu"))
        await plane.why_pending("second")
        await plane.finish("first")
        assert await plane.devices_of("second") == ["gpu-0"]


async def test_a_claim_is_protected_before_it_is_allocated_and_reserved_for_its_pod() -> None:
    async with control_plane() as plane:
        await plane.add_node(gpus=1)
        await plane.add(RESOURCE_CLAIMS, a_claim("mine"))
        (pod,) = await plane.add(PODS, a_pod(claim="mine"))
        assert await plane.node_of() == "node-a"
        (claim,) = await plane.claims()
        assert claim["metadata"]["finalizers"] == ["resource.kubernetes.io/delete-protection"]
        user = {"resource": "pods", "name": "pod", "uid": pod["metadata"]["uid"]}
        assert claim["status"]["reservedFor"] == [user]


async def test_two_pods_share_one_claim_and_its_gpu() -> None:
    async with control_plane() as plane:
        await plane.add_node(gpus=4)
        await plane.add(RESOURCE_CLAIMS, a_claim("shared"))
        await plane.add(PODS, a_pod("a", claim="shared"), a_pod("b", claim="shared"))
        assert await plane.devices_of("a") == await plane.devices_of("b") == ["gpu-0"]


async def test_a_second_user_follows_a_shared_claim_to_its_node() -> None:
    async with control_plane() as plane:
        for name in ("node-a", "node-b"):
            await plane.add_node(name, gpus=1)
        await plane.add(RESOURCE_CLAIMS, a_claim("shared"))
        pods = [a_pod(f"pod{n}", claim="shared") for n in range(3)]
        await plane.add(PODS, *pods)
        assert len({await plane.node_of(f"pod{n}") for n in range(3)}) == 1


async def test_a_shared_claim_is_freed_only_by_its_last_pod() -> None:
    async with control_plane() as plane:
        await plane.add_node(gpus=1)
        await plane.add(RESOURCE_CLAIMS, a_claim("shared"))
        await plane.add(PODS, a_pod("a", claim="shared"), a_pod("b", claim="shared"))
        await plane.node_of("a")
        await plane.node_of("b")
        await plane.remove("a")

        async def users() -> list[str]:
            (claim,) = await plane.claims()
            return [user["name"] for user in claim["status"].get("reservedFor", [])]

        async def only_b() -> bool:
            return await users() == ["b"]

        await plane.until(only_b)
        (claim,) = await plane.claims()
        assert "allocation" in claim["status"]
        await plane.remove("b")

        async def freed() -> bool:
            (claim,) = await plane.claims()
            return "allocation" not in claim.get("status", {})

        await plane.until(freed)


async def test_pods_spread_over_nodes() -> None:
    async with control_plane() as plane:
        for name in ("node-a", "node-b"):
            await plane.add_node(name, gpus=4)
        await plane.add(RESOURCE_CLAIM_TEMPLATES, TEMPLATE)
        await plane.add(PODS, *(a_pod(f"pod{n}", template="single-gpu") for n in range(4)))
        nodes = [await plane.node_of(f"pod{n}") for n in range(4)]
        assert sorted(nodes) == ["node-a", "node-a", "node-b", "node-b"]


async def test_a_pod_without_claims_needs_only_a_ready_node() -> None:
    async with control_plane() as plane:
        await plane.add(PODS, a_pod())
        assert await plane.why_pending() == "there are no nodes"
        await plane.add_node()
        assert await plane.node_of() == "node-a"


async def test_a_node_selector_and_taints_are_respected() -> None:
    async with control_plane() as plane:
        await plane.add_node("tainted", taints=[{"key": "k", "effect": "NoSchedule"}])
        await plane.add_node("plain")
        await plane.add(PODS, a_pod(nodeSelector={"kubernetes.io/hostname": "tainted"}))
        reason = await plane.why_pending()
        assert "tainted: the pod does not tolerate the node's taint k:NoSchedule" in reason
        assert "plain: the pod's nodeSelector wants the label" in reason


async def test_an_extended_resource_that_no_node_offers_keeps_the_pod_waiting() -> None:
    async with control_plane() as plane:
        await plane.add_node()
        pod = a_pod()
        pod["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
        await plane.add(PODS, pod)
        assert "does not offer the resource nvidia.com/gpu" in await plane.why_pending()


async def test_slices_that_come_late_are_used_at_once() -> None:
    async with control_plane() as plane:
        await plane.add_node()
        await plane.add(RESOURCE_CLAIMS, a_claim("mine"))
        await plane.add(PODS, a_pod(claim="mine"))
        assert "no ResourceSlices from any driver" in await plane.why_pending()
        await plane.add(RESOURCE_SLICES, a_slice(some_gpus(1)))
        assert await plane.devices_of() == ["gpu-0"]


async def test_a_class_that_comes_late_is_used_at_once() -> None:
    async with control_plane() as plane:
        await plane.add_node(gpus=1)
        await plane.add(RESOURCE_CLAIMS, a_claim("c", a_request(device_class="my-class")))
        await plane.add(PODS, a_pod(claim="c"))
        assert "device class my-class does not exist" in await plane.why_pending()
        await plane.add(DEVICE_CLASSES, {"metadata": {"name": "my-class"}, "spec": {}})
        assert await plane.devices_of() == ["gpu-0"]


async def test_a_missing_claim_is_named_and_picked_up_when_it_comes() -> None:
    async with control_plane() as plane:
        await plane.add_node(gpus=1)
        await plane.add(PODS, a_pod(claim="later"))
        assert await plane.why_pending() == "ResourceClaim default/later does not exist"
        await plane.add(RESOURCE_CLAIMS, a_claim("later"))
        assert await plane.devices_of() == ["gpu-0"]


async def test_a_missing_template_is_named() -> None:
    async with control_plane() as plane:
        await plane.add_node(gpus=1)
        await plane.add(PODS, a_pod(template="nowhere"))
        assert "made from the template nowhere" in await plane.why_pending()


async def test_events_say_what_happened_to_a_pod_and_only_once() -> None:
    async with control_plane() as plane:
        await plane.add_node()
        await plane.add(RESOURCE_CLAIMS, a_claim("mine"))
        await plane.add(PODS, a_pod(claim="mine"))
        await plane.why_pending()
        await plane.add_node("node-b")
        await plane.why_pending(but=await plane.why_pending())
        await plane.add(RESOURCE_SLICES, a_slice(some_gpus(1)))

        async def reasons() -> list[str]:
            found = (await plane.api.list(EVENTS, namespace="default"))["items"]
            names = sorted(event["reason"] for event in found)
            return names if "Scheduled" in names else []

        assert set(await plane.until(reasons)) == {"FailedScheduling", "Scheduled"}


async def test_conflicts_and_server_errors_only_delay() -> None:
    async with control_plane() as plane:
        await plane.add_node(gpus=1)
        await plane.add(RESOURCE_CLAIMS, a_claim("mine"))
        for verb in ("update", "create"):
            for status in (409, 503):
                fault = Fault(verb=verb, resource="resourceclaims", status=status, count=2)
                plane.store.faults.add(fault)
        plane.store.faults.add(Fault(resource="pods", subresource="binding", status=500, count=2))
        await plane.add(PODS, a_pod(claim="mine"))
        assert await plane.devices_of() == ["gpu-0"]


async def test_a_pod_for_another_scheduler_is_left_alone() -> None:
    async with control_plane() as plane:
        await plane.add_node()
        await plane.add(PODS, a_pod("theirs", schedulerName="other"), a_pod("ours"))
        await plane.node_of("ours")
        assert "nodeName" not in (await plane.pod("theirs"))["spec"]


async def test_devices_of_a_claim_on_the_wrong_node_are_given_up() -> None:
    """An allocation that only this pod has must not keep it off every node for ever."""
    async with control_plane() as plane:
        await plane.add_node("node-a", gpus=1)
        await plane.add_node("node-b", gpus=1)
        await plane.add(RESOURCE_CLAIMS, a_claim("a"), a_claim("b"))
        await plane.add(PODS, a_pod("holder", claim="a", nodeSelector={"x": "none"}))
        await plane.why_pending("holder")
        claim = await plane.api.get(RESOURCE_CLAIMS, "a", namespace="default")
        need = {"key": "metadata.name", "operator": "In", "values": ["vanished"]}
        claim["status"] = {
            "allocation": {
                "devices": {"results": []},
                "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [need]}]},
            }
        }
        await plane.api.update(RESOURCE_CLAIMS, claim, subresource="status")
        await plane.add(PODS, a_pod("pod", claim="a"))
        assert await plane.devices_of("pod") == ["gpu-0"]


async def test_many_pods_share_the_gpus_of_many_nodes_without_overlap() -> None:
    async with control_plane() as plane:
        for number in range(4):
            await plane.add_node(f"node-{number}", gpus=4)
        await plane.add(RESOURCE_CLAIM_TEMPLATES, TEMPLATE)
        await plane.add(PODS, *(a_pod(f"pod{n}", template="single-gpu") for n in range(16)))
        for number in range(16):
            await plane.node_of(f"pod{number}")
        results = [
            (result["pool"], result["device"])
            for claim in await plane.claims()
            for result in claim["status"]["allocation"]["devices"]["results"]
        ]
        assert len(results) == len(set(results)) == 16


async def test_a_node_that_becomes_ready_is_used() -> None:
    async with control_plane() as plane:
        await plane.add_node()
        node = await plane.api.get(NODES, "node-a")
        node["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
        node = await plane.api.update(NODES, node, subresource="status")
        await plane.add(PODS, a_pod())
        assert "node-a: the node is not ready" in await plane.why_pending()
        node["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
        await plane.api.update(NODES, node, subresource="status")
        assert await plane.node_of() == "node-a"


async def test_a_new_scheduler_finishes_what_the_last_one_began() -> None:
    """The claim is allocated, the pod not bound: the devices must neither leak nor change."""
    async with control_plane(scheduler=False) as plane:
        await plane.add_node(gpus=2)
        await plane.add(RESOURCE_CLAIMS, a_claim("mine"))
        await plane.add(PODS, a_pod(claim="mine"))
        broken = plane.store.faults.add(Fault(resource="pods", subresource="binding", status=500))
        async with running(Scheduler(plane.api).run()):
            allocation = await allocation_of(plane, "mine")
        plane.store.faults.remove(broken)
        async with running(Scheduler(plane.api).run()):
            await plane.node_of()
        assert await allocation_of(plane, "mine") == allocation


async def test_a_pod_deleted_before_it_was_bound_leaves_no_devices_behind() -> None:
    async with control_plane() as plane:
        await plane.add_node(gpus=1)
        await plane.add(RESOURCE_CLAIMS, a_claim("mine"))
        plane.store.faults.add(Fault(resource="pods", subresource="binding", status=500))
        await plane.add(PODS, a_pod(claim="mine"))
        await allocation_of(plane, "mine")
        await plane.remove()

        async def free() -> bool:
            (claim,) = await plane.claims()
            return not claim.get("status") and not claim["metadata"].get("finalizers")

        await plane.until(free)


async def allocation_of(plane: ControlPlane, name: str) -> Body:
    async def allocation() -> Body:
        claim = await plane.api.get(RESOURCE_CLAIMS, name, namespace="default")
        found: Body = claim.get("status", {}).get("allocation", {})
        return found

    return await plane.until(allocation)


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work, name="scheduler under test")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
