"""Pods that are bound to a node, and claims that are allocated, as the scheduler leaves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nvdra_kube.resources import PODS, RESOURCE_CLAIMS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nvdra_kube.api import Body, KubeApi

NODE = "n1"
NAMESPACE = "default"


def a_container(script: str = "true", *, name: str = "c", **fields: Any) -> Body:
    """A container that runs `script` in a shell; `claims` names claims of the Pod."""
    claims = [
        entry if isinstance(entry, dict) else {"name": entry} for entry in fields.pop("claims", ())
    ]
    resources = {"resources": {"claims": claims}} if claims else {}
    command = ["bash", "-c", script]
    return {"name": name, "image": "ubuntu:22.04", "command": command, **resources, **fields}


def a_bound_pod(
    name: str = "pod", *containers: Body, claims: tuple[str, ...] = (), **spec: Any
) -> Body:
    """A Pod on the node that refers to existing claims by name."""
    refs = [{"name": claim, "resourceClaimName": claim} for claim in claims]
    return {
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "nodeName": NODE,
            "restartPolicy": "Never",
            "containers": list(containers) or [a_container(claims=claims)],
            **({"resourceClaims": refs} if refs else {}),
            **spec,
        },
    }


def an_allocated_claim(name: str = "gpu", *drivers: str, pod: Body, **meta: Any) -> Body:
    """A claim with one result per driver, reserved for the Pod."""
    results = [
        {"request": "gpu", "driver": driver, "pool": "pool", "device": f"gpu-{index}"}
        for index, driver in enumerate(drivers)
    ]
    return {
        "metadata": {"name": name, "namespace": NAMESPACE, **meta},
        "spec": {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "c"}}]}},
        "status": {
            "allocation": {"devices": {"results": results}},
            "reservedFor": [reservation(pod)],
        },
    }


def reservation(pod: Body) -> Body:
    meta = pod["metadata"]
    return {"resource": "pods", "name": meta["name"], "uid": meta["uid"]}


def owned_by(pod: Body) -> list[Body]:
    """The owner reference that the claim controller sets."""
    meta = pod["metadata"]
    owner = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
    return [{**owner, "controller": True}]


async def store_claim(api: KubeApi, claim: Body) -> Body:
    """Create the claim, then write its status as the scheduler does."""
    stored = await api.create(RESOURCE_CLAIMS, claim)
    return await api.update(
        RESOURCE_CLAIMS, {**stored, "status": claim["status"]}, subresource="status"
    )


async def store_pod(
    api: KubeApi, *containers: Body, name: str = "pod", claims: tuple[str, ...] = (), **spec: Any
) -> Body:
    """A Pod bound to the node, not yet allowed to use its claims."""
    return await api.create(PODS, a_bound_pod(name, *containers, claims=claims, **spec))


async def store_pod_with_claims(
    api: KubeApi,
    *containers: Body,
    claims: Mapping[str, tuple[str, ...]],
    name: str = "pod",
    **spec: Any,
) -> Body:
    """A Pod whose claims exist, allocated from the given drivers and reserved for it."""
    pod = a_bound_pod(name, *containers, claims=tuple(claims), **spec)
    pod["spec"].pop("nodeName")
    stored = await api.create(PODS, pod)
    for claim, drivers in claims.items():
        await store_claim(api, an_allocated_claim(claim, *drivers, pod=stored))
    binding = {"metadata": {"name": name}, "target": {"kind": "Node", "name": NODE}}
    await api.create(PODS, binding, namespace=NAMESPACE, name=name, subresource="binding")
    return await api.get(PODS, name, namespace=NAMESPACE)
