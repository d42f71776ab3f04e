"""Who of a node's agents has the role; each agent here has a lock file of its own, as processes."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from structlog.testing import capture_logs

from nvdra_nodeagent.claims.locks import LockFile
from nvdra_nodeagent.errors import Retryable
from nvdra_nodeagent.role import Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


class Contender:
    """An agent's role and when its work began and ended; `diary` is shared by all."""

    def __init__(
        self,
        directory: Path,
        name: str,
        diary: list[str],
        *,
        is_known: bool = True,
        locks: LockFile | None = None,
    ) -> None:
        self.name = name
        self.diary = diary
        self.registered = asyncio.Event()
        if is_known:
            self.registered.set()
        self.changes: list[bool] = []
        self.locks = locks or LockFile(directory / "locks")
        self.role = Role(
            self.locks,
            state_dir=directory,
            identity=name,
            registered=self.registered,
            on_change=self.changes.append,
        )

    async def work(self) -> None:
        self.diary.append(f"{self.name} begins")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)  # a write that has to be finished
            self.diary.append(f"{self.name} ends")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Role]:
        task = asyncio.create_task(self.role.run(self.work), name=self.name)
        try:
            yield self.role
        finally:
            task.cancel()
            await asyncio.wait([task])
            self.locks.close()


class Node:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.diary: list[str] = []

    def at_work(self) -> int:
        """How many agents have begun their work and not ended it."""
        ends = sum(line.endswith("ends") for line in self.diary)
        return len(self.diary) - 2 * ends

    def agent(self, name: str, *, is_known: bool = True) -> Contender:
        return Contender(self.directory, name, self.diary, is_known=is_known)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_an_agent_alone_has_the_role_before_the_kubelet_knows_it(tmp_path: Path) -> None:
    async with Node(tmp_path).agent("a", is_known=False).running() as role:
        await role.wait_held()


async def test_the_newer_one_takes_the_role_when_it_is_registered_and_not_before(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path)
    older, newer = node.agent("older"), node.agent("newer", is_known=False)
    async with older.running() as first:
        await first.wait_held()
        async with newer.running() as second:
            await asyncio.sleep(0.6)
            assert first.held
            newer.registered.set()
            await second.wait_held()
            assert not first.held


async def test_work_has_ended_before_the_next_one_begins(tmp_path: Path) -> None:
    node = Node(tmp_path)
    async with node.agent("older").running() as first:
        await first.wait_held()
        async with node.agent("newer").running() as second:
            await second.wait_held()
            await until(lambda: len(node.diary) == 3)
    assert node.diary[:3] == ["older begins", "older ends", "newer begins"]


async def test_the_older_one_does_not_ask_for_it_back(tmp_path: Path) -> None:
    node = Node(tmp_path)
    async with node.agent("older").running() as first:
        await first.wait_held()
        async with node.agent("newer").running() as second:
            await second.wait_held()
            await asyncio.sleep(1.0)
            assert second.held
            assert node.diary.count("older begins") == 1


async def test_the_older_one_takes_it_back_when_the_newer_one_is_gone(tmp_path: Path) -> None:
    node = Node(tmp_path)
    older = node.agent("older")
    async with older.running() as first:
        await first.wait_held()
        async with node.agent("newer").running() as second:
            await second.wait_held()
        await first.wait_held()
    assert older.changes == [True, False, True, False]


async def test_one_that_had_it_unregistered_asks_when_it_is_registered_last(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path)
    early, other = node.agent("early", is_known=False), node.agent("other")
    async with early.running() as first:
        await first.wait_held()
        async with other.running() as second:
            await second.wait_held()
            early.registered.set()
            await first.wait_held()
            assert not second.held


async def test_of_three_the_last_has_it_in_the_end(tmp_path: Path) -> None:
    node = Node(tmp_path)
    async with node.agent("a").running() as a:
        await a.wait_held()
        async with node.agent("b").running() as b, node.agent("c").running() as c:
            await until(lambda: node.diary.count("b begins") == node.diary.count("c begins") == 1)
            await until(lambda: b.held or c.held)
            assert not a.held
            assert [a.held, b.held, c.held].count(True) == 1


async def test_a_lock_file_that_was_removed_leaves_one_with_the_role(tmp_path: Path) -> None:
    node = Node(tmp_path)
    async with node.agent("a").running() as a:
        await a.wait_held()
        (tmp_path / "locks").unlink()
        async with node.agent("b", is_known=False).running() as b:
            await asyncio.sleep(0.5)  # for both to look for their lock
            await until(lambda: a.held != b.held and (tmp_path / "locks").exists())
            await until(lambda: node.at_work() == 1)


async def test_both_logs_name_both_agents(tmp_path: Path) -> None:
    node = Node(tmp_path)
    with capture_logs() as lines:
        async with node.agent("older").running() as first:
            await first.wait_held()
            async with node.agent("newer").running() as second:
                await second.wait_held()
                await asyncio.sleep(0)
    left = next(line for line in lines if line["event"].startswith("leaving"))
    taken = [line for line in lines if line["event"].startswith("taking")]
    assert (left["agent"], left["to"]) == ("older", "newer")
    assert [(line["agent"], line["before"]) for line in taken[:2]] == [
        ("older", ""),
        ("newer", "older"),
    ]


class BrokenLocks(LockFile):
    def try_lock(self, key: str) -> bool:
        raise Retryable("LockFailed", f"cannot lock {key}: no locks here")


async def test_a_lock_that_fails_is_said_once_and_the_role_stays_open(tmp_path: Path) -> None:
    agent = Contender(tmp_path, "a", [], is_known=False, locks=BrokenLocks(tmp_path / "locks"))
    with capture_logs() as lines:
        async with agent.running() as role:
            await asyncio.sleep(0.2)
            assert not role.held
    said = [line["error"] for line in lines if line["event"] == "role lock unusable"]
    assert said == ["cannot lock role: no locks here [LockFailed]"]


async def test_where_locks_fail_nobody_leaves_a_name_again_and_again(tmp_path: Path) -> None:
    agent = Contender(tmp_path, "a", [], locks=BrokenLocks(tmp_path / "locks"))
    async with agent.running():
        await asyncio.sleep(0.2)
    assert not (tmp_path / "role.heir").exists()


async def test_a_disk_that_takes_no_name_does_not_keep_the_role_from_being_taken(
    tmp_path: Path,
) -> None:
    (tmp_path / "role.holder").mkdir()
    async with Node(tmp_path).agent("a").running() as role:
        await role.wait_held()


_HOLDER = """
import sys, pathlib
from nvdra_nodeagent.claims.locks import LockFile
file = LockFile(pathlib.Path(sys.argv[1]))
print(file.try_lock("role"), flush=True)
sys.stdin.read()
"""


async def test_the_kernel_frees_the_role_of_a_killed_process(tmp_path: Path) -> None:
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HOLDER, str(tmp_path / "locks"), stdin=pipe, stdout=pipe
    )
    assert child.stdout
    assert await child.stdout.readline() == b"True\n"
    async with Node(tmp_path).agent("a").running() as role:
        await asyncio.sleep(0.2)
        assert not role.held
        child.kill()
        await child.wait()
        await role.wait_held()
