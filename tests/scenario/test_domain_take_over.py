"""Nodes on which an earlier driver has prepared channels and daemons: its claims go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvdra_api.gates import FeatureGates
from nvdra_api.names import LABEL_COMPUTE_DOMAIN, NAMESPACE
from nvdra_kube.resources import NODES, PODS, RESOURCE_CLAIMS
from nvdra_nodeagent.cdi.names import DOMAIN_CLAIM_KIND, cdi_device_id
from nvdra_nodeagent.cdi.store import CdiStore
from nvdra_nodeagent.checkpoint.conversion import EarlierNode
from nvdra_nodeagent.checkpoint.migration import MIGRATED, Migration
from nvdra_nodeagent.claims.journal import Journal, decode
from nvdra_nodeagent.computedomain.base_file import BaseFile
from nvdra_nodeagent.computedomain.earlier_claims import DaemonFiles, EarlierClaims
from nvdra_nodeagent.errors import AgentError
from nvdra_nodeagent.steps.domain_cdi import ChannelCdiStep
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
    a_domain_status,
    a_place,
    a_prepared,
)
from nvdra_testing.domain_nodes import BOOT, DomainNode
from nvdra_testing.domain_steps import DOMAIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nvdra_nodeagent.checkpoint.migration import MigrationReport
    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_nodeagent.claims.record import Record
    from nvdra_testing.compute_domains import DomainCluster

CLIQUE = "6e766472-6120-5369-6d75-6c6174656420.1"
OTHER_DOMAIN = "0d9c6b7a-0000-4000-8000-000000000002"
SUPPORT = Path(__file__).parents[1] / "support"


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
            self.daemon.uid, self.domain, clique=CLIQUE, directory=str(directory)
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
    assert (directory.clique, directory.protocol) == (CLIQUE, "")
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
    assert annotations == {f"{LABEL_COMPUTE_DOMAIN}.cliqueID": CLIQUE}
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
    told = {f"CLIQUE_ID={CLIQUE}", f"COMPUTE_DOMAIN_UUID={used.domain}"}
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


UID = "11111111-0000-4000-8000-000000000001"


class Files:
    """State and CDI directory of a node, without an agent."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = CdiStore(root, kind=DOMAIN_CLAIM_KIND)

    def migrate(
        self, claims: Any, *, clique: str | None = CLIQUE, damage: tuple[bytes, bytes] = (b"", b"")
    ) -> MigrationReport:
        report = self.take_over(a_checkpoint(claims).replace(*damage), clique=clique)
        assert report
        return report

    def take_over(self, data: bytes, *, clique: str | None = CLIQUE) -> MigrationReport | None:
        (self.root / "checkpoint.json").write_bytes(data)
        make = EarlierClaims(
            DaemonFiles(self.store),
            gates=FeatureGates.parse(""),
            home="driver",
            cdi_id=lambda uid, device: cdi_device_id(uid, device, kind=DOMAIN_CLAIM_KIND),
            clique=lambda: clique,
        )
        node = EarlierNode("compute-domain.nvidia.com", "node-1", BOOT)
        return Migration(self.root, Journal(self.root), node=node, make=make).run()

    def steps(self) -> list[Any]:
        content = (self.root / "claims" / f"{UID}.json").read_bytes()
        return [each.step for each in decode(content, uid=UID).steps]


def a_channel(*, status: Any = None, **changes: Any) -> Any:
    status = a_domain_status("channel-0", DOMAIN) if status is None else status
    return {UID: a_prepared(status, a_place("channel-0", DOMAIN, uid=UID, **changes))}


def a_daemon() -> Any:
    status = a_domain_status("daemon-0", DOMAIN)
    return {UID: a_prepared(status, a_place("daemon-0", DOMAIN, uid=UID))}


