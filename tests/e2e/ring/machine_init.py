"""The first process of a simulated machine: lays out its file system, then reaps and waits.

Run alone (standard library only) as pid 1 of fresh mount, pid, network, uts and ipc namespaces,
with the path of its plan (JSON, see ``machine.py``). Says "ready" on standard output. When its
standard input ends, because whoever started it is gone, it ends and takes everything in its
namespaces with it: a power cut that cannot be missed, however the starter died.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

MS_RDONLY, MS_NOSUID, MS_NOEXEC, MS_REMOUNT = 0x1, 0x2, 0x8, 0x20
MS_BIND, MS_REC, MS_UNBINDABLE, MS_PRIVATE, MS_SHARED = 0x1000, 0x4000, 0x20000, 0x40000, 0x100000
MNT_DETACH = 2

_OWN = {"proc", "sys", "dev", "run", "tmp", "var", "etc", "opt", "lost+found"}
_DEVICES = {
    "null": (0o666, 1, 3),
    "zero": (0o666, 1, 5),
    "full": (0o666, 1, 7),
    "random": (0o666, 1, 8),
    "urandom": (0o666, 1, 9),
    "kmsg": (0o600, 1, 11),
    "tty": (0o666, 5, 0),
}
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    arguments = (word.encode() or None for word in (source, str(target), kind))
    if _libc.mount(*arguments, ctypes.c_ulong(flags), options.encode() or None) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"mount {source} ({kind}): {os.strerror(error)}", str(target))


def bind(source: Path, target: Path, *, read_only: bool = False) -> None:
    mount(str(source), target, flags=MS_BIND | MS_REC)
    if read_only:
        mount("", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def lay_out(root: Path, disk: Path) -> None:
    """A root of its own: the machine's programs to read, everything that changes on ``disk``."""
    root.mkdir(parents=True, exist_ok=True)
    mount("root", root, "tmpfs", options="mode=755,size=64m")
    # The folder that holds the new root is shown in it, too: without end, were it bindable.
    mount("", root, flags=MS_UNBINDABLE)
    for entry in Path("/").iterdir():
        if entry.name not in _OWN:
            _show(entry, root / entry.name)
    for name in ("proc", "sys", "dev", "run", "tmp", "var", "etc", "opt"):
        (root / name).mkdir()
    mount("proc", root / "proc", "proc")
    mount("sys", root / "sys", "sysfs")
    mount("/sys/fs/cgroup", root / "sys/fs/cgroup", flags=MS_BIND | MS_REC)
    mount("run", root / "run", "tmpfs", MS_NOSUID, "mode=755")
    (root / "run/lock").mkdir()
    mount("tmp", root / "tmp", "tmpfs", MS_NOSUID, "mode=1777")
    _lay_dev(root / "dev")
    _lay_var(root / "var", disk / "var")
    for name in ("etc", "opt"):
        _lay_over(Path("/", name), root / name, disk / name)
    _show_sources(root)


def _show(entry: Path, target: Path) -> None:
    if entry.is_symlink():
        target.symlink_to(entry.readlink())
    elif entry.is_dir():
        target.mkdir()
        bind(entry, target, read_only=entry.name == "usr")


def _show_sources(root: Path) -> None:
    """The source tree and its Python stay where they are, even below a folder made anew here."""
    for folder in (Path(__file__).resolve().parents[3], Path(sys.executable).parents[1]):
        if folder.parts[1] in ("run", "tmp", "var"):
            target = root / folder.relative_to("/")
            target.mkdir(parents=True, exist_ok=True)
            bind(folder, target)


def _lay_dev(dev: Path) -> None:
    """Device nodes of its own, so that simulated hardware is seen by this machine alone."""
    mount("dev", dev, "tmpfs", MS_NOSUID, "mode=755")
    for name, (mode, major, minor) in _DEVICES.items():
        os.mknod(dev / name, stat.S_IFCHR | mode, os.makedev(major, minor))
        (dev / name).chmod(mode)
    for name, destination in _LINKS.items():
        (dev / name).symlink_to(destination)
    for name in ("pts", "shm", "mqueue"):
        (dev / name).mkdir()
    mount("devpts", dev / "pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666")
    mount("shm", dev / "shm", "tmpfs", MS_NOSUID, "mode=1777")
    mount("mqueue", dev / "mqueue", "mqueue")


def _lay_var(var: Path, disk: Path) -> None:
    for name in ("lib/containerd", "lib/kubelet", "lib/cni", "log/pods", "log/containers", "tmp"):
        (disk / name).mkdir(parents=True, exist_ok=True)
    if not (disk / "run").is_symlink():
        (disk / "run").symlink_to("/run")
    bind(disk, var)


def _lay_over(machine: Path, target: Path, disk: Path) -> None:
    for name in ("changed", "work"):
        (disk / name).mkdir(parents=True, exist_ok=True)
    machine = machine if machine.is_dir() else target
    layers = f"lowerdir={machine},upperdir={disk / 'changed'},workdir={disk / 'work'}"
    mount("overlay", target, "overlay", options=layers)


def write_files(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)


def cover_files(root: Path, scratch: Path, files: dict[str, str]) -> None:
    """Lay small files over kernel settings that programs want to see or to set.

    The settings belong to the whole machine; this way a program finds them as it wants them
    and the machine keeps its own.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        target = root / name.lstrip("/")
        if target.exists():
            cover = scratch / name.strip("/").replace("/", ".")
            cover.write_text(text)
            bind(cover, target)


def change_root(root: Path) -> None:
    os.chdir(root)
    subprocess.run(["pivot_root", ".", "."], check=True)
    if _libc.umount2(b".", MNT_DETACH) != 0:
        raise OSError(ctypes.get_errno(), "cannot let go of the old root")
    os.chdir("/")
    mount("", Path("/"), flags=MS_SHARED | MS_REC)


def prepare(plan: dict[str, Any]) -> None:
    socket.sethostname(plan["hostname"])
    mount("", Path("/"), flags=MS_PRIVATE | MS_REC)
    for name, value in plan["network_settings"].items():
        Path("/proc/sys/net", name).write_text(value)
    if "root" not in plan:
        mount("proc", Path("/proc"), "proc")
        return
    root, disk = Path(plan["root"]), Path(plan["disk"])
    lay_out(root, disk)
    write_files(root, plan["files"])
    for source, target in plan["binds"].items():
        inside = root / target.lstrip("/")
        inside.mkdir(parents=True, exist_ok=True)
        bind(Path(source), inside)
    cover_files(root, root / "run/kernel", plan["kernel_settings"])
    change_root(root)


def reap(*_: object) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def main() -> None:
    prepare(json.loads(Path(sys.argv[1]).read_text()))
    signal.signal(signal.SIGCHLD, reap)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while os.read(0, 1):
        pass


if __name__ == "__main__":
    main()
