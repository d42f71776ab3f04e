"""Addresses of the cluster, the cables between its machines, and the one door to the outside.

The machine's own network namespace gets no bridge, address, route or filter rule: only the
relay's listening socket on the loopback interface.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import RingError
from .processes import run

if TYPE_CHECKING:
    from .machine import Machine

CONTROL_PLANE_IP = "10.77.0.1"
POD_RANGE = "10.78.0.0/16"
SERVICE_RANGE = "10.96.0.0/16"
API_PORT = 6443
# Users and routes for all of them are made at the start, and they may come later.
MOST_NODES = 9
_BRIDGE = "switch"
_RELAY = Path(__file__).with_name("relay.py")


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """Where node number ``index`` (from 1) and its pods are."""

    index: int

    @property
    def ip(self) -> str:
        return f"10.77.0.{10 + self.index}"

    @property
    def pod_range(self) -> str:
        return f"10.78.{self.index}.0/24"

    @property
    def port_name(self) -> str:
        """The node's end of the cable at the switch."""
        return f"port{self.index}"


def _ip(machine: Machine, *commands: str) -> None:
    """Several ``ip`` commands at once inside the machine's network."""
    run(machine.in_network(["ip", "-batch", "-"]), stdin="\n".join(commands) + "\n")


def switch_on(control_plane: Machine) -> None:
    """The switch in the control plane's namespace, through which all machines see each other."""
    _ip(
        control_plane,
        "link set lo up",
        f"link add {_BRIDGE} type bridge",
        f"addr add {CONTROL_PLANE_IP}/24 dev {_BRIDGE}",
        f"link set {_BRIDGE} up",
    )


def connect(
    control_plane: Machine, node: Machine, address: NodeAddress, *, others: list[NodeAddress]
) -> None:
    """Lay the cable between a node that was just powered on and the switch."""
    port = address.port_name
    # A node that lost its power a moment ago may still hold the old cable.
    with contextlib.suppress(RingError):
        _ip(control_plane, f"link del {port}")
    _ip(
        control_plane,
        f"link add {port} type veth peer name eth0 netns {node.init.pid}",
        f"link set {port} master {_BRIDGE} up",
        f"route replace {address.pod_range} via {address.ip}",
    )
    _ip(
        node,
        "link set lo up",
        f"addr add {address.ip}/24 dev eth0",
        "link set eth0 up",
        f"route add default via {CONTROL_PLANE_IP}",
        *(f"route add {other.pod_range} via {other.ip}" for other in others),
    )


def set_cable(control_plane: Machine, address: NodeAddress, *, plugged: bool) -> None:
    """Pull or plug the node's cable."""
    _ip(control_plane, f"link set {address.port_name} {'up' if plugged else 'down'}")


def listen(port: int = 0) -> socket.socket:
    """A listening socket on the loopback interface; 0 takes any free port.

    Raises:
        RingError: the port is taken.
    """
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError as error:
        listening.close()
        raise RingError(
            f"port {port} of 127.0.0.1 is taken ({error.strerror})",
            remedy="stop what listens there, or choose another with --port (0 takes a free one)",
        ) from error
    listening.listen(128)
    return listening


class Relay:
    """The process through which programs on this machine reach the API server."""

    def __init__(self, control_plane: Machine, listening: socket.socket) -> None:
        self.port: int = listening.getsockname()[1]
        program = [sys.executable, "-I", "-S", str(_RELAY)]
        arguments = [str(listening.fileno()), CONTROL_PLANE_IP, str(API_PORT)]
        self._process = subprocess.Popen(
            control_plane.in_network([*program, *arguments]),
            stdin=subprocess.PIPE, pass_fds=[listening.fileno()],
        )  # fmt: skip
        listening.close()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
