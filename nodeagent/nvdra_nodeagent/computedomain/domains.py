"""ComputeDomains and pods of their daemons, as claims refer to them. One question each."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nvdra_api.gates import FeatureGates, GateError
from nvdra_api.names import (
    ANNOTATION_DOMAIN_NAME,
    ANNOTATION_DOMAIN_NAMESPACE,
    ANNOTATION_PROTOCOL,
    CONTAINER_IMEX_DAEMON,
    LABEL_COMPUTE_DOMAIN,
    MAX_NODES_PER_IMEX_DOMAIN,
)
from nvdra_kube.errors import NotFound
from nvdra_kube.resources import PODS
from nvdra_nodeagent.computedomain.asking import asked
from nvdra_nodeagent.computedomain.resources import COMPUTE_DOMAINS
from nvdra_nodeagent.errors import Permanent, Retryable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nvdra_kube.api import Body, KubeApi

_UID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_uid(text: str) -> bool:
    """Whether it is the UID of an object, in the spelling of the API server."""
    return _UID.fullmatch(text) is not None


def checked_uid(domain: str) -> str:
    """`domain` if it is a UID: it becomes part of paths and names. :raises Permanent: it is not."""
    if not is_uid(domain):
        raise Permanent(
            "InvalidConfig",
            f"domainID {domain[:64]!r} is not the UID of a ComputeDomain",
            hint="use the claim template that the ComputeDomain names",
        )
    return domain


def suffix_of(domain: str) -> str:
    """What tells the host names of one domain from those of the others."""
    return hashlib.sha256(domain.encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class DomainName:
    """Where a ComputeDomain is in the API."""

    name: str
    namespace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonPod:
    """What a daemon's pod says of its domain. An empty `protocol`: made by an earlier driver."""

    name: str
    protocol: str
    domain: DomainName | None
    max_nodes: int
    gates: FeatureGates | None


class Domains:
    """Finds them. Whatever cannot be used is a typed error of the claim."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api

    async def find(self, uid: str, *, namespace: str | None = None) -> DomainName:
        """The ComputeDomain of that UID, in that namespace if one is given.

        :raises Permanent: `DomainNotFound`, or `DomainTerminating`.
        """
        where = f"namespace {namespace}" if namespace else "the cluster"
        try:
            found = await asked(
                f"LIST ComputeDomains of {where}",
                self._api.list(COMPUTE_DOMAINS, namespace=namespace, metadata_only=True),
            )
        except NotFound as error:
            hint = "apply the chart's custom resource definitions"
            raise Retryable("ApiUnavailable", f"no ComputeDomains: {error}", hint=hint) from error
        for item in found.get("items") or ():
            meta = item["metadata"]
            if meta.get("uid") == uid:
                if meta.get("deletionTimestamp"):
                    raise _terminating(meta)
                return DomainName(meta["name"], meta["namespace"])
        raise Permanent(
            "DomainNotFound",
            f"there is no ComputeDomain {uid} in {where}",
            hint="a claim can only name a ComputeDomain of its own namespace that exists",
        )

    async def num_nodes(self, name: DomainName) -> int:
        """`spec.numNodes` of the domain. :raises Retryable: no usable answer."""
        tried = f"GET ComputeDomain {name.namespace}/{name.name}"
        try:
            body = await asked(
                tried, self._api.get(COMPUTE_DOMAINS, name.name, namespace=name.namespace)
            )
        except NotFound as error:
            raise Retryable("ApiUnavailable", f"{tried}: {error}") from error
        return int((body.get("spec") or {}).get("numNodes") or 0)

    async def daemon_pod(self, name: str, *, namespace: str, domain: str) -> DaemonPod:
        """:raises Permanent: `NoDaemon`: the pod is none of that domain's."""
        tried = f"GET Pod {namespace}/{name}"
        try:
            body = await asked(tried, self._api.get(PODS, name, namespace=namespace))
        except NotFound as error:
            raise Retryable("ApiUnavailable", f"{tried}: {error}") from error
        meta = body["metadata"]
        if (meta.get("labels") or {}).get(LABEL_COMPUTE_DOMAIN) != domain:
            raise Permanent(
                "NoDaemon",
                f"Pod {namespace}/{name} is no daemon of ComputeDomain {domain}",
                hint="devices of type daemon are for the driver's own pods",
            )
        return _pod(body)


def _terminating(meta: Mapping[str, Any]) -> Permanent:
    return Permanent(
        "DomainTerminating",
        f"ComputeDomain {meta['namespace']}/{meta['name']} is being deleted",
        hint="delete the pod, or create the domain anew when it is gone",
    )


def _pod(body: Body) -> DaemonPod:
    annotations = body["metadata"].get("annotations") or {}
    environment = _environment(body)
    name = annotations.get(ANNOTATION_DOMAIN_NAME)
    namespace = annotations.get(ANNOTATION_DOMAIN_NAMESPACE)
    most = environment.get("MAX_NODES_PER_IMEX_DOMAIN", "")
    return DaemonPod(
        name=body["metadata"]["name"],
        protocol=annotations.get(ANNOTATION_PROTOCOL) or "",
        domain=DomainName(name, namespace) if name and namespace else None,
        max_nodes=int(most) if most.isdecimal() and int(most) else MAX_NODES_PER_IMEX_DOMAIN,
        gates=_gates(environment.get("FEATURE_GATES", "")),
    )


def _environment(body: Body) -> dict[str, str]:
    for container in body["spec"].get("containers") or ():
        if container.get("name") == CONTAINER_IMEX_DAEMON:
            listed = container.get("env") or ()
            return {each["name"]: each.get("value") or "" for each in listed}
    return {}


def _gates(text: str) -> FeatureGates | None:
    """The gates that the domain was made with; the node's own may have changed since."""
    try:
        return FeatureGates.parse(text) if text else None
    except GateError:
        return None  # of another version
