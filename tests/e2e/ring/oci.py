"""Writes container images as OCI archives, without a registry or an image builder.

One uncompressed layer: containerd imports it fastest. Format: OCI image layout 1.0.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MEDIA = "application/vnd.oci.image"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What an image holds: paths inside (no leading slash) and where their content comes from.

    ``references`` are its names: full ones, with registry and tag.
    """

    references: Sequence[str]
    files: Mapping[str, Path] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    folders: Sequence[str] = ()
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def key(self) -> str:
        """Changes when the content would: looks at sizes and times, not into the files."""
        stats = {name: path.stat() for name, path in sorted(self.files.items())}
        seen = {name: (found.st_size, found.st_mtime_ns) for name, found in stats.items()}
        return hashlib.sha256((repr(self) + repr(seen)).encode()).hexdigest()[:16]

    def write(self, archive: Path) -> None:
        """Write the archive; it is there whole or not at all."""
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".image-") as scratch:
            folder = Path(scratch)
            layer = folder / "layer.tar"
            self._write_layer(layer)
            self._write_archive(folder / "image.tar", layer)
            (folder / "image.tar").rename(archive)

    def _write_layer(self, path: Path) -> None:
        with tarfile.open(path, "w") as layer:
            for name in self.folders:
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
                layer.addfile(entry)
            for name, target in sorted(self.links.items()):
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = tarfile.SYMTYPE, target
                layer.addfile(entry)
            for name, text in sorted(self.texts.items()):
                _add_bytes(layer, name, text.encode())
            for name, source in sorted(self.files.items()):
                entry = layer.gettarinfo(str(source.resolve()), arcname=name)
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = ""
                entry.type = tarfile.REGTYPE
                with source.open("rb") as content:
                    layer.addfile(entry, content)

    def _write_archive(self, path: Path, layer: Path) -> None:
        with layer.open("rb") as content:
            layer_digest = hashlib.file_digest(content, "sha256").hexdigest()
        config = _json(self._config(layer_digest))
        layer_entry = _descriptor("layer.v1.tar", layer_digest, layer.stat().st_size)
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": f"{_MEDIA}.manifest.v1+json",
                "config": _descriptor("config.v1+json", _digest(config), len(config)),
                "layers": [layer_entry],
            }
        )
        found = _descriptor("manifest.v1+json", _digest(manifest), len(manifest))
        named = [found | {"annotations": _names(reference)} for reference in self.references]
        with tarfile.open(path, "w") as archive:
            _add_bytes(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
            _add_bytes(archive, "index.json", _json({"schemaVersion": 2, "manifests": named}))
            for blob in (config, manifest):
                _add_bytes(archive, f"blobs/sha256/{_digest(blob)}", blob)
            archive.add(layer, arcname=f"blobs/sha256/{layer_digest}")

    def _config(self, layer_digest: str) -> dict[str, Any]:
        process = {
            "Env": [f"{name}={value}" for name, value in self.environment.items()],
            "Entrypoint": list(self.entrypoint) or None,
            "Cmd": list(self.command) or None,
        }
        return {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": process,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        }


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": f"{_MEDIA}.{kind}", "digest": f"sha256:{digest}", "size": size}


def _names(reference: str) -> dict[str, str]:
    return {
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
    }


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _digest(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))
