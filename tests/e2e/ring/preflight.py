"""Can this machine run the cluster? Each obstacle is one line that says what to do about it."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import binaries, cgroups
from .errors import Refused, RingError
from .network import listen
from .record import ClusterRecord, erase_stale
from .storage import cache_root, clusters_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_GIB = 1 << 30
_DISK_COLD = 7 * _GIB
_DISK_WARM = 1 * _GIB

# What is called, and the Debian package that brings it.
_TOOLS = {
    "ip": "iproute2",
    "ldd": "libc-bin",
    "mount": "mount",
    "nft": "nftables",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "pivot_root": "util-linux",
    "runc": "runc",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a run is going to ask of the machine; what it looks at are parameters for tests."""

    cluster: str
    port: int = 0
    dev: Path = Path("/dev")
    path: str | None = None
    euid: int | None = None
    free_bytes: Callable[[Path], int] = _free_bytes
    watchers: int = 24


def check(wanted: Wanted, *, say: Callable[[str], None]) -> None:
    """Clear up after killed runs, then refuse what cannot work.

    Raises:
        Refused: with one line for each obstacle.
    """
    found = list(_first_obstacles(wanted))
    if not found:  # the rest needs root
        for name in erase_stale():
            say(f"cleared up after cluster {name}, whose owner was killed")
        found = list(_further_obstacles(wanted))
    if found:
        raise Refused([str(obstacle) for obstacle in found])


def _first_obstacles(wanted: Wanted) -> Iterator[RingError]:
    if platform.system() != "Linux":
        yield RingError(
            f"this is {platform.system()}, not Linux", remedy="use a Linux machine or VM"
        )
    elif (os.geteuid() if wanted.euid is None else wanted.euid) != 0:
        yield RingError("not root, and namespaces, mounts and cgroups need it",
                        remedy="run again with sudo (keep the environment: sudo -E)")  # fmt: skip
    yield from _missing_tools(wanted)
    yield from _go(wanted)
    yield from _real_devices(wanted)


def _further_obstacles(wanted: Wanted) -> Iterator[RingError]:
    yield from _running(wanted)
    yield from _disk_space(wanted)
    yield from _port(wanted)
    yield from _watchers(wanted)
    if clusters_dir().is_dir():
        yield from _kernel()


def _missing_tools(wanted: Wanted) -> Iterator[RingError]:
    # Daemons' programs are in sbin, which a user's PATH may lack.
    path = wanted.path or f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in _TOOLS if shutil.which(name, path=path) is None]
    if missing:
        packages = sorted({_TOOLS[name] for name in missing})
        yield RingError(f"{', '.join(missing)} not found",
                        remedy=f"apt-get install --yes {' '.join(packages)}")  # fmt: skip


def _go(wanted: Wanted) -> Iterator[RingError]:
    if not binaries.missing_parcels():
        return
    needed = "{}.{}".format(*binaries.wanted_go_version())
    if shutil.which("go", path=wanted.path) is None:
        yield RingError(f"no Go to build Kubernetes {binaries.KUBERNETES_VERSION} with",
                        remedy=f"install Go {needed} or newer and put it on the PATH")  # fmt: skip
        return
    found = binaries.go_version()
    if found is None or found < binaries.wanted_go_version():
        has = "{}.{}".format(*found) if found else "of unknown version"
        yield RingError(f"Go {has} is too old for Kubernetes {binaries.KUBERNETES_VERSION}",
                        remedy=f"install Go {needed} or newer and put it first on the PATH",
                        )  # fmt: skip


def _real_devices(wanted: Wanted) -> Iterator[RingError]:
    real = sorted(path.name for path in wanted.dev.glob("nvidia*"))
    if real:
        yield RingError(f"real NVIDIA device nodes in {wanted.dev} ({', '.join(real[:4])})",
                        remedy="run on a machine without NVIDIA GPUs: the ring simulates them",
                        )  # fmt: skip


def _running(wanted: Wanted) -> Iterator[RingError]:
    try:
        record = ClusterRecord.read(wanted.cluster)
    except RingError as error:
        yield error
        return
    if record is not None and record.is_running:
        yield RingError(
            f"cluster {wanted.cluster} is running (process {record.owner.pid})",
            remedy=f"python tests/e2e/keep.py down --name {wanted.cluster}, or use another name",
        )


def _disk_space(wanted: Wanted) -> Iterator[RingError]:
    is_cold = binaries.KUBERNETES in binaries.missing_parcels()
    places = {cache_root(): _DISK_WARM, clusters_dir(): _DISK_WARM}
    if is_cold:
        places |= {cache_root(): _DISK_COLD, _go_cache(): _DISK_COLD}
    for folder, needed in places.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            yield RingError(
                f"cannot make {folder} ({error.strerror})",
                remedy="point XDG_CACHE_HOME, GOCACHE or NVDRA_E2E_STATE at a folder to write in",
            )
            continue
        free = wanted.free_bytes(folder)
        if free < needed:
            yield RingError(
                f"{free / _GIB:.1f} GiB free in {folder}, {needed / _GIB:.0f} GiB needed",
                remedy="free some, or point XDG_CACHE_HOME (GOCACHE, GOMODCACHE) elsewhere",
            )


def _go_cache() -> Path:
    return Path(os.environ.get("GOCACHE") or Path.home() / ".cache/go-build")


def _port(wanted: Wanted) -> Iterator[RingError]:
    try:
        listen(wanted.port).close()
    except RingError as error:
        yield error


def _watchers(wanted: Wanted) -> Iterator[RingError]:
    """Kubelets end without an inotify instance, of which a user has few on the whole machine.

    Two nodes with the driver take 20.
    """
    libc = ctypes.CDLL(None)
    found: list[int] = []
    while len(found) < wanted.watchers and (descriptor := libc.inotify_init()) >= 0:
        found.append(descriptor)
    for descriptor in found:
        os.close(descriptor)
    if len(found) < wanted.watchers:
        yield RingError(
            f"only {len(found)} inotify instances are free, {wanted.watchers} needed",
            remedy="stop what else watches files, or raise fs.inotify.max_user_instances",
        )


def _kernel() -> Iterator[RingError]:
    """Try what cannot be read off anywhere: namespaces, control groups, overlay mounts."""
    spaces = ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork"]
    if not _works([*spaces, "true"]):
        yield RingError("no new namespaces can be made here",
                        remedy="run on the host or in a privileged container")  # fmt: skip
        return
    mine = f"nvdra-preflight-{os.getpid()}"  # another run may be trying at this moment
    try:
        cgroups.create(mine)
        cgroups.remove(mine)
    except RingError as error:
        yield error
    scratch = clusters_dir() / f".{mine}"
    for name in ("lower", "upper", "work", "merged"):
        (scratch / name).mkdir(parents=True, exist_ok=True)
    layers = f"lowerdir={scratch}/lower,upperdir={scratch}/upper,workdir={scratch}/work"
    if not _works(["unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o", layers,
                   str(scratch / "merged")]):  # fmt: skip
        yield RingError(f"overlayfs cannot lie on the file system of {clusters_dir()}",
                        remedy="point NVDRA_E2E_STATE at a folder on ext4, xfs or tmpfs",
                        )  # fmt: skip
    shutil.rmtree(scratch, ignore_errors=True)


def _works(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
