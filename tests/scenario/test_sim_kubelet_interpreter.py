"""Where namespaces are not allowed, a few commands are interpreted against the CDI view."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from nvdra_sim.cluster.kubelet.cdi_spec import ContainerEdits, DeviceNode, Mount
from nvdra_sim.cluster.kubelet.container import ContainerSpec, StartError
from nvdra_sim.cluster.kubelet.images import Image
from nvdra_sim.cluster.kubelet.interpreter import InterpretedRuntime

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nvdra_sim.cluster.kubelet.container import RunningContainer

PUBLIC_SPEC = "nvidia-smi -L; trap 'exit 0' TERM; sleep 9999 & wait"


class Bench:
    def __init__(self, root: Path) -> None:
        self.root = root

    async def start(self, script: str, **changes: Any) -> RunningContainer:
        fields: dict[str, Any] = {"args": ("bash", "-c", script), "env": {"NAME": "x"}, **changes}
        spec = ContainerSpec(
            name="c",
            image=Image(self.root, (), (), ()),
            bundle=self.root / "bundle",
            log=self.root / "log",
            **fields,
        )
        return await InterpretedRuntime(reason="forbidden").start(spec)

    async def run(self, script: str, **changes: Any) -> int:
        return await (await self.start(script, **changes)).wait()

    def log(self) -> str:
        """What the container printed, behind the line that says how it runs."""
        return (self.root / "log").read_text().partition("\n")[2]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(45):
        while not condition():
            await asyncio.sleep(0.01)


async def test_the_log_says_that_and_why_it_is_interpreted(bench: Bench, tmp_path: Path) -> None:
    await bench.run("echo x")
    first = (tmp_path / "log").read_text()
    assert "no namespaces on this machine (forbidden)" in first
    assert "nvidia-smi" in first


@pytest.mark.parametrize(
    ("script", "code", "log"),
    [
        ("echo a b 'c  d'", 0, "a b c  d\n"),
        ("echo $NAME ${NAME} $NONE.", 0, "x x .\n"),
        ("false; echo $?", 0, "1\n"),
        ("false && echo no || echo yes", 0, "yes\n"),
        ("true || echo no", 0, ""),
        ("echo a\necho b", 0, "a\nb\n"),
        ("exit 3; echo no", 3, ""),
        ("sleep 0 & wait; echo done", 0, "done\n"),
        ("env", 0, "NAME=x\n"),
        (":", 0, ""),
    ],
)
async def test_the_listed_commands(bench: Bench, script: str, code: int, log: str) -> None:
    assert await bench.run(script) == code
    assert bench.log() == log


async def test_an_unlisted_command_fails_as_in_a_shell_and_names_the_list(bench: Bench) -> None:
    assert await bench.run("/tmp/sample --benchmark; echo after") == 0
    assert "/tmp/sample: not among the commands that are interpreted: :, echo" in bench.log()
    assert bench.log().endswith("after\n")


@pytest.mark.parametrize(
    "script",
    [
        "echo $(id)",
        "echo `id`",
        "ls | wc",
        "echo > /etc/passwd",
        "for i in *; do x; done",
        "echo '",
    ],
)
async def test_more_syntax_is_refused_as_a_whole(bench: Bench, script: str) -> None:
    assert await bench.run(script) == 2
    assert "not interpreted" in bench.log()


async def test_a_trap_runs_when_the_container_is_told_to_end(bench: Bench) -> None:
    container = await bench.start("trap 'echo bye; exit 7' TERM; echo ready; sleep 9999 & wait")
    await until(lambda: bench.log() == "ready\n")
    container.terminate()
    assert await container.wait() == 7
    assert bench.log() == "ready\nbye\n"


async def test_without_a_trap_only_killing_ends_it(bench: Bench, tmp_path: Path) -> None:
    container = await bench.start("echo ready; sleep 9999 & wait")
    await until(lambda: bench.log() == "ready\n")
    container.terminate()
    waiting = asyncio.create_task(container.wait())
    await asyncio.wait([waiting], timeout=0.05)
    assert not waiting.done()
    container.kill()
    assert await waiting == 137
    assert not (tmp_path / "bundle").exists()


def a_driver(tmp_path: Path) -> ContainerEdits:
    script = tmp_path / "nvidia-smi"
    script.write_text('#!/bin/sh\n[ -e "/dev/nvidia3" ] && echo "GPU 3 $1" || echo none\n')
    mount = Mount(host_path=str(script), container_path="/usr/bin/nvidia-smi")
    node = DeviceNode(path="/dev/nvidia3", type="c", major=195, minor=3)
    return ContainerEdits(mounts=[mount], device_nodes=[node])


async def test_nvidia_smi_sees_the_device_nodes_of_the_edits(bench: Bench, tmp_path: Path) -> None:
    container = await bench.start(PUBLIC_SPEC, edits=a_driver(tmp_path))
    await until(lambda: bench.log() == "GPU 3 -L\n")
    container.terminate()
    assert await container.wait() == 0


async def test_without_the_device_node_nvidia_smi_sees_nothing(
    bench: Bench, tmp_path: Path
) -> None:
    mounts = a_driver(tmp_path).mounts
    assert await bench.run("nvidia-smi -L", edits=ContainerEdits(mounts=mounts)) == 0
    assert bench.log() == "none\n"


async def test_without_the_mount_there_is_no_nvidia_smi(bench: Bench) -> None:
    assert await bench.run("nvidia-smi") == 127
    assert bench.log() == "nvidia-smi: command not found\n"


async def test_a_driver_that_is_not_simulated_is_never_run(bench: Bench, tmp_path: Path) -> None:
    edits = a_driver(tmp_path)
    (tmp_path / "nvidia-smi").write_bytes(b"\x7fELF")
    assert await bench.run("nvidia-smi", edits=edits) == 2
    assert "not the simulated driver's script" in bench.log()


async def test_a_node_that_the_host_lacks_stops_the_start(bench: Bench) -> None:
    node = DeviceNode(path="/dev/no-such-node")
    with pytest.raises(StartError, match="no-such-node"):
        await bench.start("true", edits=ContainerEdits(device_nodes=[node]))
