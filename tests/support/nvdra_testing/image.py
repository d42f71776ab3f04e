"""The modules that build the driver's image; they are scripts beside it, not a package."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import ModuleType

IMAGE: Final = Path(__file__).resolve().parents[3] / "manifests" / "image"


def image_module(name: str) -> ModuleType:
    """`contents`, `layers` or `archive`."""
    if str(IMAGE) not in sys.path:
        sys.path.append(str(IMAGE))
    return importlib.import_module(name)
