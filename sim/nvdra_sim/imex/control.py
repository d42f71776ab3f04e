"""The simulated `nvidia-imex-ctl`: `-q` for this node, `-N` for the domain, `-j` as JSON."""

from __future__ import annotations

import getopt
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

from nvdra_sim.imex.configuration import BadConfiguration, read_keys

UNREACHABLE = "UNAVAILABLE"
_DEFAULT_CONFIGURATION = "/etc/nvidia-imex/config.cfg"
_TIMEOUT_S = 60.0
_MARKS = {
    "INVALID": "I",
    "NEVER_CONNECTED": "N",
    "RECOVERING": "R",
    "DISCONNECTED": "D",
    "NODE_MAP_MISMATCH": "!M!",
    "CONNECTED": "C",
}
_LEGEND = """Connectivity Table Legend:
I - no status available
N - never connected
R - lost, not yet cleaned up
D - lost and cleaned up
!M! - node map mismatch
C - connected
"""


def main() -> None:
    """Exit status 1 and `UNAVAILABLE` when nobody listens on the command port."""
    try:
        options = dict(getopt.getopt(sys.argv[1:], "c:qNjH")[0])
    except getopt.GetoptError as error:
        sys.exit(f"nvidia-imex-ctl: {error}")
    wants_domain = "-N" in options
    if wants_domain == ("-q" in options):
        sys.exit("usage: nvidia-imex-ctl [-c FILE] {-q | -N [-j] [-H]}")
    try:
        address = command_address(Path(options.get("-c", _DEFAULT_CONFIGURATION)))
        found = ask(address, "domain" if wants_domain else "state")
    except (BadConfiguration, OSError, ValueError) as error:
        sys.stderr.write(f"nvidia-imex-ctl: {error}\n")
        sys.stdout.write(f"{UNREACHABLE}\n")
        sys.exit(1)
    sys.stdout.write(render(found, options) if wants_domain else f"{found['state']}\n")


def command_address(path: Path) -> tuple[str, int]:
    """Where the daemon of this configuration takes commands."""
    keys = read_keys(path)
    address = keys.get("IMEX_CMD_BIND_INTERFACE_IP") or "127.0.0.1"
    return address, int(keys.get("IMEX_CMD_PORT") or 50005)


def ask(address: tuple[str, int], query: str) -> dict[str, Any]:
    """One question, one answer.

    :raises OSError: nobody is there, or nobody answers.
    """
    with socket.create_connection(address, _TIMEOUT_S) as connection:
        connection.sendall(json.dumps({"query": query}).encode() + b"\n")
        with connection.makefile("rb") as lines:
            line = lines.readline()
    if not line:
        raise ConnectionError(f"{address[0]}:{address[1]} gave no answer")
    answer: dict[str, Any] = json.loads(line)
    return answer


def render(domain: dict[str, Any], options: dict[str, str]) -> str:
    now = time.strftime("%m/%d/%Y %H:%M:%S.000")
    if "-j" in options:
        return json.dumps({**domain, "timestamp": now}) + "\n"
    nodes = domain["nodes"]
    host = "hostName" if "-H" in options else "host"
    rows = [f"Node #{line:<4}- {nodes[line][host]:<40}- {nodes[line]['status']}" for line in nodes]
    table = [
        f"{line:>6} " + " ".join(_mark(nodes[line], other) for other in nodes) for line in nodes
    ]
    header = "Nodes From\\To " + " ".join(nodes)
    state = f"Domain State: {domain['status']}"
    return "\n".join((_LEGEND, now, "Nodes:", *rows, "", header, *table, state, ""))


def _mark(node: dict[str, Any], other: str) -> str:
    return _MARKS.get(node["connections"][other]["status"], "I")


if __name__ == "__main__":
    main()
