"""What this machine lacks is said at the start: one line each, with what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.ring import preflight
from tests.e2e.ring.errors import Refused
from tests.e2e.ring.network import listen
from tests.e2e.ring.patience import eventually
from tests.e2e.ring.preflight import Wanted
from tests.e2e.ring.processes import ProcessMark
from tests.e2e.ring.record import ClusterRecord
from tests.e2e.ring.storage import clusters_dir


def _silent(line: str) -> None:
    """Say nothing."""


def _refusal(wanted: Wanted) -> list[str]:
    with pytest.raises(Refused) as refused:
        preflight.check(wanted, say=_silent)
    return refused.value.problems


def test_without_root_the_line_names_sudo() -> None:
    [line] = _refusal(Wanted(cluster="none", euid=1000))

    assert line.startswith("not root")
    assert "sudo -E" in line


def test_missing_tools_are_named_with_their_packages(tmp_path: Path) -> None:
    there = "go ip ldd mount nsenter openssl pivot_root setpriv unshare"
    for tool in there.split():
        (tmp_path / tool).symlink_to(shutil.which(tool, path="/usr/local/go/bin:/usr/bin:/usr/sbin")
                                     or "/bin/true")  # fmt: skip

    [line] = _refusal(Wanted(cluster="none", path=str(tmp_path)))

    assert line == "nft, runc not found: apt-get install --yes nftables runc"


def test_without_go_and_without_built_programs_the_line_names_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    system = os.pathsep.join(("/usr/sbin", "/usr/bin", "/sbin", "/bin"))

    if shutil.which("go", path=system):
        pytest.skip("Go is among the system's own programs here")
    [line] = _refusal(Wanted(cluster="none", path=system))

    assert line.startswith("no Go to build Kubernetes v")
    assert "install Go 1." in line


def test_a_full_disk_is_named_with_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    lines = _refusal(Wanted(cluster="none", free_bytes=lambda folder: 1 << 28))

    [line] = [line for line in lines if str(tmp_path) in line and "clusters" not in line]
    assert line.startswith("0.2 GiB free in ")
    assert "7 GiB needed" in line
    assert "XDG_CACHE_HOME" in line


def test_real_device_nodes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "nvidia0").touch()

    [line] = _refusal(Wanted(cluster="none", dev=tmp_path))

    assert line.startswith(f"real NVIDIA device nodes in {tmp_path} (nvidia0): ")


def test_a_taken_port_is_named() -> None:
    with listen() as taken:
        port = taken.getsockname()[1]

        [line] = _refusal(Wanted(cluster="none", port=port))

    assert line.startswith(f"port {port} of 127.0.0.1 is taken")
    assert "--port" in line


def test_too_few_free_inotify_instances_are_counted() -> None:
    [line] = _refusal(Wanted(cluster="none", watchers=1 << 20))

    assert "inotify instances are free" in line
    assert "fs.inotify.max_user_instances" in line


def test_a_running_cluster_of_the_same_name_is_left_alone() -> None:
    record = ClusterRecord.own(f"mine-{os.getpid()}")
    record.write()
    try:
        [line] = _refusal(Wanted(cluster=record.name))
    finally:
        record.erase()

    assert f"cluster {record.name} is running (process {os.getpid()})" in line
    assert f"keep.py down --name {record.name}" in line


def test_a_stale_cluster_is_cleared_up_and_told() -> None:
    owner = subprocess.Popen(["sleep", "infinity"])
    mark = ProcessMark.of(owner.pid)
    assert mark is not None
    record = ClusterRecord(name=f"stale-{os.getpid()}", owner=mark)
    record.write()
    owner.kill()
    owner.wait()
    told: list[str] = []

    preflight.check(Wanted(cluster="none"), say=told.append)

    assert f"cleared up after cluster {record.name}, whose owner was killed" in told
    assert not record.folder.exists()


def test_a_damaged_record_is_named_and_not_guessed_at() -> None:
    folder = clusters_dir() / f"odd-{os.getpid()}"
    folder.mkdir(parents=True)
    (folder / "cluster.json").write_text("{")
    try:
        told = _refusal(Wanted(cluster=folder.name))
    finally:
        shutil.rmtree(folder)

    assert [line for line in told if str(folder) in line and "cannot be read" in line]


def test_a_pid_used_again_is_another_process() -> None:
    mark = ProcessMark.of(os.getpid())
    assert mark is not None

    earlier = ProcessMark(mark.pid, mark.start_time - 1)

    assert mark.alive
    assert not earlier.alive
    assert not earlier.kill()


def test_everything_in_a_cluster_ends_when_its_owner_is_killed() -> None:
    script = (
        "import sys, os, signal; sys.path.insert(0, sys.argv[1]);"
        "from pathlib import Path;"
        "from tests.e2e.ring.machine import Machine, MachinePlan;"
        "m = Machine.power_on(MachinePlan(hostname='m'), folder=Path(sys.argv[2]));"
        "print(m.init.pid, flush=True); signal.pause()"
    )
    folder = clusters_dir() / f"killed-{os.getpid()}"
    root = str(Path(__file__).parents[2])
    owner = subprocess.Popen(
        [sys.executable, "-c", script, root, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    init = ProcessMark.of(int(owner.stdout.readline()))
    assert init is not None
    assert init.alive

    owner.kill()
    owner.wait()
    owner.stdout.close()

    eventually(lambda: not init.alive, until="the machine's first process has ended")
    shutil.rmtree(folder)
