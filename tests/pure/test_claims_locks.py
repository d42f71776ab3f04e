"""Locks exclude work on the same claim or GPU, here and in another agent, and nothing else."""

from __future__ import annotations

import asyncio
import errno
import fcntl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.claims.locks import ClaimLocks, LockFile
from nvdra_nodeagent.errors import Retryable

if TYPE_CHECKING:
    from collections.abc import Iterator

SOON = 0.05  # of waiting in tests that expect to wait in vain


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[LockFile, LockFile]]:
    """Two openings of one file exclude each other as two processes do."""
    pair = LockFile(tmp_path / "locks"), LockFile(tmp_path / "locks")
    yield pair
    for file in pair:
        file.close()


class _Sticky(LockFile):
    """Does not let go of GPU-b."""

    def unlock(self, key: str) -> None:
        if key == "GPU GPU-b":
            raise Retryable("LockFailed", f"cannot unlock {key}")
        super().unlock(key)


def later(seconds: float = 30.0) -> float:
    return asyncio.get_running_loop().time() + seconds


def test_a_key_is_held_by_one_agent_at_a_time(files: tuple[LockFile, LockFile]) -> None:
    ours, theirs = files
    assert ours.try_lock("a")
    assert not theirs.try_lock("a")
    assert theirs.try_lock("b")
    ours.unlock("a")
    assert theirs.try_lock("a")


def test_locks_go_with_their_holder(files: tuple[LockFile, LockFile]) -> None:
    ours, theirs = files
    ours.try_lock("a")
    ours.close()
    assert theirs.try_lock("a")


def test_a_lock_file_that_was_removed_does_not_part_the_agents(
    tmp_path: Path, files: tuple[LockFile, LockFile]
) -> None:
    ours, theirs = files
    (tmp_path / "locks").unlink()
    assert ours.try_lock("a")
    assert not theirs.try_lock("a")


def test_locks_are_kept_when_their_file_is_replaced(
    tmp_path: Path, files: tuple[LockFile, LockFile]
) -> None:
    ours, theirs = files
    ours.try_lock("a")
    (tmp_path / "new").touch()
    (tmp_path / "new").replace(tmp_path / "locks")
    assert ours.holds("a")
    assert not theirs.is_free("a")
    ours.unlock("a")
    assert theirs.try_lock("a")


def test_a_lock_that_another_agent_took_in_a_new_file_is_lost(
    tmp_path: Path, files: tuple[LockFile, LockFile]
) -> None:
    ours, theirs = files
    ours.try_lock("a")
    (tmp_path / "locks").unlink()
    assert theirs.try_lock("a")
    assert not ours.holds("a")
    assert theirs.holds("a")


class _Full(LockFile):
    """Takes no more locks from when `is_full`."""

    is_full = False

    def _set(self, kind: int, key: str) -> None:
        if self.is_full and kind == fcntl.F_WRLCK:
            raise OSError(errno.ENOLCK, "No locks available")
        super()._set(kind, key)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_cannot_be_locked_in_a_new_file_is_lost_and_the_old_one_let_go(
    tmp_path: Path,
) -> None:
    file = _Full(tmp_path / "locks")
    file.try_lock("a")
    before = open_files()
    (tmp_path / "locks").unlink()
    file.is_full = True
    with pytest.raises(Retryable, match="No locks available"):
        file.holds("a")
    assert not file.holds("a")
    assert open_files() == before
    file.close()


def test_a_closed_lock_file_says_so_and_makes_no_new_one(tmp_path: Path) -> None:
    file = LockFile(tmp_path / "locks")
    file.try_lock("a")
    file.close()
    (tmp_path / "locks").unlink()
    file.unlock("a")
    with pytest.raises(Retryable, match="closed"):
        file.try_lock("a")
    assert not (tmp_path / "locks").exists()


def test_a_lock_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(Retryable, match=str(tmp_path)):
        LockFile(tmp_path)


async def test_work_on_different_gpus_does_not_wait(files: tuple[LockFile, LockFile]) -> None:
    locks = ClaimLocks(files[0])
    async with (
        locks.claim("one", deadline=later()),
        locks.gpus({"GPU-a"}, deadline=later()),
        locks.claim("two", deadline=later()),
        locks.gpus({"GPU-b"}, deadline=later()),
    ):
        pass


async def test_work_on_one_gpu_takes_turns(files: tuple[LockFile, LockFile]) -> None:
    locks = ClaimLocks(files[0])
    order: list[str] = []

    async def work(name: str) -> None:
        async with locks.gpus({"GPU-a", "GPU-b"}, deadline=later()):
            order.append(f"{name} in")
            await asyncio.sleep(0)
            order.append(f"{name} out")

    await asyncio.gather(work("one"), work("two"))
    assert order == ["one in", "one out", "two in", "two out"]


