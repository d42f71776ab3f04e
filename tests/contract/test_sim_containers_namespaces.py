"""A container sees its own root, the devices of its edits, and nothing else of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nvdra_sim.cluster.kubelet.cdi_spec import ContainerEdits, DeviceNode, Hook, Mount
from nvdra_sim.cluster.kubelet.container import (
    ContainerSpec,
    NamespaceRuntime,
    StartError,
    namespaces_available,
)
from nvdra_sim.cluster.kubelet.images import PATH, Image, ImageStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from nvdra_sim.cluster.kubelet.container import RunningContainer

    Start = Callable[..., Coroutine[Any, Any, RunningContainer]]

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.skipif(not namespaces_available(), reason="namespaces are not allowed here"),
]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return ImageStore(tmp_path_factory.mktemp("images")).image("ubuntu:22.04")


@pytest.fixture
async def start(image: Image, tmp_path: Path) -> AsyncIterator[Start]:
    running: list[RunningContainer] = []

    async def start_container(script: str, **changes: Any) -> RunningContainer:
        fields: dict[str, Any] = {"args": ("bash", "-c", script), "env": {"PATH": PATH}, **changes}
        spec = ContainerSpec(
            name="c", image=image, bundle=tmp_path / "bundle", log=tmp_path / "log", **fields
        )
        running.append(await NamespaceRuntime().start(spec))
        return running[-1]

    yield start_container
    for container in running:
        container.kill()
        await container.wait()


@pytest.fixture
def log(tmp_path: Path) -> Callable[[], str]:
    return (tmp_path / "log").read_text


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_the_host_is_out_of_sight(start: Start, log: Callable[[], str]) -> None:
    secret = Path(__file__)
    container = await start(
        f"ls /dev; cat {secret} 2>&1 | head -1; echo $$; ls /proc | grep -c ^[0-9]"
    )
    assert await container.wait() == 0
    *devices, complaint, pid, processes = log().split("\n")[:-1]
    assert set(devices) == {
        "fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom",
        "zero",
    }  # fmt: skip
    assert "No such file" in complaint
    assert pid == "1"
    assert int(processes) < 6


async def test_standard_devices_work(start: Start) -> None:
    script = "echo x > /dev/null && head -c 4 /dev/urandom | wc -c && echo x > /dev/shm/y"
    assert await (await start(script)).wait() == 0


async def test_a_device_node_shows_what_lies_at_its_host_path(
    start: Start, log: Callable[[], str], tmp_path: Path
) -> None:
    (tmp_path / "node").write_text("gpu zero")
    node = DeviceNode(path="/dev/sub/nvidia0", host_path=str(tmp_path / "node"))
    container = await start("cat /dev/sub/nvidia0", edits=ContainerEdits(device_nodes=[node]))
    assert await container.wait() == 0
    assert log() == "gpu zero"


async def test_a_numbered_node_that_the_host_lacks_is_an_empty_placeholder(
    start: Start, log: Callable[[], str]
) -> None:
    node = DeviceNode(path="/dev/nvidia-caps/nvidia-cap21", type="c", major=236, minor=21)
    edits = ContainerEdits(device_nodes=[node])
    container = await start("stat -c %F:%s /dev/nvidia-caps/*", edits=edits)
    assert await container.wait() == 0
    assert log() == "regular empty file:0\n"


async def test_a_node_without_number_must_exist_on_the_host(start: Start, tmp_path: Path) -> None:
    node = DeviceNode(path="/dev/nvidia0", host_path=str(tmp_path / "absent"))
    with pytest.raises(StartError, match="absent is not there"):
        await start("true", edits=ContainerEdits(device_nodes=[node]))
    assert not (tmp_path / "bundle").exists()


async def test_mounts_are_read_only_when_asked(
    start: Start, log: Callable[[], str], tmp_path: Path
) -> None:
    (tmp_path / "lib.so").write_text("library")
    options = ["ro", "nosuid", "nodev", "rbind", "rprivate"]
    mount = Mount(
        host_path=str(tmp_path / "lib.so"), container_path="/usr/lib/a/lib.so", options=options
    )
    script = "cat /usr/lib/a/lib.so; (echo no > /usr/lib/a/lib.so) 2>&1 | grep -o 'Read-only'"
    container = await start(script, edits=ContainerEdits(mounts=[mount]))
    assert await container.wait() == 0
    assert log() == "libraryRead-only\n"
    assert (tmp_path / "lib.so").read_text() == "library"


async def test_a_mount_below_a_symbolic_link_stays_in_the_root(
    start: Start, log: Callable[[], str], tmp_path: Path
) -> None:
    (tmp_path / "volume").mkdir()
    volume = Mount(host_path=str(tmp_path / "volume"), container_path="/lib/deep/er", options=[])
    container = await start("echo written > /usr/lib/deep/er/file", volumes=(volume,))
    assert await container.wait() == 0
    assert (tmp_path / "volume/file").read_text() == "written\n"


async def test_a_missing_mount_source_is_named(start: Start, tmp_path: Path) -> None:
    mount = Mount(host_path="/no/such/file", container_path="/x")
    with pytest.raises(StartError, match="/no/such/file at /x"):
        await start("true", edits=ContainerEdits(mounts=[mount]))
    assert not (tmp_path / "bundle").exists()


async def test_variables_of_the_edits_win(start: Start, log: Callable[[], str]) -> None:
    edits = ContainerEdits(env=["NVIDIA_VISIBLE_DEVICES=void", "PATH=/usr/bin"])
    args = ("/bin/bash", "-c", "echo $NVIDIA_VISIBLE_DEVICES $PATH $USER_VAR $PYTHONPATH")
    env = {"PATH": "/x", "USER_VAR": "kept"}
    container = await start("", args=args, env=env, edits=edits)
    assert await container.wait() == 0
    assert log() == "void /usr/bin kept\n"


def a_hook(tmp_path: Path, script: str, **fields: Any) -> Hook:
    path = tmp_path / "hook"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    fields = {"hook_name": "createContainer", "args": ["hook", "create"], **fields}
    return Hook(path=str(path), env=["HOOK=yes"], **fields)


async def test_a_hook_gets_the_state_and_finds_the_root_in_the_bundle(
    start: Start, log: Callable[[], str], tmp_path: Path
) -> None:
    script = """
    bundle=$(sed 's/.*"bundle": "\\([^"]*\\)".*/\\1/')
    root=$(sed 's/.*"root": {"path": "\\([^"]*\\)".*/\\1/' "$bundle/config.json")
    echo "$1 $HOOK $(ls $root/dev/nvidia0)" > "$root/etc/from-hook"
    ln -s libcuda.so.1 "$root/usr/lib/libcuda.so"
    """
    edits = ContainerEdits(
        hooks=[a_hook(tmp_path, script)],
        device_nodes=[DeviceNode(path="/dev/nvidia0", type="c", major=195)],
    )
    container = await start("cat /etc/from-hook; readlink /usr/lib/libcuda.so", edits=edits)
    assert await container.wait() == 0
    assert log() == f"create yes {tmp_path}/bundle/rootfs/dev/nvidia0\nlibcuda.so.1\n"


async def test_a_failing_hook_stops_the_container_and_is_quoted(
    start: Start, tmp_path: Path
) -> None:
    hook = a_hook(tmp_path, "echo went wrong >&2; exit 3")
    with pytest.raises(StartError, match="hook ended with 3: went wrong"):
        await start("true", edits=ContainerEdits(hooks=[hook]))


async def test_a_hook_that_is_not_there_is_named(start: Start) -> None:
    hook = Hook(hook_name="createContainer", path="/no/hook")
    with pytest.raises(StartError, match="/no/hook: No such file"):
        await start("true", edits=ContainerEdits(hooks=[hook]))


async def test_a_hook_that_hangs_is_killed_after_its_timeout(start: Start, tmp_path: Path) -> None:
    hook = a_hook(tmp_path, "exec sleep 600", timeout=1)
    with pytest.raises(StartError, match="ended with -9"):
        await start("true", edits=ContainerEdits(hooks=[hook]))


async def test_a_start_container_hook_runs_inside(start: Start, log: Callable[[], str]) -> None:
    hook = Hook(hook_name="startContainer", path="/usr/bin/touch", args=["touch", "/inside"])
    container = await start("ls /inside", edits=ContainerEdits(hooks=[hook]))
    assert await container.wait() == 0
    assert log() == "/inside\n"


async def test_the_trap_of_a_shell_catches_sigterm(start: Start, log: Callable[[], str]) -> None:
    container = await start("trap 'echo bye; exit 7' TERM; echo ready; sleep 9999 & wait")
    await until(lambda: log() == "ready\n")
    container.terminate()
    assert await container.wait() == 7
    assert log() == "ready\nbye\n"


async def test_process_1_without_a_handler_ignores_sigterm_as_in_a_real_container(
    start: Start, log: Callable[[], str]
) -> None:
    container = await start("trap 'echo usr' USR2; echo ready; for i in 1 2 3; do sleep 0.1; done")
    await until(lambda: log() == "ready\n")
    container.terminate()
    assert await container.wait() == 0


async def test_kill_ends_every_process_of_the_container(start: Start, tmp_path: Path) -> None:
    marker = f"9{os.getpid()}"
    container = await start(f"trap '' TERM; setsid sleep {marker} & sleep {marker} & wait")
    await until(lambda: len(pids_of(marker)) >= 2)
    container.kill()
    assert await container.wait() == 137
    assert pids_of(marker) == []
    assert not (tmp_path / "bundle").exists()


async def test_waiting_twice_and_signals_after_the_end_are_harmless(start: Start) -> None:
    container = await start("exit 4")
    assert [await container.wait(), await container.wait()] == [4, 4]
    container.terminate()
    container.kill()


async def test_a_command_that_is_not_in_the_image_is_a_start_error(start: Start) -> None:
    with pytest.raises(StartError, match=r'exec: "nvidia-smi": .* not found in \$PATH'):
        await start("", args=("nvidia-smi",))
    with pytest.raises(StartError, match='exec: "/tmp/sample": No such file'):
        await start("", args=("/tmp/sample",))


async def test_the_working_directory_is_made_where_missing(
    start: Start, log: Callable[[], str]
) -> None:
    container = await start("pwd", cwd="/work/deep")
    assert await container.wait() == 0
    assert log() == "/work/deep\n"


async def test_the_host_name_is_the_pods(start: Start, log: Callable[[], str]) -> None:
    container = await start("uname -n; cat /etc/hostname", hostname="pod-1")
    assert await container.wait() == 0
    assert log() == "pod-1\npod-1\n"


async def test_a_log_that_cannot_be_written_is_a_start_error(start: Start, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with pytest.raises(StartError, match="log"):
        await start("true")
    assert not (tmp_path / "bundle").exists()


async def test_a_cancelled_start_leaves_nothing(start: Start, tmp_path: Path) -> None:
    hook = a_hook(tmp_path, f"echo here > {tmp_path}/started; exec sleep 600")
    task = asyncio.create_task(start("true", edits=ContainerEdits(hooks=[hook])))
    await until((tmp_path / "started").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not (tmp_path / "bundle").exists()


_DYING_PARENT = """
import asyncio, os, sys
from pathlib import Path
from nvdra_sim.cluster.kubelet.container import ContainerSpec, NamespaceRuntime
from nvdra_sim.cluster.kubelet.images import ImageStore, PATH

