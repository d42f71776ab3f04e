"""What a ComputeDomain's daemon does about bad inputs, missing parts, and when it has to end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from nvdra_testing.imex import BOOT, Domain, a_domain, is_running, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nvdra_testing.imex import DaemonBox


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[Domain]:
    with a_domain(tmp_path) as found:
        yield found


@pytest.fixture
def box(domain: Domain) -> DaemonBox:
    """A pod with good inputs that is not started yet."""
    found = domain.pod()
    found.settings()
    domain.tell([found])
    return found


def says(box: DaemonBox, reason: str, text: str = "") -> str:
    """The probe's body once it gives this reason."""

    def body() -> str:
        status, found = box.probe("/ready")
        return found if status == 503 and found.startswith(reason) and text in found else ""

    return str(until(body, f"{reason}: {text}"))


def test_without_settings_it_waits_and_says_what_for(box: DaemonBox) -> None:
    (box.shared / "settings.json").unlink()
    box.start()
    says(box, "NoSettings", "settings.json is not there")
    assert box.read("ready.json") == {}
    box.settings()
    until(box.is_ready)


def test_without_cdi_it_says_so(box: DaemonBox) -> None:
    (box.shared / "settings.json").unlink()
    del box.environ["COMPUTE_DOMAIN_UUID"]
    box.start()
    says(box, "NoSettings", "is CDI enabled")


def test_settings_from_before_a_reboot_are_not_used(box: DaemonBox) -> None:
    box.settings(bootID="an-earlier-boot")
    box.write("ready.json", {"version": 1, "claimUID": "claim-0", "bootID": BOOT, "ready": False})
    box.start()
    says(box, "StaleSettings", "an-earlier-boot")
    assert not box.lines("nvidia-imex started")
    assert box.reason() == ""  # the directory is not its own to write to
    box.settings()
    until(box.is_ready)


def test_the_settings_of_the_next_claim_end_it_and_leave_the_files_to_the_next(
    box: DaemonBox,
) -> None:
    box.start()
    until(box.is_ready)
    running = box.imex_pid()
    box.settings(claimUID="claim-of-the-next-pod")
    says(box, "Superseded")
    until(lambda: not is_running(running))
    box.write("ready.json", {"of": "the next"})
    assert box.stop() == 0
    assert box.read("ready.json") == {"of": "the next"}


def test_settings_of_another_claim_than_the_containers_are_not_used(box: DaemonBox) -> None:
    box.environ["COMPUTE_DOMAIN_CLAIM_UID"] = "claim-of-this-container"
    box.start()
    says(box, "StaleSettings", "claim-of-this-container")
    box.settings(claimUID="claim-of-this-container")
    until(box.is_ready)


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 9}'])
def test_broken_files_keep_it_waiting_until_they_are_good(box: DaemonBox, text: str) -> None:
    box.write("peers.json", text)
    box.start()
    until(lambda: box.reason() == "BadPeers")
    box.write("settings.json", text)
    assert box.stop() == 0
    box.start()
    says(box, "BadSettings", "settings.json")
    box.settings()
    box.peers({0: box.address}, own=0)
    until(box.is_ready)


@pytest.mark.parametrize(
    "text", ["{", '{"version": 1, "generation": 2, "ownIndex": 99, "peers": []}']
)
def test_a_list_of_peers_that_breaks_later_changes_nothing(box: DaemonBox, text: str) -> None:
    box.start()
    until(box.is_ready)
    running = box.imex_pid()
    box.write("peers.json", text)
    until(lambda: box.lines("peers cannot be used"))
    assert box.is_ready()
    assert box.imex_pid() == running


def test_a_missing_nvidia_imex_is_named_and_used_once_it_is_there(box: DaemonBox) -> None:
    box.environ["NVIDIA_IMEX"] = "nvidia-imex-later"
    box.start()
    says(box, "ImexMissing", "nvidia-imex-later is not on PATH")
    assert box.reason() == "ImexMissing"
    programs = box.shared.parent / "bin"
    (programs / "nvidia-imex-later").symlink_to(programs / "nvidia-imex")
    until(box.is_ready)


def test_a_program_that_is_none_is_named(box: DaemonBox) -> None:
    broken = box.shared.parent / "bin/nvidia-imex-broken"
    broken.write_bytes(b"\x7fELF not really")
    broken.chmod(0o755)
    box.environ["NVIDIA_IMEX"] = str(broken)
    box.start()
    says(box, "ImexMissing", "Exec format error")


def test_a_missing_nvidia_imex_ctl_is_named(box: DaemonBox) -> None:
    box.environ["NVIDIA_IMEX_CTL"] = "no-such-ctl"
    box.start()
    says(box, "ImexStarting", "no-such-ctl is not on PATH")


def test_one_that_runs_is_left_alone_when_nobody_can_ask_it_any_more(box: DaemonBox) -> None:
    programs = box.shared.parent / "bin"
    control = programs / "ctl-for-now"
    control.symlink_to(programs / "nvidia-imex-ctl")
    box.environ["NVIDIA_IMEX_CTL"] = str(control)
    box.start(hang_s=8.0)
    until(box.is_ready)
    before = box.imex_pid()
    control.unlink()
    says(box, "QueryFailed", "ctl-for-now is not on PATH")
    until(lambda: len(box.lines("did not say its state")) > 50, "longer than one that hangs gets")
    assert (box.imex_pid(), is_running(before)) == (before, True)
    control.symlink_to(programs / "nvidia-imex-ctl")
    until(box.is_ready)
    assert not box.lines("stopping nvidia-imex")


