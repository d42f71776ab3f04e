"""Locks of claims and GPUs, in this process and against a second agent on the node.

In the process each key has an asyncio lock. Between processes each key is one byte of one lock
file, locked with an open file description lock (`F_OFD_SETLK`, fcntl(2)): one system call without
I/O, nothing to create or sweep for a claim, and the kernel drops it with the process.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import struct
from contextlib import AsyncExitStack
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_nodeagent.errors import NodeFault, Retryable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

log = structlog.get_logger(__name__)

# struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid (0 for this kind of lock).
_FLOCK: Final = struct.Struct("hhqqi4x")
_HELD_ELSEWHERE: Final = (errno.EAGAIN, errno.EACCES)
# Only for a second agent during an update, so nothing is gained by waiting in a thread.
_FIRST_POLL_S: Final = 0.001
_LAST_POLL_S: Final = 0.02


class LockFile:
    """Byte locks of one file. Locks of this object never exclude each other.

    A file that was removed or replaced excludes nobody who comes later. So the one at the path is
    gone over to, with all locks that are held: those that another process has there are lost.
    Not for several threads.
    """

    def __init__(self, path: Path) -> None:
        """:raises Retryable: the file cannot be opened."""
        self._path = path
        self._held: set[str] = set()
        self._descriptor = self._opened()

    def try_lock(self, key: str) -> bool:
        """False when another process has it. Never blocks."""
        self._follow()
        return self._try(key)

    def holds(self, key: str) -> bool:
        """Whether we have it (still). Never blocks."""
        self._follow()
        return key in self._held

    def is_free(self, key: str) -> bool:
        """Whether no other process has it now. Never blocks."""
        self._follow()
        lock = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _offset(key), 1, 0)
        try:
            found = fcntl.fcntl(self._descriptor, fcntl.F_OFD_GETLK, lock)
        except OSError as error:
            raise self._error("look at", error) from error
        kind: int = _FLOCK.unpack(found)[0]
        return kind == fcntl.F_UNLCK

    def unlock(self, key: str) -> None:
        self._held.discard(key)
        if self._descriptor < 0:  # freed with the file
            return
        try:
            self._set(fcntl.F_UNLCK, key)
        except OSError as error:
            raise self._error("unlock", error) from error

    def close(self) -> None:
        """Drop all locks. Idempotent."""
        self._held.clear()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _opened(self) -> int:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._error("open", error) from error
        status = os.fstat(descriptor)  # once: every system call lets other threads go first
        self._identity = status.st_dev, status.st_ino
        return descriptor

    def _follow(self) -> None:
        """:raises NodeFault: there is no file any more and none can be made, or it is closed."""
        if self._descriptor < 0:
            raise self._error("use", OSError(errno.EBADF, "closed"))
        try:
            found = self._path.stat()
            if (found.st_dev, found.st_ino) == self._identity:
                return
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._error("look at", error) from error
        old, self._descriptor = self._descriptor, self._opened()
        before, self._held = self._held, set()
        try:
            for key in before:
                self._try(key)
        finally:
            os.close(old)
            lost = sorted(before - self._held)
            log.warning("lock file replaced", path=str(self._path), lost=lost)

    def _try(self, key: str) -> bool:
        try:
            self._set(fcntl.F_WRLCK, key)
        except OSError as error:
            if error.errno in _HELD_ELSEWHERE:
                return False
            raise self._error("lock", error) from error
        self._held.add(key)
        return True

    def _set(self, kind: int, key: str) -> None:
        lock = _FLOCK.pack(kind, os.SEEK_SET, _offset(key), 1, 0)
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, lock)

    def _error(self, verb: str, error: OSError) -> NodeFault:
        return NodeFault(
            "LockFailed",
            f"cannot {verb} the lock file {self._path}: {error.strerror or error}",
            hint="check that the plugin directory is a local, writable file system",
        )


@lru_cache(maxsize=128)  # each key is asked for twice at once, and those of GPUs all the time
def _offset(key: str) -> int:
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2  # off_t is signed, and the end has to fit too


class _InProcess:
    """An asyncio lock with the number of those who hold or await it, and who they are."""

    __slots__ = ("holder", "lock", "users", "waiting")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
        self.holder = ""
        self.waiting: list[str] = []


class ClaimLocks:
    """Order for everybody: the claim, then its GPUs; GPUs by UUID. There is no node-wide lock."""

    def __init__(self, file: LockFile) -> None:
        self._file = file
        self._in_process: dict[str, _InProcess] = {}

    def claim(self, uid: str, *, deadline: float) -> AbstractAsyncContextManager[None]:
        """Exclude every other work on the claim.

        `deadline` is on the loop's clock. :raises Retryable: `ClaimBusy`, it passed meanwhile.
        """
        return _Hold(self, (f"claim {uid}",), reason="ClaimBusy", deadline=deadline)

    def gpus(self, uuids: Iterable[str], *, deadline: float) -> AbstractAsyncContextManager[None]:
        """Exclude work of other claims on these GPUs. :raises Retryable: `GpuBusy`."""
        keys = tuple(f"GPU {uuid}" for uuid in sorted(set(uuids)))
        return _Hold(self, keys, reason="GpuBusy", deadline=deadline)

    async def take(self, key: str, *, reason: str, deadline: float) -> None:
        """Lock one key; for `give_back` to unlock. :raises Retryable: `reason`."""
        entry = self._in_process.setdefault(key, _InProcess())
        entry.users += 1
        try:
            if entry.users == 1 and self._file.try_lock(key):
                await entry.lock.acquire()  # nobody else is there: it is had without waiting
            else:
                await self._wait_for(entry, key, reason=reason, deadline=deadline)
        except BaseException:
            self._leave(key, entry)
            raise
        entry.holder = _whose()

    def describe(self) -> list[str]:
        """Which lock is held by whose task, and who waits for it; for people."""
        return [
            f"{key}: {f'held by {entry.holder}' if entry.holder else 'held by another process'}"
            + (f", awaited by {', '.join(entry.waiting)}" if entry.waiting else "")
            for key, entry in self._in_process.items()
        ]

    def give_back(self, key: str) -> None:
        entry = self._in_process[key]
        entry.holder = ""
        try:
            self._file.unlock(key)
        finally:
            entry.lock.release()
            self._leave(key, entry)

    async def _wait_for(self, entry: _InProcess, key: str, *, reason: str, deadline: float) -> None:
        whose = _whose()
        entry.waiting.append(whose)
        try:
            async with asyncio.timeout_at(deadline), AsyncExitStack() as stack:
                await stack.enter_async_context(entry.lock)
                await self._lock_file(key)
                stack.pop_all()
        except TimeoutError as error:
            raise Retryable(
                reason,
                f"{key} is still locked by {entry.holder or 'another agent on the node'}",
                hint="the log says what is being done; the lock goes with it",
            ) from error
        finally:
            entry.waiting.remove(whose)

    async def _lock_file(self, key: str) -> None:
        pause_s = _FIRST_POLL_S
        while not self._file.try_lock(key):
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_POLL_S)

    def _leave(self, key: str, entry: _InProcess) -> None:
        entry.users -= 1
        if not entry.users:
            del self._in_process[key]


def _whose() -> str:
    task = asyncio.current_task()
    return task.get_name() if task else ""


class _Hold:
    """Locks taken in order on entering, all or none, and given back in reverse.

    Every claim passes here twice, mostly without meeting anybody: hence no generators.
    """

    def __init__(
        self, locks: ClaimLocks, keys: tuple[str, ...], *, reason: str, deadline: float
    ) -> None:
        self._locks = locks
        self._keys = keys
        self._reason = reason
        self._deadline = deadline
        self._held: list[str] = []

    async def __aenter__(self) -> None:
        try:
            for key in self._keys:
                await self._locks.take(key, reason=self._reason, deadline=self._deadline)
                self._held.append(key)
        except BaseException:
            self._give_back()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._give_back()

    def _give_back(self) -> None:
        """One that cannot be unlocked keeps no other locked."""
        try:
            while self._held:
                self._locks.give_back(self._held.pop())
        finally:
            if self._held:
                self._give_back()
