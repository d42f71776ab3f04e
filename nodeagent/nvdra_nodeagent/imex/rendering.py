"""The texts that `nvidia-imex` reads at its start: its configuration and its list of nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nvdra_nodeagent.imex.inputs import (
    DEFAULT_COMMAND_PORT,
    DEFAULT_LOG_LEVEL,
    DEFAULT_SERVER_PORT,
    MODE_DNS,
    WAIT_FOREVER,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nvdra_nodeagent.imex.inputs import Peer, Settings

HOSTNAME_PREFIX: Final = "compute-domain-daemon-"
UNUSED_ADDRESS: Final = "127.0.0.2"
"""Where names of unused slots lead: nowhere, without a question to the cluster's DNS."""

CONFIG_FILE: Final = "imexd.cfg"
NODES_FILE: Final = "nodes.cfg"
_STATISTICS: Final = "/var/log/nvidia-imex-stats.log"


def hostname(index: int, *, suffix: str) -> str:
    """The name of a slot; the suffix keeps domains apart whose pods share recycled addresses."""
    return f"{HOSTNAME_PREFIX}{suffix}-{index:04d}" if suffix else f"{HOSTNAME_PREFIX}{index:04d}"


def slots(settings: Settings, peers: Iterable[Peer]) -> tuple[tuple[str, str], ...]:
    """Address and name of every slot of the clique, by index."""
    addresses = {peer.slot: peer.ip for peer in peers}
    return tuple(
        (addresses.get(index, UNUSED_ADDRESS), hostname(index, suffix=settings.suffix))
        for index in range(settings.max_nodes)
    )


def nodes_file(settings: Settings, peers: Iterable[Peer]) -> str:
    """All names of the clique, or in IP mode the addresses of those who are there.

    A node's line number is its identity, so every node has to come to the same order.
    """
    if settings.mode == MODE_DNS:
        lines = [hostname(index, suffix=settings.suffix) for index in range(settings.max_nodes)]
    else:
        lines = [peer.ip for peer in sorted(peers)]
    return "".join(f"{line}\n" for line in lines)


def config_file(settings: Settings, *, address: str, nodes_path: str) -> str:
    """`imexd.cfg` of a daemon with these settings; the rest as `configuration` has it."""
    return configuration(
        address=address,
        nodes_path=nodes_path,
        grace_time_s=settings.grace_time_s,
        log_level=settings.log_level,
        server_port=settings.server_port,
        command_port=settings.command_port,
    )


def configuration(
    *,
    address: str,
    nodes_path: str,
    grace_time_s: int = WAIT_FOREVER,
    log_level: int = DEFAULT_LOG_LEVEL,
    server_port: int = DEFAULT_SERVER_PORT,
    command_port: int = DEFAULT_COMMAND_PORT,
) -> str:
    """`imexd.cfg`. The command service listens on `address`: on loopback, `-N` does not work."""
    keys: dict[str, object] = {
        "LOG_LEVEL": log_level,
        "LOG_FILE_NAME": "",  # standard error
        "LOG_APPEND_TO_LOG": 0,
        "LOG_FILE_MAX_SIZE": 1024,
        "LOG_MAX_ROTATE_COUNT": 10,
        "LOG_USE_SYSLOG": 0,
        "STATS_FILE_NAME": _STATISTICS,
        "DAEMONIZE": 0,
        "BIND_INTERFACE_IP": "",  # found by way of the nodes file
        "NETWORK_INTERFACE": "",
        "SERVER_PORT": server_port,
        "IMEX_NODE_CONFIG_FILE": nodes_path,
        "IMEX_WAIT_FOR_QUORUM": "RECOVERY",
        "IMEX_NODE_DISCONNECTED_GRACE_TIME": grace_time_s,
        "IMEX_CMD_ENABLED": 1,
        "IMEX_CMD_BIND_INTERFACE_IP": address,
        "IMEX_CMD_PORT": command_port,
        "IMEX_CMD_UNIX_DOMAIN_PATH": "",
        "IMEX_ENABLE_AUTH_ENCRYPTION": 0,
        "IMEX_AUTH_ENCRYPTION_MODE": "SSL_TLS",
        "IMEX_AUTH_SOURCE": "",
        "IMEX_SERVER_KEY": "",
        "IMEX_SERVER_CERT": "",
        "IMEX_SERVER_CERT_AUTH": "",
        "IMEX_CLIENT_KEY": "",
        "IMEX_CLIENT_CERT": "",
        "IMEX_CLIENT_CERT_AUTH": "",
        "IMEX_SECURITY_TARGET_OVERRIDE": "",
        "IMEX_GSS_SERVICE_NAME": "host",
        "IMEX_GSS_TIMEOUT_SEC": 30,
        "IMEX_GSS_RETRY_INTERVAL_SEC": 5,
        "IMEX_GSS_SEC_CONTEXT_LIFETIME_SEC": -1,
        "IMEX_GSS_SHUTDOWN_ON_FAILURE": 0,
    }
    return "".join(f"{key}={value}\n" for key, value in keys.items())
