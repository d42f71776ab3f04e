"""What nobody will ask for again is removed; what may be in use is not touched."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from nvdra_kube.errors import ServerError
from nvdra_nodeagent.errors import AgentError
from nvdra_testing.claims import OTHER_BOOT, ClaimNode, a_ref

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_nodeagent.claims.service import NodeClaims

REF = a_ref()


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[ClaimNode]:
    """With one prepared claim."""
    node = ClaimNode(tmp_path)
    node.api.add(REF)
    await node.agent().prepare([REF])
    yield node
    await node.close()


def an_agent(node: ClaimNode, *, sweep_grace_s: float = 0.0, **more: Any) -> NodeClaims:
    return node.agent(sweep_grace_s=sweep_grace_s, **more)


def gone(node: ClaimNode, ref: ClaimRef = REF) -> None:
    del node.api.claims[ref.name]


async def test_a_living_claim_is_not_touched(node: ClaimNode) -> None:
    before = node.files()
    report = await an_agent(node).sweep()
    assert (report.released, report.suspected, node.files()) == ([], [], before)


async def test_a_claim_that_is_gone_is_released(node: ClaimNode) -> None:
    gone(node)
    report = await an_agent(node).sweep()
    assert (report.released, node.files()) == ([REF.uid], [])
    assert "swept record" in node.observer.told


async def test_a_claim_replaced_under_its_name_is_gone(node: ClaimNode) -> None:
    node.api.claims[REF.name]["metadata"]["uid"] = a_ref("new").uid
    assert (await an_agent(node).sweep()).released == [REF.uid]


async def test_a_claim_of_this_boot_has_to_stay_gone_for_a_while(node: ClaimNode) -> None:
    gone(node)
    agent = an_agent(node, sweep_grace_s=3600)
    for _ in range(2):
        report = await agent.sweep()
        assert (report.released, report.suspected) == ([], [REF.uid])


async def test_a_claim_that_was_there_again_has_all_of_its_grace_anew(node: ClaimNode) -> None:
    agent = an_agent(node, sweep_grace_s=1.0)
    body = node.api.claims[REF.name]
    gone(node)
    assert (await agent.sweep()).suspected == [REF.uid]
    await asyncio.sleep(1.1)
    node.api.claims[REF.name] = body
    assert (await agent.sweep()).suspected == []
    gone(node)
    report = await agent.sweep()
    assert (report.released, report.suspected) == ([], [REF.uid])


async def test_after_a_reboot_nothing_can_be_in_use_any_more(node: ClaimNode) -> None:
    gone(node)
    agent = an_agent(node, sweep_grace_s=3600, boot_id=OTHER_BOOT)
    assert (await agent.sweep()).released == [REF.uid]


async def test_an_api_in_trouble_says_nothing_about_claims(node: ClaimNode) -> None:
    gone(node)
    agent = an_agent(node)
    node.api.errors.append(ServerError("etcd", status=500))
    assert (await agent.sweep()).released == []
    node.api.versions = ()  # the whole API group is not served
    assert (await agent.sweep()).released == []
    node.api.versions = ("v1",)
    assert (await agent.sweep()).released == [REF.uid]


async def test_one_claim_that_cannot_be_checked_does_not_stop_the_others(node: ClaimNode) -> None:
    other = node.api.add(a_ref("other"), "gpu-1")
    agent = an_agent(node)
    await agent.prepare([other])
    gone(node)
    gone(node, other)
    node.api.errors.append(ServerError("etcd", status=500))
    assert len((await agent.sweep()).released) == 1


async def test_a_cdi_file_of_no_claim_is_removed(node: ClaimNode) -> None:
    gone(node)
    node.record_path(REF).unlink()
    report = await an_agent(node).sweep()
    assert (report.released, node.files()) == ([REF.uid], [])


async def test_a_cdi_file_of_a_living_claim_is_kept(node: ClaimNode) -> None:
    node.record_path(REF).unlink()
    await an_agent(node).sweep()
    assert node.cdi.exists(REF.uid)


async def test_a_quarantined_record_of_a_claim_that_is_gone_is_settled(node: ClaimNode) -> None:
    node.record_path(REF).unlink()
    node.record_path(REF).write_bytes(b"damaged")
    agent = an_agent(node)
    await agent.start()
    gone(node)
    await agent.sweep()
    assert node.files() == []


async def test_only_old_temporary_files_are_removed(node: ClaimNode) -> None:
    claims = node.record_path(REF).parent
    old, young = claims / ".a.json.0001.tmp", claims / ".b.json.0002.tmp"
    for path in (old, young):
        path.write_text("half")
    an_hour_ago = time.time() - 3600
    os.utime(old, (an_hour_ago, an_hour_ago))
    report = await an_agent(node).sweep()
    assert report.litter == [str(old)]
    assert young.exists()


async def test_a_dry_run_says_what_would_go_and_removes_nothing(node: ClaimNode) -> None:
    gone(node)
    leftover = an_old_file(node.record_path(REF).parent / ".a.json.0001.tmp")
    before = node.files()
    for _ in range(2):
        report = await an_agent(node, sweep_dry_run=True).sweep()
        assert (report.released, report.litter) == ([REF.uid], [str(leftover)])
    assert node.files() == before
    assert "would sweep record 1, temporary 1" in node.observer.told
    assert "swept record" not in node.observer.told


def an_old_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    return aged(path)


def aged(path: Path) -> Path:
    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago), follow_symlinks=False)
    return path


def state(node: ClaimNode) -> Path:
    return node.root / "state"


@pytest.mark.parametrize("directory", ["claims", "quarantine", "effects", "tombstones", "."])
async def test_what_a_dead_writer_left_is_removed_wherever_it_is(
    directory: str, node: ClaimNode
) -> None:
    leftover = an_old_file(state(node) / directory / ".x.json.0001.tmp")
    assert (await an_agent(node).sweep()).litter == [str(leftover)]
    assert not leftover.exists()


async def test_a_temporary_from_the_future_is_of_a_clock_that_was_set_back(
    node: ClaimNode,
) -> None:
    leftover = an_old_file(state(node) / "claims" / ".x.json.0001.tmp")
    os.utime(leftover, (4_000_000_000, 4_000_000_000))
    assert (await an_agent(node).sweep()).litter == [str(leftover)]


async def test_locks_of_an_earlier_driver_go_with_its_checkpoint(node: ClaimNode) -> None:
    locks = [an_old_file(state(node) / name) for name in ("cp.lock", "pu.lock")]
    checkpoint = an_old_file(state(node) / "checkpoint.json")
    assert (await an_agent(node).sweep()).litter == []
    checkpoint.rename(state(node) / "checkpoint.json.migrated")
    report = await an_agent(node).sweep()
    assert (sorted(report.litter), report.kinds["lock"]) == (sorted(map(str, locks)), 2)
    assert (state(node) / "checkpoint.json.migrated").exists()


async def test_a_lock_that_somebody_holds_stays(node: ClaimNode) -> None:
    lock = an_old_file(state(node) / "pu.lock")
    with lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert (await an_agent(node).sweep()).litter == []
    assert lock.exists()


async def test_sockets_that_were_never_published_are_removed(node: ClaimNode) -> None:
    for name in (".0123af", "dra.sock"):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(state(node) / name))
        aged(state(node) / name)
    an_old_file(state(node) / ".cafe00")  # not a socket
    report = await an_agent(node).sweep()
    assert report.litter == [str(state(node) / ".0123af")]
    assert (state(node) / "dra.sock").exists()


async def test_a_reason_goes_when_its_file_is_gone(node: ClaimNode) -> None:
    kept = an_old_file(state(node) / "quarantine" / "effects.x.json")
    an_old_file(kept.with_suffix(".reason"))
    stray = an_old_file(state(node) / "quarantine" / "effects.y.reason")
    assert (await an_agent(node).sweep()).litter == [str(stray)]
    assert kept.with_suffix(".reason").exists()


async def test_what_was_swept_is_counted_by_kind(node: ClaimNode) -> None:
    an_old_file(state(node) / "claims" / ".x.json.0001.tmp")
    an_old_file(state(node) / "pu.lock")
    gone(node)
    await an_agent(node).sweep()
    swept = {line for line in node.observer.told if line.startswith("swept")}
    assert swept == {"swept temporary", "swept lock", "swept record"}


async def test_one_file_that_cannot_be_removed_keeps_no_other(node: ClaimNode) -> None:
    stuck = state(node) / "claims" / ".stuck.json.0001.tmp"
    stuck.mkdir()
    aged(stuck)
    leftover = an_old_file(state(node) / "claims" / ".x.json.0001.tmp")
    assert (await an_agent(node).sweep()).litter == [str(leftover)]


async def test_names_are_asked_one_by_one_and_the_cluster_is_not_listed(node: ClaimNode) -> None:
    node.api.calls.clear()
    await an_agent(node).sweep()
    assert node.api.calls == ["get v1 claim"]


@pytest.mark.looptime
async def test_who_meets_a_device_of_a_claim_that_is_gone_has_it_swept_soon(
    node: ClaimNode,
) -> None:
    agent = an_agent(node, retry_budget_s=1.0)
    keeper = asyncio.create_task(agent.keep_swept(interval_s=36000, jitter_s=0), name="keeper")
    await asyncio.sleep(10)
    gone(node)
    other = a_ref("other")
    node.api.add(other)
    refused = (await agent.prepare([other]))[other.uid]
    assert isinstance(refused, AgentError)
    assert refused.reason == "DeviceInUse"
    await asyncio.sleep(60)
    assert not isinstance((await agent.prepare([other]))[other.uid], AgentError)
    keeper.cancel()
    await asyncio.wait([keeper])
