"""Going back to an earlier driver: its checkpoint from the claims of domains on a node."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from nvdra_kube.resources import RESOURCE_CLAIMS
from nvdra_nodeagent.checkpoint.command import DONE, PARTLY
from nvdra_nodeagent.checkpoint.document import decode_checkpoint
from nvdra_nodeagent.computedomain.export import main
from nvdra_testing.checkpoints import checksum_of
from nvdra_testing.domain_checkpoints import KIND, a_domain_status, a_place, a_prepared
from nvdra_testing.domain_claims import (
    OTHER_BOOT,
    a_made_domain,
    a_released_workload,
    prepare,
)
from nvdra_testing.domain_nodes import BOOT, DomainNode

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from nvdra_testing.compute_domains import DomainCluster


def variables(node: DomainNode) -> dict[str, str]:
    plugins, cdi = str(node.root / "plugins"), str(node.root / "cdi")
    return {"KUBELET_PLUGINS_DIRECTORY_PATH": plugins, "CDI_ROOT": cdi}


async def export(node: DomainNode, *, boot_id: str = BOOT) -> int:
    arguments = ["--output", str(node.state_dir / "checkpoint.json")]
    run = partial(main, arguments, environ=variables(node), boot_id=boot_id)
    return await asyncio.to_thread(run)


def document(node: DomainNode) -> Any:
    return json.loads((node.state_dir / "checkpoint.json").read_bytes())


async def test_claims_are_what_the_earlier_driver_would_have_written(node: DomainNode) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        workload, daemon = await a_released_workload(agent, node, uid)
    assert await export(node) == DONE
    found = document(node)
    claims = found["v2"]["preparedClaims"]
    channel_id, daemon_id = (
        f"{KIND}={ref.uid}-{device}"
        for ref, device in ((workload, "channel-0"), (daemon, "daemon-0"))
    )
    channel = a_place("channel-0", uid, uid=workload.uid, cdi_ids=[channel_id])
    status = a_domain_status("channel-0", uid, allocationMode="Single")
    assert claims[workload.uid] == a_prepared(status, channel)
    place = a_place("daemon-0", uid, uid=daemon.uid, cdi_ids=[daemon_id])
    assert claims[daemon.uid] == a_prepared(a_domain_status("daemon-0", uid), place)
    assert found["v2"]["nodeBootID"] == BOOT
    sections = {"checksum": 0, "v1": found["v1"]}
    assert found["checksum"] == checksum_of(sections)
    assert decode_checkpoint((node.state_dir / "checkpoint.json").read_bytes()).sealed


async def test_the_mode_of_the_channels_is_kept(node: DomainNode) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        ref, _ = await a_released_workload(agent, node, uid, allocationMode="All")
    assert await export(node) == DONE
    (config,) = document(node)["v2"]["preparedClaims"][ref.uid]["status"]["allocation"]["devices"][
        "config"
    ]
    assert config["opaque"]["parameters"]["allocationMode"] == "All"


async def test_a_claim_of_a_node_without_a_fabric_is_one_without_a_device_for_cdi(
    it: DomainCluster, tmp_path: Path
) -> None:
    node, uid = DomainNode(tmp_path, it, profile="h100"), await a_made_domain(it)
    async with node.running() as agent:
        ref = await node.channel(uid)
        await prepare(agent, ref)
    assert await export(node) == DONE
    (group,) = document(node)["v2"]["preparedClaims"][ref.uid]["preparedDevices"]
    assert group == a_place("channel-0", uid, uid=ref.uid, cdi_ids=[])


async def test_a_claim_that_waits_is_left_out_by_name(
    node: DomainNode, capsys: pytest.CaptureFixture[str]
) -> None:
    uid = await a_made_domain(node.it)
    async with node.running(retry_budget_s=0.3) as agent:
        ref = await node.channel(uid)
        await prepare(agent, ref)
    assert await export(node) == PARTLY
    told = capsys.readouterr().err
    assert f"claim {ref.uid} is left out: it is not prepared completely" in told


async def test_claims_from_before_a_reboot_are_left_out(node: DomainNode) -> None:
    async with node.running() as agent:
        await a_released_workload(agent, node, await a_made_domain(node.it))
    assert await export(node, boot_id=OTHER_BOOT) == PARTLY
    assert "preparedClaims" not in document(node)["v2"]


async def test_what_was_exported_can_be_taken_over_again(node: DomainNode) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        # As the controller's templates have it.
        workload, daemon = await a_released_workload(agent, node, uid, allocationMode="Single")
    assert await export(node) == DONE
    for name in ("claims", "checkpoint.json.exported"):
        path = node.state_dir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    async with node.running() as agent:
        assert agent.claims.fences() == 0
        assert {record.claim.uid for record in agent.claims.records()} == {workload.uid, daemon.uid}
        assert isinstance(await prepare(agent, workload), tuple)
        assert await agent.claims.unprepare([workload]) == {workload.uid: None}
        assert (await node.label(), node.cdi(workload)) == (None, None)
    assert (await node.it.everything(RESOURCE_CLAIMS)) != []


def test_the_command_is_the_plugins(tmp_path: Path) -> None:
    state = tmp_path / "compute-domain.nvidia.com"
    state.mkdir()
    command = ["nvdra_nodeagent.compute_domain_main", "export-checkpoint"]
    output = tmp_path / "checkpoint.json"
    flags = ["--output", str(output), "--kubelet-plugins-directory-path", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", *command, *flags], capture_output=True, env=dict(os.environ)
    )
    assert (done.returncode, done.stdout.decode()) == (DONE, f"{output}: 0 claims\n")
