"""From a daemon's word that it is ready until the workload beside it is released.

A whole agent in this process, on the embedded API; kubelet and daemon are played. Once with the
kernel telling the agent of the file, and once with nobody telling it, where it has to look itself.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvdra_kube.logs import configure
from nvdra_nodeagent.errors import AgentError
from nvdra_testing.compute_domains import a_cluster
from nvdra_testing.domain_nodes import DomainNode

from .figures import latencies_ms, print_document, progress, rounded
from .setting import rounds_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_nodeagent.computedomain.agent import DomainAgent
    from nvdra_testing.compute_domains import DomainCluster

_LOOKS_WITHIN_S = 1.0


def main(argv: Sequence[str]) -> None:
    options = rounds_of("release", argv, rounds=31, quick=3)
    configure(verbosity=0)
    print_document(asyncio.run(_measure(options.rounds)))


async def _measure(rounds: int) -> dict[str, Any]:
    found = {}
    for told in (True, False):
        with tempfile.TemporaryDirectory(prefix="nvdra-") as root:
            async with a_cluster() as it, it.running():
                node = DomainNode(Path(root), it)
                async with node.running() as agent:
                    if not told:
                        await _deafen(agent)
                    taken = [await _round(it, node, agent, number) for number in range(rounds)]
        name = "told_by_the_kernel" if told else "not_told"
        found[name] = {key: rounded(value) for key, value in latencies_ms(taken).items()}
        progress(f"{name}: {found[name]}")
    return {**found, "rounds": rounds}


async def _deafen(agent: DomainAgent) -> None:
    """End what listens for the file."""
    (name,) = [duty.name for duty in agent.duties if duty.work == agent.news.run]
    for task in asyncio.all_tasks():
        if task.get_name() == name:
            task.cancel()
            await asyncio.wait([task])


async def _round(it: DomainCluster, node: DomainNode, agent: DomainAgent, number: int) -> float:
    name = f"job-{number}"
    uid = (await it.domain(name, template=name))["metadata"]["uid"]
    await it.until(lambda: it.daemon_set(uid))
    workload = await node.channel(uid, f"workload-{number}")
    waiting = asyncio.create_task(_prepare(agent, workload))
    await it.until(node.label)
    pod = await it.daemon(node.name, uid, ip="10.0.0.1")
    daemon = await node.daemon(uid, pod=pod, name=f"daemon-{number}")
    await _prepare(agent, daemon)
    node.say(uid, ready=False)
    # At any moment between two looks of the agent.
    await asyncio.sleep(0.2 + random.uniform(0, _LOOKS_WITHIN_S))
    began_s = time.perf_counter()
    node.say(uid)
    await waiting
    taken_s = time.perf_counter() - began_s
    await agent.claims.unprepare([workload])
    await it.remove(pod)
    await agent.claims.unprepare([daemon])
    await it.delete(name)
    return taken_s


async def _prepare(agent: DomainAgent, ref: ClaimRef) -> None:
    answer = (await agent.claims.prepare([ref]))[ref.uid]
    if isinstance(answer, AgentError):
        raise answer
