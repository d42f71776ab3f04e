#!/usr/bin/env python3
"""Builds the driver's image without a container engine.

    build.py archive             write an OCI archive and print its path, image and sizes
    build.py layers DIRECTORY    copy the layers there, as the Dockerfile wants them

Needs root, mmdebstrap 1.3, Go 1.25 with gcc, pip, and Python 3.11 or later.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from archive import MAKING, ImageConfig, Layer, pack, write_archive
from contents import (
    ARCHITECTURES,
    BuildError,
    Contents,
    native_architecture,
    project,
    read_contents,
)
from layers import NAMES, Layers

if TYPE_CHECKING:
    from collections.abc import Iterator

_MIB = 1024 * 1024


def main() -> int:
    """Exit status 0, or 1 with one line on what is missing."""
    arguments = _parser().parse_args()
    try:
        with alone(arguments.cache):
            return int(arguments.run(arguments))
    except (BuildError, OSError) as exc:
        sys.stderr.write(f"build.py: {exc}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Build the driver's image.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    archive = commands.add_parser("archive", help="write an OCI archive")
    archive.add_argument("--output", type=Path, help="file to write; by default in the cache")
    archive.add_argument("--reference", help="name and tag of the image")
    archive.set_defaults(run=_archive)
    layers = commands.add_parser("layers", help="copy the layers into a directory")
    layers.add_argument("directory", type=Path)
    layers.set_defaults(run=_layers)
    for command in (archive, layers):
        command.add_argument("--architecture", choices=ARCHITECTURES, default=None)
        command.add_argument("--cache", type=Path, default=_cache())
    return parser


@contextlib.contextmanager
def alone(cache: Path) -> Iterator[None]:
    """Keep other builds out of the cache, and clear away what a killed one left there."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in cache.glob(f"*/{MAKING}*"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
        yield


def _archive(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    contents, architecture = read_contents(), arguments.architecture or native_architecture()
    directories = _made(arguments, contents, architecture)
    packed = [pack(directory) for directory in directories]
    version = project()["version"]
    reference = arguments.reference or f"{contents.image['reference']}:v{version}"
    target = arguments.output or arguments.cache / f"driver-{architecture}.tar"
    write_archive(target, packed, _config(contents, architecture, version), reference=reference)
    _report(target, reference, directories, packed, seconds=time.monotonic() - started)
    return 0


def _layers(arguments: argparse.Namespace) -> int:
    contents, architecture = read_contents(), arguments.architecture or native_architecture()
    for name, made in zip(NAMES, _made(arguments, contents, architecture), strict=True):
        shutil.copytree(made, arguments.directory / name, symlinks=True)
    return 0


def _made(arguments: argparse.Namespace, contents: Contents, architecture: str) -> list[Path]:
    if os.geteuid() != 0:
        raise BuildError("run as root: files of the image belong to root")
    return Layers(contents, architecture=architecture, cache=arguments.cache).make()


def _config(contents: Contents, architecture: str, version: str) -> ImageConfig:
    image = contents.image
    return ImageConfig(
        architecture=architecture,
        user=image["user"],
        command=image["command"],
        environment=image["environment"],
        labels={**image["labels"], "org.opencontainers.image.version": version},
    )


def _report(
    target: Path, reference: str, directories: list[Path], packed: list[Layer], *, seconds: float
) -> None:
    lines = [f"archive   {target}", f"image     {reference}"]
    for name, directory, layer in zip(NAMES, directories, packed, strict=True):
        size = layer.file.stat().st_size
        lines.append(
            f"{name:13} {_tree_size(directory) / _MIB:6.1f} MiB, packed {size / _MIB:5.1f}"
        )
    unpacked = sum(map(_tree_size, directories))
    lines.append(f"{'together':13} {unpacked / _MIB:6.1f} MiB, packed {_size(target) / _MIB:5.1f}")
    sys.stdout.write("\n".join([*lines, f"took      {seconds:.1f} s"]) + "\n")


def _tree_size(directory: Path) -> int:
    return sum(_size(path) for path in directory.rglob("*") if path.is_file())


def _size(path: Path) -> int:
    return path.lstat().st_size


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "nvdra" / "image"


if __name__ == "__main__":
    sys.exit(main())
