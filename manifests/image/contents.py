"""The list of contents, read, and what follows from it and from the project's own metadata."""

from __future__ import annotations

import hashlib
import platform
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
SOURCES = (
    "crds",
    "kube",
    "operator",
    "nodeagent",
    "sim",
    "cli",
    "manifests/demo",
    "pyproject.toml",
)

# Names of processors: in OCI and Debian, in Python wheels, in GNU tools.
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


class BuildError(Exception):
    """The image cannot be built; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Contents:
    """`contents.toml`, section by section."""

    base: dict[str, Any]
    hook: dict[str, Any]
    python: dict[str, Any]
    programs: dict[str, str]
    files: dict[str, str]
    image: dict[str, Any]


def read_contents(path: Path = HERE / "contents.toml") -> Contents:
    return Contents(**tomllib.loads(path.read_text(encoding="utf-8")))


def project() -> dict[str, Any]:
    """The `[project]` table of pyproject.toml."""
    found: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    return found


def requirements(contents: Contents) -> list[str]:
    """What the programs in the image import, beside the product itself."""
    metadata = project()
    extras = metadata["optional-dependencies"]
    wanted = [each for extra in contents.python["extras"] for each in extras[extra]]
    return sorted({*metadata["dependencies"], *wanted, *contents.python["requirements"]})


def native_architecture() -> str:
    machine = platform.machine()
    for name, gnu in ARCHITECTURES.items():
        if machine == gnu:
            return name
    raise BuildError(f"no image is made for {machine}; use one of {', '.join(ARCHITECTURES)}")


def key_of(*parts: object) -> str:
    """Changes when a part does; layers are kept under it."""
    return hashlib.sha256("\0".join(map(repr, parts)).encode()).hexdigest()[:16]


def key_of_sources() -> str:
    digest = hashlib.sha256()
    for name in SOURCES:
        root = PROJECT / name
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(PROJECT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
