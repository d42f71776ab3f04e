"""A small container runtime in one file: runs a bundle's process in namespaces of its own.

Started without `site` as `run BUNDLE PARENT_PID STATUS_FD` (or `probe`), so it may use nothing but
the standard library. The bundle's `config.json` is an OCI runtime configuration whose
devices may carry a `hostPath`. Root is not needed: everything happens in a user namespace.

Three processes: the kubelet, this supervisor, and the container's process 1. Each dies with the one
before it, even on SIGKILL. The supervisor passes signals on (SIGUSR1 becomes SIGKILL) and exits
with the container's exit code; what went wrong before the command ran is written to STATUS_FD.

Hooks that a runtime would run outside (prestart, createRuntime) run with the createContainer hooks:
in the container's mount namespace, the host's files still in reach. Those after the start
(poststart, poststop) are not run.
"""

# Paths are strings here: pathlib costs start-up time, and is out of reach once the root changed.
# ruff: noqa: PTH102, PTH103, PTH110, PTH112, PTH113, PTH114, PTH115, PTH118, PTH119, PTH120, PTH123, PTH211

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys

# Every import is paid for at each container start: `typing` is for the type checker alone.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, NoReturn, TypeAlias

    Config: TypeAlias = dict[str, Any]

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID = 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
KILL_CONTAINER = signal.SIGUSR1
START_FAILED = 125

_MOUNT_FLAGS = {
    "ro": MS_RDONLY, "nosuid": MS_NOSUID, "nodev": MS_NODEV, "noexec": MS_NOEXEC,
    "bind": MS_BIND, "rbind": MS_BIND | MS_REC,
}  # fmt: skip
# Flags of statvfs that a user namespace may not take off a mount that it inherited.
_LOCKED_FLAGS = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
_STANDARD_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS = {
    "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
}  # fmt: skip
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2)

_libc = ctypes.CDLL(None, use_errno=True)


class LaunchError(Exception):
    """The container could not be set up or its command not be started."""


def main(argv: list[str]) -> int:
    if argv[1:2] == ["probe"]:
        return probe()
    _, _, bundle, parent_pid, status_fd = argv
    status = int(status_fd)
    os.set_inheritable(status, False)
    die_with_parent()
    if os.getppid() != int(parent_pid):
        return START_FAILED
    try:
        with open(os.path.join(bundle, "config.json"), encoding="utf-8") as file:
            config: Config = json.load(file)
        enter_namespaces()
    except (OSError, LaunchError, ValueError) as exc:
        os.write(status, str(exc).encode())
        return START_FAILED
    alive, alive_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(alive_end)
        start(config, bundle, status=status, parent_alive=alive)
    return supervise(child, status=status)


def probe() -> int:
    """Whether this machine lets an ordinary process have a container; says why not on stderr."""
    try:
        enter_namespaces()
        child = os.fork()
    except (OSError, LaunchError) as exc:
        sys.stderr.write(str(exc))
        return 1
    if child == 0:
        try:
            mount("", "/", "", MS_REC | MS_PRIVATE)
            mount("tmpfs", "/tmp", "tmpfs", 0, "mode=755")
            os.mkdir("/tmp/proc")
            mount_proc("/tmp/proc")
            bind("/dev/null", "/tmp/null")
        except (OSError, LaunchError) as exc:
            sys.stderr.write(str(exc))
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def enter_namespaces() -> None:
    """New user, mount, pid, uts and ipc namespaces; the caller becomes root of the first."""
    uid, gid = os.geteuid(), os.getegid()
    others = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC
    try:
        _call("unshare", CLONE_NEWUSER | others)
    except OSError as exc:
        if uid != 0:
            raise LaunchError(f"user namespaces are not allowed here: {exc.strerror}") from exc
        # Root needs no user namespace where the machine has switched them off.
        _call("unshare", others)
        return
    for name, text in (
        ("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1"),
    ):  # fmt: skip
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def supervise(child: int, *, status: int) -> int:
    """Wait for the container's process 1 while passing signals on; the exit code as shells say."""

    def forward(number: int, frame: FrameType | None) -> None:
        os.kill(child, signal.SIGKILL if number == KILL_CONTAINER else number)

    for number in (*_FORWARDED, KILL_CONTAINER):
        signal.signal(number, forward)
    # Whoever waits for this end to close may send signals from then on.
    os.close(status)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code


