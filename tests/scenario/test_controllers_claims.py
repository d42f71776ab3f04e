"""Claims made from templates, and claims that come free."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nvdra_kube.resources import PODS, RESOURCE_CLAIM_TEMPLATES, RESOURCE_CLAIMS
from nvdra_testing.control_plane import ControlPlane, control_plane
from nvdra_testing.dra_objects import a_claim, a_claim_template, a_pod, a_request

if TYPE_CHECKING:
    from nvdra_kube.api import Body


async def made_claims(plane: ControlPlane, *, count: int = 1) -> list[Body]:
    async def enough() -> list[Body]:
        found = await plane.claims()
        return found if len(found) == count else []

    return await plane.until(enough)


async def claim_names_of(plane: ControlPlane, name: str = "pod") -> dict[str, str]:
    async def named() -> dict[str, str]:
        statuses = (await plane.pod(name)).get("status", {}).get("resourceClaimStatuses", [])
        return {status["name"]: status["resourceClaimName"] for status in statuses}

    return await plane.until(named)


async def test_a_claim_is_made_from_the_template_and_named_in_the_pod() -> None:
    async with control_plane(scheduler=False) as plane:
        await plane.add(RESOURCE_CLAIM_TEMPLATES, a_claim_template("t", a_request(count=2)))
        (pod,) = await plane.add(PODS, a_pod(template="t"))
        names = await claim_names_of(plane)
        (claim,) = await plane.claims()
        metadata = claim["metadata"]
        assert names == {"gpu": metadata["name"]}
        assert metadata["name"].startswith("pod-gpu-")
        assert metadata["annotations"] == {"resource.kubernetes.io/pod-claim-name": "gpu"}
        (owner,) = metadata["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("Pod", pod["metadata"]["uid"])
        assert owner["controller"] is True
        assert claim["spec"]["devices"]["requests"][0]["exactly"]["count"] == 2


async def test_labels_and_annotations_of_the_template_go_into_the_claim() -> None:
    async with control_plane(scheduler=False) as plane:
        template = a_claim_template("t")
        template["spec"]["metadata"] = {"labels": {"team": "a"}, "annotations": {"x": "y"}}
        await plane.add(RESOURCE_CLAIM_TEMPLATES, template)
        await plane.add(PODS, a_pod(template="t"))
        (claim,) = await made_claims(plane)
        assert claim["metadata"]["labels"] == {"team": "a"}
        assert claim["metadata"]["annotations"]["x"] == "y"


async def test_two_entries_with_the_same_template_get_two_claims() -> None:
    async with control_plane(scheduler=False) as plane:
        await plane.add(RESOURCE_CLAIM_TEMPLATES, a_claim_template("t"))
        pod = a_pod()
        pod["spec"]["resourceClaims"] = [
            {"name": name, "resourceClaimTemplateName": "t"} for name in ("gpu0", "gpu1")
        ]
        await plane.add(PODS, pod)
        names = await claim_names_of(plane)
        assert sorted(names) == ["gpu0", "gpu1"]
        assert len(set(names.values())) == 2


async def test_a_template_that_comes_after_its_pod_is_used() -> None:
    async with control_plane(scheduler=False) as plane:
        await plane.add(PODS, a_pod(template="late"))
        await plane.add(RESOURCE_CLAIM_TEMPLATES, a_claim_template("late"))
        assert len(await made_claims(plane)) == 1


async def test_a_pod_with_a_long_name_gets_a_claim_too() -> None:
    async with control_plane(scheduler=False) as plane:
        await plane.add(RESOURCE_CLAIM_TEMPLATES, a_claim_template("t"))
        await plane.add(PODS, a_pod("p" * 63, template="t"))
        (claim,) = await made_claims(plane)
        assert len(claim["metadata"]["name"]) <= 63


async def test_nothing_is_made_twice_when_the_controllers_start_again() -> None:
    async with control_plane(scheduler=False) as plane:
        await plane.add(RESOURCE_CLAIM_TEMPLATES, a_claim_template("t"))
        await plane.add(PODS, a_pod(template="t"))
        before = await claim_names_of(plane)
        pod = await plane.pod()
        pod["status"]["resourceClaimStatuses"] = []
        await plane.api.update(PODS, pod, subresource="status")
        assert await claim_names_of(plane) == before
        assert len(await plane.claims()) == 1


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_the_claim_of_a_finished_pod_is_deleted_while_the_pod_stays(phase: str) -> None:
    async with control_plane() as plane:
        await plane.add_node(gpus=1)
        await plane.add(RESOURCE_CLAIM_TEMPLATES, a_claim_template("t"))
        await plane.add(PODS, a_pod(template="t"))
        await plane.node_of()
        (claim,) = await plane.claims()
        await plane.finish(phase=phase)
        await plane.gone(RESOURCE_CLAIMS, claim["metadata"]["name"])
        assert (await plane.pod())["status"]["phase"] == phase


async def test_the_claim_of_a_deleted_pod_is_deleted() -> None:
    async with control_plane() as plane:
        await plane.add_node(gpus=1)
        await plane.add(RESOURCE_CLAIM_TEMPLATES, a_claim_template("t"))
        await plane.add(PODS, a_pod(template="t"))
        await plane.node_of()
        (claim,) = await plane.claims()
        await plane.remove()
        await plane.gone(RESOURCE_CLAIMS, claim["metadata"]["name"])


async def test_a_claim_that_people_made_outlives_its_pod_without_allocation() -> None:
    async with control_plane() as plane:
        await plane.add_node(gpus=1)
        await plane.add(RESOURCE_CLAIMS, a_claim("mine"))
        await plane.add(PODS, a_pod(claim="mine"))
        await plane.node_of()
        await plane.remove()

        async def free() -> bool:
            (claim,) = await plane.claims()
            return not claim.get("status") and not claim["metadata"].get("finalizers")

        await plane.until(free)


async def test_a_terminating_pod_keeps_its_claim_until_it_is_gone() -> None:
    async with control_plane() as plane:
        await plane.add_node(gpus=1)
        await plane.add(RESOURCE_CLAIMS, a_claim("mine"))
        await plane.add(PODS, a_pod("doomed", claim="mine"), a_pod("other", claim="mine"))
        await plane.node_of("doomed")
        await plane.node_of("other")
        await plane.api.delete(PODS, "doomed", namespace="default")
        await plane.remove("other")

        async def users() -> list[str]:
            (claim,) = await plane.claims()
            names = [user["name"] for user in claim["status"]["reservedFor"]]
            return names if len(names) == 1 else []

        assert await plane.until(users) == ["doomed"]


async def test_a_claim_deleted_while_in_use_goes_after_its_pod() -> None:
    async with control_plane() as plane:
        await plane.add_node(gpus=1)
        await plane.add(RESOURCE_CLAIMS, a_claim("mine"))
        await plane.add(PODS, a_pod(claim="mine"))
        await plane.node_of()
        await plane.api.delete(RESOURCE_CLAIMS, "mine", namespace="default")
        (claim,) = await plane.claims()
        assert "allocation" in claim["status"]
        await plane.remove()
        await plane.gone(RESOURCE_CLAIMS, "mine")


async def test_a_user_that_is_no_pod_keeps_its_reservation() -> None:
    async with control_plane(scheduler=False) as plane:
        (claim,) = await plane.add(RESOURCE_CLAIMS, a_claim("mine"))
        group = {"apiGroup": "scheduling.k8s.io", "resource": "podgroups", "name": "g", "uid": "1"}
        gone = {"resource": "pods", "name": "p", "uid": "2"}
        claim["status"] = {
            "allocation": {"devices": {"results": []}},
            "reservedFor": [group, gone],
        }
        await plane.api.update(RESOURCE_CLAIMS, claim, subresource="status")

        async def only_group() -> bool:
            (claim,) = await plane.claims()
            return bool(claim["status"]["reservedFor"] == [group])

        await plane.until(only_group)
