"""Where a driver's sockets are: one pair for all instances, or a pair for each.

From 1.33 on the kubelet keeps several instances of one driver. In a rolling update the old and the
new pod then serve side by side, on sockets that carry the pod's UID. Older kubelets know one
instance of a driver, so it has fixed names there and is restarted.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import structlog

from nvdra_api.names import DRA_SOCKET, registration_socket
from nvdra_kube.errors import ApiError
from nvdra_kube.resources import NODES
from nvdra_kube.semver import SemverError, server_minor

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from nvdra_kube.api import KubeApi

log = structlog.get_logger(__name__)

MAX_PATH_BYTES: Final = 107
"""`sockaddr_un.sun_path` holds 108 bytes with its terminating zero."""
FIRST_ROLLING_KUBELET: Final = (1, 33)

_PATIENCE_S: Final = 5.0
_OWN_SERVICE: Final = re.compile(r"dra(-[A-Za-z0-9_-]+)?\.sock")


@dataclass(frozen=True, slots=True)
class SocketNames:
    """`service` is what the kubelet calls, `registration` what it finds the instance by."""

    service: Path
    registration: Path

    @classmethod
    def fixed(cls, driver: str, *, plugin_dir: Path, registrar_dir: Path) -> Self:
        """The same for every instance: a new one takes the place of the old."""
        return cls(plugin_dir / DRA_SOCKET, registrar_dir / registration_socket(driver))

    @classmethod
    def of_pod(cls, pod_uid: str, *, driver: str, plugin_dir: Path, registrar_dir: Path) -> Self:
        """Those of one pod, the same whenever its container starts; the UID is shortened where a
        path would be too long for a socket."""
        uid_hash = _digest(pod_uid, size=8)
        both_hash = _digest(f"{driver}\0{pod_uid}", size=16)
        services = (f"dra-{pod_uid}.sock", f"dra-{uid_hash}.sock")
        registrations = (
            f"{driver}-{pod_uid}-reg.sock",
            f"{driver}-{uid_hash}-reg.sock",
            f"dra-{both_hash}-reg.sock",
        )
        return cls(_first_fit(plugin_dir, services), _first_fit(registrar_dir, registrations))


def is_service_name(name: str) -> bool:
    """Whether a file of a driver's plugin directory is named like the socket of an instance."""
    return _OWN_SERVICE.fullmatch(name) is not None


def is_registration_name(name: str, *, driver: str) -> bool:
    """Whether a file of the registrar directory is named like a socket of this driver, and of no
    other: the shortest form does not tell."""
    return (name.startswith(f"{driver}-") and name.endswith("-reg.sock")) or (
        name == registration_socket(driver)
    )


async def kubelet_takes_several(api: KubeApi, node: str) -> bool:
    """Whether the node's kubelet keeps two instances of a driver; False when nobody can tell."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            body = await api.get(NODES, node)
        version = body.get("status", {}).get("nodeInfo", {}).get("kubeletVersion", "")
        if server_minor(version) >= FIRST_ROLLING_KUBELET:
            return True
        cause = f"kubelet {version} keeps one instance of a driver"
    except (ApiError, SemverError) as exc:
        cause = f"the kubelet's version is not known: {exc}"
    except TimeoutError:
        cause = f"the API server has not told the kubelet's version within {_PATIENCE_S:g} s"
    log.warning("sockets get fixed names", node=node, cause=cause)
    return False


def _first_fit(directory: Path, names: Iterable[str]) -> Path:
    """The last one, if none fits: it is refused later, with its length."""
    path = directory
    for name in names:
        path = directory / name
        if len(os.fsencode(path)) <= MAX_PATH_BYTES:
            break
    return path


def _digest(text: str, *, size: int) -> str:
    digest = hashlib.sha256(text.encode()).digest()[:size]
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
