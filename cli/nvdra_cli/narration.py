"""Telling a person what happens while it happens, one line each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from nvdra_cli.pods import PodView
    from nvdra_sim.cluster.embedded import EmbeddedCluster


class Narrator:
    """Writes progress lines with the time since `since_s` (monotonic)."""

    def __init__(self, console: Console, *, since_s: float) -> None:
        self._console = console
        self._since_s = since_s
        self._said: dict[tuple[str, str], str] = {}

    def say(self, text: str, *, style: str = "") -> None:
        stamp = f"{time.monotonic() - self._since_s:7.2f} s  "
        line = Text.assemble((stamp, "dim"), (text, style))
        self._console.print(line, soft_wrap=True)

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
        if self._said.get(pod.key) != text:
            self._said[pod.key] = text
            self.say(f"{pod.namespace}/{pod.name} {text}", style=style)

    def staying(self, cluster: EmbeddedCluster) -> None:
        """Where everything is, and how to end it."""
        print_ = self._console.print
        print_(Text("\nEverything keeps running until Ctrl-C.", style="bold"), soft_wrap=True)
        print_(Text(f"  export KUBECONFIG={cluster.kubeconfig}"), soft_wrap=True)
        for node in cluster.nodes:
            where = node.directories
            print_(
                Text(f"  {node.name}: {where.root}, agent's log {where.agent_log}"), soft_wrap=True
            )
        if not cluster.nodes:
            print_(Text("Run an agent by hand:"), soft_wrap=True)
            print_(Text(f"  {' '.join(cluster.command_by_hand())}"), soft_wrap=True)


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
