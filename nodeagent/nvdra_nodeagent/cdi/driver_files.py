"""What of the NVIDIA driver a container needs: libraries, programs, settings, firmware, sockets.

Everything is looked up below the driver root, links followed as the host would follow them. The
kinds of files are those that NVIDIA's container toolkit injects.
"""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from nvdra_nodeagent.hardware.driver_root import BINARY_DIRS, resolve
from nvdra_nodeagent.hardware.errors import DriverMissing, HardwareError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from nvdra_nodeagent.hardware.ports import DriverRoot

BINARIES: Final = (
    "nvidia-smi",
    "nvidia-debugdump",
    "nvidia-persistenced",
    "nvidia-cuda-mps-control",
    "nvidia-cuda-mps-server",
    "nvidia-imex",
    "nvidia-imex-ctl",
)
_PATH: Final = ("/usr/bin", "/usr/sbin", "/bin", "/sbin")
_EGL_LIBRARIES: Final = (
    "libnvidia-egl-gbm.so.",
    "libnvidia-egl-wayland.so.",
    "libnvidia-egl-wayland2.so.",
)
_XORG_DIRS: Final = (
    "/usr/lib/xorg/modules/drivers",
    "/usr/lib/xorg/modules/extensions",
    "/usr/lib64/xorg/modules/drivers",
    "/usr/lib64/xorg/modules/extensions",
)
_SETTINGS_DIRS: Final = ("/usr/local/share", "/usr/share", "/etc")
_SETTINGS: Final = (
    "glvnd/egl_vendor.d/10_nvidia.json",
    "egl/egl_external_platform.d/10_nvidia_wayland.json",
    "egl/egl_external_platform.d/15_nvidia_gbm.json",
    "nvidia/nvoptix.bin",
    "X11/xorg.conf.d/10-nvidia.conf",
    "X11/xorg.conf.d/nvidia-drm-outputclass.conf",
    "vulkan/icd.d/nvidia_icd.json",
    "vulkan/icd.d/nvidia_layers.json",
    "vulkan/implicit_layer.d/nvidia_layers.json",
)
_SOCKETS: Final = ("nvidia-persistenced/socket", "nvidia-fabricmanager/socket")
_SOCKET_DIRS: Final = ("/run", "/var/run")
_MPS_DIR: Final = "/tmp/nvidia-mps"
_BUSY: Final = ("/run/", "/var/run/", "/tmp/")
# Links that programs expect and packages do not always bring: base library, link, target.
_EXPECTED_LINKS: Final = (
    ("libcuda.so", "libcuda.so", "libcuda.so.1"),
    ("libnvidia-opticalflow.so", "libnvidia-opticalflow.so", "libnvidia-opticalflow.so.1"),
    ("libGLX_nvidia.so", "libGLX_indirect.so.0", "libGLX_nvidia.so.{version}"),
    ("libnvidia-allocator.so", "gbm/nvidia-drm_gbm.so", "../libnvidia-allocator.so.1"),
    (
        "libnvidia-vulkan-producer.so",
        "libnvidia-vulkan-producer.so",
        "libnvidia-vulkan-producer.so.{version}",
    ),
)


DirectoryState: TypeAlias = tuple[int, int, int] | None
"""Device, inode and time of change of a directory; None when there is none."""


@dataclass(frozen=True, slots=True, order=True)
class DriverFile:
    """A file for the container: where it shall be there, and where it is below the driver root."""

    container_path: str
    root_path: str


@dataclass(frozen=True, slots=True, order=True)
class Link:
    """A symbolic link to make in the container."""

    path: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverFiles:
    """All files of one installed driver. Paths start at the driver root."""

    libcuda_dir: str
    libraries: tuple[DriverFile, ...]
    others: tuple[DriverFile, ...]
    sockets: tuple[DriverFile, ...]
    links: tuple[Link, ...]
    searched: tuple[tuple[str, DirectoryState], ...]
    """Directories that the answer depends on, as they were: unchanged, they give the same one."""

    @property
    def library_dirs(self) -> tuple[str, ...]:
        """Directories that the dynamic linker's cache in the container has to know."""
        libraries = (
            posixpath.split(file.container_path)
            for file in self.libraries
            if posixpath.basename(file.container_path).startswith("lib")
        )
        return tuple(sorted({directory for directory, _ in libraries}))


