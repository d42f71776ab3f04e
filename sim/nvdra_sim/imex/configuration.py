"""Reads what `nvidia-imex` reads: its configuration, the nodes file, and where names lead."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NamedTuple

from nvdra_sim.imex.settings_file import BadConfiguration, read_keys, read_lines


class Configuration(NamedTuple):
    """The keys of the configuration file that make a difference here."""

    path: Path
    nodes_path: Path
    bind_address: str
    server_port: int
    command_address: str
    command_port: int
    grace_time_s: int

    @classmethod
    def read(cls, path: Path) -> Configuration:
        """:raises BadConfiguration: the file cannot be read, or a number is none."""
        keys = read_keys(str(path))
        return cls(
            path=path,
            nodes_path=Path(
                keys.get("IMEX_NODE_CONFIG_FILE") or "/etc/nvidia-imex/nodes_config.cfg"
            ),
            bind_address=keys.get("BIND_INTERFACE_IP", ""),
            server_port=_number(keys, "SERVER_PORT", 50000),
            command_address=keys.get("IMEX_CMD_BIND_INTERFACE_IP", ""),
            command_port=_number(keys, "IMEX_CMD_PORT", 50005),
            grace_time_s=_number(keys, "IMEX_NODE_DISCONNECTED_GRACE_TIME", -1),
        )


class Resolver:
    """Names to addresses by the hosts file alone, and whether an address is this machine's.

    HOSTS_FILE names another hosts file than the machine's. POD_IP is the only own address where it
    is set: in tests the whole of 127.0.0.0/8 would be local.
    """

    def __init__(self, environ: dict[str, str]) -> None:
        self._hosts = Path(environ.get("HOSTS_FILE") or "/etc/hosts")
        self._own = environ.get("POD_IP", "")

    def resolve(self, nodes: list[str]) -> list[str]:
        """The address of each node, empty where its name leads nowhere."""
        table: dict[str, str] = {}
        for line in read_lines(str(self._hosts)):
            address, *names = line.split()
            for name in names:
                table.setdefault(name, address)
        return [node if _is_address(node) else table.get(node, "") for node in nodes]

    def is_local(self, address: str) -> bool:
        if self._own or not address:
            return address == self._own != ""
        return not address.startswith("127.") and _can_bind(address)


def _number(keys: dict[str, str], key: str, default: int) -> int:
    try:
        return int(keys.get(key) or default)
    except ValueError as error:
        raise BadConfiguration(f"{key} is {keys[key]!r} and has to be a number") from error


def _is_address(text: str) -> bool:
    try:
        socket.getaddrinfo(text, None, flags=socket.AI_NUMERICHOST)
    except OSError:
        return False
    return True


def _can_bind(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
