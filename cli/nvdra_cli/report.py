"""What a simulation found, for people (tables and logs) and for programs (one JSON document)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from nvdra_cli.domains import DomainView
    from nvdra_cli.pods import Key, PodView


_LOG_LINES = 1000
"""Shown of each container: a terminal is no place for more."""


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome: pods, the logs of their containers, when each one ran, and the whole time.

    `missing` counts pods that workloads wanted and nobody made. `logs` are also those of the
    daemons of `domains`.
    """

    pods: Sequence[PodView]
    logs: Mapping[Key, Mapping[str, str]]
    running_after_s: Mapping[Key, float]
    seconds: float
    missing: int = 0
    domains: Sequence[DomainView] = ()

    @property
    def succeeded(self) -> bool:
        return not self.missing and all(pod.runs for pod in self.pods)


def as_json(report: Report) -> str:
    """The document of `nvdra simulate --json`."""
    document = {
        "pods": [
            {
                **_pod_entry(pod, report),
                "claims": [
                    {"name": claim.name, "devices": [asdict(device) for device in claim.devices]}
                    for claim in pod.claims
                ],
            }
            for pod in report.pods
        ],
        "computeDomains": [_domain_entry(domain, report) for domain in report.domains],
        "seconds": round(report.seconds, 3),
    }
    return json.dumps(document, indent=2)


def _pod_entry(pod: PodView, report: Report) -> dict[str, object]:
    return {
        "namespace": pod.namespace,
        "name": pod.name,
        "phase": pod.phase,
        "node": pod.node,
        "reason": pod.reason,
        "logs": dict(report.logs.get(pod.key, {})),
    }


def _domain_entry(domain: DomainView, report: Report) -> dict[str, object]:
    return {
        "namespace": domain.namespace,
        "name": domain.name,
        "status": domain.status,
        "why": domain.why,
        "nodes": [asdict(node) for node in domain.nodes],
        "conditions": [asdict(condition) for condition in domain.conditions],
        "daemons": [_pod_entry(daemon, report) for daemon in domain.daemons],
    }


def print_report(report: Report, console: Console) -> None:
    """Tables, container logs, and the reasons of pods and domains that are not well."""
    console.print(_table(report))
    if report.domains:
        console.print()
        console.print(_domain_table(report.domains))
    for pod in report.pods:
        for container, log in report.logs.get(pod.key, {}).items():
            _print_log(console, f"{pod.namespace}/{pod.name} [{container}]", log)
    for pod in report.pods:
        if not pod.runs:
            reason = pod.reason or "no reason is known yet; a longer --timeout may tell"
            console.print(Text(f"\n{pod.namespace}/{pod.name} is {pod.phase}: ", style="bold red"))
            console.print(Text(reason), soft_wrap=True)
    for domain in report.domains:
        _print_trouble(console, domain, report)
    if report.missing:
        console.print(Text(f"\nPods that were never made: {report.missing}", style="bold red"))


def _table(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("POD", "NODE", "CLAIM", "DEVICE", "UUID", "PHASE", "TIME"):
        table.add_column(heading, overflow="fold")
    for pod in report.pods:
        _add_pod(table, pod, report.running_after_s.get(pod.key))
    return table


def _add_pod(table: Table, pod: PodView, after_s: float | None) -> None:
    first = [Text(f"{pod.namespace}/{pod.name}"), Text(pod.node)]
    last = [
        Text(pod.phase, style="green" if pod.runs else "red"),
        Text("" if after_s is None else f"{after_s:.2f} s"),
    ]
    rows = [(claim.name, device) for claim in pod.claims for device in claim.devices]
    if not rows:
        table.add_row(*first, Text(", ".join(c.name for c in pod.claims)), "", "", *last)
    for claim, device in rows:
        cells = [Text(claim), Text(device.device), Text(device.uuid)]
        table.add_row(*first, *cells, *last)
        first, last = [Text(""), Text("")], [Text(""), Text("")]


def _domain_table(domains: Sequence[DomainView]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("COMPUTEDOMAIN", "STATUS", "NODE", "CLIQUE", "INDEX", "ADDRESS", "NODE STATUS"):
        table.add_column(heading, overflow="fold")
    for domain in domains:
        style = "green" if domain.is_ready else "red"
        first = [Text(f"{domain.namespace}/{domain.name}"), Text(domain.status, style=style)]
        for node in domain.nodes:
            cells = (node.name, node.clique or "no fabric", str(node.index), node.address)
            table.add_row(*first, *map(Text, cells), Text(node.status))
            first = [Text(""), Text("")]
        if not domain.nodes:
            table.add_row(*first)
    return table


def _print_trouble(console: Console, domain: DomainView, report: Report) -> None:
    """Why a domain is not ready, with what its daemons said; also what else is wrong with it."""
    name = f"ComputeDomain {domain.namespace}/{domain.name}"
    if not domain.is_ready:
        console.print(Text(f"\n{name} is not ready: ", style="bold red"))
        console.print(Text(domain.why), soft_wrap=True)
        for daemon in domain.daemons:
            for container, log in report.logs.get(daemon.key, {}).items():
                _print_log(console, f"{daemon.namespace}/{daemon.name} [{container}]", log)
    for warning in domain.warnings:
        console.print(Text(f"\n{name}: {warning}", style="yellow"), soft_wrap=True)


def _print_log(console: Console, title: str, log: str) -> None:
    console.print(Text(f"\n{title}", style="bold"))
    lines = log.rstrip("\n").split("\n") if log.rstrip("\n") else ["(no output)"]
    if len(lines) > _LOG_LINES:
        left_out = len(lines) - _LOG_LINES
        console.print(Text(f"  ({left_out} lines before these; --json has all)", style="dim"))
    for line in lines[-_LOG_LINES:]:
        console.print(Text(f"  {line}"), soft_wrap=True)
