"""What is written of nodes that change: every node has one entry, and every address one node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nvdra_api.gates import FeatureGates
from nvdra_api.names import LABEL_CLIQUE_ID, LABEL_COMPUTE_DOMAIN, clique_name
from nvdra_operator.cliques.members import members_of
from nvdra_operator.cliques.plan import plan_members
from nvdra_operator.domains.actions import Delete
from nvdra_testing.compute_domains import CLIQUE, some_settings
from nvdra_testing.scenes import UID, a_daemon_pod, a_joined_node, a_whole_scene, the_domain

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_operator.cliques.membership import Membership
    from nvdra_operator.domains.scene import Scene
    from nvdra_operator.settings import DriverSettings

OTHER = f"{CLIQUE}9"


def planned(scene: Scene, settings: DriverSettings | None = None) -> Membership:
    return plan_members(scene, members_of(scene), settings or some_settings())


def an_entry(node: str, *, ip: str, index: int, status: str = "Ready") -> Body:
    where = {"nodeName": node, "ipAddress": ip, "cliqueID": CLIQUE}
    return {**where, "index": index, "status": status}


def a_clique(*entries: Body) -> Body:
    labels = {LABEL_COMPUTE_DOMAIN: UID, LABEL_CLIQUE_ID: CLIQUE}
    meta = {"name": clique_name(UID, CLIQUE), "namespace": "driver", "labels": labels}
    return {"metadata": {**meta, "uid": "c", "resourceVersion": "5"}, "daemons": list(entries)}


def in_clique(membership: Membership, clique: str) -> list[str]:
    return [entry["name"] for entry in membership.entries if entry["cliqueID"] == clique]


def moved(**parts: Any) -> dict[str, Any]:
    """A node whose new daemon is in another clique than the old one, which is still ending."""
    old = a_daemon_pod("n1", name="old", ip="10.0.0.1", clique=CLIQUE)
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    new = a_daemon_pod("n1", name="new", ip="10.0.0.2", clique=OTHER, ready=True)
    return {"nodes": (a_joined_node("n1", clique=OTHER),), "pods": (old, new), **parts}


@pytest.mark.parametrize("with_cliques", [True, False])
def test_a_node_that_changes_its_clique_has_one_entry_and_keeps_both_slots(
    with_cliques: bool,
) -> None:
    gates = FeatureGates.parse(f"ComputeDomainCliques={str(with_cliques).lower()}")
    entry = an_entry("n1", ip="10.0.0.1", index=0)
    domain = the_domain()
    if not with_cliques:
        listed = {**entry, "name": entry.pop("nodeName")}
        domain = {**domain, "status": {"nodes": [listed]}}
    settings = some_settings(gates=gates)
    cliques = (a_clique(entry),) if with_cliques else ()
    scene = a_whole_scene(settings, **moved(domain=domain, cliques=cliques))
    found = planned(scene, settings)
    assert [(one["name"], one["cliqueID"]) for one in found.entries] == [("n1", OTHER)]
    assert found.suspects == ((CLIQUE, "n1"),)
    assert set(found.slots) == {CLIQUE, OTHER}


def test_a_node_that_loses_its_fabric_has_one_entry() -> None:
    clique = a_clique(an_entry("n1", ip="10.0.0.1", index=0))
    pod = a_daemon_pod("n1", ip="10.0.0.2", clique="", ready=True)
    scene = a_whole_scene(nodes=(a_joined_node("n1", clique=""),), pods=(pod,), cliques=(clique,))
    assert [(one["name"], one["index"]) for one in planned(scene).entries] == [("n1", -1)]


def test_an_address_is_that_of_the_daemon_that_has_it_now() -> None:
    clique = a_clique(
        an_entry("lost", ip="10.0.0.1", index=0), an_entry("n2", ip="10.0.0.2", index=1)
    )
    nodes = (a_joined_node("lost", ready="Unknown"), a_joined_node("n2"))
    pod = a_daemon_pod("n2", ip="10.0.0.1", clique=CLIQUE, ready=True)
    found = planned(a_whole_scene(nodes=nodes, pods=(pod,), cliques=(clique,)))
    assert in_clique(found, CLIQUE) == ["n2"]
    assert {node: slot.index for node, slot in found.slots[CLIQUE].items()} == {"lost": 0, "n2": 1}


def test_a_daemon_that_is_replaced_keeps_its_last_address_until_it_has_another() -> None:
    clique = a_clique(an_entry("n1", ip="10.0.0.1", index=0))
    scene = a_whole_scene(nodes=(a_joined_node("n1"),), cliques=(clique,))
    (entry,) = planned(scene).entries
    assert (entry["ipAddress"], entry["status"]) == ("10.0.0.1", "NotReady")


@pytest.mark.parametrize(
    ("told", "now", "ends"),
    [(CLIQUE, OTHER, True), (CLIQUE, "", True), (CLIQUE, CLIQUE, False), (None, OTHER, False)],
)
def test_only_the_daemon_of_a_node_that_is_in_another_clique_by_now_is_ended(
    told: str | None, now: str, ends: bool
) -> None:
    pod = a_daemon_pod("n1", ip="10.0.0.1", clique=told, ready=True)
    scene = a_whole_scene(nodes=(a_joined_node("n1", clique=now),), pods=(pod,))
    ended = [one for one in planned(scene).actions if isinstance(one, Delete)]
    assert [one.uid for one in ended] == ([pod["metadata"]["uid"]] if ends else [])


def test_a_daemon_that_is_ending_is_not_ended_once_more() -> None:
    pod = a_daemon_pod("n1", ip="10.0.0.1", clique=CLIQUE)
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    scene = a_whole_scene(nodes=(a_joined_node("n1", clique=OTHER),), pods=(pod,))
    assert not [one for one in planned(scene).actions if isinstance(one, Delete)]
