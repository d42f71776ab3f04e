"""Nodes with a ComputeDomain agent, on simulated hardware and the API of a `DomainCluster`.

The test plays the daemon: it reads the settings and says that it is ready.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from nvdra_api.gates import FeatureGates
from nvdra_api.names import (
    COMPUTE_DOMAIN_CHANNEL_CLASS,
    COMPUTE_DOMAIN_DAEMON_CLASS,
    COMPUTE_DOMAIN_DRIVER,
    NAMESPACE,
)
from nvdra_kube.resources import NODES, RESOURCE_CLAIMS
from nvdra_nodeagent.cdi.document import CdiSpec, decode_spec
from nvdra_nodeagent.claims.model import ClaimRef
from nvdra_nodeagent.computedomain.agent import PREPARE_BUDGET_S, DomainAgent
from nvdra_nodeagent.computedomain.devices import DEVICE_TYPES
from nvdra_nodeagent.computedomain.options import parse_domain_options
from nvdra_nodeagent.durable import write_durably
from nvdra_nodeagent.program.metrics import AgentMetrics
from nvdra_sim.hardware import SimulatedHardware
from nvdra_testing.agent import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nvdra_kube.api import Body, KubeApi
    from nvdra_testing.compute_domains import DomainCluster

BOOT: Final = "b0071d00-2222-4000-8000-000000000003"


def a_domain_config(kind: str, domain: str, **fields: Any) -> Body:
    return {
        "apiVersion": "resource.nvidia.com/v1beta1",
        "kind": f"ComputeDomain{kind}Config",
        "domainID": domain,
        **fields,
    }


class DomainNode:
    """A node's directories and hardware; agents come and go on it."""

    def __init__(
        self,
        root: Path,
        it: DomainCluster,
        *,
        name: str = "node-1",
        profile: str = "gb200",
        hardware: SimulatedHardware | None = None,
        api: KubeApi | None = None,
    ) -> None:
        """`hardware` is the node's own if none is given; `api` is the agent's way to the API."""
        self.root = root / name
        self.it = it
        self.name = name
        self.hardware = hardware or SimulatedHardware.open(
            profile, self.root / "machine", node=name
        )
        self.api = api or it.recorded
        for directory in ("plugins", "registry"):
            (self.root / directory).mkdir(parents=True)

    @property
    def state_dir(self) -> Path:
        return self.root / "plugins" / COMPUTE_DOMAIN_DRIVER

    def directory(self, domain: str) -> Path:
        """What the daemon sees as /imexd."""
        return self.state_dir / "domains" / domain

    def cdi(self, ref: ClaimRef) -> CdiSpec | None:
        """The claim's CDI file, None without one."""
        path = self.root / "cdi" / f"k8s.compute-domain.nvidia.com-claim_{ref.uid}.yaml"
        return decode_spec(path.read_bytes()) if path.exists() else None

    async def channel(
        self, domain: str, name: str = "workload", *, config: Body | None = None, **fields: Any
    ) -> ClaimRef:
        """A claim for this node's channel, as the scheduler leaves it."""
        parameters = config or a_domain_config("Channel", domain, **fields)
        return await self._claim(
            name, "default", "channel-0", parameters, COMPUTE_DOMAIN_CHANNEL_CLASS
        )

    async def daemon(
        self, domain: str, *, pod: Body | None = None, namespace: str = NAMESPACE, name: str = ""
    ) -> ClaimRef:
        """The claim of the domain's daemon on this node, reserved for `pod`."""
        parameters = a_domain_config("Daemon", domain)
        reserved = pod["metadata"] if pod else None
        return await self._claim(
            name or f"daemon-{self.name}",
            namespace,
            "daemon-0",
            parameters,
            COMPUTE_DOMAIN_DAEMON_CLASS,
            reserved_for=reserved,
        )

    async def _claim(
        self,
        name: str,
        namespace: str,
        device: str,
        parameters: Body,
        device_class: str,
        *,
        reserved_for: Body | None = None,
    ) -> ClaimRef:
        request = {"name": "it", "exactly": {"deviceClassName": device_class}}
        body = {
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"devices": {"requests": [request]}},
        }
        made = await self.it.api.create(RESOURCE_CLAIMS, body, namespace=namespace)
        result = {
            "request": "it",
            "driver": COMPUTE_DOMAIN_DRIVER,
            "pool": self.name,
            "device": device,
        }
        opaque = {"driver": COMPUTE_DOMAIN_DRIVER, "parameters": parameters}
        config = [{"source": "FromClaim", "requests": ["it"], "opaque": opaque}]
        made["status"] = {"allocation": {"devices": {"results": [result], "config": config}}}
        if reserved_for:
            consumer = {"resource": "pods", "name": reserved_for["name"]}
            made["status"]["reservedFor"] = [{**consumer, "uid": reserved_for["uid"]}]
        await self.it.api.update(RESOURCE_CLAIMS, made, subresource="status")
        meta = made["metadata"]
        return ClaimRef(namespace=namespace, name=name, uid=meta["uid"])

    async def label(self) -> str | None:
        """The domain that the node is in."""
        meta = (await self.it.api.get(NODES, self.name))["metadata"]
        found: str | None = (meta.get("labels") or {}).get("resource.nvidia.com/computeDomain")
        return found

    def settings(self, domain: str) -> Body:
        found: Body = json.loads((self.directory(domain) / "settings.json").read_bytes())
        return found

    def peers(self, domain: str) -> Body:
        """What the daemon was told of its peers; empty before that."""
        path = self.directory(domain) / "peers.json"
        found: Body = json.loads(path.read_bytes()) if path.exists() else {}
        return found

    def say(self, domain: str, *, ready: bool = True, **changes: Any) -> None:
        """What the daemon says of itself."""
        settings = self.settings(domain)
        said = {
            "version": 1,
            "claimUID": settings["claimUID"],
            "bootID": settings["bootID"],
            "ready": ready,
            "reason": "Ready" if ready else "ImexStarting",
            "detail": "",
            **changes,
        }
        write_durably(self.directory(domain) / "ready.json", json.dumps(said).encode())

    @asynccontextmanager
    async def running(
        self,
        *flags: str,
        retry_budget_s: float = PREPARE_BUDGET_S,
        gates: str = "",
        boot_id: str = BOOT,
        is_registering: bool = False,
    ) -> AsyncIterator[DomainAgent]:
        """An agent that has been started and knows its hardware; stopped in order at the end.

        Where the fabric `is_registering`, the clique is not waited for.
        """
        await self.it.node(self.name)
        agent = DomainAgent(
            parse_domain_options([*self._arguments(), *flags], environ={}, version="test"),
            api=self.api,
            machine=self.hardware.machine,
            gates=FeatureGates.parse(gates),
            metrics=AgentMetrics(
                driver=COMPUTE_DOMAIN_DRIVER, node=self.name, device_types=DEVICE_TYPES
            ),
            boot_id=boot_id,
            retry_budget_s=retry_budget_s,
        )
        stop = asyncio.Event()
        task = asyncio.create_task(agent.run(stop), name=f"agent of {self.name}")
        try:
            await until(agent.kubelet.endpoint.exists, or_done=task)
            # Claims that are tried for a moment only are not to be refused for want of this.
            await until(lambda: agent.keeper.is_known, or_done=task)
            await until(lambda: is_registering or agent.fabric.known is not None, or_done=task)
            yield agent
        finally:
            stop.set()
            await task

    def _arguments(self) -> list[str]:
        flags = {
            "node-name": self.name,
            "namespace": NAMESPACE,
            "cdi-root": self.root / "cdi",
            "kubelet-plugins-directory-path": self.root / "plugins",
            "kubelet-registrar-directory-path": self.root / "registry",
        }
        return [f"--{name}={value}" for name, value in flags.items()]
