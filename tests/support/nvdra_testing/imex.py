"""ComputeDomain daemons for tests: their inputs, and real processes on loopback addresses."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvdra_nodeagent.imex.inputs import Peer, Peers, Settings
from nvdra_nodeagent.imex.plan import Launch, Run
from nvdra_sim.imex.programs import lay_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DOMAIN = "0d9c6b7a-0000-4000-8000-000000000001"
CLIQUE = "6f1b0bd0-1111-4000-8000-000000000002.7"
BOOT = "b0071d00-2222-4000-8000-000000000003"
SUFFIX = "8585d496"
NAME = f"compute-domain-daemon-{SUFFIX}-%04d"
DEADLINE_S = 45.0

QUICK = {
    "signal_spacing_s": 0.6,
    "signal_settle_s": 0.05,
    "backoff_s": 0.1,
    "query_ready_s": 0.2,
    "query_unready_cap_s": 0.2,
    "health_first_s": 0.1,
    "health_s": 0.3,
    "health_unwell_s": 0.3,
    "poll_s": 0.2,
    "query_timeout_s": 20.0,
    "health_timeout_s": 20.0,
}
"""Timings of daemons in tests; the decisions about them have tests of their own.

What a busy machine answers late is no failure: tests of those ask for shorter limits.
"""

_PROGRAM = """
import json, os, sys
from nvdra_nodeagent.imex.lifecycle import Timings
from nvdra_nodeagent.imex.main import serve
from nvdra_nodeagent.imex.options import read_options
serve(read_options((), os.environ)._replace(timings=Timings(**json.loads(sys.argv[1]))))
"""


def settings_document(**changes: Any) -> dict[str, Any]:
    """`settings.json` as the node agent writes it."""
    return {
        "version": 1,
        "claimUID": "claim-a",
        "bootID": BOOT,
        "domain": DOMAIN,
        "clique": CLIQUE,
        "node": "node-0",
        "maxNodes": 4,
        "mode": "dns",
        "suffix": SUFFIX,
        "numNodes": 0,
        **changes,
    }


def peers_document(addresses: dict[int, str], *, own: int | None, **changes: Any) -> dict[str, Any]:
    """`peers.json`; node-<index> has `addresses[index]`."""
    peers = [{"node": f"node-{i}", "ip": ip, "index": i} for i, ip in sorted(addresses.items())]
    return {"version": 1, "generation": 1, "ownIndex": own, "peers": peers, **changes}


def some_settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {
        "claim_uid": "claim-a",
        "boot_id": BOOT,
        "domain": DOMAIN,
        "clique": CLIQUE,
        "node": "node-0",
        "max_nodes": 4,
        "mode": "dns",
        "suffix": SUFFIX,
        "num_nodes": 0,
    }
    return Settings(**{**values, **changes})


def some_peers(addresses: dict[int, str], *, own: int | None = 0, **changes: Any) -> Peers:
    entries = tuple(Peer(i, ip, f"node-{i}") for i, ip in sorted(addresses.items()))
    values: dict[str, Any] = {"generation": 1, "own_index": own, "total": len(entries)}
    return Peers(entries=entries, **{**values, **changes})


def a_run(*, own: int = 0, names: str = "a", nodes: str = "n", generation: int = 1) -> Run:
    return Run(Launch(own, "config", nodes), (("10.0.0.1", names),), ((own, own),), generation)


def until(condition: Callable[[], object], what: str = "") -> Any:
    """What `condition` returns once it is true."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"never happened: {what or condition}")
        time.sleep(0.01)
    return found


