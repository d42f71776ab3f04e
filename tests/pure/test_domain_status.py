"""What the status of a domain says."""

from __future__ import annotations

from typing import Any

import pytest

from nvdra_api.gates import FeatureGates
from nvdra_operator.cliques.members import hindrances, members_of
from nvdra_operator.cliques.plan import plan_members
from nvdra_operator.domains.scene import Obstacle, Scene
from nvdra_operator.domains.status import Assessment, assess, merged_status, same_status
from nvdra_testing.compute_domains import CLIQUE, some_settings
from nvdra_testing.scenes import a_daemon_pod, a_joined_node, a_whole_scene, the_domain

SETTINGS = some_settings()


def assessed(scene: Scene, **options: Any) -> Assessment:
    members = members_of(scene)
    return assess(
        scene,
        options.pop("settings", SETTINGS),
        membership=plan_members(scene, members, SETTINGS),
        hindrances=hindrances(scene, members),
        **options,
    )


def reason_of(assessment: Assessment, kind: str = "Ready") -> str:
    return next(one.reason for one in assessment.findings if one.type == kind)


def message_of(assessment: Assessment, kind: str = "Ready") -> str:
    return next(one.message for one in assessment.findings if one.type == kind)


def formed(*ready: bool, num_nodes: int = 0) -> Scene:
    """A domain with a node for each flag."""
    return a_whole_scene(
        domain=the_domain(num_nodes=num_nodes),
        nodes=tuple(a_joined_node(f"n{n}") for n in range(len(ready))),
        pods=tuple(
            a_daemon_pod(f"n{n}", ip=f"10.0.0.{n}", ready=flag) for n, flag in enumerate(ready)
        ),
    )


@pytest.mark.parametrize(
    ("ready", "num_nodes", "status", "reason"),
    [
        ((), 0, "Ready", "NoNodesYet"),
        ((), 2, "NotReady", "WaitingForNodes"),
        ((True,), 2, "NotReady", "WaitingForNodes"),
        ((True, True), 2, "Ready", "NodesReady"),
        ((True, True, True), 2, "Ready", "NodesReady"),
        ((True, False), 2, "NotReady", "NodeNotReady"),
        ((True, False), 0, "NotReady", "NodeNotReady"),
    ],
)
def test_a_domain_is_ready_when_all_its_nodes_are(
    ready: tuple[bool, ...], num_nodes: int, status: str, reason: str
) -> None:
    found = assessed(formed(*ready, num_nodes=num_nodes))
    assert (found.status, reason_of(found)) == (status, reason)


def test_a_node_whose_daemon_cannot_be_placed_is_named_with_the_reason() -> None:
    pod = a_daemon_pod()
    pod["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "message": "cannot allocate all claims"}
    ]
    scene = a_whole_scene(domain=the_domain(num_nodes=1), nodes=(a_joined_node("n1"),), pods=(pod,))
    message = message_of(assessed(scene))
    assert "waiting for n1: daemon cannot be placed: cannot allocate all claims" in message


def test_of_two_daemons_that_cannot_be_placed_each_has_its_own_reason() -> None:
    pods = []
    for name, message in (("n1", "too little memory"), ("n2", "no device")):
        pod = a_daemon_pod(name=f"for-{name}")
        field = {"key": "metadata.name", "operator": "In", "values": [name]}
        terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
        required = {"requiredDuringSchedulingIgnoredDuringExecution": terms}
        pod["spec"]["affinity"] = {"nodeAffinity": required}
        pod["status"]["conditions"] = [
            {"type": "PodScheduled", "status": "False", "message": message}
        ]
        pods.append(pod)
    scene = a_whole_scene(nodes=(a_joined_node("n1"), a_joined_node("n2")), pods=tuple(pods))
    message = message_of(assessed(scene), "Connected")
    assert "n1: daemon cannot be placed: too little memory" in message
    assert "n2: daemon cannot be placed: no device" in message


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"nodes": (a_joined_node("n1"),)}, "n1: daemon has no pod yet"),
        (
            {"nodes": (a_joined_node("n1", ready="Unknown"),)},
            "n1: node is not ready: no report",
        ),
        (
            {"nodes": (a_joined_node("n1"),), "pods": (a_daemon_pod("n1"),)},
            "n1: daemon is not ready: starting",
        ),
        (
            {"nodes": (a_joined_node("n1"),), "pods": (a_daemon_pod("n1", ready=True),)},
            "n1: daemon has no address yet",
        ),
    ],
)
def test_a_node_that_joined_and_does_not_take_part_is_named_with_the_reason(
    parts: dict[str, Any], why: str
) -> None:
    found = assessed(a_whole_scene(**parts))
    assert (found.status, reason_of(found, "Connected")) == ("Ready", "WaitingForDaemons")
    assert why in message_of(found, "Connected")
    assert why in message_of(found)


