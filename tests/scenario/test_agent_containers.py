"""What the agent's CDI files put into containers is what the containers see, and nothing else."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nvdra_sim.cluster.kubelet.cdi import CdiRegistry
from nvdra_sim.cluster.kubelet.container import (
    ContainerSpec,
    NamespaceRuntime,
    namespaces_available,
)
from nvdra_sim.cluster.kubelet.images import PATH, ImageStore
from nvdra_testing.agent import a_node

if TYPE_CHECKING:
    from nvdra_testing.agent import NodeUnderTest

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.skipif(not namespaces_available(), reason="namespaces are not allowed here"),
]


async def run(node: NodeUnderTest, *cdi_ids: str) -> str:
    """The log of a container that gets these devices and lists them."""
    place = Path(tempfile.mkdtemp(dir=node.root))
    spec = ContainerSpec(
        name="main",
        image=ImageStore(node.root / "images").image("ubuntu:24.04"),
        bundle=place / "bundle",
        log=place / "log",
        args=("sh", "-c", "nvidia-smi -L"),
        env={"PATH": PATH},
        edits=CdiRegistry([node.cdi_root]).resolve(cdi_ids),
    )
    container = await NamespaceRuntime().start(spec)
    await container.wait()
    return spec.log.read_text()


def drop_node(cdi_file: Path, device_path: str) -> None:
    """Take a device node out of a CDI file."""
    document = json.loads(cdi_file.read_text().removeprefix("---\n"))
    for device in document["devices"]:
        edits = device["containerEdits"]
        edits["deviceNodes"] = [n for n in edits["deviceNodes"] if n["path"] != device_path]
    cdi_file.write_text("---\n" + json.dumps(document))


async def test_a_device_node_taken_out_of_the_cdi_file_is_gone_from_the_log(
    tmp_path: Path,
) -> None:
    node = await a_node(tmp_path)
    async with node.publishing():
        ref = await node.claim("gpu-0", "gpu-5")
        entry = (await node.prepare(ref))["claim"]
    ids = [cdi_id for device in entry.devices for cdi_id in device.cdi_device_ids]
    first, second = (node.hardware.gpu_uuid(index) for index in (0, 5))
    whole = await run(node, *ids)
    assert first in whole
    assert second in whole
    drop_node(node.cdi_root / f"k8s.gpu.nvidia.com-claim_{ref.uid}.yaml", "/dev/nvidia5")
    reduced = await run(node, *ids)
    assert first in reduced
    assert second not in reduced


async def test_a_container_with_one_device_of_a_claim_sees_no_other(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.publishing():
        ref = await node.claim("gpu-1", "gpu-2")
        entry = (await node.prepare(ref))["claim"]
    log = await run(node, *entry.devices[1].cdi_device_ids)
    assert node.hardware.gpu_uuid(2) in log
    assert node.hardware.gpu_uuid(1) not in log
