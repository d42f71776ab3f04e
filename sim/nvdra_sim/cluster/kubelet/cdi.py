"""The CDI directories of one node: from device ids to the edits of a container.

Later directories win over earlier ones; one device in two files of the same directory is a
conflict that no runtime resolves. Everything here blocks and belongs on a worker thread.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from nvdra_sim.cluster.kubelet.cdi_spec import (
    CdiDevice,
    CdiDocument,
    CdiError,
    ContainerEdits,
    Mount,
    parse_document,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_Stamp = tuple[int, int, int]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _File:
    """What one file said when it was last read: a document, or why it is skipped."""

    stamp: _Stamp
    document: CdiDocument | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    path: Path
    document: CdiDocument
    device: CdiDevice


@dataclass(slots=True)
class CdiRegistry:
    """The CDI files below `directories`, re-read when they change."""

    directories: Sequence[Path]
    _files: dict[Path, _File] = field(init=False, default_factory=dict)
    # Containers that start together resolve on several threads.
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def resolve(self, ids: Iterable[str]) -> ContainerEdits:
        """The merged edits of `ids`. Raises `CdiError` naming every id that cannot be resolved."""
        wanted = tuple(dict.fromkeys(ids))
        if not wanted:
            return ContainerEdits()
        with self._lock:
            self._refresh()
            devices, conflicts = self._devices()
            missing = [name for name in wanted if name not in devices]
            if missing:
                raise CdiError(self._explain(missing, conflicts))
        return merge_edits(_edits_in_order([devices[name] for name in wanted]))

    def problems(self) -> dict[Path, str]:
        """Files that are skipped, and why."""
        with self._lock:
            self._refresh()
        return {path: file.problem for path, file in self._files.items() if file.problem}

    def _refresh(self) -> None:
        present = {path for directory in self.directories for path in _spec_files(directory)}
        for path in self._files.keys() - present:
            del self._files[path]
        for path in present:
            try:
                self._read(path)
            except FileNotFoundError:
                self._files.pop(path, None)

    def _read(self, path: Path) -> None:
        stat = path.stat()
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        known = self._files.get(path)
        if known is not None and known.stamp == stamp:
            return
        try:
            self._files[path] = _File(stamp, parse_document(path.read_bytes()))
        except CdiError as exc:
            self._files[path] = _File(stamp, None, str(exc))

    def _devices(self) -> tuple[dict[str, _Found], dict[str, list[Path]]]:
        devices: dict[str, _Found] = {}
        conflicts: dict[str, list[Path]] = {}
        for directory in self.directories:
            here: dict[str, list[_Found]] = {}
            for path, document in self._documents(directory):
                for device in document.devices:
                    name = f"{document.kind}={device.name}"
                    here.setdefault(name, []).append(_Found(path, document, device))
            for name, found in here.items():
                devices[name] = found[0]
                conflicts.pop(name, None)
                if len(found) > 1:
                    del devices[name]
                    conflicts[name] = [entry.path for entry in found]
        return devices, conflicts

    def _documents(self, directory: Path) -> Iterator[tuple[Path, CdiDocument]]:
        for path in sorted(self._files):
            document = self._files[path].document
            if path.parent == directory and document is not None:
                yield path, document

    def _explain(self, missing: list[str], conflicts: dict[str, list[Path]]) -> str:
        notes = [
            f"{name} is in {' and '.join(map(str, conflicts[name]))}"
            for name in missing
            if name in conflicts
        ]
        notes += [f"{path} is skipped: {file.problem}" for path, file in self._skipped()]
        text = f"unresolvable CDI devices {', '.join(missing)}"
        return f"{text} ({'; '.join(notes)})" if notes else text

    def _skipped(self) -> list[tuple[Path, _File]]:
        return sorted((path, file) for path, file in self._files.items() if file.problem)


def merge_edits(all_edits: Iterable[ContainerEdits]) -> ContainerEdits:
    """Edits applied one after the other, as a runtime applies them to a container.

    A later variable, device node or mount replaces one of the same name or path; mounts end up
    sorted by depth, so that a mount never hides another below it.
    """
    edits = list(all_edits)
    env = {entry.partition("=")[0]: entry for edit in edits for entry in edit.env}
    return ContainerEdits(
        env=list(env.values()),
        device_nodes=_last_wins((node.path, node) for edit in edits for node in edit.device_nodes),
        mounts=sorted(
            _last_wins((mount.container_path, mount) for edit in edits for mount in edit.mounts),
            key=_depth,
        ),
        hooks=[hook for edit in edits for hook in edit.hooks],
        additional_gids=sorted({gid for edit in edits for gid in edit.additional_gids}),
        net_devices=[device for edit in edits for device in edit.net_devices],
    )


def _last_wins(pairs: Iterable[tuple[str, _T]]) -> list[_T]:
    kept: dict[str, _T] = {}
    for key, value in pairs:
        kept.pop(key, None)
        kept[key] = value
    return list(kept.values())


def _edits_in_order(found: list[_Found]) -> Iterator[ContainerEdits]:
    seen: set[Path] = set()
    for entry in found:
        if entry.path not in seen:
            seen.add(entry.path)
            yield entry.document.container_edits
        yield entry.device.container_edits


def _depth(mount: Mount) -> int:
    return len([part for part in mount.container_path.split("/") if part])


def _spec_files(directory: Path) -> list[Path]:
    try:
        names = os.listdir(directory)  # noqa: PTH208 names only, of a hot path
    except OSError:
        return []
    return [directory / name for name in names if name.endswith((".json", ".yaml"))]
