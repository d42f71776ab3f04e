"""Objects and resources for tests of the embedded API server itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from nvdra_kube.api import Resource
from nvdra_kube.resources import PODS

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver import LocalApi

CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
SECRETS: Final = Resource("", "v1", "secrets", "Secret")
SERVICES: Final = Resource("", "v1", "services", "Service")
DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", "Deployment")
DEFINITIONS: Final = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
)
WIDGETS: Final = Resource("example.com", "v1", "widgets", "Widget")


def a_config_map(name: str = "config", *, namespace: str = "default", **data: str) -> Body:
    return {"metadata": {"name": name, "namespace": namespace}, "data": data}


def a_deployment(name: str = "web", **spec: Any) -> Body:
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "ctr", "image": "ubuntu:22.04"}]},
    }
    selector = {"matchLabels": {"app": name}}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": selector, "template": template, **spec},
    }


def a_definition(schema: Body | None = None, **version: Any) -> Body:
    """Widgets: namespaced, with a status subresource and a small schema."""
    properties = schema or {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1},
                "mode": {"type": "string", "enum": ["Single", "All"], "default": "Single"},
            },
            "x-kubernetes-validations": [
                {"rule": "self == oldSelf", "message": "A widget.spec is immutable"}
            ],
        },
        "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
    }
    return {
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
                    **version,
                }
            ],
        },
    }


async def a_bound_pod(api: LocalApi, body: Body, node: str = "node-a") -> Body:
    """A pod that has its node, so that deleting it takes a kubelet."""
    created = await api.create(PODS, body)
    meta = created["metadata"]
    binding = {"target": {"kind": "Node", "name": node}}
    await api.create(
        PODS, binding, namespace=meta["namespace"], name=meta["name"], subresource="binding"
    )
    return await api.get(PODS, meta["name"], namespace=meta["namespace"])
