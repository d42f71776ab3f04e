"""The programs of the cluster, built from Go modules once and kept between runs.

Each *parcel* is built into a folder of its own in the cache, named by its version and a hash of
everything that decides its content, first beside it and then renamed: a half-built parcel is
never seen, and two runs at once build it once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import RingError
from .processes import run
from .storage import PROGRAM_SOURCES, programs_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KUBERNETES_VERSION = "v1.36.3"
CONTAINERD_VERSION = "v2.3.7"
CNI_VERSION = "v1.9.1"

_KUBERNETES_LINKS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
)
_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


@dataclass(frozen=True, slots=True)
class Parcel:
    """Programs that are built together.

    ``command`` is a folder of our own module, or ``packages`` are built at ``version`` as they
    come; ``links`` are the names under which a multi-call program is started.
    """

    name: str
    version: str
    programs: tuple[str, ...]
    packages: tuple[str, ...] = ()
    command: str = ""
    links: tuple[str, ...] = ()
    linker_flags: tuple[str, ...] = ("-s", "-w")
    needs_module: bool = False
    cold_build: str = "some seconds"

    def sources(self) -> list[Path]:
        files = sorted((PROGRAM_SOURCES / self.command).glob("*.go")) if self.command else []
        modules = [PROGRAM_SOURCES / "go.mod", PROGRAM_SOURCES / "go.sum"]
        return files + (modules if self.needs_module else [])

    def key(self) -> str:
        """Changes when the built programs would; the Go version is left out on purpose."""
        choices = (self.programs, self.packages, self.links, self.linker_flags)
        digest = hashlib.sha256(repr(choices).encode())
        for source in self.sources():
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
        return f"{self.name}-{self.version}-{digest.hexdigest()[:12]}"

    def folder(self) -> Path:
        return programs_dir() / self.key()

    @property
    def is_built(self) -> bool:
        return self.folder().is_dir()


def _version_flags() -> tuple[str, ...]:
    """Without them every component says it is v0.0.0 and version checks misjudge it."""
    major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
    facts = {"gitVersion": KUBERNETES_VERSION, "gitMajor": major, "gitMinor": minor}
    return tuple(
        flag
        for package in _VERSION_PACKAGES
        for variable, value in facts.items()
        for flag in ("-X", f"{package}.{variable}={value}")
    )


KUBERNETES = Parcel(
    name="kubernetes",
    version=KUBERNETES_VERSION,
    programs=("kubernetes",),
    command="cmd/kubernetes",
    links=_KUBERNETES_LINKS,
    linker_flags=("-s", "-w", *_version_flags()),
    needs_module=True,
    cold_build="5 to 10 minutes on two cores",
)
CONTAINERD = Parcel(
    name="containerd",
    version=CONTAINERD_VERSION,
    programs=("containerd", "containerd-shim-runc-v2", "ctr"),
    packages=tuple(
        f"github.com/containerd/containerd/v2/cmd/{program}"
        for program in ("containerd", "containerd-shim-runc-v2", "ctr")
    ),
    cold_build="about a minute",
)
CNI_PLUGINS = Parcel(
    name="cni",
    version=CNI_VERSION,
    programs=("bridge", "host-local", "loopback", "portmap"),
    packages=tuple(
        f"github.com/containernetworking/plugins/plugins/{path}"
        for path in ("main/bridge", "ipam/host-local", "main/loopback", "meta/portmap")
    ),
)
TOOL = Parcel(name="tool", version="v1", programs=("tool",), command="cmd/tool")

CLUSTER_PARCELS = (KUBERNETES, CONTAINERD, CNI_PLUGINS, TOOL)


def missing_parcels(parcels: tuple[Parcel, ...] = CLUSTER_PARCELS) -> list[Parcel]:
    return [parcel for parcel in parcels if not parcel.is_built]


def go_version() -> tuple[int, int] | None:
    """Major and minor of the Go toolchain on the PATH, or None when there is none."""
    if shutil.which("go") is None:
        return None
    found = re.match(r"go(\d+)\.(\d+)", run(["go", "env", "GOVERSION"]).strip())
    return (int(found[1]), int(found[2])) if found else None


def wanted_go_version() -> tuple[int, int]:
    """What the module asks for in its go line."""
    found = re.search(r"^go (\d+)\.(\d+)", (PROGRAM_SOURCES / "go.mod").read_text(), re.MULTILINE)
    assert found, "go.mod has a go line"
    return int(found[1]), int(found[2])


def ensure_built(
    parcels: tuple[Parcel, ...] = CLUSTER_PARCELS, *, say: Callable[[str], None]
) -> None:
    """Build what the cache does not have yet.

    Raises:
        RingError: the Go client failed; the message has the end of its output.
    """
    if not missing_parcels(parcels):
        return
    programs_dir().mkdir(parents=True, exist_ok=True)
    with _locked(programs_dir() / "lock", say=say):
        for unfinished in programs_dir().glob(".*-*"):
            shutil.rmtree(unfinished, ignore_errors=True)  # of a killed run: we hold the lock
        for parcel in missing_parcels(parcels):
            say(f"building {parcel.name} {parcel.version} ({parcel.cold_build} when cold)")
            _build(parcel)


def _build(parcel: Parcel) -> None:
    with tempfile.TemporaryDirectory(dir=programs_dir(), prefix=f".{parcel.name}-") as scratch:
        folder = Path(scratch) / "built"
        folder.mkdir()
        flags = ["-trimpath", "-buildvcs=false", "-ldflags", " ".join(parcel.linker_flags)]
        if parcel.command:
            command = ["build", *flags, "-o", f"{folder}/", f"./{parcel.command}"]
            _go(command)
        else:
            packages = [f"{package}@{parcel.version}" for package in parcel.packages]
            _go(["install", *flags, *packages], GOBIN=str(folder))
        for link in parcel.links:
            (folder / link).symlink_to(parcel.programs[0])
        _check_complete(parcel, folder)
        folder.rename(parcel.folder())


def _go(arguments: list[str], **environment: str) -> None:
    """Run the Go client at the lowest priority; what it prints is told only when it fails.

    It ends with us: the next run would not wait for it, and take away what it builds.
    """
    with tempfile.TemporaryFile("w+") as log:
        status = subprocess.call(
            ["setpriv", "--pdeathsig", "KILL", "--", "nice", "-n", "19", "go", *arguments],
            cwd=PROGRAM_SOURCES,
            env={**os.environ, "CGO_ENABLED": "0", **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        if status != 0:
            log.seek(0)
            said = log.read()[-2000:].strip()
            offline = re.search(r"dial tcp|no such host|i/o timeout|connection refused", said)
            raise RingError(
                f"go {' '.join(arguments)} failed with {status}: {said}",
                remedy="the Go module proxy (go env GOPROXY) must be reachable" if offline else "",
            )


def _check_complete(parcel: Parcel, folder: Path) -> None:
    absent = [name for name in parcel.programs if not (folder / name).is_file()]
    if absent:
        raise RingError(f"building {parcel.name} gave no {', '.join(absent)} in {folder}")


@contextlib.contextmanager
def _locked(path: Path, *, say: Callable[[str], None]) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run that is building (lock {path})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
