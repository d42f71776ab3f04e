"""The objects that a ComputeDomain consists of, as they have to be."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from nvdra_api.configs import (
    ComputeDomainChannelConfig,
    ComputeDomainDaemonConfig,
    encode_config,
)
from nvdra_api.domains import ALLOCATION_SINGLE
from nvdra_api.names import (
    ANNOTATION_DOMAIN_NAME,
    ANNOTATION_DOMAIN_NAMESPACE,
    ANNOTATION_PROTOCOL,
    ANNOTATION_TEMPLATE,
    COMPUTE_DOMAIN_CHANNEL_CLASS,
    COMPUTE_DOMAIN_DAEMON_CLASS,
    COMPUTE_DOMAIN_DAEMON_SERVICE_ACCOUNT,
    COMPUTE_DOMAIN_DRIVER,
    CONTAINER_IMEX_DAEMON,
    IMEX_LIVE_PATH,
    IMEX_PROBE_PORT,
    IMEX_READY_PATH,
    IMEX_STARTUP_PATH,
    LABEL_CLAIM_TEMPLATE_TARGET,
    LABEL_COMPUTE_DOMAIN,
    PROTOCOL_VERSION,
    TARGET_DAEMON,
    TARGET_WORKLOAD,
    daemon_set_name,
)
from nvdra_kube.resources import RESOURCE_CLAIM_TEMPLATES
from nvdra_operator.resources import DAEMON_SETS

if TYPE_CHECKING:
    from nvdra_api.configs import OpaqueConfig
    from nvdra_kube.api import Body
    from nvdra_operator.settings import DriverSettings

DAEMON_PROGRAM: Final = "nvdra-imex-daemon"
_DAEMON_REQUEST: Final = "daemon"
_CHANNEL_REQUEST: Final = "channel"
_EFFECTS: Final = ("NoSchedule", "NoExecute", "PreferNoSchedule")
# The daemon itself is small; nvidia-imex takes the most. No limits: a domain must not die of them.
_REQUESTS: Final = {"cpu": "20m", "memory": "64Mi"}


def workload_template_name(domain: Body) -> str:
    """The name that the user chose; empty for an object without a spec."""
    channel = (domain.get("spec") or {}).get("channel") or {}
    return str((channel.get("resourceClaimTemplate") or {}).get("name") or "")


def allocation_mode(domain: Body, settings: DriverSettings) -> str:
    """Daemons that the host runs know nothing of domains: one channel each."""
    channel = (domain.get("spec") or {}).get("channel") or {}
    wanted = "" if settings.host_managed else channel.get("allocationMode")
    return wanted or ALLOCATION_SINGLE


def workload_template(domain: Body, settings: DriverSettings) -> Body:
    """The claim template for the pods of the user's job, in the domain's own namespace."""
    uid = domain["metadata"]["uid"]
    return _claim_template(
        name=workload_template_name(domain),
        namespace=domain["metadata"]["namespace"],
        uid=uid,
        target=TARGET_WORKLOAD,
        request=_CHANNEL_REQUEST,
        device_class=COMPUTE_DOMAIN_CHANNEL_CLASS,
        config=ComputeDomainChannelConfig(
            domain_id=uid, allocation_mode=allocation_mode(domain, settings)
        ),
    )


def daemon_template(domain: Body, settings: DriverSettings) -> Body:
    """The claim template for the IMEX daemons, in the driver's namespace."""
    uid = domain["metadata"]["uid"]
    return _claim_template(
        name=daemon_set_name(uid),
        namespace=settings.namespace,
        uid=uid,
        target=TARGET_DAEMON,
        request=_DAEMON_REQUEST,
        device_class=COMPUTE_DOMAIN_DAEMON_CLASS,
        config=ComputeDomainDaemonConfig(domain_id=uid),
    )


