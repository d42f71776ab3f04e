"""What an agent does when its world is broken: it says where, stays up, and serves the rest."""

from __future__ import annotations

import inspect
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.hardware.cdi_hook import HostHook
from nvdra_nodeagent.hardware.ports import NvmlDevice
from nvdra_nodeagent.hardware.real import real_machine
from nvdra_testing.agent import a_node, until

if TYPE_CHECKING:
    from pathlib import Path

    from nvdra_testing.agent import NodeUnderTest

QUERIES = sorted(
    name
    for name, _ in inspect.getmembers(NvmlDevice, inspect.isfunction)
    if not name.startswith("_")
)


async def prepared(node: NodeUnderTest, device: str) -> str:
    """Prepare a claim for the device; returns the error."""
    ref = await node.claim(device, name=f"claim-{device}")
    return str((await node.prepare(ref))[ref.name].error)


@pytest.mark.parametrize("query", QUERIES)
async def test_a_gpu_that_fails_a_query_leaves_the_others_in_service(
    tmp_path: Path, query: str
) -> None:
    node = await a_node(tmp_path)
    node.hardware.inject(call=query, code=999, gpu=2)
    async with node.publishing():
        assert {f"gpu-{n}" for n in range(8) if n != 2} <= set(await node.devices())
        assert await prepared(node, "gpu-0") == ""


async def test_a_gpu_that_answers_again_comes_back_without_a_restart(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    node.hardware.inject(call="uuid", code=999, gpu=2)
    async with node.publishing() as agent:
        assert "gpu-2" not in await node.devices()
        node.hardware.heal()
        await agent.keeper.refresh()  # may be a look that had begun before
        await agent.keeper.refresh()
        await agent.publisher.wait_published()
        assert "gpu-2" in await node.devices()


async def test_without_a_driver_the_agent_waits_and_says_where_it_looked(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    nowhere = tmp_path / "no-driver"
    machine = real_machine(
        driver_root=nowhere,
        host_driver_root=nowhere,
        sysfs=tmp_path,
        procfs=tmp_path,
        plugin_dir=tmp_path,
        hook_source=tmp_path / "hook",
    )
    async with node.running(machine=machine) as agent:
        await until(lambda: agent.keeper.current.defects)
        await agent.publisher.wait_published()
        (defect,) = agent.keeper.current.defects
        assert "libnvidia-ml.so.1" in defect.cause
        assert str(nowhere) in defect.cause
        assert await node.devices() == []


async def test_without_a_hook_a_prepare_names_the_missing_path(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    hook = HostHook("/nowhere/nvidia-cdi-hook", host_root=tmp_path)
    machine = replace(node.hardware.machine, cdi_hook=hook)
    async with node.publishing(machine=machine):
        error = await prepared(node, "gpu-0")
    assert "/nowhere/nvidia-cdi-hook" in error
    assert "error preparing devices" in error


async def test_a_missing_device_node_is_named_and_other_gpus_go_on(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    (tmp_path / "machine" / "driver-root" / "dev" / "nvidia1").unlink()
    async with node.publishing():
        assert "/dev/nvidia1" in await prepared(node, "gpu-1")
        assert await prepared(node, "gpu-0") == ""


async def test_a_node_without_gpus_publishes_an_empty_pool(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    node.hardware.inject(call="device", code=15)
    async with node.publishing():
        assert await node.devices() == []
        assert "gpu-0" in await prepared(node, "gpu-0")


async def test_a_socket_left_over_is_replaced(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    node.plugin_dir.mkdir()
    for path in (node.plugin_dir / "dra.sock", tmp_path / "registry" / "gpu.nvidia.com-reg.sock"):
        os.mknod(path, 0o140600)
    async with node.publishing():
        assert await prepared(node, "gpu-0") == ""


async def test_a_cdi_directory_that_went_away_is_made_again(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.publishing():
        node.cdi_root.rmdir()
        assert await prepared(node, "gpu-0") == ""


async def test_a_cdi_directory_that_is_a_file_is_named_and_the_agent_stays_up(
    tmp_path: Path,
) -> None:
    node = await a_node(tmp_path)
    node.cdi_root.write_text("mine")
    async with node.publishing():
        assert str(node.cdi_root) in await prepared(node, "gpu-0")
    assert node.cdi_root.read_text() == "mine"


async def test_a_full_cdi_directory_fails_the_claim_and_leaves_nothing_half_done(
    tmp_path: Path,
) -> None:
    node = await a_node(tmp_path)
    async with node.publishing():
        node.cdi_root.rmdir()
        node.cdi_root.write_text("in the way")
        error = await prepared(node, "gpu-0")
        assert str(node.cdi_root) in error
        node.cdi_root.unlink()
        assert await prepared(node, "gpu-1") == ""
        assert len(list(node.cdi_root.iterdir())) == 1