def start(config: Config, bundle: str, *, status: int, parent_alive: int) -> NoReturn:
    """Process 1: build the root, run the hooks, become the command. Never returns."""
    try:
        die_with_parent()
        if select.select([parent_alive], [], [], 0)[0]:
            os._exit(START_FAILED)
        os.close(parent_alive)
        os.setsid()
        root = config["root"]["path"]
        hooks = config.get("hooks", {})
        populate(root, config)
        for name in ("prestart", "createRuntime", "createContainer"):
            run_hooks(hooks.get(name, []), name, bundle, config)
        enter_root(root)
        run_hooks(hooks.get("startContainer", []), "startContainer", bundle, config)
        execute(config["process"])
    except LaunchError as exc:
        os.write(status, str(exc).encode())
    except Exception as exc:
        # The root of a process: nothing above it could say what happened.
        os.write(status, f"{type(exc).__name__}: {exc}".encode())
    os._exit(START_FAILED)


def populate(root: str, config: Config) -> None:
    """Everything that is mounted below the root, while the host's files are still in reach."""
    mount("", "/", "", MS_REC | MS_PRIVATE)
    mount(root, root, "", MS_BIND | MS_REC)
    mount_proc(os.path.join(root, "proc"))
    make_dev(os.path.join(root, "dev"))
    for device in config.get("linux", {}).get("devices", []):
        add_device(root, device)
    for entry in config.get("mounts", []):
        add_mount(root, entry)
    if config.get("hostname"):
        name = str(config["hostname"]).encode()
        _call("sethostname", name, len(name))


def mount_proc(target: str) -> None:
    try:
        mount("proc", target, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except LaunchError:
        # Inside another container parts of /proc are covered, and a fresh one is refused.
        mount("/proc", target, "", MS_BIND | MS_REC)
    driver = os.path.join(target, "driver/nvidia")
    if os.path.isdir(driver):
        # What real NVIDIA hardware the host has is nobody's business here.
        mount("tmpfs", driver, "tmpfs", MS_RDONLY)


def make_dev(dev: str) -> None:
    mount("tmpfs", dev, "tmpfs", MS_NOSUID, "mode=755")
    for name in _STANDARD_DEVICES:
        bind(f"/dev/{name}", os.path.join(dev, name))
    for name, target in _DEVICE_LINKS.items():
        os.symlink(target, os.path.join(dev, name))
    os.mkdir(os.path.join(dev, "shm"))
    mount("tmpfs", os.path.join(dev, "shm"), "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")


def add_device(root: str, device: Config) -> None:
    """Show `hostPath` at `path`, or an empty file in its place where the host has no such node."""
    target = in_root(root, device["path"])
    source = device.get("hostPath") or device["path"]
    if os.path.exists(source):
        bind(source, target)
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "a", encoding="ascii"):
        pass


def add_mount(root: str, entry: Config) -> None:
    source, options = entry["source"], entry.get("options", [])
    target = in_root(root, entry["destination"])
    if entry.get("type") == "tmpfs":
        os.makedirs(target, exist_ok=True)
        extra = ",".join(word for word in options if "=" in word)
        mount("tmpfs", target, "tmpfs", _flags(options), extra)
        return
    if not os.path.exists(source):
        raise LaunchError(f"mount {source} at {entry['destination']}: no such file or directory")
    bind(source, target, recursive="bind" not in options)
    flags = _flags(options) & _LOCKED_FLAGS
    if flags:
        flags |= os.statvfs(target).f_flag & _LOCKED_FLAGS
        mount("", target, "", MS_REMOUNT | MS_BIND | flags)


def bind(source: str, target: str, *, recursive: bool = True) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if not os.path.exists(target):
            with open(target, "w", encoding="ascii"):
                pass
    mount(source, target, "", MS_BIND | (MS_REC if recursive else 0))


