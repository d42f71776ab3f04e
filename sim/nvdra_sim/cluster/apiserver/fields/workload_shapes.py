"""The fields of pods and their controllers, down to where mistakes in manifests are made."""

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

METADATA: Shape = {
    "name": TEXT,
    "generateName": TEXT,
    "namespace": TEXT,
    "selfLink": TEXT,
    "uid": TEXT,
    "resourceVersion": TEXT,
    "generation": NUMBER,
    "creationTimestamp": TEXT,
    "deletionTimestamp": TEXT,
    "deletionGracePeriodSeconds": NUMBER,
    "labels": MapOf(TEXT),
    "annotations": MapOf(TEXT),
    "ownerReferences": [
        {
            "apiVersion": TEXT,
            "kind": TEXT,
            "name": TEXT,
            "uid": TEXT,
            "controller": FLAG,
            "blockOwnerDeletion": FLAG,
        }
    ],
    "finalizers": [TEXT],
    "managedFields": ANY,
}


def _fields(shape: Shape, names: str) -> Mapping[str, Shape]:
    """Fields of one shape, their names parted by blanks."""
    return dict.fromkeys(names.split(), shape)


_CONTAINER: Shape = {
    **_fields(
        ANY,
        "envFrom lifecycle livenessProbe readinessProbe startupProbe resizePolicy"
        " restartPolicyRules securityContext volumeDevices targetContainerName",
    ),
    "name": TEXT,
    "image": TEXT,
    "imagePullPolicy": TEXT,
    "command": [TEXT],
    "args": [TEXT],
    "workingDir": TEXT,
    "env": [{"name": TEXT, "value": TEXT, "valueFrom": ANY}],
    "ports": [
        {
            "name": TEXT,
            "containerPort": NUMBER,
            "hostPort": NUMBER,
            "hostIP": TEXT,
            "protocol": TEXT,
        }
    ],
    "resources": {
        "limits": MapOf(QUANTITY),
        "requests": MapOf(QUANTITY),
        "claims": [{"name": TEXT, "request": TEXT}],
    },
    "restartPolicy": TEXT,
    "stdin": FLAG,
    "stdinOnce": FLAG,
    "tty": FLAG,
    "terminationMessagePath": TEXT,
    "terminationMessagePolicy": TEXT,
    "volumeMounts": [
        {
            **_fields(ANY, "mountPropagation recursiveReadOnly"),
            "name": TEXT,
            "mountPath": TEXT,
            "readOnly": FLAG,
            "subPath": TEXT,
            "subPathExpr": TEXT,
        }
    ],
}
_POD_SPEC: Mapping[str, Shape] = {
    **_fields(
        ANY,
        "affinity dnsConfig hostAliases os readinessGates schedulingGates securityContext"
        " topologySpreadConstraints volumes workloadRef schedulingGroup",
    ),
    **_fields(
        TEXT,
        "dnsPolicy hostname hostnameOverride nodeName preemptionPolicy"
        " priorityClassName restartPolicy runtimeClassName schedulerName"
        " serviceAccount serviceAccountName subdomain",
    ),
    **_fields(NUMBER, "activeDeadlineSeconds priority terminationGracePeriodSeconds"),
    **_fields(
        FLAG,
        "automountServiceAccountToken enableServiceLinks hostIPC hostNetwork"
        " hostPID hostUsers setHostnameAsFQDN shareProcessNamespace",
    ),
    "containers": [_CONTAINER],
    "initContainers": [_CONTAINER],
    "ephemeralContainers": [_CONTAINER],
    "imagePullSecrets": [{"name": TEXT}],
    "nodeSelector": MapOf(TEXT),
    "overhead": MapOf(QUANTITY),
    "resources": {
        "limits": MapOf(QUANTITY),
        "requests": MapOf(QUANTITY),
        "claims": [{"name": TEXT, "request": TEXT}],
    },
    "resourceClaims": [
        {
            "name": TEXT,
            "resourceClaimName": TEXT,
            "resourceClaimTemplateName": TEXT,
            "podGroupResourceClaim": TEXT,
        }
    ],
    "tolerations": [
        {"key": TEXT, "operator": TEXT, "value": TEXT, "effect": TEXT, "tolerationSeconds": NUMBER}
    ],
}
_TEMPLATE: Shape = {"metadata": METADATA, "spec": _POD_SPEC}
_SELECTOR: Shape = {
    "matchLabels": MapOf(TEXT),
    "matchExpressions": [{"key": TEXT, "operator": TEXT, "values": [TEXT]}],
}
_OWNER: Mapping[str, Shape] = {
    "selector": _SELECTOR,
    "template": _TEMPLATE,
    "minReadySeconds": NUMBER,
}