async def main(root, marker):
    image = ImageStore(root / "images").image("a")
    spec = ContainerSpec(name="c", image=image, bundle=root / "bundle", log=root / "log",
                         args=("bash", "-c", f"sleep {marker} & wait"), env={"PATH": PATH})
    container = await NamespaceRuntime().start(spec)
    print("running", flush=True)
    await container.wait()

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


def test_containers_die_with_their_kubelet_even_on_sigkill(tmp_path: Path) -> None:
    marker = f"8{os.getpid()}"
    command = [sys.executable, "-c", _DYING_PARENT, str(tmp_path), marker]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "running\n"
        asyncio.run(until(lambda: bool(pids_of(marker))))
        os.kill(parent.pid, signal.SIGKILL)
    asyncio.run(until(lambda: not pids_of(marker)))


def pids_of(marker: str) -> list[str]:
    """Processes with `marker` as an argument of their own."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().split(b"\0")[:2] == [b"sleep", marker.encode()]:
                found.append(path.parent.name)
    return found


def closed_to_others(path: Path) -> list[Path]:
    return [part for part in (path, *path.parents) if not part.stat().st_mode & 0o001]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
@pytest.mark.skipif(
    bool(closed_to_others(Path(sys.executable).resolve())), reason="Python is root's alone"
)
def test_an_ordinary_user_can_run_containers() -> None:
    script = _DYING_PARENT.replace("sleep {marker} & wait", "id -u; stat -c %F /dev/null")
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o777)
        command = [*user, sys.executable, "-c", script, directory, "x"]
        subprocess.run(command, check=True, capture_output=True)
        assert Path(directory, "log").read_text() == "0\ncharacter special file\n"
