"""The fields of resource.k8s.io, in the shape of v1 (and v1beta2) and in that of v1beta1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_sim.cluster.apiserver.fields.shapes import Leaf, MapOf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nvdra_sim.cluster.apiserver.fields.shapes import Shape

TEXT, NUMBER, FLAG, QUANTITY, ANY = (
    Leaf.TEXT,
    Leaf.NUMBER,
    Leaf.FLAG,
    Leaf.QUANTITY,
    Leaf.ANY,
)

_SELECTORS: Shape = [{"cel": {"expression": TEXT}}]
_TOLERATIONS: Shape = [
    {"key": TEXT, "operator": TEXT, "value": TEXT, "effect": TEXT, "tolerationSeconds": NUMBER}
]
_OPAQUE: Shape = {"driver": TEXT, "parameters": ANY}

_SUB_REQUEST: Mapping[str, Shape] = {
    "name": TEXT,
    "deviceClassName": TEXT,
    "selectors": _SELECTORS,
    "allocationMode": TEXT,
    "count": NUMBER,
    "tolerations": _TOLERATIONS,
    "capacity": {"requests": MapOf(QUANTITY)},
}
_EXACT: Mapping[str, Shape] = {
    **{name: shape for name, shape in _SUB_REQUEST.items() if name != "name"},
    "adminAccess": FLAG,
}
_REQUEST: Shape = {"name": TEXT, "exactly": _EXACT, "firstAvailable": [_SUB_REQUEST]}
_FLAT_REQUEST: Shape = {"name": TEXT, **_EXACT, "firstAvailable": [_SUB_REQUEST]}


def _claim_spec(request: Shape) -> Shape:
    return {
        "devices": {
            "requests": [request],
            "constraints": [
                {"requests": [TEXT], "matchAttribute": TEXT, "distinctAttribute": TEXT}
            ],
            "config": [{"requests": [TEXT], "opaque": _OPAQUE}],
        }
    }


_RESULT: Shape = {
    "request": TEXT,
    "driver": TEXT,
    "pool": TEXT,
    "device": TEXT,
    "adminAccess": FLAG,
    "tolerations": _TOLERATIONS,
    "bindingConditions": [TEXT],
    "bindingFailureConditions": [TEXT],
    "shareID": TEXT,
    "consumedCapacity": MapOf(QUANTITY),
    "skipNodeOperations": [TEXT],
}
_CLAIM_STATUS: Shape = {
    "allocation": {
        "devices": {
            "results": [_RESULT],
            "config": [{"source": TEXT, "requests": [TEXT], "opaque": _OPAQUE}],
        },
        "nodeSelector": ANY,
        "allocationTimestamp": TEXT,
    },
    "reservedFor": [{"apiGroup": TEXT, "resource": TEXT, "name": TEXT, "uid": TEXT}],
    "devices": [
        {
            "driver": TEXT,
            "pool": TEXT,
            "device": TEXT,
            "shareID": TEXT,
            "conditions": [
                {
                    "type": TEXT,
                    "status": TEXT,
                    "observedGeneration": NUMBER,
                    "lastTransitionTime": TEXT,
                    "reason": TEXT,
                    "message": TEXT,
                }
            ],
            "data": ANY,
            "networkData": {"interfaceName": TEXT, "ips": [TEXT], "hardwareAddress": TEXT},
        }
    ],
}

_COUNTERS: Shape = MapOf({"value": QUANTITY})
_DEVICE: Mapping[str, Shape] = {
    "attributes": MapOf(
        {
            "int": NUMBER,
            "bool": FLAG,
            "string": TEXT,
            "version": TEXT,
            "ints": [NUMBER],
            "bools": [FLAG],
            "strings": [TEXT],
            "versions": [TEXT],
        }
    ),
    "capacity": MapOf(
        {
            "value": QUANTITY,
            "requestPolicy": {
                "default": QUANTITY,
                "validValues": [QUANTITY],
                "validRange": {"min": QUANTITY, "max": QUANTITY, "step": QUANTITY},
            },
        }
    ),
    "consumesCounters": [{"counterSet": TEXT, "counters": _COUNTERS}],
    "nodeName": TEXT,
    "nodeSelector": ANY,
    "allNodes": FLAG,
    "taints": [{"key": TEXT, "value": TEXT, "effect": TEXT, "timeAdded": TEXT}],
    "bindsToNode": FLAG,
    "bindingConditions": [TEXT],
    "bindingFailureConditions": [TEXT],
    "allowMultipleAllocations": FLAG,
    "nodeAllocatableResourceMappings": ANY,
}


def _slice_spec(device: Shape) -> Shape:
    return {
        "driver": TEXT,
        "pool": {"name": TEXT, "generation": NUMBER, "resourceSliceCount": NUMBER},
        "nodeName": TEXT,
        "nodeSelector": ANY,
        "allNodes": FLAG,
        "perDeviceNodeSelection": FLAG,
        "devices": [device],
        "sharedCounters": [{"name": TEXT, "counters": _COUNTERS}],
    }


def _kinds(request: Shape, device: Shape) -> Mapping[str, Mapping[str, Shape]]:
    spec = _claim_spec(request)
    return {
        "ResourceClaim": {"spec": spec, "status": _CLAIM_STATUS},
        "ResourceClaimTemplate": {"spec": {"metadata": ANY, "spec": spec}},
        "DeviceClass": {
            "spec": {
                "selectors": _SELECTORS,
                "config": [{"opaque": _OPAQUE}],
                "extendedResourceName": TEXT,
            }
        },
        "ResourceSlice": {"spec": _slice_spec(device)},
    }


_V1 = _kinds(_REQUEST, {"name": TEXT, **_DEVICE})
CLAIM_SHAPES: Mapping[str, Mapping[str, Mapping[str, Shape]]] = {
    "v1": _V1,
    "v1beta2": _V1,
    "v1beta1": _kinds(_FLAT_REQUEST, {"name": TEXT, "basic": _DEVICE}),
}
"""By version and kind; apiVersion, kind and metadata left out."""