class DaemonBox:
    """One pod of a domain: a shared directory, a hosts file, an address, and the daemon."""

    def __init__(self, root: Path, *, programs: Path, address: str, node: int) -> None:
        self.address, self.node = address, node
        self.shared = root / f"imexd-{node}"
        self.hosts = root / f"hosts-{node}"
        self.log = root / f"log-{node}"
        self.environ = {
            **os.environ,
            "POD_IP": address,
            "IMEX_DIRECTORY": str(self.shared),
            "HOSTS_FILE": str(self.hosts),
            "STACKS_FILE": str(root / f"stacks-{node}"),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "COMPUTE_DOMAIN_UUID": DOMAIN,
            "CLIQUE_ID": CLIQUE,
            "COMPUTE_DOMAIN_BOOT_ID": BOOT,
            "LOG_VERBOSITY": "6",
        }
        self.shared.mkdir()
        self.hosts.write_text("127.0.0.1\tlocalhost\n10.9.9.9\tforeign\n")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **timings: float) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps({**QUICK, **timings})],
                env=self.environ,
                stderr=log,
            )

    def freeze(self, for_s: float) -> None:
        """Stop the daemon as one freezes a container, and let it go on later."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(for_s)
        self.process.send_signal(signal.SIGCONT)

    def settings(self, **changes: Any) -> None:
        defaults = {"node": f"node-{self.node}", "claimUID": f"claim-{self.node}"}
        self.write("settings.json", settings_document(**{**defaults, **changes}))

    def peers(self, addresses: dict[int, str], *, own: int | None, **changes: Any) -> None:
        self.write("peers.json", peers_document(addresses, own=own, **changes))

    def faults(self, **faults: Any) -> None:
        self.write("imex-faults.json", faults)

    def write(self, name: str, document: object) -> None:
        temporary = self.shared / f".{name}"
        text = document if isinstance(document, str) else json.dumps(document)
        temporary.write_text(text)
        temporary.replace(self.shared / name)

    def read(self, name: str) -> dict[str, Any]:
        """A file of the daemon; empty when it is not there."""
        with contextlib.suppress(FileNotFoundError):
            found: dict[str, Any] = json.loads((self.shared / name).read_text())
            return found
        return {}

    def reason(self) -> str:
        return str(self.read("ready.json").get("reason", ""))

    def is_ready(self, generation: int = 0) -> bool:
        found = self.read("ready.json")
        return found.get("ready") is True and found["generation"] >= generation

    def probe(self, path: str = "/ready") -> tuple[int, str]:
        """Status and body; 0 while nobody listens."""
        connection = http.client.HTTPConnection(self.address, 50006, timeout=DEADLINE_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode().strip()
        except ConnectionRefusedError:
            return 0, ""
        finally:
            connection.close()

    def lines(self, text: str) -> list[str]:
        """Lines of the log, the daemon's and of `nvidia-imex`, that have `text` in them."""
        return [line for line in self.log.read_text().splitlines() if text in line]

    def imex_pid(self) -> int:
        """Of the `nvidia-imex` that was started last."""
        line = until(lambda: self.lines("nvidia-imex started"))[-1]
        return int(line.partition("pid=")[2].split()[0])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the daemon and return its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


class Domain:
    """Pods on addresses that no other test uses."""

    def __init__(self, root: Path) -> None:
        self._root = root
        # Not where simulated kubelets take the addresses of Pods from.
        self._net = f"127.{128 + secrets.randbelow(100)}.{secrets.randbelow(256)}"
        self._programs = root / "bin"
        self._taken = 0
        self.boxes: list[DaemonBox] = []
        lay_out(self._programs)

    def address(self) -> str:
        self._taken += 1
        return f"{self._net}.{self._taken}"

    def pod(self) -> DaemonBox:
        box = DaemonBox(
            self._root,
            programs=self._programs,
            address=self.address(),
            node=len(self.boxes),
        )
        self.boxes.append(box)
        return box

    def formed(self, count: int) -> list[DaemonBox]:
        """`count` pods that all know each other, started and ready."""
        boxes = [self.pod() for _ in range(count)]
        self.tell(boxes)
        for box in boxes:
            box.settings()
            box.start()
        for box in boxes:
            until(box.is_ready, f"node {box.node} is ready")
        return boxes

    def tell(self, boxes: Sequence[DaemonBox], *, generation: int = 1) -> None:
        """Give all the same list of peers."""
        addresses = {box.node: box.address for box in boxes}
        for box in boxes:
            box.peers(addresses, own=box.node, generation=generation)

    def close(self) -> None:
        for box in self.boxes:
            if box.process is not None and box.process.poll() is None:
                box.process.kill()
                box.process.wait()


@contextlib.contextmanager
def a_domain(root: Path) -> Iterator[Domain]:
    """Everything in it ends with the context."""
    domain = Domain(root)
    try:
        yield domain
    finally:
        domain.close()


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
