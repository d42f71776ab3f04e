"""Disks that refuse: full ones and read-only ones, mounted for real."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.namespaces

_WRITE = """
import json, os, sys
from pathlib import Path
from nvdra_nodeagent.durable import remove_durably, write_durably
from nvdra_nodeagent.errors import Retryable
directory, size, remount = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
write_durably(directory / "record.json", b"before")
if remount:
    assert os.system(f"mount -o remount,{remount} {directory}") == 0
answer = {}
try:
    write_durably(directory / "record.json", b"x" * size)
except Retryable as error:
    answer = {"reason": error.reason, "message": error.message, "hint": error.hint}
answer["files"] = {p.name: p.read_bytes().decode() for p in directory.iterdir()}
print(json.dumps(answer))
"""


def write_on(disk: Path, *, size: int, remount: str = "") -> dict[str, object]:
    """Write a file of this size on a new tmpfs of 16 KiB, in a mount namespace of its own."""
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=16k tmpfs "$1" || exit 77; shift; exec "$@"'
    program = [sys.executable, "-c", _WRITE, str(disk), str(size), remount]
    namespaces = ["unshare", "--user", "--map-root-user", "--mount"]
    done = subprocess.run(
        [*namespaces, "sh", "-c", mount, "sh", str(disk), *program],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    if not done.stdout and (done.returncode == 77 or "unshare" in done.stderr):
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_a_full_disk_is_named_and_the_old_file_stays_alone(tmp_path: Path) -> None:
    answer = write_on(tmp_path / "disk", size=64 * 1024)
    assert answer["reason"] == "DiskFull"
    assert str(tmp_path / "disk" / "record.json") in str(answer["message"])
    assert "free space" in str(answer["hint"])
    assert answer["files"] == {"record.json": "before"}


def test_a_read_only_disk_is_named_and_the_old_file_stays(tmp_path: Path) -> None:
    answer = write_on(tmp_path / "disk", size=1, remount="ro")
    assert answer["reason"] == "StorageUnwritable"
    assert "Read-only file system" in str(answer["message"])
    assert answer["files"] == {"record.json": "before"}


def test_a_disk_with_room_takes_the_file(tmp_path: Path) -> None:
    assert write_on(tmp_path / "disk", size=3) == {"files": {"record.json": "xxx"}}