WORKLOAD_SHAPES: Mapping[str, Mapping[str, Shape]] = {
    "Pod": {"spec": _POD_SPEC, "status": ANY},
    "Deployment": {
        "spec": {
            **_OWNER,
            "replicas": NUMBER,
            "strategy": ANY,
            "revisionHistoryLimit": NUMBER,
            "paused": FLAG,
            "progressDeadlineSeconds": NUMBER,
        },
        "status": ANY,
    },
    "DaemonSet": {
        "spec": {**_OWNER, "updateStrategy": ANY, "revisionHistoryLimit": NUMBER},
        "status": ANY,
    },
    "ReplicaSet": {"spec": {**_OWNER, "replicas": NUMBER}, "status": ANY},
    "Job": {
        "spec": {
            **_fields(ANY, "podFailurePolicy successPolicy"),
            "selector": _SELECTOR,
            "template": _TEMPLATE,
            **_fields(
                NUMBER,
                "parallelism completions activeDeadlineSeconds backoffLimit"
                " maxFailedIndexes backoffLimitPerIndex ttlSecondsAfterFinished",
            ),
            "manualSelector": FLAG,
            "suspend": FLAG,
            "completionMode": TEXT,
            "podReplacementPolicy": TEXT,
            "managedBy": TEXT,
        },
        "status": ANY,
    },
    "Service": {
        "spec": {
            **_fields(
                ANY,
                "clusterIPs externalIPs ipFamilies loadBalancerSourceRanges sessionAffinityConfig",
            ),
            **_fields(
                TEXT,
                "clusterIP externalName externalTrafficPolicy internalTrafficPolicy"
                " ipFamilyPolicy loadBalancerClass loadBalancerIP sessionAffinity"
                " trafficDistribution type",
            ),
            **_fields(FLAG, "allocateLoadBalancerNodePorts publishNotReadyAddresses"),
            "healthCheckNodePort": NUMBER,
            "selector": MapOf(TEXT),
            "ports": [
                {
                    **_fields(TEXT, "name protocol appProtocol"),
                    **_fields(NUMBER, "port nodePort"),
                    "targetPort": ANY,
                }
            ],
        },
        "status": ANY,
    },
    "Secret": {
        "data": MapOf(TEXT),
        "stringData": MapOf(TEXT),
        "type": TEXT,
        "immutable": FLAG,
    },
    "CustomResourceDefinition": {
        "spec": {
            "group": TEXT,
            "scope": TEXT,
            "names": {
                **_fields(TEXT, "plural singular kind listKind"),
                "shortNames": [TEXT],
                "categories": [TEXT],
            },
            "versions": [
                {
                    **_fields(TEXT, "name deprecationWarning"),
                    **_fields(FLAG, "served storage deprecated"),
                    "schema": {"openAPIV3Schema": ANY},
                    "subresources": {"status": ANY, "scale": ANY},
                    "additionalPrinterColumns": ANY,
                    "selectableFields": ANY,
                }
            ],
            "conversion": ANY,
            "preserveUnknownFields": FLAG,
        },
        "status": ANY,
    },
    "Namespace": {"spec": {"finalizers": [TEXT]}, "status": ANY},
    "ConfigMap": {"data": MapOf(TEXT), "binaryData": MapOf(TEXT), "immutable": FLAG},
}
"""By kind; apiVersion, kind and metadata left out."""
