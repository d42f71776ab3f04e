"""The tables of the pages say what the code does, no more and no less."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from nvdra_api.configs import CONFIG_TYPES
from nvdra_api.gates import GATES, LOGGING_GATES, FeatureGates
from nvdra_cli.main import main as nvdra
from nvdra_nodeagent.claims.observer import Attempt
from nvdra_nodeagent.errors import Retryable
from nvdra_nodeagent.inventory.snapshot import take_snapshot
from nvdra_nodeagent.program.metrics import AgentMetrics
from nvdra_nodeagent.program.options import FLAGS, NO_EFFECT
from nvdra_nodeagent.slices.planner import plan_pool
from nvdra_nodeagent.slices.store import WriteCounts
from nvdra_sim.cluster.apiserver.catalog import BUILT_IN
from nvdra_sim.cluster.kubelet.images import PROGRAMS
from nvdra_sim.cluster.kubelet.interpreter import COMMANDS
from nvdra_sim.hardware import describe, profile_names, simulated_machine
from nvdra_sim.hardware.calls import KNOWN_CALLS
from nvdra_testing.claims import a_ref
from nvdra_testing.documents import ROOT, code, paragraph, rows_under

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NODE_AGENT = ROOT / "nodeagent" / "nvdra_nodeagent"
OPERATOR = ROOT / "operator" / "nvdra_operator"
SIMULATOR = ROOT / "sim" / "nvdra_sim"
LAYOUT = ROOT / "manifests" / "simulator" / "mig-layout.yaml"


# Profiles and lists of the simulator


def test_the_table_of_profiles_is_that_of_the_simulator() -> None:
    rows = {code(row["profile"])[0]: row for row in rows_under("simulator.md", "Profiles")}
    assert tuple(rows) == profile_names()
    for name, row in rows.items():
        known = describe(name)
        assert row["GPUs"] == str(known.gpus)
        assert row["product"] == known.product
        assert row["memory"] == f"{known.memory_bytes / 2**30:.0f} GiB"
        assert (row["compute"], row["machine"]) == (known.compute_capability, known.machine)
        assert tuple(code(row["MIG profiles"])) == known.mig_profiles


@pytest.mark.parametrize(
    ("page", "beginning", "names"),
    [
        ("simulator.md", "Calls that can fail:", KNOWN_CALLS),
        ("embedded-cluster.md", "Resources served:", {kind.plural for kind in BUILT_IN}),
        ("embedded-cluster.md", "Programs in every image,", set(PROGRAMS)),
        ("embedded-cluster.md", "Commands that are interpreted:", set(COMMANDS)),
    ],
)
def test_lists_of_the_simulator_are_complete(page: str, beginning: str, names: set[str]) -> None:
    assert set(code(paragraph(page, beginning))) == names


def test_the_simulators_options_are_all_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        nvdra(["simulate", "--help"])
    shown = set(re.findall(r"--[-a-z]+", capsys.readouterr().out))
    rows = rows_under("simulator.md", "The simulator")
    assert {code(row["option"])[0] for row in rows} == shown - {"--help"}


# Options, metrics, gates, devices of the node agent


def test_the_table_of_options_is_that_of_the_program() -> None:
    rows = {code(row["flag"])[0]: row for row in rows_under("node-agent.md", "Options")}
    assert set(rows) == {*(f"--{flag.name}" for flag in FLAGS), "--consumable-shares", "-v"}
    for flag in FLAGS:
        row = rows[f"--{flag.name}"]
        assert tuple(code(row["variables"])) == flag.variables
        assert code(row["default"]) == ([flag.default] if flag.default else [])
        assert all(alias in code(row["meaning"]) for alias in flag.aliases)


def test_options_without_effect_are_named() -> None:
    named = code(paragraph("node-agent.md", "Accepted and without effect"))
    assert {name.removeprefix("--") for name in named} == set(NO_EFFECT)


def metrics_with_every_series() -> AgentMetrics:
    metrics = AgentMetrics(driver="d", node="n")
    metrics.failed(Attempt("prepare", a_ref(), 1.0), error=Retryable("R", "x"))
    metrics.api_called("get", "nodes", 200)
    metrics.count_slice_writes(WriteCounts())
    return metrics


def families(metrics: AgentMetrics) -> dict[str, tuple[str, set[str]]]:
    """Type and labels of our own families by the name that a scrape shows."""
    found = {}
    for family in metrics.registry.collect():
        samples = [s for s in family.samples if not s.name.endswith("_created")]
        if family.name.startswith("nvidia_dra_") and samples:
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = set().union(*(sample.labels for sample in samples)) - {"le"}
            found[name] = (family.type, labels)
    return found


def test_the_table_of_metrics_is_that_of_the_program() -> None:
    rows = rows_under("node-agent.md", "Metrics")
    written = {code(row["metric"])[0]: (row["type"], set(code(row["labels"]))) for row in rows}
    assert written == families(metrics_with_every_series())


def test_metrics_that_come_with_the_first_claim_only_are_named() -> None:
    at_start = AgentMetrics(driver="d", node="n")
    at_start.count_slice_writes(WriteCounts())
    every = families(metrics_with_every_series())
    named = set(code(paragraph("node-agent.md", "All series exist"))) & set(every)
    assert named == set(every) - set(families(at_start))


def test_the_table_of_gates_is_that_of_the_api() -> None:
    rows = {code(row["gate"])[0]: row for row in rows_under("node-agent.md", "Feature gates")}
    assert set(rows) == set(FeatureGates())
    for gate in (*GATES, *LOGGING_GATES):
        row = rows[gate.name]
        assert (row["default"], row["stage"]) == ("on" if gate.default else "off", gate.stage)


def test_gates_without_effect_are_said_to_have_none() -> None:
    rows = rows_under("node-agent.md", "Feature gates")
    none = {code(row["gate"])[0] for row in rows if row["effect today"].startswith("none")}
    pending = {gate.name for gate in GATES if gate.pending}
    assert none == pending | {gate.name for gate in LOGGING_GATES}


@pytest.mark.parametrize(("row", "layout"), [(0, None), (1, LAYOUT)])
def test_the_attributes_of_devices_are_those_published(
    tmp_path: Path, row: int, layout: Path | None
) -> None:
    inventory = take_snapshot(simulated_machine("h100", tmp_path / "m", mig_layout=layout))
    [first, *_] = plan_pool(inventory, node="n", server=(1, 36)).slices
    rows = rows_under("node-agent.md", "What it publishes")
    written = rows[row]
    attributes = set(code(written["attributes"])) | set(code(rows[0]["attributes"]))
    device = first.devices[0]
    assert attributes == set(device.attributes)
    slices = {name for name in device.capacity if name.startswith("memorySlice")}
    assert {n for n in code(written["capacity"]) if n != "memorySlice2"} == (
        set(device.capacity) - slices
    )


# Fields of opaque configs


def fields_of(type_: type[Any], prefix: str = "") -> Iterator[str]:
    for field in msgspec.structs.fields(type_):
        path = f"{prefix}{field.encode_name}"
        yield path
        for inner in getattr(field.type, "__args__", ()):
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                yield from fields_of(inner, f"{path}.")


def test_the_table_of_config_fields_is_that_of_the_types() -> None:
    rows = rows_under("opaque-configs.md", "Kinds and fields")
    written = [(row["kind"], code(row["field"])[0]) for row in rows]
    assert sorted(written) == sorted(
        (kind, path) for kind, type_ in CONFIG_TYPES.items() for path in fields_of(type_)
    )


# Rooms


@pytest.mark.parametrize("package", [NODE_AGENT, OPERATOR, SIMULATOR], ids=lambda path: path.name)
def test_every_room_stands_in_the_architecture(package: Path) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    text = text.partition(f"\n{package.relative_to(ROOT)}/")[2]
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    assert rooms
    assert {room for room in rooms if f"\n  {room}/ " not in text} == set()


def test_the_layers_in_the_architecture_are_the_enforced_ones() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    [layers] = [c["layers"] for c in settings["contracts"] if c["type"] == "layers"]
    assert " > ".join(layers) in (ROOT / "docs" / "architecture.md").read_text()
