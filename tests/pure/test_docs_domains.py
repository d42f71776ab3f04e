"""The pages of ComputeDomains say what controller, plugin and daemon do, no more and no less."""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import TYPE_CHECKING, Any

import yaml
from prometheus_client import CollectorRegistry

import nvdra_nodeagent.imex
from nvdra_api.domains import READY
from nvdra_api.gates import FeatureGates
from nvdra_kube.transport import Exchange
from nvdra_nodeagent.computedomain.daemon_words import DaemonWords
from nvdra_nodeagent.computedomain.metrics import DomainMetrics
from nvdra_nodeagent.computedomain.options import DOMAIN_FLAGS
from nvdra_nodeagent.imex.options import read_options
from nvdra_operator.domains import status
from nvdra_operator.metrics import ControllerMetrics
from nvdra_operator.options import FLAGS, NO_EFFECT
from nvdra_testing.documents import ROOT, code, paragraph, rows_under

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pytest
    from prometheus_client import Metric

USER, CONTROLLER, NODE = (
    "compute-domains.md",
    "compute-domain-controller.md",
    "compute-domain-agent.md",
)
CRD = ROOT / "crds" / "resource.nvidia.com_computedomains.yaml"
_REASON = re.compile(r"(?:[A-Z][a-z]+){1,6}")


def schema() -> dict[str, Any]:
    [version] = yaml.safe_load(CRD.read_text())["spec"]["versions"]
    found: dict[str, Any] = version
    return found


# The API


def test_the_fields_of_a_domain_are_those_of_the_schema() -> None:
    spec = schema()["schema"]["openAPIV3Schema"]["properties"]["spec"]
    named = {code(row["field of `spec`"])[0] for row in rows_under(USER, "A job of several nodes")}
    assert named == set(_leaves(spec))


def _leaves(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, inner in node.get("properties", {}).items():
        path = f"{prefix}{name}"
        if "properties" in inner:
            yield from _leaves(inner, f"{path}.")
        else:
            yield path


def test_the_columns_are_those_that_kubectl_shows() -> None:
    text = paragraph(USER, "The columns (`cd` for short)")
    columns = [column["name"].upper() for column in schema()["additionalPrinterColumns"]]
    assert sorted(word for word in code(text) if word.isupper()) == sorted(columns)


def test_every_reason_of_a_condition_is_in_the_table() -> None:
    rows = rows_under(USER, "What to see")
    written = {(kind, code(row["reason"])[0]) for row in rows for kind in code(row["condition"])}
    assert {kind for kind, _ in written} == {
        status.CONDITION_READY,
        status.CONDITION_ACCEPTED,
        status.CONDITION_CONNECTED,
    }
    source = (ROOT / "operator" / "nvdra_operator" / "domains" / "status.py").read_text()
    others = {READY, *(kind for kind, _ in written), "True", "False", "ResourceClaimTemplate"}
    known = {word for word in re.findall(r'"([^"]*)"', source) if _REASON.fullmatch(word)}
    assert {reason for _, reason in written} == known - others


# The controller


def test_the_table_of_the_controllers_options_is_that_of_the_program() -> None:
    rows = {code(row["flag"])[0]: row for row in rows_under(CONTROLLER, "Options")}
    assert set(rows) == {*(f"--{flag.name}" for flag in FLAGS), "-v"}
    for flag in FLAGS:
        row = rows[f"--{flag.name}"]
        assert code(row["default"]) == ([flag.default] if flag.default else []), flag.name
        assert ("required" in row["meaning"]) is flag.required, flag.name


def test_the_controllers_options_without_effect_are_named() -> None:
    named = code(paragraph(CONTROLLER, "Accepted and without effect"))
    assert {name.removeprefix("--") for name in named} == set(NO_EFFECT)


def test_the_table_of_the_controllers_metrics_is_that_of_the_program() -> None:
    metrics = ControllerMetrics()
    metrics.formed(1.0)
    metrics.api_called(Exchange("get", "nodes", 200, 0.1))
    rows = rows_under(CONTROLLER, "Metrics")
    written = {code(row["metric"])[0]: (row["type"], set(code(row["labels"]))) for row in rows}
    assert written == _families(metrics.registry.collect())


def _families(found: Iterable[Metric]) -> dict[str, tuple[str, set[str]]]:
    return {
        f"{family.name}_total" if family.type == "counter" else family.name: (
            family.type,
            set().union(*(sample.labels for sample in family.samples)) - {"le"},
        )
        for family in found
        if family.name.startswith("nvidia_dra_")
    }


# The node


def test_the_table_of_the_nodes_own_flags_is_that_of_the_program() -> None:
    rows = {code(row["flag"])[0]: row for row in rows_under(NODE, "Flags")}
    assert set(rows) == {f"--{flag.name}" for flag in DOMAIN_FLAGS}
    for flag in DOMAIN_FLAGS:
        written = code(rows[f"--{flag.name}"]["default"])
        assert written == ([flag.default] if flag.default else []), flag.name


def test_the_table_of_the_nodes_own_metrics_is_that_of_the_program() -> None:
    registry = CollectorRegistry()
    metrics = DomainMetrics(registry)
    words = DaemonWords(ready={}, domain={}, peers={})
    metrics.watch_daemons(lambda: {"d": words})
    rows = rows_under(NODE, "Metrics")
    written = {code(row["metric"])[0]: (row["type"], set(code(row["labels"]))) for row in rows}
    assert written == _families(registry.collect())


def test_the_gates_of_the_nodes_side_exist_and_have_those_defaults() -> None:
    gates = FeatureGates()
    for row in rows_under(NODE, "Gates"):
        [name] = code(row["gate"])
        assert f"(default {'on' if gates[name] else 'off'})" in row["gate"]


def test_the_table_of_the_daemons_flags_is_that_of_the_program(
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        read_options(["--help"], {})
    except SystemExit:
        shown = capsys.readouterr().out
    flags = {word.strip(",") for word in re.findall(r"(?<![\w-])-[-a-z]+", shown)}
    rows = rows_under(NODE, "Flags of the daemon")
    assert {name for row in rows for name in code(row["flag"])} == flags - {"-h", "--help"}
    variables = set(re.findall(r"\[([A-Z_]+)\]", shown))
    assert {name for row in rows for name in code(row["variable"])} == variables


def test_every_reason_of_the_daemon_is_in_the_table() -> None:
    rows = rows_under(NODE, "Why it is not ready")
    written = {reason for row in rows for reason in code(row["reason"])}
    written -= {"nvidia-imex", "nvidia-imex-ctl"}
    assert written == set(_reasons()) | {"Ready", "Starting"}


def _reasons() -> Iterator[str]:
    """Constants of the daemon's modules that are one capitalised word."""
    for module in pkgutil.iter_modules(nvdra_nodeagent.imex.__path__, "nvdra_nodeagent.imex."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if name.isupper() and isinstance(value, str) and _REASON.fullmatch(value):
                yield value