def test_a_daemon_that_was_frozen_with_its_node_leaves_nvidia_imex_alone(box: DaemonBox) -> None:
    box.start(hang_s=8.0)
    until(box.is_ready)
    before = box.imex_pid()
    box.freeze(for_s=10.0)
    until(lambda: box.lines("stood still"))
    until(box.is_ready)
    assert (box.imex_pid(), box.lines("stopping nvidia-imex")) == (before, [])


def test_a_hosts_file_that_cannot_be_written_is_named(box: DaemonBox) -> None:
    box.environ["HOSTS_FILE"] = str(box.shared.parent / "none/hosts")
    box.start()
    says(box, "HostsUnwritable", "none/hosts")
    (box.shared.parent / "none").mkdir()
    box.hosts.rename(box.shared.parent / "none/hosts")
    until(box.is_ready)


def test_files_that_cannot_be_written_are_named(box: DaemonBox) -> None:
    (box.shared / "imexd.cfg").mkdir()
    box.start()
    says(box, "FilesUnwritable", "imexd.cfg")
    (box.shared / "imexd.cfg").rmdir()
    until(box.is_ready)


def test_a_report_that_cannot_be_written_makes_the_pod_unready(box: DaemonBox) -> None:
    (box.shared / "ready.json").mkdir()
    box.start()
    says(box, "FilesUnwritable", "ready.json")
    (box.shared / "ready.json").rmdir()
    until(box.is_ready)


def test_without_a_fabric_it_is_ready_and_starts_nothing(box: DaemonBox) -> None:
    box.environ["CLIQUE_ID"] = ""
    box.settings(clique="")
    box.start()
    until(lambda: box.reason() == "NoFabric")
    assert box.probe("/ready")[0] == 200
    assert box.read("ready.json")["ready"] is True
    assert not box.lines("nvidia-imex started")
    assert box.stop() == 0


def nothing(_: DaemonBox) -> None:
    """Good inputs."""


def no_settings(box: DaemonBox) -> None:
    (box.shared / "settings.json").unlink()


def no_peers(box: DaemonBox) -> None:
    (box.shared / "peers.json").unlink()


def crashing(box: DaemonBox) -> None:
    box.faults(crash=1)


def never_ready(box: DaemonBox) -> None:
    box.faults(never_ready=True)


def silent(box: DaemonBox) -> None:
    box.faults(hang=True)


def stubborn(box: DaemonBox) -> None:
    box.faults(ignore_term=True)


@pytest.mark.parametrize(
    ("arrange", "reason"),
    [
        (nothing, "Ready"),
        (no_settings, "NoSettings"),
        (no_peers, "NoPeers"),
        (crashing, "ImexEnded"),
        (never_ready, "ImexNotReady"),
        (silent, "ImexStarting"),
        (stubborn, "Ready"),
    ],
)
def test_it_ends_orderly_in_every_state(
    box: DaemonBox, arrange: Callable[[DaemonBox], None], reason: str
) -> None:
    arrange(box)
    box.start(shutdown_stop_s=0.5)
    until(lambda: box.probe("/ready")[1].startswith(reason), reason)
    started = [int(line.partition("pid=")[2].split()[0]) for line in box.lines("imex started")]
    assert box.stop() == 0
    assert not any(is_running(pid) for pid in started)
    if box.read("ready.json"):
        assert (box.is_ready(), box.reason()) == (False, "Stopping")


def test_it_ends_orderly_right_after_its_start(box: DaemonBox) -> None:
    box.start()
    until(lambda: box.lines("daemon started"))
    assert box.stop() == 0


def test_stacks_are_written_on_demand(box: DaemonBox) -> None:
    box.start()
    until(box.is_ready)
    assert box.process is not None
    os.kill(box.process.pid, signal.SIGUSR2)
    until(lambda: "daemon.py" in (box.shared.parent / "stacks-0").read_text())
    assert box.is_ready()


def test_probes_answer_while_others_connect_and_say_nothing(box: DaemonBox) -> None:
    box.start()
    until(box.is_ready)
    silent = [socket.create_connection((box.address, 50006)) for _ in range(40)]
    assert box.probe("/ready") == (200, "Ready")
    assert box.probe("/other")[0] == 404
    for each in silent:
        each.close()


def test_a_port_in_use_is_waited_for(box: DaemonBox) -> None:
    with socket.create_server((box.address, 50006)):
        box.start()
        until(lambda: box.lines("cannot listen for probes"))
        until(box.is_ready)
    until(lambda: box.probe("/ready")[0] == 200)


def test_it_checks_itself_from_the_command_line(box: DaemonBox) -> None:
    program = "from nvdra_nodeagent.imex.main import main; main()"
    command = [sys.executable, "-c", program, "check"]

    def check() -> tuple[int, str]:
        done = subprocess.run(command, env=box.environ, capture_output=True, text=True)
        return done.returncode, done.stdout

    assert check() == (1, "")
    box.start()
    until(box.is_ready)
    assert check() == (0, "Ready\n")


def test_one_that_does_not_become_ready_tells_how_the_others_are(box: DaemonBox) -> None:
    box.settings()
    box.peers({0: box.address, 1: "127.0.0.99"}, own=0)
    box.faults(never_ready=True)
    box.start()
    nodes = until(lambda: box.read("domain.json").get("nodes"))
    assert box.reason() == "ImexNotReady"
    assert box.read("domain.json")["state"] == "DOWN"
    (other,) = (node for node in nodes if node["index"] == 1)
    assert other["state"] != "READY"
