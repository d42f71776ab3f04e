"""A program that kills agents at every point at which the disk differs, and lets others go on.

`python -m nvdra_testing.claim_crashes DIRECTORY KIND GROUP` prints one JSON object an operation.
SIGKILL leaves nothing of a process but its files, so one kill stands for all points between two
changes of a file; it is made, for real, at the first of them. Agents run in forked children: one
start of the interpreter serves all.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from nvdra_nodeagent.checkpoint.migration import LOCK
from nvdra_nodeagent.durable import is_temporary
from nvdra_nodeagent.errors import AgentError
from nvdra_testing.crash_cases import (
    OPERATIONS,
    PEER,
    REF,
    RIVAL,
    cases_of,
    finished,
)
from nvdra_testing.file_points import file_points, tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_nodeagent.claims.service import NodeClaims
    from nvdra_testing.crash_cases import KindCase, Operation, Scene

_NOT_STATE = ("locks", LOCK, "checkpoint.json.migrated")


def main(directory: Path, kind: str, group: str) -> None:
    # Rendering them would take a third of the time.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    case = cases_of([kind])[kind]
    for name, operation in OPERATIONS[group].items():
        if case.can_wait or not operation.waits:
            crashes = Crashes(directory / name, case, operation)
            line = json.dumps({"kind": kind, "operation": name, **crashes.made()})
            print(line, flush=True)  # noqa: T201 - at once, or children print it again


class Crashes:
    """All crashes of one operation. Each has a directory of its own, a copy of `before`."""

    def __init__(self, directory: Path, case: KindCase, operation: Operation) -> None:
        self._directory = directory
        self._case = case
        self._operation = operation

    def made(self) -> dict[str, Any]:
        """What the next agents make of an undisturbed run, and of each one that was killed."""
        before = self._directory / "before"
        before.mkdir(parents=True)
        scene = self._operation.scene_before(before, self._case)
        _in_child(lambda: self._run(self._operation.before, scene))
        points, states = self._points()
        for point, state in states.items():
            killed = _in_child(partial(self._killed_run, self._copy("before", str(point)), point))
            assert killed, f"nothing was killed at point {point}"
            found = tree(self._directory / str(point), temporaries=True)
            assert found == state, f"other files at point {point} the second time"
        return {"points": points, **self._reports(states)}

    def _points(self) -> tuple[int, dict[int, dict[str, str]]]:
        """How many there are, and the first of each series at which the files are the same."""
        root, file = self._copy("before", "undisturbed"), self._directory / "points.json"
        _in_child(lambda: file.write_text(json.dumps(self._recorded(root))))
        count, states = json.loads(file.read_bytes())
        return count, {int(point): state for point, state in states.items()}

    def _recorded(self, root: Path) -> tuple[int, dict[int, dict[str, str]]]:
        states: list[dict[str, str]] = []
        scene = self._operation.scene(root, self._case)
        with file_points(lambda point: states.append(tree(root, temporaries=True))):
            self._run(self._operation.run, scene)
        series = {
            number: state
            for number, state in enumerate(states, start=1)
            if number == 1 or state != states[number - 2]
        }
        return len(states), series

    def _killed_run(self, root: Path, at: int) -> None:
        def kill(point: int) -> None:
            if point == at:
                os.kill(os.getpid(), signal.SIGKILL)

        scene = self._operation.scene(root, self._case)
        with file_points(kill):
            self._run(self._operation.run, scene)

    def _run(self, act: Callable[[Scene], Any], scene: Scene) -> None:
        async def run() -> None:
            await act(scene)
            await scene.node.close()

        asyncio.run(run())

    def _reports(self, states: dict[int, Any]) -> dict[str, Any]:
        file = self._directory / "reports.json"
        roots = ["undisturbed", *map(str, states)]
        _in_child(lambda: file.write_text(json.dumps(asyncio.run(self._looks(roots)))))
        undisturbed, *crashes = json.loads(file.read_bytes())
        return {"undisturbed": undisturbed, "crashes": dict(zip(states, crashes, strict=True))}

    async def _looks(self, names: list[str]) -> list[dict[str, Any]]:
        return [{way: await self._look(name, way) for way in WAYS} for name in names]

    async def _look(self, name: str, way: str) -> dict[str, Any]:
        scene = self._operation.scene(self._copy(name, f"{name} {way}"), self._case)
        found = await WAYS[way](scene)
        told = [] if self._operation.damages else scene.node.observer.told
        return {**found, "damaged": [each for each in told if each.startswith("quarantined")]}

    def _copy(self, source: str, target: str) -> Path:
        root = self._directory / target
        shutil.copytree(self._directory / source, root)
        return root


async def prepared_again(scene: Scene) -> dict[str, Any]:
    """The pod is still to be started."""
    agent = await scene.agent()
    answer = await _prepared(agent, REF.uid)
    held = _files(scene, temporaries=False)
    refused = await _prepared(agent, RIVAL.uid)
    return {"answer": answer, "held": held, "refused": refused, **await _ended(scene, agent)}


async def unprepared_next(scene: Scene) -> dict[str, Any]:
    """The pod is gone."""
    return await _ended(scene, await scene.agent())


async def deleted(scene: Scene) -> dict[str, Any]:
    """The claim is gone from the API, and nobody calls."""
    scene.node.api.claims.pop(REF.name, None)
    _age_temporaries(scene.node.root)
    agent = await scene.agent()
    await agent.reconcile()
    await agent.sweep()
    await finished(agent)
    return await _left(scene, agent)


WAYS = {"again": prepared_again, "unprepared": unprepared_next, "deleted": deleted}
"""How life goes on after a crash."""


async def _ended(scene: Scene, agent: NodeClaims) -> dict[str, Any]:
    answer = (await agent.unprepare([REF]))[REF.uid]
    await finished(agent)
    _age_temporaries(scene.node.root)
    await agent.sweep()
    return {"unprepared": answer is None, **await _left(scene, agent)}


async def _left(scene: Scene, agent: NodeClaims) -> dict[str, Any]:
    left = _files(scene)
    await agent.unprepare([PEER])
    end = _files(scene)
    granted = await _prepared(agent, RIVAL.uid)
    await scene.node.close()
    return {"left": left, "end": end, "granted": granted}


async def _prepared(agent: NodeClaims, uid: str) -> str:
    """The devices, or why not."""
    ref = next(ref for ref in (REF, RIVAL) if ref.uid == uid)
    outcome = (await agent.prepare([ref]))[uid]
    return outcome.reason if isinstance(outcome, AgentError) else str(outcome)


def _files(scene: Scene, *, temporaries: bool = True) -> dict[str, str]:
    """Without the temporaries of files that stand for the hardware: it has none."""
    return {
        name: text
        for name, text in tree(scene.node.root, temporaries=temporaries).items()
        if Path(name).name not in _NOT_STATE and not name.startswith("gpus/.")
    }


def _age_temporaries(root: Path) -> None:
    for path in root.rglob("*"):
        if is_temporary(path.name):
            os.utime(path, (0, 0))


def _in_child(work: Callable[[], object]) -> bool:
    """Whether it was killed. A child that fails has said why."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:  # the child's end, whatever it was
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "a child has failed"
    return os.WIFSIGNALED(status)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
