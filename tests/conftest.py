"""What every ring shares."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# Asking the policy for a loop before any test made one would create a loop that nobody closes:
# pytest-asyncio asks, and the warning about it would fail the run.
asyncio.set_event_loop(None)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory with a short path: Unix sockets below it have 107 bytes for theirs."""
    path = Path(tempfile.mkdtemp(prefix="nvdra-test-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