def daemon_set(domain: Body, settings: DriverSettings) -> Body:
    """One IMEX daemon on each node that bears the domain's label."""
    meta = domain["metadata"]
    template = _pod_template(domain, settings)
    labels = {LABEL_COMPUTE_DOMAIN: meta["uid"]}
    return {
        "apiVersion": DAEMON_SETS.api_version,
        "kind": DAEMON_SETS.kind,
        "metadata": {
            "name": daemon_set_name(meta["uid"]),
            "namespace": settings.namespace,
            "labels": labels,
            "annotations": {
                ANNOTATION_PROTOCOL: PROTOCOL_VERSION,
                ANNOTATION_TEMPLATE: digest_of(template),
                ANNOTATION_DOMAIN_NAME: meta["name"],
                ANNOTATION_DOMAIN_NAMESPACE: meta["namespace"],
            },
        },
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


def digest_of(template: Body) -> str:
    """Tells whether pods were made from what the driver wants today."""
    text = json.dumps(template, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _claim_template(
    *,
    name: str,
    namespace: str,
    uid: str,
    target: str,
    request: str,
    device_class: str,
    config: OpaqueConfig,
) -> Body:
    opaque = {"driver": COMPUTE_DOMAIN_DRIVER, "parameters": encode_config(config)}
    return {
        "apiVersion": RESOURCE_CLAIM_TEMPLATES.api_version,
        "kind": RESOURCE_CLAIM_TEMPLATES.kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {LABEL_COMPUTE_DOMAIN: uid, LABEL_CLAIM_TEMPLATE_TARGET: target},
        },
        "spec": {
            "spec": {
                "devices": {
                    "requests": [{"name": request, "exactly": {"deviceClassName": device_class}}],
                    "config": [{"requests": [request], "opaque": opaque}],
                }
            }
        },
    }


def _pod_template(domain: Body, settings: DriverSettings) -> Body:
    meta = domain["metadata"]
    labels = {LABEL_COMPUTE_DOMAIN: meta["uid"]}
    claim = {
        "name": CONTAINER_IMEX_DAEMON,
        "resourceClaimTemplateName": daemon_set_name(meta["uid"]),
    }
    spec: Body = {
        "serviceAccountName": COMPUTE_DOMAIN_DAEMON_SERVICE_ACCOUNT,
        # The daemon talks to nobody but its peers; a token would only be one to steal.
        "automountServiceAccountToken": False,
        "priorityClassName": "system-node-critical",
        "nodeSelector": labels,
        "tolerations": [{"operator": "Exists", "effect": effect} for effect in _EFFECTS],
        # Names of daemons have no dots: with the usual 5 each look-up would go to the cluster DNS.
        "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
        "resourceClaims": [claim],
        "containers": [_container(settings)],
    }
    if settings.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.pull_secrets]
    annotations = {
        ANNOTATION_PROTOCOL: PROTOCOL_VERSION,
        ANNOTATION_DOMAIN_NAME: meta["name"],
        ANNOTATION_DOMAIN_NAMESPACE: meta["namespace"],
    }
    return {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}


def _container(settings: DriverSettings) -> Body:
    return {
        "name": CONTAINER_IMEX_DAEMON,
        "image": settings.image,
        "command": [DAEMON_PROGRAM],
        # It writes /etc/hosts, and nvidia-imex opens devices of root; the image's user may neither.
        "securityContext": {"runAsUser": 0, "runAsGroup": 0},
        "env": _environment(settings),
        "resources": {"requests": _REQUESTS, "claims": [{"name": CONTAINER_IMEX_DAEMON}]},
        "startupProbe": _probe(IMEX_STARTUP_PATH, period_s=1, failures=1200),
        "readinessProbe": _probe(IMEX_READY_PATH, period_s=5, failures=1),
        "livenessProbe": _probe(IMEX_LIVE_PATH, period_s=60, failures=20),
    }


def _environment(settings: DriverSettings) -> list[Body]:
    fixed = {
        "LOG_VERBOSITY": str(settings.daemon_verbosity),
        "MAX_NODES_PER_IMEX_DOMAIN": str(settings.max_nodes),
        "NVIDIA_VISIBLE_DEVICES": "void",
        "FEATURE_GATES": str(settings.gates),
    }
    from_pod = {
        "NODE_NAME": "spec.nodeName",
        "POD_IP": "status.podIP",
        "POD_UID": "metadata.uid",
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
    }
    found: list[Body] = [{"name": name, "value": value} for name, value in fixed.items()]
    return found + [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for name, path in from_pod.items()
    ]


def _probe(path: str, *, period_s: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": IMEX_PROBE_PORT},
        "periodSeconds": period_s,
        "timeoutSeconds": 10,
        "failureThreshold": failures,
        "successThreshold": 1,
    }
