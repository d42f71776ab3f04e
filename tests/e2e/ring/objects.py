"""Kubernetes objects that tests make, with what is always the same filled in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .images import TOOL_IMAGE, UBUNTU

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .kubectl import Manifest

PORT = 8080


def a_pod(
    name: str,
    *command: str,
    namespace: str,
    node: str = "",
    labels: Mapping[str, str] | None = None,
    **spec: Any,
) -> Manifest:
    """A pod that runs one command in the stand-in ubuntu image; ``spec`` is merged into its own."""
    container = {"name": "main", "image": UBUNTU[0], "command": list(command)}
    return _pod(name, container, namespace=namespace, node=node, labels=labels, spec=spec)


def a_server(
    name: str, *, namespace: str, node: str, labels: Mapping[str, str] | None = None
) -> Manifest:
    """A pod that answers HTTP on port 8080 with its own name."""
    container = {
        "name": "main",
        "image": TOOL_IMAGE,
        "args": ["serve", f":{PORT}"],
        "readinessProbe": {"httpGet": {"port": PORT}, "periodSeconds": 1},
    }
    return _pod(name, container, namespace=namespace, node=node, labels=labels, spec={})


def a_fetch(name: str, url: str, *, namespace: str, node: str) -> Manifest:
    """A pod that prints the body of one HTTP answer and ends."""
    container = {"name": "main", "image": TOOL_IMAGE, "args": ["fetch", url]}
    return _pod(name, container, namespace=namespace, node=node, labels=None, spec={})


def a_service(
    name: str, selector: Mapping[str, str], *, namespace: str, port: int = PORT
) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": dict(selector), "ports": [{"port": port}]},
    }


def _pod(
    name: str,
    container: Mapping[str, object],
    *,
    namespace: str,
    node: str,
    labels: Mapping[str, str] | None,
    spec: Mapping[str, object],
) -> Manifest:
    placed: dict[str, object] = {"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels or {})},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
            **placed,
            **spec,
        },
    }


def names(manifests: Sequence[Manifest]) -> list[str]:
    return [manifest["metadata"]["name"] for manifest in manifests]


def container_id(pod: Manifest) -> str:
    """``containerd://...`` of the pod's only container, another after each restart; "" before."""
    [container] = pod.get("status", {}).get("containerStatuses") or [{}]
    return str(container.get("containerID", ""))


def a_gpu_template(*, namespace: str, device_class: str = "gpu.nvidia.com") -> Manifest:
    """A claim template for one device of the class, named one-gpu."""
    request = {"name": "gpu", "exactly": {"deviceClassName": device_class}}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": "one-gpu", "namespace": namespace},
        "spec": {"spec": {"devices": {"requests": [request]}}},
    }


def a_gpu_pod(name: str, *command: str, namespace: str, node: str = "") -> Manifest:
    """A pod with a claim of its own from the template ``one-gpu``."""
    claims = [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]
    pod = a_pod(name, *command, namespace=namespace, node=node, resourceClaims=claims)
    pod["spec"]["containers"][0]["resources"] = {"claims": [{"name": "gpu"}]}
    return pod
