"""One pending pod against a snapshot of the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_sim.cluster.scheduler.assumed import Assumed
from nvdra_sim.cluster.scheduler.decision import Bind, Leave, Snapshot, decide
from nvdra_sim.cluster.scheduler.pools import gather_pools
from nvdra_testing.dra_objects import (
    a_claim,
    a_node,
    a_pod,
    a_slice,
    nvidia_classes,
    some_gpus,
)

if TYPE_CHECKING:
    from nvdra_kube.api import Body


def cluster(*nodes: str, claims: tuple[Body, ...] = (), pods: tuple[Body, ...] = ()) -> Snapshot:
    return Snapshot(
        nodes=[a_node(name) for name in nodes],
        pods=pods,
        claims={("default", claim["metadata"]["name"]): claim for claim in claims},
        classes=nvidia_classes(),
        pools=gather_pools(a_slice(some_gpus(1), node=name) for name in nodes),
    )


def pod(**extra: str) -> Body:
    body = a_pod(**extra)
    body["metadata"]["uid"] = "uid-of-pod"
    return body


def versioned(name: str, version: int, *, uid: str = "u") -> Body:
    metadata = {"name": name, "namespace": "n", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata}


def left(decision: Bind | Leave) -> Leave:
    assert isinstance(decision, Leave)
    return decision


def test_the_node_with_the_fewest_pods_is_taken() -> None:
    busy = a_pod("other", nodeName="a")
    decision = decide(pod(), cluster("a", "b", pods=(busy,)))
    assert isinstance(decision, Bind)
    assert decision.node == "b"


def test_finished_pods_do_not_count_as_load() -> None:
    done = {**a_pod("other", nodeName="a"), "status": {"phase": "Succeeded"}}
    decision = decide(pod(), cluster("a", "b", pods=(done,)))
    assert isinstance(decision, Bind)
    assert decision.node == "a"


def test_a_claim_that_is_being_deleted_is_not_used() -> None:
    claim = a_claim("mine")
    claim["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert (
        "is being deleted" in left(decide(pod(claim="mine"), cluster("a", claims=(claim,)))).message
    )


def test_a_generated_claim_of_another_pod_is_not_used() -> None:
    user = pod(template="t")
    user["status"] = {"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "c"}]}
    decision = left(decide(user, cluster("a", claims=(a_claim("c"),))))
    assert "was not made for this pod" in decision.message


def test_a_claim_with_too_many_users_is_not_used() -> None:
    claim = a_claim("mine")
    users = [{"resource": "pods", "name": f"p{n}", "uid": str(n)} for n in range(256)]
    claim["status"] = {"allocation": {"devices": {}}, "reservedFor": users}
    assert (
        "which is the limit"
        in left(decide(pod(claim="mine"), cluster("a", claims=(claim,)))).message
    )


def test_an_entry_for_which_no_claim_is_needed_is_passed_over() -> None:
    user = pod(template="t")
    user["status"] = {"resourceClaimStatuses": [{"name": "gpu"}]}
    assert isinstance(decide(user, cluster("a")), Bind)


def test_nodes_with_the_same_reason_are_told_together() -> None:
    user = pod()
    user["spec"]["nodeSelector"] = {"disk": "ssd"}
    message = left(decide(user, cluster("b", "a"))).message
    assert message == (
        "0/2 nodes are available: a, b: the pod's nodeSelector wants the label disk=ssd"
    )


def test_a_message_about_very_many_nodes_is_cut() -> None:
    users = tuple(
        {
            **a_claim(f"c-{n}"),
            "status": {
                "allocation": {
                    "devices": {
                        "results": [
                            {
                                "request": "gpu",
                                "driver": "gpu.nvidia.com",
                                "pool": f"node-{n}",
                                "device": "gpu-0",
                            }
                        ]
                    }
                }
            },
        }
        for n in range(100)
    )
    nodes = [f"node-{n}" for n in range(100)]
    message = left(
        decide(pod(claim="mine"), cluster(*nodes, claims=(*users, a_claim("mine"))))
    ).message
    assert len(message) == 4096
    assert message.endswith("…")


def test_an_own_write_counts_until_the_cache_has_caught_up() -> None:
    items = {("n", "c"): versioned("c", 5)}
    assumed = Assumed(items)
    assumed.remember(versioned("c", 6))
    assert assumed.current()["n", "c"] == versioned("c", 6)
    items["n", "c"] = versioned("c", 7)
    assert assumed.current()["n", "c"] == versioned("c", 7)


def test_an_own_write_to_an_object_that_is_gone_or_replaced_is_forgotten() -> None:
    items = {("n", "c"): versioned("c", 5)}
    assumed = Assumed(items)
    assumed.remember(versioned("c", 9))
    items["n", "c"] = versioned("c", 6, uid="another")
    assert assumed.current()["n", "c"] == versioned("c", 6, uid="another")
    assumed.remember(versioned("c", 10))
    del items["n", "c"]
    assert assumed.current() == {}