async def test_gpus_named_in_any_order_do_not_dead_lock(files: tuple[LockFile, LockFile]) -> None:
    ours, theirs = ClaimLocks(files[0]), ClaimLocks(files[1])

    async def work(locks: ClaimLocks, *gpus: str) -> None:
        for _ in range(20):
            async with locks.gpus(gpus, deadline=later()):
                await asyncio.sleep(0)

    await asyncio.gather(
        work(ours, "GPU-a", "GPU-b"), work(ours, "GPU-b", "GPU-a"), work(theirs, "GPU-b", "GPU-a")
    )


async def test_another_agents_lock_is_waited_for(files: tuple[LockFile, LockFile]) -> None:
    ours, theirs = ClaimLocks(files[0]), ClaimLocks(files[1])
    async with theirs.claim("uid", deadline=later()):
        waiting = asyncio.create_task(_enter(ours, "uid"))
        await asyncio.sleep(SOON)
        assert not waiting.done()
    await waiting


async def test_waiting_ends_at_the_deadline_and_says_for_what(
    files: tuple[LockFile, LockFile],
) -> None:
    ours, theirs = ClaimLocks(files[0]), ClaimLocks(files[1])
    async with theirs.gpus({"GPU-a"}, deadline=later()):
        with pytest.raises(Retryable, match="GPU-a") as caught:
            async with ours.gpus({"GPU-a"}, deadline=later(SOON)):
                pass
    assert caught.value.reason == "GpuBusy"
    await _enter(ours, "GPU-a")


async def test_who_does_not_get_all_gpus_keeps_none(files: tuple[LockFile, LockFile]) -> None:
    ours, theirs = ClaimLocks(files[0]), ClaimLocks(files[1])
    async with theirs.gpus({"GPU-b"}, deadline=later()):
        with pytest.raises(Retryable, match="GPU-b"):
            async with ours.gpus({"GPU-a", "GPU-b"}, deadline=later(SOON)):
                pass
        assert files[1].try_lock("GPU GPU-a")
    assert not ours._in_process


async def test_a_lock_that_cannot_be_given_back_keeps_no_other(tmp_path: Path) -> None:
    file = _Sticky(tmp_path / "locks")
    with pytest.raises(Retryable, match="GPU-b"):
        async with ClaimLocks(file).gpus({"GPU-a", "GPU-b", "GPU-c"}, deadline=later()):
            pass
    other = LockFile(tmp_path / "locks")
    assert [other.try_lock(f"GPU GPU-{each}") for each in "abc"] == [True, False, True]
    file.close()
    other.close()


async def test_a_cancelled_waiter_leaves_the_lock_usable(files: tuple[LockFile, LockFile]) -> None:
    locks = ClaimLocks(files[0])
    async with locks.claim("uid", deadline=later()):
        waiting = asyncio.create_task(_enter(locks, "uid"))
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.wait([waiting])
    await _enter(locks, "uid")
    assert files[1].try_lock("claim uid")


async def test_keys_that_nobody_uses_take_no_memory(files: tuple[LockFile, LockFile]) -> None:
    locks = ClaimLocks(files[0])
    for number in range(10):
        await _enter(locks, f"uid-{number}")
    assert not locks._in_process


async def _enter(locks: ClaimLocks, uid: str) -> None:
    async with locks.claim(uid, deadline=later()):
        pass


async def test_who_holds_and_who_waits_can_be_told(files: tuple[LockFile, LockFile]) -> None:
    locks = ClaimLocks(files[0])

    async def hold() -> None:
        async with locks.gpus(["GPU-a"], deadline=later()):
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(hold(), name=name) for name in ("prepare a", "prepare b")]
        await asyncio.sleep(SOON)
        assert locks.describe() == ["GPU GPU-a: held by prepare a, awaited by prepare b"]
        tasks[0].cancel()
        await asyncio.sleep(SOON)
        assert locks.describe() == ["GPU GPU-a: held by prepare b"]
        tasks[1].cancel()
    assert locks.describe() == []


async def test_a_lock_that_another_process_holds_is_told_as_such(
    files: tuple[LockFile, LockFile],
) -> None:
    ours, theirs = files
    assert theirs.try_lock("GPU GPU-a")
    locks = ClaimLocks(ours)
    waiting = asyncio.create_task(
        locks.take("GPU GPU-a", reason="GpuBusy", deadline=later()), name="prepare a"
    )
    await asyncio.sleep(SOON)
    assert locks.describe() == ["GPU GPU-a: held by another process, awaited by prepare a"]
    theirs.unlock("GPU GPU-a")
    await waiting
    locks.give_back("GPU GPU-a")


async def test_who_waits_in_vain_is_told_for_whom(files: tuple[LockFile, LockFile]) -> None:
    locks = ClaimLocks(files[0])
    async with locks.claim("u", deadline=later()):
        with pytest.raises(Retryable, match="claim u is still locked by Task-"):
            await asyncio.create_task(
                locks.take("claim u", reason="ClaimBusy", deadline=later(SOON))
            )
