"""The real controller process with Kopf: memory, CPU, fifty domains at once, loss of the leader.

The embedded API server is in this process, over HTTPS; agents and kubelets are played.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nvdra_kube.logs import configure
from nvdra_kube.resources import EVENTS
from nvdra_sim.cluster.apiserver import ApiServer
from nvdra_testing.compute_domains import a_cluster

from .controller_process import ELECTION, a_controller
from .domain_states import all_gone, all_ready, join_all
from .figures import medians, print_document, progress, rounded
from .production import production_python

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from nvdra_testing.compute_domains import DomainCluster

PARTS: Final = ("many", "large", "leader")
_SETTLE_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class _Sizes:
    many: tuple[int, ...] = (50, 500)
    large: tuple[int, ...] = (1, 18, 256, 1000)


_QUICK: Final = _Sizes(many=(3,), large=(2,))


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python tests/bench controller", description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS, metavar=f"{{{','.join(PARTS)}}}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="3 domains, 2 nodes, no leader killed")
    options = parser.parse_args(argv)
    configure(verbosity=0)
    asyncio.run(_measure(options))


async def _measure(options: argparse.Namespace) -> None:
    sizes = _QUICK if options.quick else _Sizes()
    document: dict[str, Any] = {"rounds": options.rounds}
    with tempfile.TemporaryDirectory(prefix="nvdra-") as root:
        python = production_python(Path(root) / "venv", "operator")
        place = partial(_place, python, Path(root))
        if "many" in options.parts:
            document["many_domains"] = {
                str(count): medians([await _many(place, count) for _ in range(options.rounds)])
                for count in sizes.many
            }
        if "large" in options.parts:
            document["one_domain"] = {
                str(size): medians([await _large(place, size) for _ in range(options.rounds)])
                for size in sizes.large
            }
        if "leader" in options.parts and not options.quick:
            document["leader"] = medians([await _leaders(place) for _ in range(options.rounds)])
    print_document(document)


@dataclass(slots=True)
class _Place:
    """A cluster that a controller can be started in."""

    python: Path
    root: Path
    it: DomainCluster
    server: ApiServer

    def controller(self, *flags: str, name: str = "controller-0") -> Any:
        return a_controller(self.python, self.server, self.root, *flags, name=name)

    def revision(self) -> int:
        """Counts what was written, by anybody."""
        return self.it.store.revision


@asynccontextmanager
async def _place(python: Path, root: Path) -> AsyncIterator[_Place]:
    with tempfile.TemporaryDirectory(dir=root) as own:
        async with a_cluster() as it, ApiServer(it.store) as server:
            yield _Place(python, Path(own), it, server)


async def _many(place: Any, count: int) -> dict[str, Any]:
    progress(f"{count} domains")
    async with place() as here, here.controller() as controller:
        it = here.it
        await controller.said("controller started")
        await asyncio.sleep(_SETTLE_S)
        before, cpu_s = controller.memory_mib(), controller.cpu_s()
        names = [f"domain-{number}" for number in range(count)]
        revision, began_s = here.revision(), time.monotonic()
        await asyncio.gather(*(it.domain(name, template=name) for name in names))
        await all_ready(it, count)
        made_s = time.monotonic() - began_s
        made = here.revision() - revision - count
        await asyncio.sleep(_SETTLE_S)
        made_cpu_s, with_all = controller.cpu_s() - cpu_s, controller.memory_mib()
        late = here.revision() - revision - count - made
        revision, began_s = here.revision(), time.monotonic()
        await asyncio.gather(*(it.delete(name) for name in names))
        await all_gone(it)
        removed_s = time.monotonic() - began_s
        removed = here.revision() - revision - count
        await asyncio.sleep(_SETTLE_S)
        return {
            "made_s": rounded(made_s),
            "cpu_ms_each": rounded(1e3 * made_cpu_s / count),
            "writes_each": rounded(made / count),
            "writes_after_ready": late,
            "removed_s": rounded(removed_s),
            "writes_each_removed": rounded(removed / count),
            "events": len(await it.everything(EVENTS)),
            "memory_mib": {
                "before": before,
                "with_all": with_all,
                "after": controller.memory_mib(),
            },
        }


async def _large(place: Any, size: int) -> dict[str, Any]:
    """All nodes join and all daemons report at once; deleted with all nodes in it."""
    progress(f"a domain of {size} nodes")
    async with place() as here, here.controller() as controller:
        it = here.it
        await controller.said("controller started")
        uid = (await it.domain(num_nodes=size))["metadata"]["uid"]
        await it.condition(reason="WaitingForNodes")
        names = [f"node-{number}" for number in range(size)]
        for name in names:
            await it.node(name)
        await asyncio.sleep(_SETTLE_S)
        before, cpu_s = controller.memory_mib(), controller.cpu_s()
        pods = await join_all(it, uid, names)
        began_s = time.monotonic()
        await all_ready(it, 1)
        formed_s = time.monotonic() - began_s
        await asyncio.sleep(_SETTLE_S)
        formed_cpu_s, formed = controller.cpu_s() - cpu_s, controller.memory_mib()
        began_s, cpu_s = time.monotonic(), controller.cpu_s()
        await it.delete()
        for pod in pods:
            await it.remove(pod)
        await all_gone(it)
        return {
            "ready_after_the_last_report_s": rounded(formed_s),
            "cpu_s": rounded(formed_cpu_s),
            "removed_s": rounded(time.monotonic() - began_s),
            "removed_cpu_s": rounded(controller.cpu_s() - cpu_s),
            "memory_mib": {
                "before": before,
                "formed": formed,
                "after": controller.memory_mib(),
            },
        }


async def _leaders(place: Any) -> dict[str, Any]:
    """Seconds from the leader's end until a domain made right after it is complete."""
    return {
        "killed_s": await _succession(place, signal.SIGKILL),
        "terminated_s": await _succession(place, signal.SIGTERM),
    }


async def _succession(place: Any, number: signal.Signals) -> float:
    progress(f"the leader gets {number.name}")
    async with place() as here, AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(here.controller(*ELECTION, name=name))
            for name in ("controller-0", "controller-1")
        ]
        leader, follower = await _first_leader(first, second)
        await here.it.domain("before", template="before")
        await all_ready(here.it, 1)
        await follower.said("attempting to acquire lease")
        await asyncio.sleep(_SETTLE_S)
        began_s = time.monotonic()
        ending = asyncio.create_task(leader.end(number))
        await here.it.domain("after", template="after")
        await all_ready(here.it, 2)
        taken_s = time.monotonic() - began_s
        await ending
        return rounded(taken_s)


async def _first_leader(one: Any, other: Any) -> tuple[Any, Any]:
    words = "successfully acquired lease"
    waits = {asyncio.create_task(each.said(words)): each for each in (one, other)}
    done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    leader = waits[done.pop()]
    return (leader, other) if leader is one else (leader, one)
