"""`nvdra simulate` when the world does not play along: signals, streams, directories."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nvdra_testing.imex import until
from nvdra_testing.simulation import DEMOS, ENDLESS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(240)

COMMAND = [sys.executable, "-m", "nvdra_cli.main", "simulate", "--timeout", "600"]
DEMO = str(DEMOS / "shared-gpu.yaml")
PATIENCE_S = 120


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """TMPDIR of the command; whatever the test did, nothing of the cluster may be left."""
    directory = tmp_path / "t"
    directory.mkdir()
    yield directory
    assert list(directory.iterdir()) == []
    # What the kernel kills with its parent ends when it gets its turn.
    until(lambda: not processes_that_name(directory), "no process is left")


@pytest.fixture
def endless(tmp_path: Path) -> str:
    """A manifest that keeps the command from ending before the test lets it."""
    path = tmp_path / "endless.yaml"
    path.write_text(ENDLESS)
    return str(path)


def processes_that_name(directory: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(str(directory) in word for word in words):
            found.append(" ".join(words))
    return found


def start(temporary: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"{text!r} never came")


def wait_for_entry(directory: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    while not list(directory.glob(pattern)):
        assert process.poll() is None
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("nvdra-*", signal.SIGINT),
        ("nvdra-*/images", signal.SIGTERM),
        ("nvdra-*/n1/agent.log", signal.SIGINT),
        ("nvdra-*/n1/machine", signal.SIGHUP),
    ],
)
def test_a_signal_during_the_start_leaves_nothing_behind(
    temporary: Path, endless: str, moment: str, number: signal.Signals
) -> None:
    process = start(temporary, DEMO, endless)
    wait_for_entry(temporary, moment, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors


def test_an_impatient_second_signal_leaves_nothing_behind_either(
    temporary: Path, endless: str
) -> None:
    process = start(temporary, DEMO, endless)
    wait_for(process, "created")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode in (130, 143)
    assert "Traceback" not in errors


def test_the_end_of_a_kept_cluster_is_no_failure(temporary: Path) -> None:
    process = start(temporary, "--keep", "--json", DEMO)
    wait_for(process, "KUBECONFIG")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert json.loads(output)["pods"][0]["name"] == "pair"


def test_a_reader_that_leaves_early_does_not_change_the_outcome(temporary: Path) -> None:
    process = start(temporary, DEMO)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=PATIENCE_S) == 0, errors
    assert "Traceback" not in errors


def test_a_result_that_cannot_be_written_is_a_failure_and_said(temporary: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "--json", DEMO],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
    assert done.returncode == 1
    assert "cannot write to standard output: [Errno 28]" in done.stderr
    assert "Traceback" not in done.stderr


def test_closed_streams_are_no_obstacle(temporary: Path) -> None:
    script = f'exec "$@" <&- >&- 2>&- {DEMO}'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND],
        check=False,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert done.returncode == 0


@pytest.mark.parametrize("name", ["with space", 'quote"back\\slash', "é", "x" * 120])
def test_the_temporary_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    temporary = tmp_path / name
    temporary.mkdir()
    done = subprocess.run(
        [*COMMAND, "--json", DEMO],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert done.returncode == 0, done.stderr
    assert "GPU-" in json.loads(done.stdout)["pods"][0]["logs"]["left"]
    assert list(temporary.iterdir()) == []
