"""The simulated `nvidia-imex-ctl`: `-q` for this node, `-N` for the domain, `-j` as JSON."""

from __future__ import annotations

import _socket as socket  # as all of `socket`, but 20 ms faster: this starts every few seconds
import sys

from nvdra_sim.imex.settings_file import BadConfiguration, read_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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
    path, flags = read_arguments(sys.argv[1:])
    query = "domain" if "N" in flags else "state"
    try:
        line = ask(command_address(path), query)
    except (BadConfiguration, OSError, ValueError) as error:
        sys.stderr.write(f"nvidia-imex-ctl: {error}\n")
        sys.stdout.write(f"{UNREACHABLE}\n")
        sys.exit(1)
    sys.stdout.write(f"{line}\n" if query == "state" else render(line, flags))


def read_arguments(arguments: list[str]) -> tuple[str, str]:
    """The configuration file's path and the letters of the other flags."""
    path, flags = _DEFAULT_CONFIGURATION, ""
    rest = iter(arguments)
    for each in rest:
        if each == "-c":
            path = next(rest, path)
        elif each in ("-q", "-N", "-j", "-H"):
            flags += each[1]
        else:
            sys.exit(f"nvidia-imex-ctl: {each} is not known")
    if ("q" in flags) == ("N" in flags):
        sys.exit("usage: nvidia-imex-ctl [-c FILE] {-q | -N [-j] [-H]}")
    return path, flags


def command_address(path: str) -> tuple[str, int]:
    """Where the daemon of this configuration takes commands."""
    keys = read_keys(path)
    address = keys.get("IMEX_CMD_BIND_INTERFACE_IP") or "127.0.0.1"
    return address, int(keys.get("IMEX_CMD_PORT") or 50005)


def ask(address: tuple[str, int], query: str) -> str:
    """One question, one line of an answer.

    :raises OSError: nobody is there, or nobody answers.
    """
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(_TIMEOUT_S)
        connection.connect(address)
        connection.sendall(f'{{"query": "{query}"}}\n'.encode())
        answer = b""
        while not answer.endswith(b"\n"):
            data = connection.recv(65536)
            if not data:
                raise ConnectionError(f"{address[0]}:{address[1]} gave no answer")
            answer += data
    finally:
        connection.close()
    return answer.decode().rstrip("\n")


def render(line: str, flags: str) -> str:
    """The domain as a table, or as JSON with the flag `j`."""
    import json
    import time

    domain = json.loads(line)
    now = time.strftime("%m/%d/%Y %H:%M:%S.000")
    if "j" in flags:
        return json.dumps({**domain, "timestamp": now}) + "\n"
    nodes = domain["nodes"]
    host = "hostName" if "H" in flags else "host"
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
