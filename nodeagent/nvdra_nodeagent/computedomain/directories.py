"""`domains/<uid>`: what this agent and the IMEX daemon of a domain write for each other.

The daemon sees the directory as /imexd. Each file has one writer, and is replaced as a whole.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from nvdra_nodeagent.computedomain.daemon_words import DaemonWords
from nvdra_nodeagent.computedomain.domains import is_uid
from nvdra_nodeagent.computedomain.earlier import EARLIER_TEMPLATE, EARLIER_TEMPLATE_FILE
from nvdra_nodeagent.durable import (
    find_temporaries,
    is_older,
    make_room,
    remove_with_temporaries,
    storage_error,
    write_durably,
)
from nvdra_nodeagent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from nvdra_nodeagent.steps.domain_dir import DomainDirStep

log = structlog.get_logger(__name__)

SETTINGS: Final = "settings.json"
PEERS: Final = "peers.json"
READY: Final = "ready.json"
HEALTH: Final = "domain.json"
IN_CONTAINER: Final = "/imexd"
_VERSION: Final = 1
_MODE: Final = 0o755
_LARGEST: Final = 4 * 1024 * 1024
_ATTEMPTS: Final = 3


class DomainDirectories:
    """The directories below `root`: the `DomainDirs` of steps. Calls block."""

    def __init__(
        self,
        root: Path,
        *,
        node: str,
        boot_id: str,
        remove_tree: Callable[[Path], object] = shutil.rmtree,
    ) -> None:
        self.root = root
        self._node = node
        self._boot_id = boot_id
        self._remove_tree = remove_tree

    def path(self, domain: str) -> Path:
        """Of a domain whose UID was checked."""
        assert is_uid(domain), domain
        return self.root / domain

    def occupy(self, step: DomainDirStep) -> None:
        """What an earlier daemon left goes first: nothing that it said may count for this one."""
        directory = self.path(step.domain)
        self._make(directory)
        for name in (READY, HEALTH, PEERS):
            _discard(directory / name)
        if step.protocol:
            _make_way(directory / SETTINGS)
            write_durably(directory / SETTINGS, self._settings(step))
        else:
            _discard(directory / SETTINGS)
            write_durably(directory / EARLIER_TEMPLATE_FILE, EARLIER_TEMPLATE)

    def vacate(self, step: DomainDirStep) -> None:
        directory = self.path(step.domain)
        owner = self._read(directory / SETTINGS).get("claimUID")
        if owner not in (None, step.claim_uid):
            return  # the next daemon's
        self._clear(directory)

    def evict(self, claim_uid: str) -> None:
        for directory in self._all():
            if self._read(directory / SETTINGS).get("claimUID") == claim_uid:
                self._clear(directory)

    def is_occupied(self, step: DomainDirStep) -> bool:
        directory = self.path(step.domain)
        if not step.protocol:
            return directory.is_dir()
        return _bytes(directory / SETTINGS) == self._settings(step)

    def words(self, domain: str, *, claim_uid: str) -> DaemonWords:
        """What the daemon of that claim has said in this boot.

        Words of any other daemon, or of one before the last boot, count for nothing.
        """
        ready, health = (self._read(self.path(domain) / name) for name in (READY, HEALTH))
        whose = claim_uid, self._boot_id
        return DaemonWords(
            ready=ready if _whose(ready) == whose else {},
            domain=health if _whose(health) == whose else {},
            peers=self.peers(domain),
            stale=bool(ready) and _whose(ready) != whose,
        )

    def peers(self, domain: str) -> Mapping[str, Any]:
        """What this agent last told the daemon; empty without."""
        return self._read(self.path(domain) / PEERS)

    def write_peers(self, step: DomainDirStep, document: Mapping[str, Any]) -> bool:
        """False where the directory is not that claim's (any more).

        :raises Retryable: the disk refuses.
        """
        directory = self.path(step.domain)
        if self._read(directory / SETTINGS).get("claimUID") != step.claim_uid:
            return False
        try:
            content = msgspec.json.encode(document) + b"\n"
            write_durably(directory / PEERS, content, into_existing=True)
        except AgentError:
            if directory.exists():
                raise
            return False  # vacated just now
        return True

    def sweep(self, keep: Collection[str], *, older_than_s: float) -> list[str]:
        """Remove directories of domains that no claim of this node is about; which were removed.

        :raises Retryable: they cannot be listed.
        """
        found = [path for path in self._all() if path.name not in keep]
        gone = [path for path in found if is_older(path, older_than_s)]
        for path in gone:
            self._remove(path)
        return [path.name for path in gone]

    def _all(self) -> list[Path]:
        try:
            return [path for path in self.root.iterdir() if is_uid(path.name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise storage_error("list", self.root, error) from error

    def _clear(self, directory: Path) -> None:
        """What says whose it is goes last."""
        if _is_directory(directory):
            for name in (READY, HEALTH, PEERS, SETTINGS):
                _discard(directory / name)
        self._remove(directory)

    def _make(self, directory: Path) -> None:
        try:
            if not _is_directory(directory):
                directory.unlink(missing_ok=True)
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(_MODE)
        except OSError as error:
            raise storage_error("make", directory, error) from error

    def _remove(self, directory: Path) -> None:
        """Best effort: what stays is empty of meaning, and the next sweep tries again."""
        for _ in range(_ATTEMPTS):  # a list of peers may just be written into it
            trouble = self._removal_trouble(directory)
            if not os.path.lexists(directory):
                return
        log.warning("domain directory not removed", path=str(directory), error=trouble)

    def _removal_trouble(self, directory: Path) -> str:
        try:
            if _is_directory(directory):
                self._remove_tree(directory)
            else:
                directory.unlink()
        except OSError as error:
            return str(error)
        return ""

    def _settings(self, step: DomainDirStep) -> bytes:
        return msgspec.json.encode(
            {
                "version": _VERSION,
                "claimUID": step.claim_uid,
                "bootID": self._boot_id,
                "domain": step.domain,
                "clique": step.clique,
                "node": self._node,
                "maxNodes": step.max_nodes,
                "mode": step.mode,
                "suffix": step.suffix,
                "numNodes": step.num_nodes,
            }
        )

    def _read(self, path: Path) -> Mapping[str, Any]:
        """An object; empty when there is none that can be read. The daemon is not trusted."""
        with contextlib.suppress(msgspec.DecodeError, ValueError, RecursionError):
            found = msgspec.json.decode(_bytes(path) or b"{}")
            if isinstance(found, dict):
                return found
        return {}


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _discard(path: Path) -> None:
    temporaries = find_temporaries(path.parent, older_than_s=0.0, of_files=f"{path.name}.")
    for each in (*temporaries, path):
        _make_way(each)
    remove_with_temporaries(path)


def _make_way(path: Path) -> None:
    """Who can write here may have made a directory of that name."""
    try:
        make_room(path)
    except OSError as error:
        raise storage_error("remove", path, error) from error


def _whose(said: Mapping[str, Any]) -> tuple[Any, Any]:
    return said.get("claimUID"), said.get("bootID")


def _bytes(path: Path) -> bytes | None:
    """Of a plain file: who can write here may have put a link or a pipe in its place."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(_LARGEST) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None
