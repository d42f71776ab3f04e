"""What a report about a claim is written to: the claim, its pods, its devices of this node."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from nvdra_kube.resources import NODES, PODS, RESOURCE_CLAIMS
from nvdra_nodeagent.claims.model import ClaimRef

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nvdra_kube.api import Body, Resource

READY: Final = "Ready"
_MAX_PODS: Final = 32


class DeviceKey(NamedTuple):
    """How `status.devices` tells its entries apart, but for the driver."""

    pool: str
    device: str
    share_id: str | None


@dataclass(frozen=True, slots=True)
class Target:
    """Objects as Events name them. `ready` holds the condition of those devices that have one.

    A claim that cannot be read has neither pods nor devices.
    """

    claim: Body
    resource: Resource
    pods: tuple[Body, ...] = ()
    devices: tuple[DeviceKey, ...] = ()
    ready: dict[DeviceKey, Body] | None = None


def bare_target(ref: ClaimRef) -> Target:
    """The claim by its name alone."""
    return Target(_named(RESOURCE_CLAIMS, ref.name, ref.namespace, ref.uid), RESOURCE_CLAIMS)


def uid_of(body: Body) -> str:
    return str((body.get("metadata") or {}).get("uid") or "")


def target_of(body: Body, *, driver: str, pool: str) -> Target:
    """`body` is the claim in any version of its API. Never raises: a claim whose status is not
    understood is reported by its name alone."""
    try:
        return _target_of(body, driver=driver, pool=pool)
    except (KeyError, TypeError, AttributeError):
        meta = body.get("metadata") or {}
        return bare_target(
            ClaimRef(str(meta.get("namespace")), str(meta.get("name")), str(meta.get("uid")))
        )


def _target_of(body: Body, *, driver: str, pool: str) -> Target:
    meta, status = body["metadata"], body.get("status") or {}
    version = str(body.get("apiVersion") or RESOURCE_CLAIMS.api_version).rpartition("/")[2]
    resource = replace(RESOURCE_CLAIMS, version=version)
    namespace = meta.get("namespace", "")
    results = ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()
    return Target(
        claim=_named(resource, meta["name"], namespace, meta.get("uid", "")),
        resource=resource,
        pods=tuple(
            _named(PODS, consumer["name"], namespace, consumer["uid"])
            for consumer in (status.get("reservedFor") or ())[:_MAX_PODS]
            if consumer.get("resource") == PODS.plural and not consumer.get("apiGroup")
        ),
        devices=tuple(
            dict.fromkeys(_key(r) for r in results if _is_own(r, driver=driver, pool=pool))
        ),
        ready=dict(_ready(body, driver=driver, pool=pool)),
    )


def node_target(name: str) -> Body:
    """Kubelets name a node by its name in the place of the UID, and `kubectl describe` looks so."""
    return _named(NODES, name, "", name)


def was_failing(body: Body, *, driver: str, pool: str) -> bool:
    """Whether the claim says that its devices of this node are not ready. Never raises."""
    if not (body.get("status") or {}).get("devices"):  # all claims that never failed
        return False
    ready = target_of(body, driver=driver, pool=pool).ready or {}
    return any(condition.get("status") == "False" for condition in ready.values())


def _ready(body: Body, *, driver: str, pool: str) -> Iterator[tuple[DeviceKey, Body]]:
    for entry in (body.get("status") or {}).get("devices") or ():
        if _is_own(entry, driver=driver, pool=pool):
            for condition in entry.get("conditions") or ():
                if condition.get("type") == READY:
                    yield _key(entry), condition


def _is_own(entry: Body, *, driver: str, pool: str) -> bool:
    return entry.get("driver") == driver and entry.get("pool") == pool


def _key(entry: Body) -> DeviceKey:
    return DeviceKey(entry["pool"], entry["device"], entry.get("shareID"))


def _named(resource: Resource, name: str, namespace: str, uid: str) -> Body:
    meta = {"name": name, "uid": uid, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta}
