"""Nodes on which an earlier driver has prepared channels and daemons: its claims go on."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from nvdra_api.names import LABEL_COMPUTE_DOMAIN, NAMESPACE
from nvdra_kube.resources import NODES, PODS, RESOURCE_CLAIMS
from nvdra_nodeagent.cdi.names import DOMAIN_CLAIM_KIND
from nvdra_nodeagent.cdi.store import CdiStore
from nvdra_nodeagent.checkpoint.migration import MIGRATED
from nvdra_nodeagent.claims.journal import decode
from nvdra_nodeagent.computedomain.base_file import BaseFile
from nvdra_nodeagent.errors import AgentError
from nvdra_nodeagent.steps.domain_dir import DomainDirStep
from nvdra_nodeagent.steps.registry import kind_of
from nvdra_sim.cluster.kubelet.cdi import CdiRegistry
from nvdra_testing.agent import until
from nvdra_testing.checkpoints import a_checkpoint
from nvdra_testing.compute_domains import a_cluster
from nvdra_testing.domain_checkpoints import (
    ALL,
    BASE_FILE,
    BASE_YAML,
    KIND,
    a_channel_yaml,
    a_daemon_yaml,
    a_place,
    a_prepared,
)
from nvdra_testing.domain_claims import GB200_CLIQUE
from nvdra_testing.domain_nodes import BOOT, DomainNode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_nodeagent.claims.record import Record
    from nvdra_testing.compute_domains import DomainCluster

OTHER_DOMAIN = "0d9c6b7a-0000-4000-8000-000000000002"


@dataclass
class InUse:
    """A node with a workload and the daemon of its domain, of which a checkpoint tells."""

    node: DomainNode
    domain: str
    workload: ClaimRef
    daemon: ClaimRef

    @property
    def cdi_root(self) -> Path:
        return self.node.root / "cdi"

    @property
    def base(self) -> Path:
        return self.cdi_root / BASE_FILE

    async def status(self, ref: ClaimRef) -> Any:
        api = self.node.it.api
        return (await api.get(RESOURCE_CLAIMS, ref.name, namespace=ref.namespace))["status"]

    async def leave(self, *, spoil: bool = False, versions: Any = ("v1", "v2")) -> None:
        claims = {
            ref.uid: a_prepared(
                await self.status(ref), a_place(device, self.domain, uid=ref.uid), **place
            )
            for ref, device, place in (
                (self.workload, "channel-0", {}),
                (self.daemon, "daemon-0", {"name": self.daemon.name, "namespace": NAMESPACE}),
            )
        }
        data = a_checkpoint(claims, boot_id=BOOT, versions=versions)
        self.node.state_dir.mkdir(parents=True)
        path = self.node.state_dir / "checkpoint.json"
        path.write_bytes(
            data.replace(b'"Requests":["it"]', b'"Requests":["at"]') if spoil else data
        )

    def leave_cdi_files(self) -> None:
        self.cdi_root.mkdir()
        directory = self.node.directory(self.domain)
        directory.mkdir(parents=True, exist_ok=True)
        daemon = a_daemon_yaml(
            self.daemon.uid, self.domain, clique=GB200_CLIQUE, directory=str(directory)
        )
        self._path(self.workload).write_text(a_channel_yaml(self.workload.uid))
        self._path(self.daemon).write_text(daemon)
        self.base.write_text(BASE_YAML)

    def _path(self, ref: ClaimRef) -> Path:
        return CdiStore(self.cdi_root, kind=DOMAIN_CLAIM_KIND).path(ref.uid)

    def has_cdi(self, ref: ClaimRef) -> bool:
        return self._path(ref).exists()

    def record(self, ref: ClaimRef) -> Record:
        path = self.node.state_dir / "claims" / f"{ref.uid}.json"
        return decode(path.read_bytes(), uid=ref.uid)


@pytest.fixture
async def it() -> AsyncIterator[DomainCluster]:
    async with a_cluster() as cluster:
        yield cluster


@pytest.fixture
async def used(it: DomainCluster, tmp_path: Path) -> InUse:
    node = DomainNode(tmp_path, it)
    uid = str((await it.domain())["metadata"]["uid"])
    await it.join(node.name, uid, clique=None)
    pod = {
        "metadata": {
            "name": "daemon",
            "namespace": NAMESPACE,
            "labels": {LABEL_COMPUTE_DOMAIN: uid},
        },
        "spec": {"containers": [{"name": "compute-domain-daemon", "image": "earlier"}]},
    }
    made = await it.api.create(PODS, pod, namespace=NAMESPACE)
    return InUse(node, uid, await node.channel(uid), await node.daemon(uid, pod=made))


async def test_unprepare_takes_the_node_out_of_the_domain_and_the_file_away(used: InUse) -> None:
    await used.leave()
    used.leave_cdi_files()
    async with used.node.running() as agent:
        assert agent.claims.fences() == 0
        assert await agent.claims.unprepare([used.workload]) == {used.workload.uid: None}
        assert not used.has_cdi(used.workload)
        assert used.has_cdi(used.daemon)
        meta = (await used.node.it.api.get(NODES, used.node.name))["metadata"]
    assert not meta.get("labels")
    assert not meta.get("annotations")


async def test_unprepare_leaves_a_node_alone_that_is_in_another_domain_by_now(used: InUse) -> None:
    await used.leave()
    used.leave_cdi_files()
    await used.node.it.join(used.node.name, OTHER_DOMAIN, clique=None)
    async with used.node.running() as agent:
        assert await agent.claims.unprepare([used.workload]) == {used.workload.uid: None}
    assert await used.node.label() == OTHER_DOMAIN


@pytest.mark.parametrize("versions", [("v1",), ("v1", "v2")])
async def test_the_records_are_those_of_steps_that_were_done(used: InUse, versions: Any) -> None:
    await used.leave(versions=versions)
    used.leave_cdi_files()
    async with used.node.running():
        workload, daemon = used.record(used.workload), used.record(used.daemon)
    kinds = [[kind_of(type(each.step)) for each in rec.steps] for rec in (workload, daemon)]
    assert kinds == [["node_label", "domain_ready", "channel_cdi"], ["domain_dir", "daemon_cdi"]]
    (directory,) = (each.step for each in daemon.steps if isinstance(each.step, DomainDirStep))
    assert (directory.name, directory.namespace, directory.home) == ("job", "default", NAMESPACE)
    assert (directory.clique, directory.protocol) == (GB200_CLIQUE, "")
    assert (used.node.state_dir / MIGRATED).exists()


async def test_a_prepare_repeated_gives_the_same_answer_though_no_daemon_is_ready(
    used: InUse,
) -> None:
    await used.leave()
    used.leave_cdi_files()
    async with used.node.running() as agent:
        answers = await agent.claims.prepare([used.workload, used.daemon])
    (channel,), (daemon,) = (answers[ref.uid] for ref in (used.workload, used.daemon))  # type: ignore[misc]
    assert channel.cdi_ids == (f"{KIND}={used.workload.uid}-channel-0",)
    ids = [ALL, f"{KIND}={used.daemon.uid}-daemon-0"]
    assert list(daemon.cdi_ids) == ids
    assert CdiRegistry([used.cdi_root]).resolve(ids).device_nodes


async def test_a_channel_in_use_is_granted_to_nobody_else(used: InUse) -> None:
    await used.leave()
    used.leave_cdi_files()
    rival = await used.node.channel(used.domain, "rival")
    async with used.node.running(retry_budget_s=0.1) as agent:
        answer = (await agent.claims.prepare([rival]))[rival.uid]
    assert isinstance(answer, AgentError)
    assert answer.reason == "DeviceInUse"


async def test_steps_that_are_verified_keep_the_pods_devices_resolvable(used: InUse) -> None:
    await used.leave()
    used.leave_cdi_files()
    async with used.node.running() as agent:
        await until(lambda: agent.keeper.is_known)
        assert not (await agent.claims.verify()).waiting
        annotations = (await used.node.it.api.get(NODES, used.node.name))["metadata"]["annotations"]
    assert annotations == {f"{LABEL_COMPUTE_DOMAIN}.cliqueID": GB200_CLIQUE}
    ids = [ALL, f"{KIND}={used.daemon.uid}-daemon-0", f"{KIND}={used.workload.uid}-channel-0"]
    assert CdiRegistry([used.cdi_root]).resolve(ids).device_nodes


async def test_directories_stay_while_a_fence_may_be_about_them(used: InUse) -> None:
    await used.leave(spoil=True)
    used.leave_cdi_files()
    old = time.time() - 3600
    os.utime(used.node.directory(used.domain), (old, old))
    async with used.node.running() as agent:
        assert agent.claims.fences()
        await agent.leavings.sweep()
        assert used.node.directory(used.domain).exists()
        await agent.claims.unprepare([used.daemon, used.workload])
        await agent.leavings.sweep()
        assert not used.node.directory(used.domain).exists()


async def test_a_claim_from_before_a_reboot_is_not_believed_and_still_leaves_the_domain(
    used: InUse,
) -> None:
    await used.leave()
    used.leave_cdi_files()
    async with used.node.running(boot_id="another", retry_budget_s=0.1) as agent:
        answer = (await agent.claims.prepare([used.workload]))[used.workload.uid]
        assert isinstance(answer, AgentError)
        assert answer.reason == "DomainNotReady"
        assert await agent.claims.unprepare([used.workload]) == {used.workload.uid: None}
    assert await used.node.label() is None


async def test_a_daemon_that_starts_anew_finds_what_it_was_told(used: InUse) -> None:
    await used.leave()
    used.leave_cdi_files()
    async with used.node.running() as agent:
        await agent.claims.prepare([used.daemon])
        spec = used.node.cdi(used.daemon)
    assert spec
    edits = spec.devices[0].container_edits
    told = {f"CLIQUE_ID={GB200_CLIQUE}", f"COMPUTE_DOMAIN_UUID={used.domain}"}
    assert told <= set(edits.env)
    mounts = {each.host_path for each in edits.mounts if each.container_path == "/imexd"}
    assert mounts == {str(used.node.directory(used.domain))}


async def test_a_claim_behind_a_wrong_checksum_leaves_nothing_when_it_ends(used: InUse) -> None:
    await used.leave(spoil=True)
    used.leave_cdi_files()
    async with used.node.running() as agent:
        assert agent.claims.fences()
        assert await agent.claims.unprepare([used.workload]) == {used.workload.uid: None}
        assert not used.has_cdi(used.workload)
    assert await used.node.label() is None


async def test_the_base_file_goes_with_the_last_daemon_that_was_told_of_it(used: InUse) -> None:
    await used.leave()
    used.leave_cdi_files()
    async with used.node.running() as agent:
        for _ in range(3):
            await agent.leavings.sweep()
        assert used.base.exists()
        await agent.claims.unprepare([used.daemon])
        await agent.leavings.sweep()
        await agent.leavings.sweep()
        assert not used.base.exists()


async def test_the_base_file_stays_while_there_is_a_checkpoint_or_a_fence(tmp_path: Path) -> None:
    (tmp_path / BASE_FILE).write_text(BASE_YAML)
    (tmp_path / "checkpoint.json").write_text("{")
    base = BaseFile(tmp_path, state_dir=tmp_path)
    assert [base.sweep((), fences=0) for _ in range(2)] == [False, False]
    (tmp_path / "checkpoint.json").unlink()
    assert [base.sweep((), fences=fences) for fences in (1, 1, 0, 1, 0)] == [False] * 5
    assert base.sweep((), fences=0)
