"""The stand-ins for nvidia-imex and nvidia-imex-ctl do what is known of the real ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from nvdra_nodeagent.imex import rendering
from nvdra_sim.imex.faults import FAULTS_FILE, Faults
from nvdra_sim.imex.programs import lay_out
from nvdra_testing.imex import DEADLINE_S, Domain, some_peers, some_settings, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Node:
    """One `nvidia-imex` with its files."""

    def __init__(self, root: Path, programs: Path, address: str) -> None:
        self.root, self.programs, self.address = root, programs, address
        self.hosts, self.config = root / "hosts", root / "imexd.cfg"
        self.log = root / "log"
        root.mkdir()

    def files(self, addresses: dict[int, str], *, mode: str = "dns") -> None:
        settings, peers = some_settings(mode=mode), some_peers(addresses)
        nodes = self.root / "nodes.cfg"
        nodes.write_text(rendering.nodes_file(settings, peers.entries))
        self.config.write_text(
            rendering.config_file(settings, address=self.address, nodes_path=str(nodes))
        )
        self.names(addresses)

    def names(self, addresses: dict[int, str]) -> None:
        slots = rendering.slots(some_settings(), some_peers(addresses).entries)
        self.hosts.write_text("".join(f"{ip} {name}\n" for ip, name in slots))

    def faults(self, **faults: Any) -> None:
        (self.root / "imex-faults.json").write_text(json.dumps(faults))

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        environ = {**os.environ, "HOSTS_FILE": str(self.hosts), "POD_IP": self.address}
        command = [str(self.programs / "nvidia-imex"), "-c", str(self.config)]
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, env=environ, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def control(self, *flags: str) -> tuple[int, str]:
        command = [str(self.programs / "nvidia-imex-ctl"), "-c", str(self.config), *flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
        return done.returncode, done.stdout

    def is_ready(self) -> bool:
        return self.control("-q") == (0, "READY\n")

    def domain(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.control("-N", "-j")[1])
        return found

    def link(self, line: int) -> str:
        own = self.domain()["nodes"]["0"]["connections"]
        return str(own[str(line)]["status"])

    def said(self, text: str) -> bool:
        return text in self.log.read_text()


@pytest.fixture
def nodes(tmp_path: Path) -> list[Node]:
    """Two nodes with the slots 0 and 1 of four, which know each other."""
    net = Domain(tmp_path)
    found = [Node(tmp_path / f"node{n}", tmp_path / "bin", net.address()) for n in range(2)]
    for node in found:
        node.files(dict(enumerate(each.address for each in found)))
    return found


def test_ready_is_one_line_and_needs_no_peers(nodes: list[Node]) -> None:
    with nodes[0].running():
        until(nodes[0].is_ready)


def test_nobody_there_is_unavailable(nodes: list[Node]) -> None:
    assert nodes[0].control("-q") == (1, "UNAVAILABLE\n")


def test_a_slow_start_shows_in_the_state(nodes: list[Node]) -> None:
    nodes[0].faults(start_s=3600)
    with nodes[0].running():
        until(lambda: nodes[0].control("-q") == (0, "INITIALIZING\n"))
        nodes[0].faults()
        until(nodes[0].is_ready)


def test_nodes_connect_and_unused_slots_degrade_the_domain(nodes: list[Node]) -> None:
    with nodes[0].running(), nodes[1].running():
        until(lambda: nodes[0].is_ready() and nodes[0].link(1) == "CONNECTED")
        found = nodes[0].domain()
    assert found["nodes"]["1"]["status"] == "READY"
    assert found["nodes"]["2"] == {
        "status": "UNAVAILABLE",
        "host": "127.0.0.2",
        "hostName": "N/A",
        "connections": {
            str(line): {"host": node["host"], "status": "INVALID"}
            for line, node in found["nodes"].items()
        },
    }
    assert found["status"] == "DEGRADED"


def test_a_domain_without_unused_slots_is_up(nodes: list[Node]) -> None:
    for node in nodes:
        node.files(dict(enumerate(each.address for each in nodes)), mode="ip")
    with nodes[0].running(), nodes[1].running():
        until(lambda: nodes[0].is_ready() and nodes[0].domain()["status"] == "UP")


def test_the_table_for_people_says_the_same(nodes: list[Node]) -> None:
    with nodes[0].running():
        until(nodes[0].is_ready)
        status, text = nodes[0].control("-N")
    assert status == 0
    assert "Domain State: DEGRADED" in text
    assert f"{nodes[0].address:<40}- READY" in text


def test_its_identity_is_the_line_that_leads_to_its_own_address(nodes: list[Node]) -> None:
    with nodes[1].running():
        until(lambda: nodes[1].said("Identified this node as ID 1"))


def test_a_node_without_a_line_of_its_own_does_not_start(nodes: list[Node]) -> None:
    nodes[0].names({1: nodes[1].address})
    with nodes[0].running() as process:
        assert process.wait(DEADLINE_S) == 1
    assert nodes[0].said("leads to an address of this node")


@pytest.mark.parametrize(
    ("number", "status", "link"),
    [(signal.SIGTERM, 0, "DISCONNECTED"), (signal.SIGKILL, -9, "RECOVERING")],
)
def test_peers_are_told_of_an_orderly_stop_and_not_of_a_crash(
    nodes: list[Node], number: int, status: int, link: str
) -> None:
    with nodes[0].running(), nodes[1].running() as process:
        until(lambda: nodes[0].is_ready() and nodes[0].link(1) == "CONNECTED")
        process.send_signal(number)
        assert process.wait(DEADLINE_S) == status
        until(lambda: nodes[0].link(1) == link)


def test_names_are_looked_up_again_only_when_told(nodes: list[Node]) -> None:
    nodes[0].names({0: nodes[0].address})
    with nodes[0].running() as process, nodes[1].running():
        until(nodes[0].is_ready)
        nodes[0].names({0: nodes[0].address, 1: nodes[1].address})
        until(lambda: nodes[1].is_ready())
        assert nodes[0].link(1) == "NEVER_CONNECTED"
        process.send_signal(signal.SIGUSR1)
        until(lambda: nodes[0].link(1) == "CONNECTED")


def test_a_second_signal_within_the_window_is_lost(nodes: list[Node]) -> None:
    nodes[0].faults(signal_window_s=3600)
    with nodes[0].running() as process:
        until(nodes[0].is_ready)
        process.send_signal(signal.SIGUSR1)
        until(lambda: nodes[0].said("connections renewed"))
        process.send_signal(signal.SIGUSR1)
        until(lambda: nodes[0].said("SIGUSR1 ignored"))


def test_a_node_of_another_list_is_not_talked_to(nodes: list[Node]) -> None:
    nodes[1].files({0: nodes[0].address, 1: nodes[1].address}, mode="ip")
    with nodes[0].running(), nodes[1].running():
        until(lambda: nodes[0].is_ready() and nodes[0].link(1) == "NODE_MAP_MISMATCH")


def test_a_node_that_is_not_who_it_is_taken_for_is_not_talked_to(nodes: list[Node]) -> None:
    nodes[1].names({0: nodes[0].address, 2: nodes[1].address})
    with nodes[0].running(), nodes[1].running():
        until(lambda: nodes[0].is_ready() and nodes[0].link(1) == "INVALID")


def test_an_address_in_use_is_an_error(nodes: list[Node]) -> None:
    with nodes[0].running():
        until(nodes[0].is_ready)
        with nodes[0].running() as second:
            assert second.wait(DEADLINE_S) == 1
    assert nodes[0].said("Address already in use")


def test_faults_make_it_crash_hang_and_lose_peers(nodes: list[Node]) -> None:
    nodes[0].faults(crash=3)
    with nodes[0].running() as process:
        assert process.wait(DEADLINE_S) == 3
    nodes[0].faults(broken_peers=[1])
    with nodes[0].running() as process, nodes[1].running():
        until(lambda: nodes[0].is_ready() and nodes[1].is_ready())
        assert nodes[0].link(1) == "NEVER_CONNECTED"
        nodes[0].faults(crash_after_s=0)
        assert process.wait(DEADLINE_S) == 70


def test_a_container_without_python_gets_a_message(tmp_path: Path) -> None:
    lay_out(tmp_path)
    text = (tmp_path / "nvidia-imex").read_text()
    loop = text[text.index("for python in") : text.index("; do\n")]
    alone = tmp_path / "alone"
    alone.write_text(text.replace(loop, "for python in no-python-at-all"))
    done = subprocess.run(["/bin/sh", alone], capture_output=True, text=True)
    assert (done.returncode, "needs Python 3" in done.stderr) == (127, True)


@pytest.mark.parametrize("flags", [(), ("-q", "-N"), ("-x",)])
def test_flags_that_make_no_sense_are_refused(nodes: list[Node], flags: tuple[str, ...]) -> None:
    status, output = nodes[0].control(*flags)
    assert (status, output) == (1, "")


@pytest.mark.parametrize("text", ["{", '["never_ready"]', "null", "[" * 100_000])
def test_a_file_of_faults_that_is_no_json_object_injects_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / FAULTS_FILE).write_text(text)
    assert Faults(tmp_path)["never_ready"] is None
