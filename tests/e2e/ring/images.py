"""The images of the cluster, made from what this machine has: no registry is ever asked.

``ubuntu`` stands in for the image of that name in demo specs: a shell and the usual commands
from this machine's Debian, with the libraries they need.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from .binaries import TOOL
from .errors import RingError
from .oci import Image
from .processes import run
from .storage import images_dir

if TYPE_CHECKING:
    from collections.abc import Iterable

PAUSE = "registry.k8s.io/pause:3.10.2"
TOOL_IMAGE = "e2e.nvdra/tool:v1"
UBUNTU = ("docker.io/library/ubuntu:22.04", "docker.io/library/ubuntu:24.04")

_PATH = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_COMMANDS = """
    bash sh awk basename cat chmod chown cp cut date dd df dirname du echo env expr false find
    getent grep head hostname id ldd ln ls md5sum mkdir mkfifo mknod mktemp mount mv nproc paste
    printenv printf ps pwd readlink realpath rm rmdir sed seq sha256sum sleep sort stat stty sync
    tail tar tee test timeout touch tr true tty umount uname uniq wc which whoami xargs yes
"""
_LIBRARIES = ("libnss_files.so.2", "libnss_dns.so.2")
_TEXTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/os-release": 'NAME="Ubuntu"\nID=ubuntu\nPRETTY_NAME="Ubuntu (stand-in)"\n',
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_FOLDERS = """
    usr usr/bin usr/sbin usr/lib usr/lib64 etc root tmp var var/tmp run dev proc sys
"""
_MERGED = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}


def archives() -> list[Path]:
    """The archives of all images, written where missing."""
    return [_written(image) for image in (*_tool_images(), _ubuntu_image())]


def _written(image: Image) -> Path:
    name = re.sub(r"[^a-z0-9.]+", "-", image.references[0])
    archive = images_dir() / f"{name}-{image.key()}.tar"
    if not archive.is_file():
        image.write(archive)
        for outdated in set(images_dir().glob(f"{name}-*.tar")) - {archive}:
            outdated.unlink(missing_ok=True)
    return archive


def _tool_images() -> list[Image]:
    program = TOOL.folder() / "tool"
    pause = Image(references=(PAUSE,), files={"pause": program}, entrypoint=("/pause",))
    tool = Image(references=(TOOL_IMAGE,), files={"tool": program}, entrypoint=("/tool",))
    return [pause, tool]


def _ubuntu_image() -> Image:
    files = {str(path).lstrip("/"): path for path in _with_libraries(_programs())}
    return Image(
        references=UBUNTU,
        files={_merged(name): path for name, path in files.items()},
        texts=_TEXTS,
        links=_MERGED,
        folders=_FOLDERS.split(),
        command=("/bin/bash",),
        environment=_PATH,
    )


def _merged(name: str) -> str:
    """Where a file is when /bin and its kin are links into /usr, as in Debian since 12."""
    return name if name.startswith("usr/") else f"usr/{name}"


def _programs() -> list[Path]:
    """The commands this machine has; all but the shell may be absent."""
    found = [Path(path) for name in _COMMANDS.split() if (path := shutil.which(name))]
    if not any(path.name == "bash" for path in found):
        raise RingError("this machine has no bash", remedy="apt-get install bash")
    return found


def _with_libraries(programs: Iterable[Path]) -> list[Path]:
    programs = list(programs)
    listing = run(["ldd", *[path for path in programs if _is_elf(path)]])
    libraries = {Path(path) for path in re.findall(r"(/\S+\.so\S*) \(0x", listing)}
    beside = {path.parent for path in libraries}
    libraries |= {
        folder / name for folder in beside for name in _LIBRARIES if (folder / name).exists()
    }
    return [*programs, *sorted(libraries)]


def _is_elf(path: Path) -> bool:
    with path.open("rb") as content:
        return content.read(4) == b"\x7fELF"
