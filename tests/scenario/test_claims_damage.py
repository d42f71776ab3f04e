"""Whatever happens to a record's file, only that claim is held back, and everything else serves."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvdra_nodeagent.claims.journal import decode as decode_record
from nvdra_nodeagent.claims.journal import encode
from nvdra_nodeagent.claims.seal import Damaged
from nvdra_nodeagent.errors import Retryable
from nvdra_testing.claims import ClaimNode, a_node_of, a_ref, a_result

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from nvdra_nodeagent.claims.service import NodeClaims

HURT, WELL, RIVAL = a_ref("hurt"), a_ref("well"), a_ref("rival")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def foreign(path: Path) -> None:
    path.write_bytes(b"\x7fELF\x02\x01\x01\x00")


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("x")


def link_to_another_record(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / f"{WELL.uid}.json")


def link_to_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/at/all")


def endless_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def far_too_large(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(1 << 40)


def record_of_another_claim(path: Path) -> None:
    path.write_bytes((path.parent / f"{WELL.uid}.json").read_bytes())


DAMAGES = (
    truncated,
    emptied,
    flipped,
    foreign,
    directory,
    link_to_another_record,
    link_to_nowhere,
    endless_device,
    fifo,
    far_too_large,
    record_of_another_claim,
)


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[ClaimNode]:
    """With two prepared claims on GPUs 0 and 1 of four."""
    node = ClaimNode(tmp_path, inventory=a_node_of(4))
    await node.agent().prepare([node.api.add(HURT, "gpu-0"), node.api.add(WELL, "gpu-1")])
    yield node
    await node.close()


async def reason_for(agent: NodeClaims, node: ClaimNode, device: str) -> str:
    """Why another claim does not get the device; "" when it does."""
    answer = (await agent.prepare([node.api.add(RIVAL, device)]))[RIVAL.uid]
    return answer.reason if isinstance(answer, Retryable) else ""


@pytest.mark.parametrize("damage", DAMAGES)
async def test_the_damaged_record_is_moved_aside_and_its_device_stays_fenced(
    damage: Callable[[Path], None], node: ClaimNode
) -> None:
    damage(node.record_path(HURT))
    agent = node.agent()
    await agent.start()
    assert await reason_for(agent, node, "gpu-0") == "DeviceFenced"
    assert not os.path.lexists(node.record_path(HURT))
    aside = node.root / "state" / "quarantine" / f"{HURT.uid}.json"
    assert os.path.lexists(aside)
    assert aside.with_suffix(".reason").read_text().strip()
    assert node.observer.told.count(f"quarantined {HURT.uid}") == 1


@pytest.mark.parametrize("damage", DAMAGES)
async def test_everything_else_serves(damage: Callable[[Path], None], node: ClaimNode) -> None:
    damage(node.record_path(HURT))
    agent = node.agent()
    assert isinstance((await agent.prepare([WELL]))[WELL.uid], tuple)
    assert await reason_for(agent, node, "gpu-2") == ""
    assert await agent.unprepare([WELL]) == {WELL.uid: None}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_the_claim_itself_is_unprepared_without_a_rest(
    damage: Callable[[Path], None], node: ClaimNode
) -> None:
    damage(node.record_path(HURT))
    agent = node.agent()
    assert await agent.unprepare([HURT]) == {HURT.uid: None}
    assert await reason_for(agent, node, "gpu-0") == ""
    await agent.unprepare([WELL, RIVAL])
    assert node.files() == []
    assert list((node.root / "state" / "quarantine").iterdir()) == []


@pytest.mark.parametrize("damage", DAMAGES)
async def test_the_claim_is_prepared_again_under_the_same_ids(
    damage: Callable[[Path], None], node: ClaimNode
) -> None:
    before = (await node.agent().prepare([HURT]))[HURT.uid]
    damage(node.record_path(HURT))
    agent = node.agent()
    assert (await agent.prepare([HURT]))[HURT.uid] == before
    assert await node.agent().unprepare([HURT]) == {HURT.uid: None}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damage_under_a_running_agent_is_noticed_with_the_next_call(
    damage: Callable[[Path], None], node: ClaimNode
) -> None:
    os.utime(node.record_path(HURT), (1, 1))  # or both are of one tick of the file system's clock
    agent = node.agent()
    await agent.start()
    damage(node.record_path(HURT))
    assert await reason_for(agent, node, "gpu-0") == "DeviceFenced"


async def test_a_record_that_may_not_be_read_is_moved_aside(node: ClaimNode) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    node.record_path(HURT).chmod(0)
    agent = node.agent()
    assert await reason_for(agent, node, "gpu-0") == "DeviceFenced"


async def test_loose_permissions_are_no_damage(node: ClaimNode) -> None:
    node.record_path(HURT).chmod(0o666)
    agent = node.agent()
    await agent.start()
    assert node.observer.told.count(f"quarantined {HURT.uid}") == 0


@pytest.mark.parametrize("clock_s", [0, 1, 4_000_000_000], ids=["1970", "just after", "2096"])
async def test_a_clock_that_jumps_hides_no_change(clock_s: int, node: ClaimNode) -> None:
    agent = node.agent()
    await agent.start()
    truncated(node.record_path(HURT))
    os.utime(node.record_path(HURT), (clock_s, clock_s))
    assert await reason_for(agent, node, "gpu-0") == "DeviceFenced"


async def test_a_fence_in_a_directory_is_settled_for_good(node: ClaimNode) -> None:
    directory(node.record_path(HURT))
    await node.agent().unprepare([HURT])
    agent = node.agent()
    assert await reason_for(agent, node, "gpu-0") == ""


async def test_a_second_damage_of_the_same_claim_replaces_the_first(node: ClaimNode) -> None:
    directory(node.record_path(HURT))
    await node.agent().start()
    node.record_path(HURT).write_bytes(b"#")
    agent = node.agent()
    await agent.start()
    assert (node.root / "state" / "quarantine" / f"{HURT.uid}.json").read_bytes() == b"#"


async def test_a_quarantine_that_cannot_be_made_stops_nobody(node: ClaimNode) -> None:
    (node.root / "state" / "quarantine").write_text("in the way")
    emptied(node.record_path(HURT))
    agent = node.agent()
    assert await reason_for(agent, node, "gpu-0") == "DeviceFenced"
    assert isinstance((await agent.prepare([WELL]))[WELL.uid], tuple)
    assert await agent.unprepare([WELL]) == {WELL.uid: None}


async def test_admin_access_in_a_damaged_record_fences_nothing(tmp_path: Path) -> None:
    node = ClaimNode(tmp_path, inventory=a_node_of(2))
    watcher = node.api.add(HURT, a_result("gpu-0", adminAccess=True), a_result("gpu-1"))
    await node.agent().prepare([watcher])
    truncated(node.record_path(HURT))
    agent = node.agent()
    assert await reason_for(agent, node, "gpu-0") == ""
    await agent.unprepare([RIVAL])
    assert await reason_for(agent, node, "gpu-1") == "DeviceFenced"
    await node.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
async def test_no_flip_of_any_byte_is_taken_for_the_record(
    data: st.DataObject, node: ClaimNode
) -> None:
    content = node.record_path(HURT).read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    bits = data.draw(st.integers(1, 255))
    changed = content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :]
    with pytest.raises(Damaged) as caught:
        decode_record(changed, uid=HURT.uid)
    assert not caught.value.newer
    assert encode(decode_record(content, uid=HURT.uid)) == content
