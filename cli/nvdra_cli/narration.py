"""Telling a person what happens while it happens, one line each."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from nvdra_cli.domains import DomainView
    from nvdra_cli.pods import PodView
    from nvdra_sim.cluster.embedded import EmbeddedCluster


class Narrator:
    """Writes progress lines with the time since `since_s` (monotonic).

    Where they cannot be written (nobody reads, a full disk) it falls silent: the run goes on.
    """

    def __init__(self, console: Console, *, since_s: float) -> None:
        self._console = console
        self._since_s = since_s
        self._said: dict[tuple[str, str], str] = {}
        self._said_of_domains: dict[tuple[str, str], str] = {}
        self._silent = False

    def say(self, text: str, *, style: str = "") -> None:
        stamp = f"{time.monotonic() - self._since_s:7.2f} s  "
        self._print(Text.assemble((stamp, "dim"), (text, style)))

    def _print(self, line: Text) -> None:
        if self._silent:
            return
        try:
            self._console.print(line, soft_wrap=True)
        except OSError:
            self._silent = True

    def cluster_ready(self, devices: Mapping[str, Mapping[str, int]]) -> None:
        """`devices` counts product names by node."""
        if not devices:
            self.say("control plane ready, no nodes")
        for node, products in devices.items():
            offer = ", ".join(f"{count} x {product}" for product, count in products.items())
            self.say(f"{node} ready: {offer or 'no devices'}")

    def pod_changed(self, pod: PodView) -> None:
        """One line where there is something new to say of the pod."""
        text, style = _news(pod)
        # What the scheduler finds in the way changes whenever another pod gets a device.
        gist = text if pod.node else text.partition(" nodes are available: ")[0]
        if self._said.get(pod.key) != gist:
            self._said[pod.key] = gist
            self.say(f"{pod.namespace}/{pod.name} {text}", style=style)

    def domain_changed(self, domain: DomainView) -> None:
        """One line where its status, or the gist of its reason, is another."""
        if self._said_of_domains.get(domain.key) != domain.gist:
            self._said_of_domains[domain.key] = domain.gist
            name = f"ComputeDomain {domain.namespace}/{domain.name}"
            text = f"{name} {domain.status or 'created'}: {domain.why}"
            self.say(text, style="green" if domain.is_ready else "yellow")

    def staying(self, cluster: EmbeddedCluster) -> None:
        """Where everything is, and how to end it."""
        self._print(Text("\nEverything keeps running until Ctrl-C.", style="bold"))
        self._print(Text(f"  export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}"))
        for node in cluster.nodes:
            where = node.directories
            self._print(Text(f"  {node.name}: {where.root}, agent's log {where.agent_log}"))
            if node.name in cluster.domain_agents:
                self._print(Text(f"    ComputeDomains: agent's log {where.domain_agent_log}"))
        for controller in cluster.controllers:
            log = controller.process.log_file
            self._print(Text(f"  {controller.name}: log {log}, {controller.metrics_url}"))
        if not cluster.nodes:
            self._print(Text("Run agents and the controller by hand:"))
            for command in cluster.commands_by_hand():
                self._print(Text(f"  {shlex.join(command)}"))


def _news(pod: PodView) -> tuple[str, str]:
    """What a person wants to know of the pod now, and its style."""
    if pod.runs:
        return f"{pod.phase} on {pod.node}", "green"
    if pod.reason:
        return f"{pod.phase}: {pod.reason}", "yellow"
    if pod.node:
        devices = [device.device for claim in pod.claims for device in claim.devices]
        return f"scheduled to {pod.node}: {', '.join(devices) or 'no devices'}", ""
    return "created", ""
