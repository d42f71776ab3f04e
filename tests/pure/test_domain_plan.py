"""From what is there to what is to be done, for the objects of one domain."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_api.gates import FeatureGates
from nvdra_api.names import (
    ANNOTATION_PROTOCOL,
    ANNOTATION_TEMPLATE,
    FINALIZER_COMPUTE_DOMAIN,
    LABEL_COMPUTE_DOMAIN,
)
from nvdra_operator.domains.actions import Create, Delete, Patch
from nvdra_operator.domains.objects import (
    daemon_set,
    daemon_template,
    workload_template,
)
from nvdra_operator.domains.plan import includes, plan_objects, plan_teardown
from nvdra_operator.domains.scene import Obstacle, Scene
from nvdra_testing.compute_domains import a_domain, some_settings
from nvdra_testing.scenes import (
    UID,
    a_daemon_pod,
    a_joined_node,
    a_whole_scene,
    stored,
    the_domain,
)

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_operator.settings import DriverSettings

SETTINGS = some_settings()


def planned(scene: Scene, settings: DriverSettings = SETTINGS) -> list[str]:
    """Each action in short."""
    return [told(action) for action in plan_objects(scene, settings).actions]


def torn_down(scene: Scene, **options: Any) -> list[str]:
    return [told(action) for action in plan_teardown(scene, **options).actions]


def told(action: Any) -> str:
    verb = type(action).__name__.lower()
    name = action.body["metadata"]["name"] if isinstance(action, Create) else action.name
    return f"{verb} {action.resource.kind} {name}"


def test_the_finalizer_is_put_on_before_anything_is_made() -> None:
    plan = plan_objects(Scene(domain=the_domain(finalizer=False)), SETTINGS)
    assert [told(action) for action in plan.stages[0]] == ["patch ComputeDomain job"]
    assert len(plan.stages[1]) == 3


def test_a_whole_domain_needs_nothing() -> None:
    assert planned(a_whole_scene()) == []


def test_what_the_server_adds_by_itself_is_no_difference() -> None:
    scene = a_whole_scene()
    grown = deepcopy(scene.daemon_sets[0])
    grown["spec"]["updateStrategy"] = {"type": "RollingUpdate"}
    grown["spec"]["template"]["spec"]["dnsPolicy"] = "ClusterFirst"
    grown["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = "Always"
    assert planned(a_whole_scene(daemon_sets=(grown,))) == []


def test_a_domain_in_another_namespace_of_the_driver_keeps_its_daemon_set_there() -> None:
    settings = some_settings(additional_namespaces=("old",))
    elsewhere = stored(daemon_set(the_domain(), some_settings(namespace="old", image="x")))
    scene = a_whole_scene(daemon_sets=(elsewhere,), templates=())
    assert planned(scene, settings) == ["create ResourceClaimTemplate job-channels"]


@pytest.mark.parametrize("busy", [True, False])
@pytest.mark.parametrize(
    "changed",
    [
        {"image": "nvdra:next"},
        {"gates": FeatureGates.parse("ComputeDomainCliques=false")},
        {"pull_secrets": ("registry",)},
        {"daemon_verbosity": 6},
        {"max_nodes": 9},
    ],
)
def test_other_settings_reach_a_domain_only_while_it_is_idle(
    busy: bool, changed: dict[str, Any]
) -> None:
    nodes = (a_joined_node("n1"),) if busy else ()
    scene = a_whole_scene(nodes=nodes)
    wanted = [] if busy else [f"patch DaemonSet computedomain-daemon-{UID}"]
    assert planned(scene, some_settings(**changed)) == wanted


def test_a_daemon_set_of_the_earlier_driver_is_renewed_while_idle_only() -> None:
    legacy = deepcopy(stored(daemon_set(the_domain(), SETTINGS)))
    del legacy["metadata"]["annotations"]
    pods = (a_daemon_pod("n1"),)
    assert a_whole_scene(daemon_sets=(legacy,)).is_legacy
    assert planned(a_whole_scene(daemon_sets=(legacy,), pods=pods)) == []
    (action,) = plan_objects(a_whole_scene(daemon_sets=(legacy,)), SETTINGS).actions
    assert isinstance(action, Patch)
    annotations = action.patch[2]["value"]  # type: ignore[index]
    assert annotations[ANNOTATION_PROTOCOL] == "1"
    assert annotations[ANNOTATION_TEMPLATE]


def test_a_daemon_set_of_a_domain_that_went_does_for_no_other_one() -> None:
    gone = stored(a_domain("gone"), uid="gone")
    theirs = deepcopy(stored(daemon_set(gone, SETTINGS)))
    theirs["metadata"]["labels"][LABEL_COMPUTE_DOMAIN] = UID
    scene = a_whole_scene(daemon_sets=(theirs,), nodes=(a_joined_node("n1"),))
    assert planned(scene) == [f"create DaemonSet computedomain-daemon-{UID}"]


def test_a_name_that_is_taken_is_not_tried_again_while_it_is_known_to_be() -> None:
    taken = Obstacle("ResourceClaimTemplate", "default", "job-channels", "somebody else")
    scene = a_whole_scene(templates=(), obstacles=(taken,))
    assert planned(scene) == [f"create ResourceClaimTemplate computedomain-daemon-{UID}"]


def test_a_claim_template_with_another_content_is_made_anew() -> None:
    altered = deepcopy(stored(workload_template(the_domain(), SETTINGS)))
    parameters = altered["spec"]["spec"]["devices"]["config"][0]["opaque"]["parameters"]
    parameters["domainID"] = "another"
    template = stored(daemon_template(the_domain(), SETTINGS))
    assert planned(a_whole_scene(templates=(template, altered))) == [
        "delete ResourceClaimTemplate job-channels"
    ]


def test_everything_goes_at_once_and_the_domain_last() -> None:
    scene = a_whole_scene(domain=the_domain(dying=True), nodes=(a_joined_node("n1"),))
    assert sorted(torn_down(scene)) == [
        f"delete DaemonSet computedomain-daemon-{UID}",
        f"delete ResourceClaimTemplate computedomain-daemon-{UID}",
        "delete ResourceClaimTemplate job-channels",
        "patch Node n1",
    ]
    assert not plan_teardown(scene).finished


def test_objects_that_hang_on_our_finalizer_are_let_go() -> None:
    dying = stored(daemon_set(the_domain(), SETTINGS), dying=True, finalizer=True)
    scene = a_whole_scene(templates=(), daemon_sets=(dying,))
    (action,) = plan_teardown(scene).actions
    assert isinstance(action, Patch)
    assert action.patch == {"metadata": {"finalizers": [], "resourceVersion": "7"}}


def test_finalizers_of_others_stay() -> None:
    dying = stored(daemon_set(the_domain(), SETTINGS), dying=True)
    dying["metadata"]["finalizers"] = ["theirs", FINALIZER_COMPUTE_DOMAIN]
    (action,) = plan_teardown(a_whole_scene(templates=(), daemon_sets=(dying,))).actions
    assert isinstance(action, Patch)
    assert isinstance(action.patch, dict)
    assert action.patch["metadata"]["finalizers"] == ["theirs"]


def test_daemons_are_waited_for_but_not_for_ever() -> None:
    scene = Scene(domain=the_domain(dying=True), pods=(a_daemon_pod("n1"),))
    assert "1 IMEX daemons" in plan_teardown(scene).waiting_for
    assert plan_teardown(scene, patient=False).finished


def test_a_deletion_names_the_very_object_it_means() -> None:
    actions = plan_teardown(a_whole_scene()).actions
    deletions = [action for action in actions if isinstance(action, Delete)]
    assert len(deletions) == 3
    assert all(action.uid for action in deletions)


def test_a_label_is_taken_off_only_if_it_is_still_this_domains() -> None:
    (action,) = plan_teardown(Scene(domain=the_domain(), nodes=(a_joined_node("n"),))).actions
    assert isinstance(action, Patch)
    assert action.tested
    assert action.patch[0] == {  # type: ignore[index]
        "op": "test",
        "path": "/metadata/labels/resource.nvidia.com~1computeDomain",
        "value": UID,
    }


_PARTS = {
    "daemon_sets": st.lists(st.booleans(), max_size=2),
    "templates": st.lists(st.booleans(), max_size=3),
    "nodes": st.integers(0, 3),
    "pods": st.integers(0, 2),
}


@given(st.fixed_dictionaries(_PARTS))
def test_a_teardown_either_acts_or_waits_or_is_finished(parts: dict[str, Any]) -> None:
    def objects(flags: list[bool], body: Body) -> tuple[Body, ...]:
        return tuple(stored(body, dying=flag, finalizer=flag) for flag in flags)

    scene = Scene(
        domain=the_domain(dying=True),
        daemon_sets=objects(parts["daemon_sets"], daemon_set(the_domain(), SETTINGS)),
        templates=objects(parts["templates"], workload_template(the_domain(), SETTINGS)),
        nodes=tuple(a_joined_node(f"n{n}") for n in range(parts["nodes"])),
        pods=tuple(a_daemon_pod(f"n{n}") for n in range(parts["pods"])),
    )
    plan = plan_teardown(scene)
    assert [bool(plan.stages), bool(plan.waiting_for), plan.finished].count(True) == 1


def test_daemons_have_what_they_need_and_no_rights() -> None:
    template = daemon_set(the_domain(), SETTINGS)["spec"]["template"]
    spec = template["spec"]
    (container,) = spec["containers"]
    names = {variable["name"] for variable in container["env"]}
    assert names >= {"POD_IP", "NODE_NAME", "POD_UID", "MAX_NODES_PER_IMEX_DOMAIN"}
    assert spec["nodeSelector"] == {LABEL_COMPUTE_DOMAIN: UID}
    assert spec["automountServiceAccountToken"] is False
    assert spec["priorityClassName"] == "system-node-critical"
    assert {one["effect"] for one in spec["tolerations"]} == {
        "NoSchedule",
        "NoExecute",
        "PreferNoSchedule",
    }
    assert container["readinessProbe"]["httpGet"] == {"path": "/ready", "port": 50006}
    assert container["securityContext"]["runAsUser"] == 0
    assert template["metadata"]["annotations"][ANNOTATION_PROTOCOL] == "1"


def test_more_than_asked_for_is_enough() -> None:
    assert includes({"a": 1, "b": [{"c": 2, "d": 3}]}, {"b": [{"c": 2}]})
    assert not includes({"b": [{"c": 2}, {}]}, {"b": [{"c": 2}]})
    assert not includes({"a": "1"}, {"a": 1})
