"""A program that kills agents at each file operation and looks at what the next agent makes of it.

`python -m nvdra_testing.claim_crashes DIRECTORY` prints one JSON object a crash. Agents run in
forked children, so that one start of the interpreter serves all crashes and SIGKILL is real.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvdra_nodeagent.durable import is_temporary
from nvdra_nodeagent.steps.registry import step_kinds
from nvdra_testing.claims import ClaimNode, a_config_entry, a_ref
from nvdra_testing.configs import SHARING_ON, a_config, time_slicing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nvdra_kube.api import Body

REF, RIVAL = a_ref(), a_ref("rival")
OPERATIONS = ("prepare", "unprepare", "reallocate")
_WATCHED = ("open", "os.rename", "os.remove", "os.mkdir", "os.scandir")


CONFIGS: Mapping[str, Sequence[Body]] = {
    "cdi": (),
    "time_slice": (a_config_entry(a_config(sharing=time_slicing(interval="Long"))),),
}
"""The config of a claim that has a step of this kind; every kind of the registry has one."""


def main(directory: Path) -> None:
    for kind in step_kinds():
        for operation in OPERATIONS:
            _crash_everywhere(directory, kind, operation)


def _crash_everywhere(directory: Path, kind: str, operation: str) -> None:
    for point in itertools.count(1):
        root = directory / f"{kind}-{operation}-{point}"
        root.mkdir()
        if operation != "prepare":
            _in_child(partial(_serve, root, kind, "prepare"))
        status = _in_child(partial(_serve, root, kind, operation, kill_at=point))
        if not os.WIFSIGNALED(status):
            break  # it has come to its end: there is no such point any more
        _in_child(partial(_report, root, kind, operation, point))


def _in_child(work: Callable[[], Any]) -> int:
    child = os.fork()
    if not child:
        try:
            work()
            sys.stdout.flush()
        except BaseException as error:  # the child's end, whatever it was
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def _serve(root: Path, kind: str, operation: str, *, kill_at: int = 0) -> None:
    asyncio.run(_operate(root, kind, operation, kill_at))


async def _operate(root: Path, kind: str, operation: str, kill_at: int) -> None:
    node = ClaimNode(root, gates=SHARING_ON)
    device = "gpu-1" if operation == "reallocate" else "gpu-0"
    node.api.add(REF, device, config=CONFIGS[kind])
    agent = node.agent()
    if kill_at:
        _kill_at(kill_at, root)
    await (agent.unprepare([REF]) if operation == "unprepare" else agent.prepare([REF]))


def _kill_at(count: int, root: Path) -> None:
    """Die before the given file operation below `root`."""
    operations = itertools.count(1)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        touches = arguments and str(arguments[0]).startswith(str(root))
        if event in _WATCHED and touches and next(operations) == count:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def _report(root: Path, kind: str, operation: str, point: int) -> None:
    place = {"kind": kind, "operation": operation, "point": point}
    found = {**place, **asyncio.run(_recover(root, kind))}
    sys.stdout.write(f"{json.dumps(found)}\n")


async def _recover(root: Path, kind: str) -> dict[str, Any]:
    """What a new agent makes of it: prepare, a rival for the GPU, unprepare, the rival again."""
    node = ClaimNode(root, gates=SHARING_ON)
    node.api.add(REF, "gpu-0", config=CONFIGS[kind])
    node.api.add(RIVAL, "gpu-0")
    agent = node.agent()
    prepared = (await agent.prepare([REF]))[REF.uid]
    held, gpus = _files(node), [node.gpus.value(minor) for minor in range(2)]
    refused = (await agent.prepare([RIVAL]))[RIVAL.uid]
    unprepared = (await agent.unprepare([REF]))[REF.uid]
    left = _files(node)
    granted = (await agent.prepare([RIVAL]))[RIVAL.uid]
    await node.close()
    return {
        "prepared": isinstance(prepared, tuple),
        "devices": list(node.cdi.device_names(RIVAL.uid)),
        "held": held,
        "gpus": gpus,
        "refused": getattr(refused, "reason", ""),
        "unprepared": unprepared is None,
        "left": left,
        "granted": isinstance(granted, tuple),
    }


def _files(node: ClaimNode) -> list[str]:
    return [name for name in node.files() if not is_temporary(Path(name).name)]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
