"""A cluster that is kept: it ends with its owner, however that ends, and can be made again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.e2e.ring import cgroups
from tests.e2e.ring.errors import CommandFailed
from tests.e2e.ring.patience import eventually
from tests.e2e.ring.processes import ProcessMark, run
from tests.e2e.ring.record import ClusterRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEEP = Path(__file__).with_name("keep.py")


def _keep(command: str, name: str) -> str:
    return run([sys.executable, _KEEP, command, "--name", name])


def _record(name: str) -> ClusterRecord:
    record = ClusterRecord.read(name)
    assert record is not None
    return record


def _groups_of(name: str) -> list[str]:
    found = (path for root in cgroups.hierarchies() for path in root.glob(f"nvdra-{name}-*"))
    return [str(path) for path in found]


@pytest.fixture
def kept() -> Iterator[str]:
    name = f"kept-{os.getpid()}"
    _keep("up", name)
    yield name
    _keep("down", name)


def test_a_kept_cluster_can_be_used_and_is_listed(kept: str) -> None:
    record = _record(kept)

    assert f"{kept}: up, {record.server}, {record.kubeconfig}" in _keep("status", kept)
    entered = [sys.executable, str(_KEEP), "enter", "--name", kept, "node-2", "hostname"]
    assert run(entered) == "node-2\n"


def test_a_name_that_is_no_plain_word_is_refused() -> None:
    for name in ("", "..", "a/b"):
        with pytest.raises(CommandFailed, match="lower-case letters, digits and hyphens"):
            _keep("up", name)


def test_after_down_nothing_is_left() -> None:
    name = f"gone-{os.getpid()}"
    _keep("up", name)
    record = _record(name)

    _keep("down", name)

    assert not any(machine.alive for machine in record.machines.values())
    assert not _groups_of(name)
    assert not record.folder.exists()


def test_a_second_cluster_comes_up_after_kill_9_of_the_first(kept: str) -> None:
    killed = _record(kept)

    killed.owner.kill(signal.SIGKILL)

    def ended() -> bool:
        return not any(machine.alive for machine in killed.machines.values())

    eventually(ended, until="every machine of the killed cluster has ended")
    said = subprocess.run(
        [sys.executable, _KEEP, "up", "--name", kept], capture_output=True, text=True, check=True
    ).stdout
    assert f"cleared up after cluster {kept}, whose owner was killed" in said
    assert _record(kept).is_up
    assert ProcessMark.of(killed.owner.pid) != killed.owner
