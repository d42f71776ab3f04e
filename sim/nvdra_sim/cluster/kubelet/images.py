"""Stand-in container images: one small root file system under every name that a Pod asks for.

No image is ever pulled. The content is a shell and a listed set of this machine's own programs
with the libraries they load, copied once; nothing of it needs privileges. Names may be given
images of their own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from nvdra_sim.cluster.kubelet.cdi_spec import Mount

PROGRAMS = (
    "bash", "sh", "awk", "basename", "cat", "chmod", "cp", "cut", "date", "df", "dirname",
    "echo", "env", "expr", "false", "find", "free", "grep", "head", "hostname", "id", "kill",
    "ln", "ls", "mkdir", "mktemp", "mount", "mv", "nohup", "nproc", "od", "printenv", "printf",
    "ps", "pwd", "readlink", "realpath", "rm", "rmdir", "sed", "seq", "setsid", "sleep", "sort",
    "stat", "tail", "tee", "test", "timeout", "touch", "tr", "true", "tty", "uname", "uniq",
    "wc", "whoami", "xargs", "yes",
)  # fmt: skip
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_HOST_DIRECTORIES = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin")
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_DIRECTORIES = (
    "dev", "etc", "home", "mnt", "opt", "proc", "root", "run", "sys", "tmp", "usr/local/bin", "var",
)  # fmt: skip
_TEXTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "etc/resolv.conf": "",
    "etc/os-release": (
        "NAME='nvdra stand-in image'\nID=nvdra\nVERSION_ID=1\n"
        "PRETTY_NAME='nvdra stand-in image (a shell and programs of the machine it runs on)'\n"
    ),
}
_LIBRARY = re.compile(r"(?:=>\s+|^\s+)(/\S+)\s+\(0x", re.MULTILINE)


_COMPONENT = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]+)?/)?{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::\w[\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9.+_-]*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)


class ImageError(Exception):
    """The stand-in image cannot be built on this machine."""


class InvalidImageName(ImageError):
    """What the Pod names is no reference to an image."""


class ImageContent(Protocol):
    """What is in an image: files that are copied, and directories of this machine."""

    @property
    def label(self) -> str:
        """The name of its directory."""
        ...

    @property
    def mounts(self) -> Sequence[Mount]:
        """Directories of this machine that every container of it has."""
        ...

    def host_command(self, program: str) -> tuple[str, ...]:
        """How to run one of its programs without a container; () where that is not possible."""
        ...

    def build(self, root: Path) -> None:
        """Raises `ImageError` and `OSError`."""
        ...


@dataclass(frozen=True, slots=True)
class StandIn:
    """A shell, and those of `programs` that this machine has."""

    programs: Sequence[str] = PROGRAMS
    label: str = "stand-in"
    mounts: tuple[Mount, ...] = ()

    def host_command(self, program: str) -> tuple[str, ...]:
        return ()

    def build(self, root: Path) -> None:
        build_root(root, self.programs)


@dataclass(frozen=True, slots=True)
class Image:
    """A finished root file system; its files are never written to after it was built."""

    root: Path
    directories: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    files: tuple[str, ...]
    content: ImageContent = field(default_factory=StandIn)

    def unpack(self, target: Path) -> None:
        """Make a writable root file system at `target`: programs as hard links, /etc as copies."""
        target.mkdir(parents=True)
        for name in self.directories:
            (target / name).mkdir(exist_ok=True)
        for name, destination in self.links:
            (target / name).symlink_to(destination)
        for name in self.files:
            _place(self.root / name, target / name, copied=name.startswith("etc/"))
        (target / "tmp").chmod(0o1777)


@dataclass(slots=True)
class ImageStore:
    """Images kept below `directory`; several processes may share it.

    `own` has the contents of images that are something else than the stand-in.
    """

    directory: Path
    programs: Sequence[str] = PROGRAMS
    own: Mapping[str, ImageContent] = field(default_factory=dict)
    _images: dict[str, Image] = field(init=False, default_factory=dict)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def image(self, name: str) -> Image:
        """The image that stands in for `name`. Blocks; builds it at the first call.

        Raises `ImageError` when not even a shell can be copied, or the directory is not writable.
        """
        if not name:
            raise ImageError("the container names no image; set spec.containers[].image")
        if not _REFERENCE.fullmatch(name):
            raise InvalidImageName(f"couldn't parse image name {name!r}: invalid reference format")
        content = self.own.get(name) or StandIn(self.programs)
        with self._lock:
            if content.label not in self._images:
                self._images[content.label] = self._open_or_explain(content)
            return self._images[content.label]

    def contents(self) -> tuple[str, ...]:
        """Paths of the programs and files in the image, sorted."""
        image = self.image("contents")
        return tuple(sorted(f"/{name}" for name in image.files))

    def _open_or_explain(self, content: ImageContent) -> Image:
        try:
            return self._open(content)
        except OSError as exc:
            raise ImageError(
                f"stand-in image below {self.directory}: {exc}; use a writable directory with space"
            ) from exc

    def _open(self, content: ImageContent) -> Image:
        root = self.directory / content.label
        if not root.is_dir():
            self.directory.mkdir(parents=True, exist_ok=True)
            building = Path(tempfile.mkdtemp(prefix=".building-", dir=self.directory))
            try:
                content.build(building)
                building.chmod(0o755)
                _rename_unless_there(building, root)
            finally:
                shutil.rmtree(building, ignore_errors=True)
        return _scan(root, content)


def build_root(root: Path, programs: Iterable[str]) -> None:
    """A root file system with these programs. Raises `ImageError` without a shell."""
    for name in _DIRECTORIES:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    for name, text in _TEXTS.items():
        (root / name).write_text(text)
    found = [path for name in programs if (path := _find(name)) is not None]
    if not any(path.name in ("bash", "sh") for path in found):
        raise ImageError(f"no bash and no sh in {', '.join(_HOST_DIRECTORIES)}; install a shell")
    for path in found:
        shutil.copy(path, root / "usr/bin" / path.name, follow_symlinks=True)
    for path in libraries_of(found):
        copy_in(root, path)
    cache = Path("/etc/ld.so.cache")
    if cache.is_file():
        shutil.copy(cache, root / "etc/ld.so.cache")
    _stand_in_shell(root / "usr/bin")


def _find(name: str) -> Path | None:
    for directory in _HOST_DIRECTORIES:
        path = Path(directory, name)
        if path.is_file() and os.access(path, os.R_OK | os.X_OK):
            return path
    return None


def copy_in(root: Path, path: Path) -> None:
    """Put a file of this machine at the same place below `root`."""
    target = root / str(path).lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target, follow_symlinks=True)


def libraries_of(programs: Sequence[Path]) -> list[Path]:
    """What the dynamic loader would load, as `ldd` lists it; static programs need nothing."""
    ldd = shutil.which("ldd")
    if ldd is None:
        raise ImageError("ldd is not in PATH; install the C library's tools (package libc-bin)")
    answer = subprocess.run(
        [ldd, *map(str, programs)],
        capture_output=True, text=True, check=False, timeout=60, env={"LC_ALL": "C", "PATH": PATH},
    )  # fmt: skip
    return sorted({Path(name) for name in _LIBRARY.findall(answer.stdout)})


def _stand_in_shell(directory: Path) -> None:
    """Where the machine has only one of bash and sh, it answers to both names."""
    for name, other in (("bash", "sh"), ("sh", "bash")):
        if not (directory / name).exists():
            shutil.copy(directory / other, directory / name)


def _rename_unless_there(building: Path, root: Path) -> None:
    try:
        building.rename(root)
    except OSError:
        # Another process was faster; its image has the same content.
        if not root.is_dir():
            raise


def _scan(root: Path, content: ImageContent) -> Image:
    directories: list[str] = []
    links: list[tuple[str, str]] = []
    files: list[str] = []
    for parent, names, file_names in os.walk(root):
        for name in (*names, *file_names):
            path = Path(parent, name)
            relative = str(path.relative_to(root))
            if path.is_symlink():
                links.append((relative, str(path.readlink())))
            elif path.is_dir():
                directories.append(relative)
            else:
                files.append(relative)
    return Image(root, tuple(sorted(directories)), tuple(links), tuple(files), content)


def _place(source: Path, target: Path, *, copied: bool) -> None:
    if not copied:
        try:
            target.hardlink_to(source)
        except OSError:
            # Another file system, or one without hard links.
            pass
        else:
            return
    shutil.copy(source, target)
