"""Scenarios on a disk that refuses: `python -m nvdra_testing.claim_disks SCENARIO DIRECTORY`.

The directory is a mount of its own. Prints one JSON object: what each question was answered with.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from nvdra_nodeagent.errors import AgentError
from nvdra_testing.claims import ClaimNode, a_node_of, a_ref

HURT, WELL, RIVAL, NEW = (a_ref(name) for name in ("hurt", "well", "rival", "new"))


async def full(node: ClaimNode) -> dict[str, object]:
    """Full since after a record was damaged."""
    filler = node.root / "filler"
    _fill(filler)
    agent = node.agent()
    told: dict[str, object] = {
        "damaged device": _said(await agent.prepare([node.api.add(RIVAL, "gpu-0")])),
        "damaged moved aside": _is_aside(node),
        "prepared claim again": _said(await agent.prepare([WELL])),
        "new claim": _said(await agent.prepare([node.api.add(NEW, "gpu-2")])),
        "unprepare": _said(await agent.unprepare([WELL])),
    }
    filler.unlink()
    told["new claim with room"] = _said(await agent.prepare([NEW]))
    await agent.unprepare([HURT, WELL, RIVAL, NEW])
    return told | {"left": node.files()}


async def read_only(node: ClaimNode) -> dict[str, object]:
    """Read-only since after a record was damaged."""
    agent = node.agent()
    _freeze(node)
    told: dict[str, object] = {
        "damaged device": _said(await agent.prepare([node.api.add(RIVAL, "gpu-0")])),
        "damaged moved aside": _is_aside(node),
        "prepared claim again": _said(await agent.prepare([WELL])),
        "new claim": _said(await agent.prepare([node.api.add(NEW, "gpu-2")])),
        "unprepare": _said(await agent.unprepare([WELL])),
    }
    _thaw(node)
    told["unprepare when writable"] = _said(await agent.unprepare([WELL]))
    told["new claim when writable"] = _said(await agent.prepare([NEW]))
    await agent.unprepare([HURT, RIVAL, NEW])
    return told | {"left": node.files()}


SCENARIOS = {"full": full, "read_only": read_only}


async def _play(scenario: str, disk: Path) -> dict[str, object]:
    node = ClaimNode(disk, inventory=a_node_of(4))
    # The first directory of the quarantine needs room; it is there after any earlier damage.
    (disk / "state" / "quarantine").mkdir(parents=True)
    await node.agent().prepare([node.api.add(HURT, "gpu-0"), node.api.add(WELL, "gpu-1")])
    record = node.record_path(HURT)
    record.write_bytes(record.read_bytes()[:-9])
    try:
        return await SCENARIOS[scenario](node)
    finally:
        await node.close()


def _said(outcomes: Any) -> str:
    """What the only claim of the call was answered."""
    (outcome,) = outcomes.values()
    if isinstance(outcome, AgentError):
        return outcome.reason
    return "unprepared" if outcome is None else "prepared"


def _is_aside(node: ClaimNode) -> bool:
    return os.path.lexists(node.root / "state" / "quarantine" / f"{HURT.uid}.json")


def _fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return


def _freeze(node: ClaimNode) -> None:
    """Read-only from now on, all but the lock file: open files keep a whole mount writable."""
    for directory in _directories(node):
        subprocess.run(["mount", "--bind", directory, directory], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", directory], check=True)


def _thaw(node: ClaimNode) -> None:
    for directory in _directories(node):
        subprocess.run(["umount", directory], check=True)


def _directories(node: ClaimNode) -> list[Path]:
    return [node.root / "state" / "claims", node.root / "state" / "quarantine", node.cdi.root]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_play(sys.argv[1], Path(sys.argv[2])))))  # noqa: T201
