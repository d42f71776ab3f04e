"""A whole agent: what it publishes, prepares and leaves behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import yaml
from structlog.testing import capture_logs

from nvdra_kube.resources import RESOURCE_CLAIMS, RESOURCE_SLICES
from nvdra_testing.agent import a_node, until

if TYPE_CHECKING:
    from pathlib import Path


async def test_every_gpu_of_the_node_is_published(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.publishing():
        assert await node.devices() == [f"gpu-{minor}" for minor in range(8)]


async def test_a_gate_that_does_nothing_yet_is_said_at_start(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    with capture_logs() as lines:
        async with node.running(gates="DynamicMIG=true,DRAListTypeAttributes=true"):
            pass
    said = [line["gate"] for line in lines if line["event"].startswith("feature gate has no")]
    assert said == ["DynamicMIG"]


async def test_a_prepared_claim_has_a_cdi_file_that_names_its_gpu_only(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.publishing():
        ref = await node.claim("gpu-3")
        entry = (await node.prepare(ref))["claim"]
        assert entry.error == ""
        assert list(entry.devices[0].cdi_device_ids) == [
            f"k8s.gpu.nvidia.com/claim={ref.uid}-gpu-3"
        ]
        text = (node.cdi_root / f"k8s.gpu.nvidia.com-claim_{ref.uid}.yaml").read_text()
    spec = yaml.safe_load(text)
    (device,) = spec["devices"]
    nodes = [entry["path"] for entry in device["containerEdits"]["deviceNodes"]]
    assert "/dev/nvidia3" in nodes
    assert "/dev/nvidia0" not in text


async def test_after_unprepare_nothing_of_the_claim_is_left(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.publishing():
        ref = await node.prepared("gpu-0")
        assert (await node.unprepare(ref))["claim"].error == ""
    assert list(node.cdi_root.iterdir()) == []
    assert not [path for path in node.plugin_dir.rglob("*") if ref.uid in path.name]


async def test_a_restart_keeps_claims_and_writes_no_slice(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.publishing():
        ref = await node.claim("gpu-0")
        first = (await node.prepare(ref))["claim"]
    async with node.publishing() as agent:
        assert agent.publisher.writes.total == 0
        again = (await node.prepare(ref))["claim"]
        assert again == first
        assert (await node.unprepare(ref))["claim"].error == ""


async def test_wiped_slices_come_back_at_once(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.publishing() as agent:
        for body in (await node.api.list(RESOURCE_SLICES))["items"]:
            await node.api.delete(RESOURCE_SLICES, body["metadata"]["name"])
        await until(lambda: agent.publisher.writes.created == 2)
        await agent.publisher.wait_published()
        assert len(await node.devices()) == 8


async def test_a_claim_that_was_deleted_is_unprepared_all_the_same(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.publishing():
        ref = await node.prepared("gpu-0")
        await node.api.delete(RESOURCE_CLAIMS, ref.name, namespace=ref.namespace)
        assert (await node.unprepare(ref))["claim"].error == ""
    assert list(node.cdi_root.iterdir()) == []


async def test_a_lost_cdi_file_is_made_again_by_the_next_prepare(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.publishing():
        ref = await node.prepared("gpu-0")
        (path,) = node.cdi_root.iterdir()
        written = msgspec.yaml.decode(path.read_bytes())
        path.unlink()
        assert (await node.prepare(ref))["claim"].error == ""
        assert msgspec.yaml.decode(path.read_bytes()) == written


async def test_a_driver_replaced_under_a_claim_is_what_the_next_prepare_names(
    tmp_path: Path,
) -> None:
    node = await a_node(tmp_path)
    async with node.publishing() as agent:
        ref = await node.prepared("gpu-0")
        (path,) = node.cdi_root.iterdir()
        now = path.read_text()
        path.write_text(now.replace(agent.keeper.current.driver_version, "1.2.3"))
        assert (await node.prepare(ref))["claim"].error == ""
        assert path.read_text() == now


async def test_a_repeated_prepare_says_what_has_gone_missing_meanwhile(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.publishing():
        ref = await node.prepared("gpu-0")
        (tmp_path / "machine" / "driver-root" / "dev" / "nvidia0").unlink()
        assert "/dev/nvidia0" in (await node.prepare(ref))["claim"].error


async def test_eight_claims_of_one_call_are_prepared_each_with_its_gpu(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.publishing():
        refs = [await node.claim(f"gpu-{n}", name=f"claim-{n}") for n in range(8)]
        answer = await node.prepare(*refs)
    devices = {name: [d.device_name for d in entry.devices] for name, entry in answer.items()}
    assert devices == {f"claim-{n}": [f"gpu-{n}"] for n in range(8)}


async def test_a_gpu_is_not_given_to_a_second_claim(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.publishing():
        first, second = [await node.claim("gpu-0", name=name) for name in ("one", "two")]
        await node.prepare(first)
        error = (await node.prepare(second))["two"].error
    assert "gpu-0" in error
    assert first.uid in error or "default/one" in error
