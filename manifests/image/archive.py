"""Writes layers as an OCI archive: a tar file that containerd, Podman and skopeo read.

Equal directories give equal bytes. Format: OCI image specification 1.1, image layout.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_MEDIA = "application/vnd.oci.image"
MAKING = ".making-"
"""Begins the names of what is not finished yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """How containers of the image start, and what the image says of itself."""

    architecture: str
    user: str
    command: Sequence[str]
    environment: Mapping[str, str]
    labels: Mapping[str, str]

    def document(self, diff_ids: Sequence[str]) -> dict[str, Any]:
        return {
            "architecture": self.architecture,
            "os": "linux",
            "config": {
                "User": self.user,
                "Env": [f"{name}={value}" for name, value in self.environment.items()],
                "Cmd": list(self.command),
                "WorkingDir": "/",
                "Labels": dict(self.labels),
            },
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        }


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as a blob: its file, and the digests before and after compression."""

    file: Path
    diff_id: str
    digest: str

    @property
    def descriptor(self) -> dict[str, Any]:
        return _descriptor("layer.v1.tar+gzip", self.digest, self.file.stat().st_size)


def pack(directory: Path) -> Layer:
    """The directory as a compressed tar beside it; kept for the next time."""
    blob = directory.with_name(f"{directory.name}.tar.gz")
    if not blob.is_file():
        with _whole_or_not(blob) as file:
            with gzip.GzipFile("", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                _write_tar(directory, packed)
    with gzip.open(blob) as unpacked:
        diff_id = hashlib.file_digest(unpacked, "sha256").hexdigest()
    with blob.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return Layer(blob, diff_id, digest)


def write_archive(
    target: Path, layers: Sequence[Layer], config: ImageConfig, *, reference: str
) -> None:
    """Write the archive; it is there whole or not at all."""
    document = _json(config.document([f"sha256:{layer.diff_id}" for layer in layers]))
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_MEDIA}.manifest.v1+json",
            "config": _descriptor("config.v1+json", _digest(document), len(document)),
            "layers": [layer.descriptor for layer in layers],
        }
    )
    index = _json({"schemaVersion": 2, "manifests": [_named(manifest, config, reference)]})
    target.parent.mkdir(parents=True, exist_ok=True)
    with _whole_or_not(target) as file, tarfile.open(fileobj=file, mode="w") as archive:
        _add_bytes(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add_bytes(archive, "index.json", index)
        for blob in (document, manifest):
            _add_bytes(archive, f"blobs/sha256/{_digest(blob)}", blob)
        for layer in layers:
            _add_file(archive, f"blobs/sha256/{layer.digest}", layer.file)


@contextlib.contextmanager
def _whole_or_not(target: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `target` once all of it is written."""
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=MAKING, delete=False) as file:
        made = Path(file.name)
        try:
            yield file
        except BaseException:
            made.unlink()
            raise
    made.chmod(0o644)
    made.rename(target)


def _named(manifest: bytes, config: ImageConfig, reference: str) -> dict[str, Any]:
    return {
        **_descriptor("manifest.v1+json", _digest(manifest), len(manifest)),
        "platform": {"architecture": config.architecture, "os": "linux"},
        "annotations": {
            "io.containerd.image.name": reference,
            "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
        },
    }


def _write_tar(directory: Path, target: gzip.GzipFile) -> None:
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in _walk(directory):
            if path.is_socket():  # tar has none
                continue
            entry = archive.gettarinfo(str(path), arcname=str(path.relative_to(directory)))
            # Only the modes are the directory's own: owners and times are the builder's.
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime = 0
            if entry.isreg():
                with path.open("rb") as content:
                    archive.addfile(entry, content)
            else:
                archive.addfile(entry)


def _walk(directory: Path) -> Iterator[Path]:
    """Everything below, parents first, in a fixed order; links are not followed."""
    for path in sorted(directory.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))


def _add_file(archive: tarfile.TarFile, name: str, path: Path) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = path.stat().st_size, 0o644
    with path.open("rb") as content:
        archive.addfile(entry, content)


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": f"{_MEDIA}.{kind}", "digest": f"sha256:{digest}", "size": size}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _digest(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()
