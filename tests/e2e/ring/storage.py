"""Where things are kept between runs, and nowhere else on the machine."""

from __future__ import annotations

import os
from pathlib import Path

PROGRAM_SOURCES = Path(__file__).parents[1] / "programs"


def cache_root() -> Path:
    """``${XDG_CACHE_HOME:-~/.cache}/nvdra/e2e``: built programs, images, clusters' disks."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "nvdra" / "e2e"


def programs_dir() -> Path:
    return cache_root() / "programs"


def images_dir() -> Path:
    return cache_root() / "images"


def clusters_dir() -> Path:
    """One folder per living cluster. Its disks need a file system that overlayfs can lie on."""
    chosen = os.environ.get("NVDRA_E2E_STATE")
    return Path(chosen).absolute() if chosen else cache_root() / "clusters"