def test_what_keeps_a_container_from_running_is_told() -> None:
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    pod = a_daemon_pod("n1", ip="10.0.0.1", containerStatuses=[{"state": {"waiting": waiting}}])
    scene = a_whole_scene(nodes=(a_joined_node("n1"),), pods=(pod,))
    assert "n1: daemon is not ready: ImagePullBackOff: no such image" in message_of(assessed(scene))


def test_where_the_kubelet_says_nothing_the_events_of_the_pod_are_pointed_at() -> None:
    waiting = {"reason": "ContainerCreating"}
    pod = a_daemon_pod("n1", containerStatuses=[{"state": {"waiting": waiting}}])
    scene = a_whole_scene(nodes=(a_joined_node("n1"),), pods=(pod,))
    assert "ContainerCreating; see the events of pod daemon-n1" in message_of(assessed(scene))


def test_a_node_whose_daemon_went_is_not_ready_for_that_reason() -> None:
    scene = formed(True)
    entry = {"name": "n0", "ipAddress": "10.0.0.0", "cliqueID": CLIQUE, "index": 0}
    settings = some_settings(gates=FeatureGates.parse("ComputeDomainCliques=false"))
    domain = {**scene.domain, "status": {"nodes": [{**entry, "status": "Ready"}]}}
    gone = a_whole_scene(settings, domain=domain, nodes=scene.nodes)
    found = assess(
        gone,
        settings,
        membership=plan_members(gone, (), settings),
        hindrances=hindrances(gone, ()),
    )
    assert reason_of(found) == "NodeNotReady"
    assert "n0: daemon has no pod yet" in message_of(found)


def test_many_nodes_do_not_make_a_long_message() -> None:
    message = message_of(assessed(formed(*[False] * 12)))
    assert message.startswith("12 of 12 nodes are not ready: n0, n1, n10, n11, n2 and 7 more: ")
    assert message.endswith("daemon is not ready: starting")


def test_a_conflict_comes_before_everything_else() -> None:
    taken = Obstacle("ResourceClaimTemplate", "default", "job-channels", "somebody else")
    scene = a_whole_scene(obstacles=(taken,))
    found = assessed(scene)
    assert found.status == "NotReady"
    assert reason_of(found) == reason_of(found, "Accepted") == "ClaimTemplateConflict"


def test_trouble_of_the_controller_is_told() -> None:
    found = assessed(a_whole_scene(), trouble="create daemonsets: forbidden")
    assert reason_of(found, "Accepted") == "ObjectsNotWritten"


def test_several_cliques_are_told() -> None:
    scene = a_whole_scene(
        nodes=(a_joined_node("a", clique="c.1"), a_joined_node("b", clique="c.2")),
        pods=(a_daemon_pod("a", ip="10.0.0.1"), a_daemon_pod("b", ip="10.0.0.2")),
    )
    assert reason_of(assessed(scene), "Connected") == "SeveralCliques"


def test_hosts_that_manage_their_daemons_make_a_domain_ready_at_once() -> None:
    found = assessed(a_whole_scene(), settings=some_settings(host_managed=True))
    assert (found.status, found.nodes, reason_of(found)) == ("Ready", (), "HostManaged")


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    first = merged_status(assessed(formed()), {}, generation=1, now="then")
    same = merged_status(assessed(formed(True)), first, generation=1, now="now")
    other = merged_status(assessed(formed(False)), first, generation=1, now="now")
    assert _time(first) == _time(same) == "then"
    assert _time(other) == "now"


def test_conditions_of_others_stay() -> None:
    theirs = {"type": "Theirs", "status": "True", "reason": "R", "message": ""}
    status = merged_status(assessed(formed()), {"conditions": [theirs]}, generation=1, now="t")
    assert theirs in status["conditions"]


def test_the_order_of_nodes_is_no_difference() -> None:
    status = merged_status(assessed(formed(True, True)), {}, generation=1, now="t")
    turned = {**status, "nodes": list(reversed(status["nodes"]))}
    assert same_status(status, turned)
    assert not same_status(status, {**turned, "nodes": turned["nodes"][:1]})
    assert not same_status(status, {})


def test_of_two_daemons_on_a_node_the_one_that_stays_counts() -> None:
    old = a_daemon_pod("n1", name="old", ip="10.0.0.1", ready=True)
    old["metadata"]["deletionTimestamp"] = "now"
    new = a_daemon_pod("n1", name="new", ip="10.0.0.2")
    scene = a_whole_scene(nodes=(a_joined_node("n1"),), pods=(new, old))
    (member,) = members_of(scene)
    assert (member.pod, member.ready) == ("new", False)


def _time(status: dict[str, Any]) -> str:
    return str(status["conditions"][0]["lastTransitionTime"])
