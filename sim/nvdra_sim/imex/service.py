"""The simulated `nvidia-imex`: `nvidia-imex -c FILE`, in the foreground."""

from __future__ import annotations

import contextlib
import hashlib
import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from nvdra_sim.imex.configuration import Configuration, Resolver
from nvdra_sim.imex.faults import Faults
from nvdra_sim.imex.lines import Message, Wire, listen
from nvdra_sim.imex.links import CONNECTED, INVALID, MAP_MISMATCH, UNAVAILABLE, Link
from nvdra_sim.imex.settings_file import BadConfiguration, read_lines

INITIALIZING = "INITIALIZING"
WAITING_FOR_PEERS = "WAITING_FOR_PEERS"
READY = "READY"
SHUTTING_DOWN = "SHUTTING_DOWN"

_TICK_S = 0.1
_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Service:
    """One node of the domain. Its line in the nodes file is its identity, found once."""

    def __init__(self, configuration: Configuration, faults: Faults, resolver: Resolver) -> None:
        self._configuration, self._faults, self._resolver = configuration, faults, resolver
        self._selector = selectors.DefaultSelector()
        self._nodes = read_lines(str(configuration.nodes_path))
        addresses = resolver.resolve(self._nodes)
        self.line = self._find_self(addresses)
        self.address = addresses[self.line]
        self._map = hashlib.sha256("\n".join(self._nodes).encode()).hexdigest()
        self._incoming: set[Wire] = set()
        greeting = {"from": self.line, "map": self._map}
        self._links = {
            line: Link(
                line,
                address,
                port=configuration.server_port,
                greeting=greeting,
                selector=self._selector,
                changed=self._publish,
                grace_time_s=configuration.grace_time_s,
            )
            for line, address in enumerate(addresses)
            if line != self.line
        }
        self._started_at = time.monotonic()
        self._renewed_at: float | None = None
        self._stopping = False
        self._state = INITIALIZING
        self._signals = _signal_pipe()

    def run(self) -> int:
        """Until a signal ends it; returns the exit status.

        :raises OSError: an address cannot be listened on.
        """
        configuration = self._configuration
        servers = (
            (self.address, configuration.server_port, self._greeted),
            (configuration.command_address, configuration.command_port, self._commanded),
        )
        for address, port, on_message in servers:
            listener = listen(address, port)
            self._selector.register(
                listener,
                selectors.EVENT_READ,
                _acceptor(listener, self._selector, on_message, self),
            )
        self._selector.register(self._signals, selectors.EVENT_READ, self._signalled)
        while not self._stopping:
            if (status := self._advance()) is not None:
                return status
            for key, _ in self._selector.select(_TICK_S):
                key.data()
        for wire in list(self._incoming):
            wire.send({"bye": True})
        return 0

    def gone(self, wire: Wire) -> None:
        self._incoming.discard(wire)

    def _find_self(self, addresses: list[str]) -> int:
        for line, address in enumerate(addresses):
            if self._resolver.is_local(address):
                say(f"Identified this node as ID {line}, using bind IP of '{address}'")
                return line
        raise BadConfiguration(
            f"no line of {self._configuration.nodes_path} leads to an address of this node"
        )

    def _advance(self) -> int | None:
        """One look at everything; the exit status of a crash that is due."""
        now = time.monotonic()
        age = now - self._started_at
        crash = self._faults["crash_after_s"]
        if crash is not None and age >= float(crash):
            say("simulated crash")
            return 70
        self._enter(self._state_at(age))
        broken = self._faults["broken_peers"] or ()
        for line, link in self._links.items():
            link.advance(now, allowed=line not in broken)
        return None

    def _state_at(self, age: float) -> str:
        if text := self._faults["state"]:
            return str(text)
        if self._faults["never_ready"]:
            return WAITING_FOR_PEERS
        return INITIALIZING if age < float(self._faults["start_s"] or 0.0) else READY

    def _enter(self, state: str) -> None:
        if state != self._state:
            self._state = state
            say(f"state {state}")
            self._publish()

    def _signalled(self) -> None:
        for number in os.read(self._signals, 64):
            if number == signal.SIGUSR1:
                self._renew()
            elif number in _STOP and not self._faults["ignore_term"]:
                self._enter(SHUTTING_DOWN)
                self._stopping = True

    def _renew(self) -> None:
        """Resolve the names again and connect anew; the nodes file is not read again."""
        now = time.monotonic()
        window = self._faults.signal_window_s
        if self._renewed_at is not None and now - self._renewed_at < window:
            say("SIGUSR1 ignored")
            return
        self._renewed_at = now
        addresses = self._resolver.resolve(self._nodes)
        for line, link in self._links.items():
            link.redirect(addresses[line])
        say("connections renewed")

    def _greeted(self, wire: Wire, message: Message) -> None:
        if message.get("map") != self._map:
            wire.send({"refusal": MAP_MISMATCH})
        elif message.get("to") != self.line:
            wire.send({"refusal": INVALID})  # it takes this node for another one
        else:
            self._incoming.add(wire)
            wire.send(self._report())

    def _commanded(self, wire: Wire, message: Message) -> None:
        if self._faults["hang"]:
            return
        if message.get("query") == "domain":
            wire.send(self._domain())
        else:
            wire.send_line(self._state)

    def _publish(self) -> None:
        for wire in list(self._incoming):
            wire.send(self._report())

    def _connections(self) -> dict[int, str]:
        found = {line: link.status for line, link in self._links.items()}
        return {**found, self.line: CONNECTED}

    def _report(self) -> Message:
        connections = {str(line): status for line, status in self._connections().items()}
        return {"state": self._state, "host_name": socket.gethostname(), "connections": connections}

    def _domain(self) -> Message:
        """All lines of the nodes file, each as it reported itself last."""
        addresses = {line: link.address for line, link in self._links.items()}
        addresses[self.line] = self.address
        reports = {line: link.peer for line, link in self._links.items()}
        reports[self.line] = self._report()
        nodes = {
            str(line): _shown(reports[line], line, addresses) for line in range(len(self._nodes))
        }
        return {"nodes": nodes, "status": judge(nodes, self.line)}


