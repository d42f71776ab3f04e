"""A whole agent on a node that an earlier driver has served: real CDI files, real calls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from nvdra_nodeagent.checkpoint.command import DONE, main
from nvdra_nodeagent.checkpoint.document import decode_checkpoint
from nvdra_nodeagent.inventory.snapshot import take_snapshot
from nvdra_sim.cluster.kubelet.cdi import CdiRegistry
from nvdra_testing.agent import NodeUnderTest, a_node, until
from nvdra_testing.checkpoints import (
    a_cdi_yaml,
    a_checkpoint,
    a_completed,
    a_gpu_device,
    a_group,
)

if TYPE_CHECKING:
    from pathlib import Path

    from nvdra_nodeagent.claims.model import ClaimRef

BOOT = "boot-1"


async def a_node_in_use(root: Path) -> tuple[NodeUnderTest, ClaimRef]:
    """With a claim on gpu-0 that an earlier driver has prepared."""
    node = await a_node(root)
    ref = await node.claim("gpu-0")
    node.plugin_dir.mkdir()
    node.cdi_root.mkdir()
    device = await asyncio.to_thread(a_real, node, ref.uid)
    checkpoint = a_checkpoint({ref.uid: a_completed(a_group(device))}, boot_id=BOOT)
    (node.plugin_dir / "checkpoint.json").write_bytes(checkpoint)
    cdi_file(node, ref).write_text(a_cdi_yaml(ref.uid, "gpu-0"))
    return node, ref


def a_real(node: NodeUnderTest, uid: str) -> Any:
    """The device with the UUID that the node's hardware has."""
    device = a_gpu_device(0, uid=uid)
    gpu = take_snapshot(node.hardware.machine).devices["gpu-0"].gpu
    return {**device, "gpu": {**device["gpu"], "info": {"uuid": gpu.uuid}}}


def cdi_file(node: NodeUnderTest, ref: ClaimRef) -> Path:
    return node.cdi_root / f"k8s.gpu.nvidia.com-claim_{ref.uid}.yaml"


async def test_a_running_pod_keeps_its_gpu(tmp_path: Path) -> None:
    node, _ = await a_node_in_use(tmp_path)
    rival = await node.claim("gpu-0", name="rival")
    async with node.publishing():
        assert "DeviceInUse" in (await node.prepare(rival))["rival"].error


async def test_a_container_that_restarts_finds_its_device_at_any_time(tmp_path: Path) -> None:
    node, ref = await a_node_in_use(tmp_path)
    ids = [f"k8s.gpu.nvidia.com/claim={ref.uid}-gpu-0"]
    async with node.running() as agent:
        for _ in range(50):
            assert CdiRegistry([node.cdi_root]).resolve(ids).device_nodes
            await asyncio.sleep(0.01)
        await until(lambda: agent.keeper.is_known)
    assert CdiRegistry([node.cdi_root]).resolve(ids).device_nodes


async def test_a_prepare_repeated_answers_ids_that_a_runtime_resolves(tmp_path: Path) -> None:
    node, ref = await a_node_in_use(tmp_path)
    async with node.publishing():
        answer = (await node.prepare(ref))["claim"]
        assert not answer.error
        (device,) = answer.devices
    assert list(device.cdi_device_ids) == [f"k8s.gpu.nvidia.com/claim={ref.uid}-gpu-0"]
    assert CdiRegistry([node.cdi_root]).resolve(device.cdi_device_ids).device_nodes


async def test_unpreparing_takes_the_earlier_drivers_cdi_file_along(tmp_path: Path) -> None:
    node, ref = await a_node_in_use(tmp_path)
    async with node.running():
        assert not (await node.unprepare(ref))["claim"].error
    assert not cdi_file(node, ref).exists()
    assert not list((node.plugin_dir / "claims").iterdir())


async def test_a_lost_checkpoint_leaves_fences_that_the_api_settles(tmp_path: Path) -> None:
    node, ref = await a_node_in_use(tmp_path)
    (node.plugin_dir / "checkpoint.json").write_bytes(b"{")
    rival = await node.claim("gpu-0", name="rival")
    async with node.publishing():
        assert "DeviceFenced" in (await node.prepare(rival))["rival"].error
        assert not (await node.unprepare(ref))["claim"].error
        assert not (await node.prepare(rival))["rival"].error


async def test_a_claim_goes_up_and_down_again(tmp_path: Path) -> None:
    node, ref = await a_node_in_use(tmp_path)
    async with node.running():
        output = tmp_path / "checkpoint.json"
        environ = {
            "KUBELET_PLUGINS_DIRECTORY_PATH": str(tmp_path / "plugins"),
            "CDI_ROOT": str(node.cdi_root),
        }
        export = asyncio.to_thread(main, ["--output", str(output)], environ=environ, boot_id=BOOT)
        assert await export == DONE
    checkpoint = decode_checkpoint(output.read_bytes())
    assert (checkpoint.sealed, set(checkpoint.claims)) == (True, {ref.uid})