def find_driver_files(root: DriverRoot, *, version: str, kernel: str) -> DriverFiles:
    """Search the driver root for the driver of this version (`570.158.01`).

    `kernel` is the running kernel's release: firmware may be installed for one kernel only.

    :raises DriverMissing: there is no `libcuda.so.<version>`, without which nothing works.
    """
    libcuda_dir = _libcuda_dir(root, version)
    search = _Search(root.container_path)
    libraries = tuple(sorted(set(_libraries(search, libcuda_dir, version))))
    if not any(file.root_path.endswith(f"/libcuda.so.{version}") for file in libraries):
        raise HardwareError(f"cannot list {libcuda_dir} under {root.container_path}")
    others = (*_settings(search), *_firmware(search, version, kernel), *_binaries(search, root))
    return DriverFiles(
        libcuda_dir=libcuda_dir,
        libraries=libraries,
        others=tuple(sorted(set(others))),
        sockets=tuple(_sockets(search)),
        links=_links(search, libcuda_dir, libraries, version),
        searched=tuple(search.directories.items()),
    )


def is_current(files: DriverFiles, root: Path) -> bool:
    """Whether a search would find the same: cheap, for every claim asks it."""
    return all(_state(f"{root}{directory}") == state for directory, state in files.searched)


def _state(directory: str) -> DirectoryState:
    """Changes when something in the directory comes, goes or is replaced."""
    try:
        found = os.stat(directory)  # noqa: PTH116 - on the claim path; a Path costs ten times more
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


class _Search:
    """Looks into directories below a root, and remembers how it found them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.directories: dict[str, DirectoryState] = {}

    def watch(self, directory: str) -> str | None:
        """Remember a directory before it is looked into; its real path if it is there.

        One that is missing will show in the next one above it, which stands for all its missing
        children. Those of busy places (/run, /tmp) are remembered as missing themselves.
        """
        real = self.real(directory)
        place = real or directory
        while real is None and not place.startswith(_BUSY) and place != "/":
            place = posixpath.dirname(place)
            if above := self.real(place):
                place = above
                break
        self.directories.setdefault(place, _state(f"{self.root}{place}"))
        return real

    def names(self, directory: str) -> Mapping[str, str | None]:
        """Files and links in a directory, links with their target. Empty when there is none."""
        real = self.watch(directory)
        if real is None:
            return {}
        try:
            with os.scandir(f"{self.root}{real}") as entries:
                return {
                    entry.name: str(Path(entry).readlink()) if entry.is_symlink() else None
                    for entry in entries
                    if entry.is_symlink() or entry.is_file()
                }
        except OSError:
            return {}  # most of it is optional, and that libcuda is missing is noticed

    def real(self, path: str) -> str | None:
        """The path below the root with links followed; None when nothing is there."""
        try:
            found = resolve(self.root, path)
        except OSError as error:
            raise HardwareError(f"cannot look for {path} under {self.root}: {error}") from error
        return None if found is None else _inside(self.root, found)

    def file(self, path: str, *, at: str = "") -> DriverFile | None:
        """A file that is there, to be found in the container at `at`, or at the same path."""
        self.watch(posixpath.dirname(path))
        real = self.real(path)
        return None if real is None else DriverFile(at or path, real)


def _libcuda_dir(root: DriverRoot, version: str) -> str:
    """Where the driver's libraries are. Distributions may keep them aside and link to them."""
    wanted = f"libcuda.so.{version}"
    try:
        found = root.library(wanted)
    except DriverMissing as missing:
        try:
            found = root.library("libcuda.so.1")
        except DriverMissing:
            raise missing from None
        if found.name != wanted:
            raise HardwareError(
                f"the running driver is {version}, but the libraries under {root.container_path} "
                f"are of another one ({found.name}); reboot the node or restart its driver"
            ) from None
    return _inside(root.container_path, found.parent)