def judge(nodes: dict[str, Any], own: int) -> str:
    """UP: everybody is ready and connected to everybody. DOWN: not even this node is ready."""
    if nodes[str(own)]["status"] != READY:
        return "DOWN"
    links = (link["status"] for node in nodes.values() for link in node["connections"].values())
    complete = all(node["status"] == READY for node in nodes.values())
    return "UP" if complete and all(link == CONNECTED for link in links) else "DEGRADED"


def _shown(report: Message, line: int, addresses: dict[int, str]) -> Message:
    connections = report.get("connections", {})
    return {
        "status": report.get("state", UNAVAILABLE),
        "host": addresses[line],
        "hostName": report.get("host_name", "N/A"),
        "connections": {
            str(other): {"host": addresses[other], "status": connections.get(str(other), INVALID)}
            for other in sorted(addresses)
        },
    }


def _acceptor(
    listener: socket.socket, selector: selectors.BaseSelector, on_message: Any, service: Service
) -> Any:
    def accept() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            Wire(connection, selector, on_message=on_message, on_end=service.gone)

    return accept


def _signal_pipe() -> int:
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    signal.set_wakeup_fd(sender)
    for number in (*_STOP, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return receiver


def say(text: str) -> None:
    sys.stderr.write(f"nvidia-imex: {text}\n")
    sys.stderr.flush()


def main() -> None:
    """Exit status 1 when it cannot start, 70 for a simulated crash."""
    if len(sys.argv) != 3 or sys.argv[1] != "-c":
        sys.exit("usage: nvidia-imex -c FILE")
    path = Path(sys.argv[2])
    faults = Faults(path.parent)
    if (status := faults["crash"]) is not None:
        say("simulated crash at start")
        sys.exit(int(status))
    try:
        service = Service(Configuration.read(path), faults, Resolver(dict(os.environ)))
        sys.exit(service.run())
    except (BadConfiguration, OSError) as error:
        say(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
