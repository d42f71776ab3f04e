"""The pages as pages: what their fences hold, where their links lead, how long they are."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from nvdra_api import ConfigError, FeatureGates, load_config
from nvdra_cli.manifests import load_manifests
from nvdra_cli.pods import ClaimView, DeviceView, PodView
from nvdra_cli.report import Report, as_json
from nvdra_nodeagent.program.options import parse_options
from nvdra_sim.hardware import simulated_machine
from nvdra_testing.documents import (
    MORE_PAGES,
    PAGES,
    ROOT,
    Block,
    anchors,
    blocks,
    blocks_of,
    links,
    text_after,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KINDS = {
    "yaml simulate", "yaml domain", "yaml pending", "yaml config", "yaml refused",
    "yaml mig-layout", "json", "python", "sh", "console", "text",
}  # fmt: skip
PROGRAMS = {"kubectl", "mkdir", "pip", "python3", "source", ".venv/bin/pip", ".venv/bin/tox"}
OURS = {"nvdra", ".venv/bin/nvdra", "nvdra-gpu-plugin"}


def by_place(block: Block) -> str:
    return str(block)


def gates_of(block: Block) -> FeatureGates:
    return FeatureGates.parse(",".join(block.options))


def config_of(block: Block) -> str:
    """The config as JSON text; JSON is left as it is, with its repeated keys."""
    if block.text.startswith("{"):
        return block.text
    return json.dumps(yaml.safe_load(block.text))


def commands() -> Iterator[tuple[Block, list[str]]]:
    """Every simple command in the `sh` and `console` blocks, as words."""
    for block in blocks("sh", "console"):
        lines = block.text.replace("\\\n", " ").splitlines()
        if block.kind == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        for line in lines:
            words = shlex.split(line, comments=True)
            for part in " ".join(map(shlex.quote, words)).replace("'&&'", "\n").splitlines():
                yield block, shlex.split(part)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_fence_says_what_it_holds(page: Path) -> None:
    assert {
        f"{block}: {block.kind}" for block in blocks_of(page) if block.kind not in KINDS
    } == set()


@pytest.mark.parametrize(
    "page", (*PAGES, *MORE_PAGES), ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    for link in links(page):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_every_page_can_be_found_from_the_readme() -> None:
    named = {link.partition("#")[0] for link in links(ROOT / "README.md")}
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} - named == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_can_be_read_in_one_sitting(page: Path) -> None:
    assert len(page.read_text().splitlines()) <= 250


@pytest.mark.parametrize("block", blocks("yaml config"), ids=by_place)
def test_a_config_is_accepted(block: Block) -> None:
    load_config(config_of(block), gates_of(block))


@pytest.mark.parametrize("block", blocks("yaml refused"), ids=by_place)
def test_a_wrong_config_is_refused_with_the_words_below_it(block: Block) -> None:
    with pytest.raises(ConfigError) as refusal:
        load_config(config_of(block), gates_of(block))
    assert str(refusal.value) == text_after(block).strip()


@pytest.mark.parametrize("block", blocks("yaml mig-layout"), ids=by_place)
def test_a_mig_layout_fits_its_profile(tmp_path: Path, block: Block) -> None:
    layout = tmp_path / "layout.yaml"
    layout.write_text(block.text)
    [profile] = block.options
    machine = simulated_machine(profile, tmp_path / "machine", mig_layout=layout)
    machine.nvml.init()
    assert machine.nvml.device(0).mig_devices()


@pytest.mark.parametrize(
    "block", blocks("yaml simulate", "yaml domain", "yaml pending"), ids=by_place
)
def test_a_manifest_has_no_key_twice(tmp_path: Path, block: Block) -> None:
    (tmp_path / "m.yaml").write_text(block.text)
    assert load_manifests([tmp_path / "m.yaml"])


@pytest.mark.parametrize("block", blocks("python"), ids=by_place)
def test_python_on_a_page_runs(
    tmp_path: Path, block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated_machine("h100", tmp_path / "n1" / "machine", node="node-1")
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, str(block), "exec"), {})


def test_the_json_document_has_the_shape_of_a_real_one() -> None:
    [block] = [block for block in blocks("json") if block.page.name == "simulator.md"]
    device = DeviceView(driver="d", pool="p", device="g", request="r", uuid="u")
    pod = PodView(
        namespace="n", name="p", phase="Running", node="n", reason="",
        claims=(ClaimView(name="c", devices=(device,)),), containers=("c",), ends_by_itself=False,
    )  # fmt: skip
    made = json.loads(as_json(Report((pod,), {pod.key: {"left": ""}}, {}, 1.0)))
    assert _shape(json.loads(block.text)) == _shape(made)


def _shape(node: object) -> object:
    if isinstance(node, dict):
        return {key: _shape(value) for key, value in node.items()}
    return [_shape(item) for item in node] if isinstance(node, list) else type(node).__name__


def test_shell_commands_name_programs_that_readers_have() -> None:
    assert {words[0] for _, words in commands()} <= PROGRAMS | OURS


def test_files_that_commands_name_are_there() -> None:
    named = {word for _, words in commands() for word in words if word.startswith("manifests/")}
    assert named, "no command names a demo"
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_commands_of_the_simulator_use_options_that_it_has() -> None:
    environ = {**os.environ, "COLUMNS": "200"}
    run = [sys.executable, "-m", "nvdra_cli.main", "simulate", "--help"]
    text = subprocess.run(run, capture_output=True, text=True, check=True, env=environ).stdout
    known = {word.strip("[],") for word in text.split() if "--" in word}
    for block, words in commands():
        if words[0] in OURS - {"nvdra-gpu-plugin"}:
            assert words[1] == "simulate", f"{block}: {words}"
            assert {word for word in words if word.startswith("-") and word != "-"} <= known, block


def test_commands_of_the_node_agent_are_understood_by_it() -> None:
    found = [words[1:] for _, words in commands() if words[0] == "nvdra-gpu-plugin"]
    assert found, "no command starts the agent"
    for arguments in found:
        parse_options(arguments, environ={}, version="0")
