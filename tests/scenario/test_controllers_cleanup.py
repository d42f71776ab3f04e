"""What goes with what: namespaces and content, owners and dependents, nodes and pods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_kube.api import Resource
from nvdra_kube.resources import (
    NAMESPACES,
    NODES,
    PODS,
    RESOURCE_CLAIM_TEMPLATES,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
)
from nvdra_testing.control_plane import a_namespace, control_plane
from nvdra_testing.dra_objects import a_claim, a_claim_template, a_pod, a_slice, some_gpus

if TYPE_CHECKING:
    from nvdra_kube.api import Body

CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")


def owned(body: Body, *owners: Body, kind: str = "ConfigMap") -> Body:
    body["metadata"]["ownerReferences"] = [
        {
            "apiVersion": "v1",
            "kind": kind,
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
        }
        for owner in owners
    ]
    return body


def a_config_map(name: str) -> Body:
    return {"metadata": {"name": name, "namespace": "default"}, "data": {}}


async def test_a_deleted_namespace_takes_everything_in_it_along() -> None:
    async with control_plane() as plane:
        await plane.add_node(gpus=1)
        await plane.add(NAMESPACES, a_namespace("team"))
        await plane.add(RESOURCE_CLAIM_TEMPLATES, a_claim_template("t", namespace="team"))
        await plane.add(RESOURCE_CLAIMS, a_claim("mine", namespace="team"))
        await plane.add(PODS, a_pod(namespace="team", template="t"))

        async def bound() -> bool:
            return bool((await plane.pod(namespace="team"))["spec"].get("nodeName"))

        await plane.until(bound)
        await plane.api.delete(NAMESPACES, "team")

        async def dying() -> bool:
            return "deletionTimestamp" in (await plane.pod(namespace="team"))["metadata"]

        await plane.until(dying)
        await plane.api.delete(PODS, "pod", namespace="team", grace_period_s=0)
        await plane.gone(NAMESPACES, "team")
        assert await plane.claims("team") == []


async def test_an_empty_namespace_goes_at_once() -> None:
    async with control_plane() as plane:
        await plane.add(NAMESPACES, a_namespace("team"))
        await plane.api.delete(NAMESPACES, "team")
        await plane.gone(NAMESPACES, "team")


async def test_dependents_follow_their_owner_through_the_generations() -> None:
    async with control_plane(scheduler=False) as plane:
        (parent,) = await plane.add(CONFIG_MAPS, a_config_map("parent"))
        (child,) = await plane.add(CONFIG_MAPS, owned(a_config_map("child"), parent))
        await plane.add(CONFIG_MAPS, owned(a_config_map("grandchild"), child))
        await plane.api.delete(CONFIG_MAPS, "parent", namespace="default")
        await plane.gone(CONFIG_MAPS, "grandchild")


async def test_a_dependent_stays_while_one_owner_lives() -> None:
    async with control_plane(scheduler=False) as plane:
        parents = await plane.add(CONFIG_MAPS, a_config_map("one"), a_config_map("two"))
        await plane.add(CONFIG_MAPS, owned(a_config_map("child"), *parents))
        (witness,) = await plane.add(CONFIG_MAPS, owned(a_config_map("witness"), parents[0]))
        await plane.api.delete(CONFIG_MAPS, "one", namespace="default")
        await plane.gone(CONFIG_MAPS, witness["metadata"]["name"])
        await plane.api.get(CONFIG_MAPS, "child", namespace="default")
        await plane.api.delete(CONFIG_MAPS, "two", namespace="default")
        await plane.gone(CONFIG_MAPS, "child")


async def test_an_object_whose_owner_was_replaced_by_a_namesake_goes() -> None:
    async with control_plane(scheduler=False) as plane:
        (parent,) = await plane.add(CONFIG_MAPS, a_config_map("parent"))
        child = owned(a_config_map("child"), parent)
        child["metadata"]["ownerReferences"][0]["uid"] = "00000000-0000-0000-0000-000000000000"
        await plane.add(CONFIG_MAPS, child)
        await plane.gone(CONFIG_MAPS, "child")
        await plane.api.get(CONFIG_MAPS, "parent", namespace="default")


async def test_an_owner_of_an_unknown_kind_counts_as_alive() -> None:
    async with control_plane(scheduler=False) as plane:
        (parent,) = await plane.add(CONFIG_MAPS, a_config_map("parent"))
        strange = owned(a_config_map("strange"), parent, kind="Unheard")
        await plane.add(CONFIG_MAPS, strange)
        await plane.add(CONFIG_MAPS, owned(a_config_map("w"), parent))
        await plane.api.delete(CONFIG_MAPS, "parent", namespace="default")
        await plane.gone(CONFIG_MAPS, "w")
        await plane.api.get(CONFIG_MAPS, "strange", namespace="default")


async def test_slices_and_pods_of_a_deleted_node_go_with_it() -> None:
    async with control_plane() as plane:
        await plane.add_node()
        node = await plane.api.get(NODES, "node-a")
        published = owned(a_slice(some_gpus(1)), node, kind="Node")
        await plane.add(RESOURCE_SLICES, published)
        await plane.add(PODS, a_pod())
        await plane.node_of()
        await plane.api.delete(NODES, "node-a")
        await plane.gone(RESOURCE_SLICES, published["metadata"]["name"])
        await plane.gone(PODS, "pod")
