"""Waiting for the NVIDIA driver: what counts as there, and what is said while it is not."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from structlog.testing import capture_logs

from nvdra_nodeagent.program.driver_wait import HINT_EVERY, DriverCheck, check_from, wait

if TYPE_CHECKING:
    from collections.abc import Callable

LIBRARY = "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"


def a_driver(root: Path, *, script: str = "exit 0") -> None:
    program, library = root / "usr/bin/nvidia-smi", root / LIBRARY
    for path in (program, library):
        path.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    library.touch()


def check(parent: Path, root: str = "/run/nvidia/driver") -> DriverCheck:
    return DriverCheck(Path(root), parent)


def test_a_driver_that_answers_is_there(tmp_path: Path) -> None:
    a_driver(tmp_path / "driver", script='[ "$*" = --version ]')
    assert check(tmp_path).missing() == ""


def test_a_driver_in_the_hosts_own_root_is_found(tmp_path: Path) -> None:
    a_driver(tmp_path)
    assert check(tmp_path, "/").missing() == ""


def test_the_missing_file_is_named(tmp_path: Path) -> None:
    assert check(tmp_path).missing() == "nvidia-smi is not under /run/nvidia/driver"
    a_driver(tmp_path / "driver")
    (tmp_path / "driver" / LIBRARY).unlink()
    assert check(tmp_path).missing() == "libnvidia-ml.so.1 is not under /run/nvidia/driver"


def test_a_driver_that_fails_is_quoted(tmp_path: Path) -> None:
    a_driver(tmp_path / "driver", script="echo 'NVRM: no module' >&2; exit 9")
    missing = check(tmp_path).missing()
    assert "ended with 9" in missing
    assert "NVRM: no module" in missing


def test_a_program_that_cannot_run_is_no_crash(tmp_path: Path) -> None:
    a_driver(tmp_path / "driver")
    (tmp_path / "driver/usr/bin/nvidia-smi").write_bytes(b"\x7fELF nonsense")
    assert "cannot be run" in check(tmp_path).missing()


def test_the_program_sees_nothing_of_our_environment(tmp_path: Path) -> None:
    a_driver(tmp_path / "driver", script='[ -n "$LD_PRELOAD" ] && [ -z "$HOME" ]')
    assert check(tmp_path).missing() == ""


def test_hints_follow_from_what_is_there(tmp_path: Path) -> None:
    assert "look at its driver pod" in check(tmp_path).hint()
    assert "is nvidiaDriverRoot right?" in check(tmp_path, "/opt/driver").hint()
    (tmp_path / "etc").mkdir()
    assert "install the NVIDIA driver" in check(tmp_path, "/").hint()
    a_driver(tmp_path / "run/nvidia/driver")
    assert "set nvidiaDriverRoot=/run/nvidia/driver" in check(tmp_path, "/").hint()


def test_an_empty_driver_root_means_the_hosts_root() -> None:
    assert check_from({"NVIDIA_DRIVER_ROOT": ""}).root == Path("/")


def test_waiting_ends_when_the_driver_comes(tmp_path: Path) -> None:
    stop = _Pauses(3, lambda: a_driver(tmp_path / "driver"))
    with capture_logs() as logs:
        assert wait(check(tmp_path), stop)
    assert [entry["event"] for entry in logs[:3]] == ["waiting for the NVIDIA driver"] * 3
    assert logs[-1]["event"] == "the NVIDIA driver answers"


def test_every_line_says_what_is_missing_and_some_what_to_do(tmp_path: Path) -> None:
    stop = _Pauses(HINT_EVERY + 1)
    with capture_logs() as logs:
        assert not wait(check(tmp_path), stop)
    lines = [entry for entry in logs if "missing" in entry]
    assert [i for i, entry in enumerate(lines) if "hint" in entry] == [0, HINT_EVERY]


class _Pauses(threading.Event):
    """At the n-th pause does something, or is set; never waits."""

    def __init__(self, count: int, then: Callable[[], object] | None = None) -> None:
        super().__init__()
        self._left, self._then = count, then or self.set

    def wait(self, timeout: float | None = None) -> bool:
        self._left -= 1
        if not self._left:
            self._then()
        return self.is_set()
