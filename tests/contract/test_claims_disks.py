"""Claims on disks that refuse: full ones and read-only ones, mounted for real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.namespaces

SUPPORT = Path(__file__).parents[1] / "support"


def on_disk(disk: Path, scenario: str) -> dict[str, object]:
    """Run a scenario of `nvdra_testing.claim_disks` on a tmpfs, in a mount namespace of its own."""
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=64k tmpfs "$1" || exit 77; shift; exec "$@"'
    program = [sys.executable, "-m", "nvdra_testing.claim_disks", scenario, str(disk)]
    namespaces = ["unshare", "--user", "--map-root-user", "--mount"]
    done = subprocess.run(
        [*namespaces, "sh", "-c", mount, "sh", str(disk), *program],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        env={"PYTHONPATH": str(SUPPORT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_a_full_disk_refuses_new_claims_and_serves_the_others(tmp_path: Path) -> None:
    assert on_disk(tmp_path / "disk", "full") == {
        "damaged device": "DeviceFenced",
        "damaged moved aside": True,
        "prepared claim again": "prepared",
        "new claim": "DiskFull",
        "unprepare": "unprepared",
        "new claim with room": "prepared",
        "left": [],
    }


def test_a_read_only_disk_answers_what_is_prepared_and_recovers(tmp_path: Path) -> None:
    assert on_disk(tmp_path / "disk", "read_only") == {
        "damaged device": "DeviceFenced",
        "damaged moved aside": False,
        "prepared claim again": "prepared",
        "new claim": "StorageUnwritable",
        "unprepare": "StorageUnwritable",
        "unprepare when writable": "unprepared",
        "new claim when writable": "prepared",
        "left": [],
    }