def test_all_channels_are_recorded_where_all_were_given(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.migrate(a_channel(status=a_domain_status("channel-0", DOMAIN, allocationMode="All")))
    (step,) = (each for each in files.steps() if isinstance(each, ChannelCdiStep))
    assert (step.first, step.count) == (0, 2048)


def test_a_claim_without_a_channel_on_a_node_without_fabric_holds_the_label_only(
    tmp_path: Path,
) -> None:
    files = Files(tmp_path)
    files.migrate(a_channel(cdi_ids=[]), clique=None)
    assert [kind_of(type(step)) for step in files.steps()] == ["node_label"]


def test_the_clique_is_that_of_the_daemon_before_that_of_the_gpus(tmp_path: Path) -> None:
    files = Files(tmp_path)
    text = a_daemon_yaml("other", DOMAIN, clique="its.7", directory="/d")
    files.store.path("other").write_text(text)
    files.migrate(a_channel())
    assert files.steps()[0].clique == "its.7"


STARTED = {UID: a_prepared(a_domain_status("channel-0", DOMAIN), state="PrepareStarted")}
TWO = {
    UID: a_prepared(
        a_domain_status("channel-0", DOMAIN),
        a_place("channel-0", DOMAIN, uid=UID),
        a_place("daemon-0", DOMAIN, uid=UID),
    )
}


@pytest.mark.parametrize(
    ("claims", "clique", "cause"),
    [
        (STARTED, CLIQUE, "not finished"),
        (a_channel(), None, "clique of the node is not known"),
        (a_channel(), "", "clique of the node is not known"),
        (a_channel(cdi_ids=["x/y=z"]), CLIQUE, "other devices"),
        (a_channel(ComputeDomain=OTHER_DOMAIN), CLIQUE, "another domain"),
        (a_channel(status=a_domain_status("channel-3", DOMAIN)), CLIQUE, "not the one"),
        (a_channel(status=a_domain_status("channel-0", "../x")), CLIQUE, "not the UID"),
        (a_channel(status=a_domain_status("channel-0", DOMAIN, new=1)), CLIQUE, "new"),
        (a_channel(status=a_domain_status("channel-0", DOMAIN, pool="b")), CLIQUE, "pool b"),
        (a_channel(status={}), CLIQUE, "not allocated"),
        (a_channel(later=True), CLIQUE, "later"),
        (a_daemon(), CLIQUE, "which domain"),
        (TWO, CLIQUE, "other devices"),
    ],
)
def test_what_is_not_understood_is_fenced_with_the_cause(
    tmp_path: Path, claims: Any, clique: str | None, cause: str
) -> None:
    report = Files(tmp_path).migrate(claims, clique=clique)
    assert not report.recorded
    assert cause in report.fenced[UID]


def test_a_wrong_checksum_is_a_reason_not_to_believe_any_domain(tmp_path: Path) -> None:
    other = (DOMAIN.encode(), OTHER_DOMAIN.encode())
    report = Files(tmp_path).migrate(a_channel(), damage=other)
    assert not report.recorded
    assert "wrong checksum" in report.fenced[UID]


@settings(max_examples=80, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), channel=st.booleans())
def test_whatever_byte_is_damaged_no_claim_is_believed_that_was_not_written(
    tmp_path_factory: pytest.TempPathFactory, place: float, byte: int, channel: bool
) -> None:
    files = Files(tmp_path_factory.mktemp("node"))
    text = a_daemon_yaml(UID, DOMAIN, clique=CLIQUE, directory="/d")
    files.store.path(UID).write_text(text)
    files.migrate(a_channel() if channel else a_daemon())
    undamaged = files.steps()
    data = bytearray((files.root / MIGRATED).read_bytes())
    data[int(place * len(data))] = byte
    (files.root / "claims" / f"{UID}.json").unlink()
    report = files.take_over(bytes(data))
    for uid in report.recorded if report else ():
        assert uid == UID
        assert files.steps() == undamaged


def test_a_claim_whose_prepare_was_aborted_is_gone(tmp_path: Path) -> None:
    status = a_domain_status("channel-0", DOMAIN)
    aborted = a_prepared(status, state="PrepareAborted", abortedAt="2025-01-01T00:00:00Z")
    report = Files(tmp_path).migrate({UID: aborted})
    assert not (report.recorded or report.fenced)


def test_a_take_over_that_is_killed_anywhere_is_finished_by_the_next(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nvdra_testing.checkpoint_crashes", str(tmp_path), "domains"],
        capture_output=True,
        text=True,
        check=True,
        timeout=55,
        env={"PYTHONPATH": str(SUPPORT), "PATH": "/usr/bin:/bin"},
    )
    runs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    undisturbed, *crashes = runs
    assert len(undisturbed["files"]) > 4
    assert len(crashes) > 10
    assert all(crash["killed"] for crash in crashes)
    for crash in crashes:
        assert crash["files"] == undisturbed["files"]
