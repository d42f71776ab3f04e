"""What the command says of ComputeDomains: how they are, why, and how long to wait for them."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from nvdra_api.names import LABEL_COMPUTE_DOMAIN, NAMESPACE
from nvdra_cli.domains import DomainView, domain_views, is_daemon, needs_domains
from nvdra_cli.manifests import Manifest, load_manifests
from nvdra_cli.narration import Narrator
from nvdra_cli.pods import PodView
from nvdra_cli.report import Report, as_json, print_report
from nvdra_cli.watching import CALM_S, FORMING_S, QUIET_S, wait_s
from nvdra_testing.specs import DEMOS

Body = dict[str, Any]

LAME = "2 of 2 nodes are not ready: node-1: no daemon runs there"


def condition(kind: str, reason: str, message: str, *, holds: bool = False) -> Body:
    status = "True" if holds else "False"
    return {"type": kind, "status": status, "reason": reason, "message": message}


def a_node(name: str, status: str = "Ready", *, clique: str = "c.1") -> Body:
    return {"name": name, "cliqueID": clique, "index": 0, "ipAddress": "1.2.3.4", "status": status}


NOT_READY = {
    "status": "NotReady",
    "nodes": [a_node("node-1", "NotReady"), a_node("node-2", "NotReady")],
    "conditions": [condition("Ready", "NodeNotReady", LAME)],
}
READY = {
    "status": "Ready",
    "nodes": [a_node("node-1")],
    "conditions": [condition("Ready", "NodesReady", "all 1 nodes are ready", holds=True)],
}


def daemon(domain: str = "u", *, name: str = "d") -> tuple[Body, PodView]:
    labels = {LABEL_COMPUTE_DOMAIN: domain}
    body = {"metadata": {"namespace": NAMESPACE, "name": name, "labels": labels}}
    view = PodView(NAMESPACE, name, "Running", "node-1", "", (), ("main",), False)
    return body, view


def seen(status: Body | None, *daemons: tuple[Body, PodView]) -> DomainView:
    body: Body = {"metadata": {"namespace": "default", "name": "job", "uid": "u"}}
    if status is not None:
        body["status"] = status
    return domain_views({("default", "job"): body}, daemons)[0]


def manifest(kind: str = "Pod", version: str = "v1", **fields: Any) -> Manifest:
    return Manifest("f:1", {"apiVersion": version, "kind": kind, "metadata": {}, **fields})


def test_a_domain_that_nobody_has_looked_at_says_so() -> None:
    domain = seen(None)
    assert not domain.is_ready
    assert domain.why == "no controller has looked at it yet"


def test_why_a_domain_is_not_ready_is_what_its_condition_says() -> None:
    assert seen(NOT_READY).why == f"NodeNotReady: {LAME}"


def test_a_condition_that_does_not_hold_is_a_warning_beside_the_status() -> None:
    lonely = condition("Connected", "SeveralCliques", "nodes are in 2 NVLink cliques")
    domain = seen({**READY, "conditions": [*READY["conditions"], lonely]})
    assert domain.is_ready
    assert domain.warnings == ("SeveralCliques: nodes are in 2 NVLink cliques",)


def test_daemons_belong_to_the_domain_whose_label_they_bear() -> None:
    own, other = daemon("u", name="own"), daemon("another", name="other")
    assert [each.name for each in seen(READY, own, other).daemons] == ["own"]


@pytest.mark.parametrize(
    ("namespace", "labels", "expected"),
    [
        (NAMESPACE, {LABEL_COMPUTE_DOMAIN: "u"}, True),
        (NAMESPACE, {}, False),
        ("default", {LABEL_COMPUTE_DOMAIN: "u"}, False),
    ],
)
def test_only_labelled_pods_of_the_driver_are_daemons(
    namespace: str, labels: Body, expected: bool
) -> None:
    assert is_daemon({"metadata": {"namespace": namespace, "labels": labels}}) is expected


@pytest.mark.parametrize(
    ("manifests", "expected"),
    [
        ([], False),
        ([manifest()], False),
        ([manifest("ComputeDomain", "resource.nvidia.com/v1beta1")], True),
        ([manifest(spec={"class": "compute-domain-default-channel.nvidia.com"})], True),
        ([manifest(), manifest(spec=[{"driver": "compute-domain.nvidia.com"}])], True),
    ],
)
def test_what_serves_domains_is_started_for_manifests_that_need_it(
    manifests: list[Manifest], expected: bool
) -> None:
    assert needs_domains(manifests) is expected


@pytest.mark.parametrize(
    ("domain", "patience_s"),
    [
        (seen(READY), CALM_S),
        (seen(NOT_READY), FORMING_S),
        (seen({"status": "NotReady"}, daemon()), FORMING_S),
        (seen({"status": "NotReady"}), QUIET_S),
    ],
)
def test_a_domain_that_forms_is_waited_for_when_all_pods_run(
    domain: DomainView, patience_s: float
) -> None:
    pod = PodView("default", "p", "Running", "node-1", "", (), ("main",), False)
    assert wait_s([pod], [domain], missing=False) == patience_s


def test_progress_of_single_nodes_is_not_told() -> None:
    out = io.StringIO()
    narrator = Narrator(Console(file=out, width=200), since_s=0.0)
    for why in ("no daemon runs there", "daemon is not ready: Pending"):
        message = f"2 of 2 nodes are not ready: node-1: {why}"
        narrator.domain_changed(
            seen({**NOT_READY, "conditions": [condition("Ready", "NodeNotReady", message)]})
        )
    narrator.domain_changed(seen(READY))
    [first, second] = out.getvalue().splitlines()
    assert first.endswith(
        "ComputeDomain default/job NotReady: NodeNotReady: 2 of 2 nodes are not ready: "
        "node-1: no daemon runs there"
    )
    assert second.endswith("Ready: NodesReady: all 1 nodes are ready")


def printed(*domains: DomainView, logs: Any = None) -> str:
    out = io.StringIO()
    print_report(Report((), logs or {}, {}, 1.0, domains=domains), Console(file=out, width=200))
    return out.getvalue()


def test_the_report_shows_each_node_of_a_domain() -> None:
    rows = [line.split() for line in printed(seen(READY)).splitlines()]
    assert ["default/job", "Ready", "node-1", "c.1", "0", "1.2.3.4", "Ready"] in rows


def test_a_node_without_a_fabric_is_shown_as_one() -> None:
    assert "no fabric" in printed(seen({**READY, "nodes": [a_node("node-1", clique="")]}))


def test_a_domain_that_is_not_ready_is_explained_with_the_logs_of_its_daemons() -> None:
    logs = {(NAMESPACE, "d"): {"main": "cannot bind\n"}}
    text = printed(seen(NOT_READY, daemon()), logs=logs)
    assert LAME in text
    assert "cannot bind" in text


def test_daemons_of_a_ready_domain_say_nothing() -> None:
    logs = {(NAMESPACE, "d"): {"main": "readiness changed\n"}}
    assert "readiness changed" not in printed(seen(READY, daemon()), logs=logs)


def test_the_document_has_status_reason_nodes_conditions_and_daemons() -> None:
    logs = {(NAMESPACE, "d"): {"main": "cannot bind\n"}}
    report = Report((), logs, {}, 1.0, domains=(seen(NOT_READY, daemon()),))
    [entry] = json.loads(as_json(report))["computeDomains"]
    assert (entry["status"], entry["why"]) == ("NotReady", f"NodeNotReady: {LAME}")
    assert [node["name"] for node in entry["nodes"]] == ["node-1", "node-2"]
    assert [one["reason"] for one in entry["conditions"]] == ["NodeNotReady"]
    assert entry["daemons"][0]["logs"] == {"main": "cannot bind\n"}


def test_the_demo_of_a_domain_needs_what_serves_domains() -> None:
    assert needs_domains(load_manifests([DEMOS / "compute-domain.yaml"]))
    assert not needs_domains(load_manifests([DEMOS / "shared-gpu.yaml"]))
