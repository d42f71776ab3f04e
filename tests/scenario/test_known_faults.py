"""Known faults of drivers of this kind: a whole agent, as a process, has none of them.

Each in its finer parts has tests of its own; here is what a user of the node would see.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from nvdra_kube.resources import RESOURCE_CLAIM_TEMPLATES, RESOURCE_SLICES
from nvdra_sim.hardware import SimulatedHardware
from nvdra_testing.claims import a_config_entry
from nvdra_testing.configs import a_config, time_slicing
from nvdra_testing.process_node import a_process_node, until
from nvdra_testing.rolling import a_rolling_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_testing.process_node import ProcessNode

# Up to a dozen starts of a process each: slow on a busy machine, and no sign of anything wrong.
pytestmark = pytest.mark.timeout(400)

GPUS = 8
KILLS = 6
SLICING = ("--feature-gates", "TimeSlicingSettings=true")
WELL = {"claim": ""}


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[ProcessNode]:
    async with a_process_node(tmp_path) as node:
        yield node


def record_of(node: ProcessNode, ref: ClaimRef) -> Path:
    return node.state_dir / "claims" / f"{ref.uid}.json"


def cdi_file_of(node: ProcessNode, ref: ClaimRef) -> Path:
    (found,) = node.cdi_root.glob(f"*{ref.uid}.*[!p]")  # but no temporary
    return found


# An empty configuration


async def test_an_empty_time_slicing_config_is_prepared_with_its_default(
    node: ProcessNode,
) -> None:
    empty = a_config_entry(a_config(sharing=time_slicing()))
    async with node.running(*SLICING) as agent:
        pid = agent.pid
        ref = await node.claim("gpu-0", name="claim", config=[empty])
        assert await node.prepare(ref) == WELL
        assert cdi_file_of(node, ref).exists()
        assert await node.unprepare(ref) == WELL
        assert (agent.pid, agent.starts) == (pid, 1)
    assert node.leftovers() == []


# State that is not what was written


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, empty])
async def test_an_agent_starts_over_a_damaged_record_and_serves_every_claim(
    node: ProcessNode, damage: Callable[[Path], None]
) -> None:
    hurt = await node.claim("gpu-0", name="hurt")
    well = await node.claim("gpu-1", name="well")
    new = await node.claim("gpu-2", name="new")
    async with node.running():
        assert await node.prepare(hurt, well) == {"hurt": "", "well": ""}
    damage(record_of(node, hurt))
    async with node.running() as agent:
        assert await node.prepare(well, new, hurt) == {"well": "", "new": "", "hurt": ""}
        assert await node.unprepare(hurt, well, new) == {"well": "", "new": "", "hurt": ""}
        assert agent.starts == 1
    assert node.leftovers() == []


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, empty])
async def test_an_agent_starts_over_a_damaged_checkpoint_of_an_earlier_driver(
    node: ProcessNode, damage: Callable[[Path], None]
) -> None:
    node.state_dir.mkdir()
    checkpoint = node.state_dir / "checkpoint.json"
    checkpoint.write_text('{"checksum":1,"v1":{"preparedClaims":{}}}')
    damage(checkpoint)
    async with node.running() as agent:
        ref = await node.claim("gpu-0", name="claim")
        assert await node.prepare(ref) == WELL
        assert agent.starts == 1
    assert not checkpoint.exists()


async def test_a_record_deleted_by_hand_leaves_no_cdi_file_behind_its_claim(
    node: ProcessNode,
) -> None:
    ref = await node.claim("gpu-0", name="claim")
    async with node.running():
        assert await node.prepare(ref) == WELL
    record_of(node, ref).unlink()
    async with node.running():
        assert await node.unprepare(ref) == WELL
    assert node.leftovers() == []


async def test_a_deleted_cdi_file_is_there_again_when_prepare_has_answered(
    node: ProcessNode,
) -> None:
    ref = await node.claim("gpu-0", name="claim")
    async with node.running():
        assert await node.prepare(ref) == WELL
        path = cdi_file_of(node, ref)
        text = path.read_bytes()
        path.unlink()
        assert await node.prepare(ref) == WELL
        assert path.read_bytes() == text


# Slices that are deleted


async def wipe(node: ProcessNode) -> None:
    for body in (await node.api.list(RESOURCE_SLICES))["items"]:
        await node.api.delete(RESOURCE_SLICES, body["metadata"]["name"])


async def test_slices_deleted_as_soon_as_they_were_created_come_back(node: ProcessNode) -> None:
    async with node.running():
        await node.wait_devices(GPUS)
        for _ in range(3):
            await wipe(node)
            await node.wait_devices(GPUS)


async def test_slices_deleted_as_soon_as_they_were_updated_come_back(node: ProcessNode) -> None:
    async with node.running():
        await node.wait_devices(GPUS)
        hardware = await asyncio.to_thread(node.hardware)
        await asyncio.to_thread(hardware.remove, 7)
        await node.wait_devices(GPUS - 1)
        await wipe(node)
        await node.wait_devices(GPUS - 1)


# Kills


async def test_kills_in_the_middle_of_eight_prepares_leave_nothing(node: ProcessNode) -> None:
    refs = [await node.claim(f"gpu-{gpu}", name=f"claim-{gpu}") for gpu in range(GPUS)]
    done = {ref.name: "" for ref in refs}
    for kill in range(KILLS):
        async with node.running() as agent:
            calls = asyncio.create_task(node.prepare(*refs))
            await until(partial(_is_at, node, calls, files=2 * kill))
            agent.kill()
            await calls
        async with node.running():
            assert await node.prepare(*refs) == done
            assert all(cdi_file_of(node, ref).exists() for ref in refs)
            assert await node.unprepare(*refs) == done
        assert node.leftovers() == []


def _is_at(node: ProcessNode, calls: asyncio.Task[Any], *, files: int) -> bool:
    return calls.done() or len(node.leftovers()) > files


# Disks that are full


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 1024)
        except OSError:
            return filler


@pytest.mark.namespaces
async def test_a_full_plugin_directory_never_leads_to_success_without_a_cdi_file(
    node: ProcessNode,
) -> None:
    old = await node.claim("gpu-0", name="old")
    new = await node.claim("gpu-1", name="new")
    async with node.running(small_disk="state"):
        assert await node.prepare(old) == {"old": ""}
        filler = await asyncio.to_thread(fill, node.state_dir)
        assert "No space left" in (await node.prepare(new))["new"]
        assert await node.unprepare(old) == {"old": ""}
        assert node.leftovers() == []
        filler.unlink()
        assert await node.prepare(old, new) == {"old": "", "new": ""}
        assert len(node.cdi_files()) == 2


@pytest.mark.namespaces
async def test_a_full_cdi_directory_is_a_clean_failure(node: ProcessNode) -> None:
    ref = await node.claim("gpu-0", name="claim")
    async with node.running(small_disk="cdi"):
        filler = await asyncio.to_thread(fill, node.cdi_root)
        assert "No space left" in (await node.prepare(ref))["claim"]
        filler.unlink()
        assert node.leftovers() == []
        assert await node.prepare(ref) == WELL
        assert await node.unprepare(ref) == WELL
        assert node.leftovers() == []


# A slow helper program

SLOW_S = 0.8


async def test_eight_pods_at_once_with_a_slow_nvidia_smi_all_run(tmp_path: Path) -> None:
    async with a_rolling_node(tmp_path) as node, node.agent("slow", *SLICING, rolling=False):
        await node.wait_devices(GPUS)
        machine = node.node.directories.machine
        hardware = await asyncio.to_thread(SimulatedHardware.attach, machine)
        for call in ("time_slice", "set_time_slice"):
            slow = partial(hardware.inject, call, code=0, latency_s=SLOW_S)
            await asyncio.to_thread(slow)
        await _ask_for_time_slices(node.cluster.api)
        pods = [node.pod(f"pod-{number}") for number in range(GPUS)]
        assert await asyncio.gather(*pods) == ["Succeeded"] * GPUS
        await node.wait_no_claims()
        assert await node.warnings() == []
        assert node.leftovers() == []
        state = await asyncio.to_thread(hardware.state)
        assert [gpu.time_slice for gpu in state.gpus] == [0] * GPUS


async def _ask_for_time_slices(api: Any) -> None:
    """From now on of every pod's claim."""
    (template,) = (await api.list(RESOURCE_CLAIM_TEMPLATES))["items"]
    config = a_config_entry(a_config(sharing=time_slicing(interval="Long")))
    del config["source"]
    await api.delete(RESOURCE_CLAIM_TEMPLATES, template["metadata"]["name"], namespace="default")
    template["spec"]["spec"]["devices"]["config"] = [config]
    meta = {"name": template["metadata"]["name"], "namespace": "default"}
    await api.create(RESOURCE_CLAIM_TEMPLATES, {**template, "metadata": meta})
