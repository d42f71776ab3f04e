"""Every manifest of the pages, run by the command that the pages are about."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from nvdra_testing.documents import ROOT, Block, blocks, text_after
from nvdra_testing.simulation import ENDLESS, simulate

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)


def by_place(block: Block) -> str:
    return str(block)


def written(block: Block, directory: Path) -> Path:
    path = directory / "m.yaml"
    path.write_text(block.text)
    return path


@pytest.mark.parametrize("block", blocks("yaml simulate"), ids=by_place)
def test_a_manifest_of_the_pages_runs(tmp_path: Path, block: Block) -> None:
    run = simulate(*block.options, written(block, tmp_path))
    assert run.status == 0, run.errors
    assert run.pods
    for pod in run.pods.values():
        for container in pod["logs"]:
            assert run.seen(pod["name"], container) == run.allocated(pod["name"])


@pytest.mark.parametrize("block", blocks("yaml domain"), ids=by_place)
def test_a_domain_of_the_pages_forms(tmp_path: Path, block: Block) -> None:
    run = simulate(*block.options, written(block, tmp_path))
    assert run.status == 0, run.errors
    for pod in run.pods.values():
        for container, log in pod["logs"].items():
            assert "channel0" in log.split()
            assert [*run.seen(pod["name"], container), ""] == run.allocated(pod["name"])


@pytest.mark.parametrize("block", blocks("yaml pending"), ids=by_place)
def test_a_manifest_that_cannot_run_says_the_words_below_it(tmp_path: Path, block: Block) -> None:
    run = simulate(*block.options, written(block, tmp_path))
    assert run.status == 1
    [pod] = run.pods.values()
    assert pod["phase"] == "Pending"
    assert text_after(block).strip() in pod["reason"]


def test_the_layout_and_the_profile_of_ones_own_are_taken(tmp_path: Path) -> None:
    profile = tmp_path / "mine.json"
    source = ROOT / "sim" / "nvdra_sim" / "hardware" / "profiles" / "h100.json"
    profile.write_text(source.read_text().replace("NVIDIA H100 80GB HBM3", "NVIDIA H100 Mine"))
    [layout] = blocks("yaml mig-layout")
    layout_file = tmp_path / "layout.yaml"
    layout_file.write_text(layout.text)
    run = simulate(
        *("--profile", profile, "--mig-layout", f"{layout_file}#mixed"),
        ROOT / "manifests" / "demo" / "mig-slices.yaml",
    )
    assert run.status == 0, run.errors
    assert "NVIDIA H100 Mine" in run.pods["pod"]["logs"]["small"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_simulation_ends_with_its_signal_and_leaves_no_file(
    tmp_path: Path, number: signal.Signals
) -> None:
    manifest, temporary = tmp_path / "endless.yaml", tmp_path / "t"
    manifest.write_text(ENDLESS)
    temporary.mkdir()
    command = [sys.executable, "-m", "nvdra_cli.main", "simulate", "--nodes", "0"]
    process = subprocess.Popen(
        [*command, "--timeout", "600", str(manifest)],
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr
    with process.stderr as said:
        assert next(line for line in said if "created" in line)
        process.send_signal(number)
        rest = said.read()
    assert process.wait() == 128 + number, rest
    assert "Traceback" not in rest
    assert list(temporary.iterdir()) == []
