"""What became of ComputeDomains: their nodes, their daemons, and why they are not ready. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nvdra_api.names import (
    API_GROUP,
    API_VERSION_NAME,
    COMPUTE_DOMAIN_CHANNEL_CLASS,
    COMPUTE_DOMAIN_DAEMON_CLASS,
    COMPUTE_DOMAIN_DRIVER,
    LABEL_COMPUTE_DOMAIN,
    NAMESPACE,
)
from nvdra_kube.api import Resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from nvdra_cli.manifests import Manifest
    from nvdra_cli.pods import Key, PodView

Body = dict[str, Any]

COMPUTE_DOMAINS: Final = Resource(API_GROUP, API_VERSION_NAME, "computedomains", "ComputeDomain")

_READY: Final = "Ready"
_NAMES: Final = (COMPUTE_DOMAIN_CHANNEL_CLASS, COMPUTE_DOMAIN_DAEMON_CLASS, COMPUTE_DOMAIN_DRIVER)


@dataclass(frozen=True, slots=True)
class DomainNodeView:
    """A node that takes part; `index` is its place in its clique."""

    name: str
    clique: str
    index: int
    address: str
    status: str


@dataclass(frozen=True, slots=True)
class ConditionView:
    """One of the domain's conditions."""

    type: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class DomainView:
    """A ComputeDomain as the report shows it; `status` is empty while nobody has written one."""

    namespace: str
    name: str
    status: str
    nodes: tuple[DomainNodeView, ...]
    conditions: tuple[ConditionView, ...]
    daemons: tuple[PodView, ...]

    @property
    def key(self) -> Key:
        return (self.namespace, self.name)

    @property
    def is_ready(self) -> bool:
        return self.status == _READY

    @property
    def takes_part(self) -> bool:
        """Whether any node has joined: without, nothing will change by itself."""
        return bool(self.nodes or self.daemons)

    @property
    def gist(self) -> str:
        """Status and `why` without what is said of each node, which changes all the time."""
        reason, _, message = self.why.partition(": ")
        return f"{self.status} {reason} {re.split('[:;]', message, maxsplit=1)[0]}"

    @property
    def why(self) -> str:
        """Reason and message of the condition that tells why it is ready, or why not."""
        for one in self.conditions:
            if one.type == _READY:
                return f"{one.reason}: {one.message}"
        return "no controller has looked at it yet"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What else is wrong, or not yet right."""
        others = (one for one in self.conditions if one.type != _READY and one.status == "False")
        return tuple(f"{one.reason}: {one.message}" for one in others)


def needs_domains(manifests: Sequence[Manifest]) -> bool:
    """Whether any of these is a ComputeDomain, or asks for devices of its driver."""
    return any(_is_about_domains(manifest.body) for manifest in manifests)


def is_daemon(pod: Body) -> bool:
    """Whether the pod is part of a domain's machinery, and none of the user's."""
    meta = pod["metadata"]
    return meta["namespace"] == NAMESPACE and LABEL_COMPUTE_DOMAIN in (meta.get("labels") or {})


def domain_views(
    domains: Mapping[Key, Body], daemons: Iterable[tuple[Body, PodView]]
) -> list[DomainView]:
    """All domains by namespace and name; `daemons` are pods for which `is_daemon` holds."""
    by_domain: dict[str, list[PodView]] = {}
    for pod, view in daemons:
        by_domain.setdefault(pod["metadata"]["labels"][LABEL_COMPUTE_DOMAIN], []).append(view)
    return [
        _view(body, by_domain.get(body["metadata"].get("uid", ""), ()))
        for _, body in sorted(domains.items())
    ]


def _view(body: Body, daemons: Sequence[PodView]) -> DomainView:
    meta, status = body["metadata"], body.get("status") or {}
    return DomainView(
        namespace=meta["namespace"],
        name=meta["name"],
        status=status.get("status", ""),
        nodes=tuple(
            DomainNodeView(
                name=node["name"],
                clique=node.get("cliqueID", ""),
                index=node.get("index", -1),
                address=node.get("ipAddress", ""),
                status=node.get("status", ""),
            )
            for node in sorted(status.get("nodes") or (), key=lambda node: str(node["name"]))
        ),
        conditions=tuple(
            ConditionView(
                type=one["type"],
                status=one["status"],
                reason=one.get("reason", ""),
                message=one.get("message", ""),
            )
            for one in status.get("conditions") or ()
        ),
        daemons=tuple(sorted(daemons, key=lambda daemon: (daemon.node, daemon.name))),
    )


def _is_about_domains(body: Body) -> bool:
    if body["apiVersion"].partition("/")[0] == API_GROUP:
        return True
    text = json.dumps(body)
    return any(name in text for name in _NAMES)
