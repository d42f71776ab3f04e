"""What happens to the claims of a domain on a node: prepared, waiting, released, refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from nvdra_nodeagent.claims.model import PreparedDevice
from nvdra_nodeagent.errors import AgentError, Permanent, Retryable

if TYPE_CHECKING:
    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_nodeagent.computedomain.agent import DomainAgent
    from nvdra_testing.compute_domains import DomainCluster
    from nvdra_testing.domain_nodes import DomainNode

GB200_CLIQUE: Final = "6e766472-6120-5369-6d75-6c6174656420.1"
OTHER_BOOT: Final = "b0071d00-2222-4000-8000-000000000004"


async def a_made_domain(it: DomainCluster, name: str = "job", *, num_nodes: int = 0) -> str:
    """UID of a domain whose DaemonSet the controller has made."""
    made = await it.domain(name, template=f"{name}-channels", num_nodes=num_nodes)
    uid = str(made["metadata"]["uid"])
    await it.until(lambda: it.daemon_set(uid))
    return uid


async def prepare(agent: DomainAgent, ref: ClaimRef) -> object:
    return (await agent.claims.prepare([ref]))[ref.uid]


def only(answer: object) -> PreparedDevice:
    """The one device that was prepared."""
    assert isinstance(answer, tuple), answer
    (device,) = answer
    assert isinstance(device, PreparedDevice)
    return device


async def permanent(agent: DomainAgent, ref: ClaimRef) -> str:
    """What a claim is refused with for good."""
    outcome = await prepare(agent, ref)
    assert isinstance(outcome, Permanent), outcome
    return str(outcome)


async def refused(agent: DomainAgent, ref: ClaimRef) -> Retryable:
    """What a claim is refused with for now."""
    outcome = await prepare(agent, ref)
    assert isinstance(outcome, Retryable), outcome
    return outcome


async def a_daemon(
    agent: DomainAgent, node: DomainNode, uid: str, *, ip: str = "10.0.0.1"
) -> ClaimRef:
    """The daemon's pod lands, and its claim is prepared."""
    pod = await node.it.daemon(node.name, uid, ip=ip)
    ref = await node.daemon(uid, pod=pod)
    answer = await prepare(agent, ref)
    assert not isinstance(answer, AgentError), answer
    return ref


async def a_waiting_workload(
    agent: DomainAgent, node: DomainNode, uid: str, **fields: Any
) -> tuple[ClaimRef, asyncio.Task[object]]:
    """The workload's claim, and its prepare, which has brought the node into the domain."""
    ref = await node.channel(uid, **fields)
    waiting = asyncio.create_task(prepare(agent, ref), name=f"prepare {ref}")

    async def labelled() -> bool:
        return await node.label() == uid

    await node.it.until(labelled)
    return ref, waiting


async def a_released_workload(
    agent: DomainAgent, node: DomainNode, uid: str, **fields: Any
) -> tuple[ClaimRef, ClaimRef]:
    """Claims of the workload and of the daemon."""
    ref, waiting = await a_waiting_workload(agent, node, uid, **fields)
    daemon = await a_daemon(agent, node, uid)
    node.say(uid)
    answer = await waiting
    assert not isinstance(answer, AgentError), answer
    return ref, daemon