def _inside(root: Path, path: Path) -> str:
    """A path below the root as it is called inside."""
    return posixpath.join("/", *path.relative_to(root).parts)


def _libraries(search: _Search, libcuda_dir: str, version: str) -> Iterator[DriverFile]:
    suffix = f".so.{version}"
    for directory in (libcuda_dir, posixpath.join(libcuda_dir, "vdpau")):
        for name in search.names(directory):
            if name.endswith(suffix) or _is_egl_library(name):
                yield from _found(search, posixpath.join(directory, name))
    for directory in (posixpath.join(libcuda_dir, "nvidia/xorg"), *_XORG_DIRS):
        for name in search.names(directory):
            if name in ("nvidia_drv.so", f"libglxserver_nvidia{suffix}"):
                yield from _found(search, posixpath.join(directory, name))


def _is_egl_library(name: str) -> bool:
    return any(
        name.startswith(prefix) and "." in name.removeprefix(prefix) for prefix in _EGL_LIBRARIES
    )


def _found(search: _Search, path: str, *, at: str = "") -> Iterator[DriverFile]:
    file = search.file(path, at=at)
    if file is not None:
        yield file


def _settings(search: _Search) -> Iterator[DriverFile]:
    for name in _SETTINGS:
        for directory in _SETTINGS_DIRS:
            path = f"{directory}/{name}"
            # Loaders in the container look for Vulkan drivers in /etc whatever the host does.
            at = f"/etc/{name}" if name.startswith("vulkan/") else path
            if file := search.file(path, at=at):
                yield file
                break


def _firmware(search: _Search, version: str, kernel: str) -> Iterator[DriverFile]:
    bases = ("/lib/firmware/updates", "/lib/firmware")
    for base in [f"{base}/{kernel}" for base in bases if kernel] + list(bases):
        directory = f"{base}/nvidia/{version}"
        names = search.names(directory)
        for name in names:
            if name.startswith("gsp") and name.endswith(".bin"):
                yield from _found(search, f"{directory}/{name}")
        if names:
            return


def _binaries(search: _Search, root: DriverRoot) -> Iterator[DriverFile]:
    for directory in BINARY_DIRS:
        search.watch(directory)
    for name in BINARIES:
        try:
            found = root.binary(name)
        except HardwareError:
            continue
        real = _inside(search.root, found)
        # A program that is kept aside has to be on the container's PATH all the same.
        on_path = posixpath.dirname(real) in _PATH and posixpath.basename(real) == name
        yield DriverFile(real if on_path else f"/usr/bin/{name}", real)


def _sockets(search: _Search) -> Iterator[DriverFile]:
    for name in _SOCKETS:
        for directory in _SOCKET_DIRS:
            if file := search.file(f"{directory}/{name}"):
                yield file
                break
    search.watch(_MPS_DIR)
    yield from _found(search, _MPS_DIR)


def _links(
    search: _Search, libcuda_dir: str, libraries: tuple[DriverFile, ...], version: str
) -> tuple[Link, ...]:
    by_root_path = {file.root_path: file.container_path for file in libraries}
    mounted = {file.container_path for file in libraries}
    links: dict[str, Link] = {}
    for directory in sorted({posixpath.dirname(path) for path in mounted}):
        for name, target in search.names(directory).items():
            path = posixpath.join(directory, name)
            if target is None or path in mounted or ".so" not in name:
                continue
            leads_to = by_root_path.get(search.real(path) or "")
            if leads_to is not None:
                links[path] = Link(path, _link_target(target, directory, leads_to))
    for base, name, target in _EXPECTED_LINKS:
        path = posixpath.join(libcuda_dir, name)
        if posixpath.join(libcuda_dir, f"{base}.{version}") in mounted:
            links.setdefault(path, Link(path, target.format(version=version)))
    return tuple(sorted(links.values()))


def _link_target(target: str, directory: str, leads_to: str) -> str:
    if "/" not in target:
        return target
    same_dir = posixpath.dirname(leads_to) == directory
    return posixpath.basename(leads_to) if same_dir else leads_to
