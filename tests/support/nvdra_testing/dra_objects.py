"""Builders of v1 objects for allocation: devices, slices, classes, claims, pods, nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from nvdra_kube.api import Body

GPU_DRIVER = "gpu.nvidia.com"


def a_node(name: str = "node-a", *, labels: Mapping[str, str] | None = None, **spec: Any) -> Body:
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


def a_device(name: str, *, attributes: Mapping[str, Any] | None = None, **extra: Any) -> Body:
    """A device; attribute values are plain: bool, int, str, or a complete value object."""
    values = {"type": "gpu", **(attributes or {})}
    memory = extra.pop("memory", "80Gi")
    return {
        "name": name,
        "attributes": {key: _value(value) for key, value in values.items()},
        "capacity": {"memory": memory if isinstance(memory, dict) else {"value": memory}},
        **extra,
    }


def a_mig(name: str, *, profile: str = "1g.5gb", parent: str = "GPU-0", **extra: Any) -> Body:
    attributes = {"type": "mig", "profile": profile, "parentUUID": parent}
    return a_device(name, attributes=attributes, memory="5Gi", **extra)


def some_gpus(count: int) -> list[Body]:
    return [
        a_device(f"gpu-{index}", attributes={"uuid": f"GPU-{index}", "index": index})
        for index in range(count)
    ]


def a_slice(
    devices: Iterable[Body],
    *,
    node: str = "node-a",
    name: str = "",
    driver: str = GPU_DRIVER,
    pool: str = "",
    generation: int = 1,
    of: int = 1,
    **spec: Any,
) -> Body:
    """A slice of the node's pool; `of` is the number of slices in the pool."""
    placement = (
        {}
        if spec.keys() & {"allNodes", "nodeSelector", "perDeviceNodeSelection"}
        else {"nodeName": node}
    )
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": name or f"{node}-{driver}-0"},
        "spec": {
            "driver": driver,
            "pool": {"name": pool or node, "generation": generation, "resourceSliceCount": of},
            **placement,
            "devices": list(devices),
            **spec,
        },
    }


def a_class(
    name: str = GPU_DRIVER, *selectors: str, config: Sequence[Body] = (), **spec: Any
) -> Body:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": name},
        "spec": {
            **({"selectors": _cel(selectors)} if selectors else {}),
            **({"config": list(config)} if config else {}),
            **spec,
        },
    }


def nvidia_classes() -> dict[str, Body]:
    """The classes that the chart installs, as far as tests here need them."""
    text = "device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].type == '%s'"
    return {
        "gpu.nvidia.com": a_class("gpu.nvidia.com", text % "gpu"),
        "mig.nvidia.com": a_class("mig.nvidia.com", text % "mig"),
    }


def a_request(
    name: str = "gpu",
    *selectors: str,
    device_class: str = GPU_DRIVER,
    **extra: Any,
) -> Body:
    return {"name": name, "exactly": _wanted(selectors, device_class, extra)}


def first_available(name: str, *alternatives: Body) -> Body:
    """A prioritised list; the alternatives come from `a_request`."""
    flat = [{"name": each["name"], **each["exactly"]} for each in alternatives]
    return {"name": name, "firstAvailable": flat}


def a_claim(
    name: str = "claim",
    *requests: Body,
    namespace: str = "default",
    constraints: Sequence[Body] = (),
    config: Sequence[Body] = (),
) -> Body:
    """A claim; without requests it asks for one GPU."""
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": claim_spec(*requests, constraints=constraints, config=config),
    }


def claim_spec(
    *requests: Body, constraints: Sequence[Body] = (), config: Sequence[Body] = ()
) -> Body:
    devices: Body = {"requests": list(requests) or [a_request()]}
    if constraints:
        devices["constraints"] = list(constraints)
    if config:
        devices["config"] = list(config)
    return {"devices": devices}


def a_claim_template(name: str = "single-gpu", *requests: Body, namespace: str = "default") -> Body:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"spec": claim_spec(*requests)},
    }


def opaque(*, requests: Sequence[str] = (), driver: str = GPU_DRIVER, **parameters: Any) -> Body:
    """A config entry of a claim or class."""
    entry: Body = {"opaque": {"driver": driver, "parameters": parameters}}
    return {"requests": list(requests), **entry} if requests else entry


def allocated(claim: Body, allocation: Body) -> Body:
    return {**claim, "status": {"allocation": allocation}}


def a_pod(
    name: str = "pod",
    *,
    namespace: str = "default",
    claim: str = "",
    template: str = "",
    **spec: Any,
) -> Body:
    """A pod whose only container uses one claim, by name or from a template."""
    sources: list[Body] = []
    if claim:
        sources = [{"name": "gpu", "resourceClaimName": claim}]
    if template:
        sources = [{"name": "gpu", "resourceClaimTemplateName": template}]
    container: Body = {"name": "ctr", "image": "ubuntu:22.04", "command": ["true"]}
    if sources:
        container["resources"] = {"claims": [{"name": "gpu"}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [container], "resourceClaims": sources, **spec},
    }


def _wanted(selectors: Sequence[str], device_class: str, extra: Mapping[str, Any]) -> Body:
    wanted: Body = {"deviceClassName": device_class, **extra}
    if selectors:
        wanted["selectors"] = _cel(selectors)
    return wanted


def _cel(expressions: Iterable[str]) -> list[Body]:
    return [{"cel": {"expression": expression}} for expression in expressions]


def _value(value: Any) -> Body:
    if isinstance(value, dict):
        return value
    kind = {bool: "bool", int: "int", str: "string"}[type(value)]
    return {kind: value}