def in_root(root: str, path: str) -> str:
    """`path` below `root` with every symbolic link on the way taken as the container sees it."""
    todo = path.split("/")
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            del done[-1:]
            continue
        full = os.path.join(root, *done, part)
        if not os.path.islink(full):
            done.append(part)
            continue
        links += 1
        if links > 40:
            raise LaunchError(f"{path}: too many symbolic links")
        destination = os.readlink(full)
        if destination.startswith("/"):
            done.clear()
        todo = destination.split("/") + todo
    return os.path.join(root, *done)


def run_hooks(hooks: list[Config], name: str, bundle: str, config: Config) -> None:
    state = {
        "ociVersion": config["ociVersion"], "id": os.path.basename(bundle), "status": "creating",
        "pid": os.getpid(), "bundle": bundle, "annotations": config.get("annotations", {}),
    }  # fmt: skip
    for index, hook in enumerate(hooks):
        where = f"{name} hook #{index} {hook['path']}"
        try:
            code, output = run_hook(
                hook, json.dumps(state, ensure_ascii=False).encode(errors="surrogateescape")
            )
        except OSError as exc:
            raise LaunchError(f"{where}: {exc.strerror}") from exc
        if code != 0:
            raise LaunchError(f"{where} ended with {code}: {output}")


def run_hook(hook: Config, state: bytes) -> tuple[int, str]:
    """Run one hook with the container's state on its standard input, as runtimes do."""
    stdin, output = os.memfd_create("state"), os.memfd_create("output")
    try:
        os.write(stdin, state)
        os.lseek(stdin, 0, os.SEEK_SET)
        pid = os.posix_spawn(
            hook["path"],
            hook.get("args") or [hook["path"]],
            dict(entry.split("=", 1) for entry in hook.get("env", [])),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, stdin, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
            ],
        )
        code = wait_at_most(pid, hook.get("timeout") or 0)
        os.lseek(output, 0, os.SEEK_SET)
        return code, os.read(output, 4096).decode(errors="replace").strip()
    finally:
        os.close(stdin)
        os.close(output)


def wait_at_most(pid: int, timeout_s: int) -> int:
    """The exit code of `pid`; it is killed after `timeout_s` seconds (0: never)."""
    signal.signal(signal.SIGALRM, lambda number, frame: os.kill(pid, signal.SIGKILL))
    signal.alarm(timeout_s)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def enter_root(root: str) -> None:
    os.chdir(root)
    _call("pivot_root", b".", b".")
    # The old root now lies over the new one at "/"; taking it off leaves the new one.
    _call("umount2", b".", MNT_DETACH)
    os.chdir("/")


def execute(process: Config) -> None:
    """Become the command. By now nothing can be imported any more: Python's files are out of reach.

    `os.execvpe` would import a module to look at PATH, hence the search by hand.
    """
    args: list[str] = process["args"]
    env = dict(entry.split("=", 1) for entry in process["env"])
    cwd = process.get("cwd") or "/"
    os.makedirs(cwd, exist_ok=True)
    os.chdir(cwd)
    os.umask(0o022)
    try:
        os.execve(find_program(args[0], env.get("PATH", "")), args, env)
    except OSError as exc:
        raise LaunchError(f'exec: "{args[0]}": {exc.strerror}') from exc


def find_program(name: str, path: str) -> str:
    if "/" in name:
        return name
    for directory in path.split(":"):
        candidate = os.path.join(directory, name)
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    raise LaunchError(f'exec: "{name}": executable file not found in $PATH')


def die_with_parent() -> None:
    _call("prctl", PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    try:
        _call(
            "mount", source.encode() or None, target.encode(), kind.encode() or None,
            ctypes.c_ulong(flags), options.encode() or None,
        )  # fmt: skip
    except OSError as exc:
        raise LaunchError(f"mount {source or kind} at {target}: {exc.strerror}") from exc


def _flags(options: list[str]) -> int:
    flags = 0
    for option in options:
        flags |= _MOUNT_FLAGS.get(option, 0)
    return flags


def _call(name: str, *arguments: object) -> None:
    function: Callable[..., int] = getattr(_libc, name)
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
