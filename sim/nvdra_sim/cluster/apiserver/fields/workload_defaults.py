"""What the server fills into pods, their controllers, and the other core objects."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nvdra_kube.api import Body

_POD_DEFAULTS: Body = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler",
}
_ADMITTED_POD: Body = {
    "serviceAccountName": "default",
    "enableServiceLinks": True,
    "preemptionPolicy": "PreemptLowerPriority",
    "priority": 0,
}
_EVICTING_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def default_pod(body: Body, now: str) -> None:
    spec = body.get("spec")
    if isinstance(spec, dict):
        _default_pod_spec(spec)
        _fill(spec, _ADMITTED_POD)
        _tolerate_lost_nodes(spec)


def start_pod(body: Body, now: str) -> None:
    body["status"] = {"phase": "Pending", "qosClass": _qos_class(body["spec"])}


def _tolerate_lost_nodes(spec: Body) -> None:
    """For five minutes; on updates too, so that manifests applied again need not say it."""
    tolerations = spec.setdefault("tolerations", [])
    if isinstance(tolerations, list):
        tolerated = {item.get("key") for item in tolerations if isinstance(item, dict)}
        tolerations += [
            {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            for key in _EVICTING_TAINTS
            if not tolerated & {key, None}
        ]


def default_template_owner(body: Body, now: str) -> None:
    """Deployments, daemon sets, replica sets."""
    spec = body.get("spec")
    if not isinstance(spec, dict):
        return
    if body["kind"] != "DaemonSet":
        _fill(spec, {"replicas": 1})
    _fill(spec, _STRATEGIES.get(body["kind"], {}))
    _default_template(spec)


_STRATEGIES: dict[str, Body] = {
    "Deployment": {
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
        },
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
    },
    "DaemonSet": {
        "updateStrategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
        },
        "revisionHistoryLimit": 10,
    },
}


def default_job(body: Body, now: str) -> None:
    spec = body.get("spec")
    if not isinstance(spec, dict):
        return
    if not spec.get("completions") and not spec.get("parallelism"):
        spec["completions"] = 1
    _fill(
        spec,
        {
            "parallelism": 1,
            "backoffLimit": 6,
            "completionMode": "NonIndexed",
            "manualSelector": False,
            "suspend": False,
        },
    )
    _default_template(spec)


def start_job(body: Body, now: str) -> None:
    """Pods of a job are found by labels that the server makes of the job's uid."""
    spec = body.get("spec")
    if not isinstance(spec, dict) or spec.get("manualSelector"):
        return
    meta = body["metadata"]
    labels = {
        "batch.kubernetes.io/controller-uid": meta["uid"],
        "batch.kubernetes.io/job-name": meta["name"],
        "controller-uid": meta["uid"],
        "job-name": meta["name"],
    }
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": meta["uid"]}}
    template = spec.get("template")
    if isinstance(template, dict):
        template_meta = template.setdefault("metadata", {})
        template_meta["labels"] = {**(template_meta.get("labels") or {}), **labels}


def start_namespace(body: Body, now: str) -> None:
    body["spec"] = {"finalizers": ["kubernetes"]}
    body["status"] = {"phase": "Active"}
    meta = body["metadata"]
    meta.setdefault("labels", {})["kubernetes.io/metadata.name"] = meta["name"]


def default_secret(body: Body, now: str) -> None:
    _fill(body, {"type": "Opaque"})
    given = body.pop("stringData", None)
    if isinstance(given, dict):
        encoded = {
            name: base64.b64encode(str(value).encode()).decode() for name, value in given.items()
        }
        body["data"] = {**(body.get("data") or {}), **encoded}


def default_service(body: Body, now: str) -> None:
    spec = body.get("spec")
    if isinstance(spec, dict):
        _fill(spec, {"type": "ClusterIP", "sessionAffinity": "None"})
        for port in spec.get("ports") or ():
            if isinstance(port, dict):
                target = {"targetPort": port["port"]} if "port" in port else {}
                _fill(port, {"protocol": "TCP", **target})


def default_crd(body: Body, now: str) -> None:
    spec = body.get("spec")
    if not isinstance(spec, dict):
        return
    names = spec.get("names")
    if isinstance(names, dict) and isinstance(names.get("kind"), str):
        _fill(names, {"singular": names["kind"].lower(), "listKind": f"{names['kind']}List"})
    _fill(spec, {"conversion": {"strategy": "None"}})


def start_crd(body: Body, now: str) -> None:
    """There is no other controller here that could establish a definition."""
    spec = body["spec"]
    body["status"] = {
        "acceptedNames": spec["names"],
        "storedVersions": [v["name"] for v in spec["versions"] if v.get("storage")],
        "conditions": [
            {
                "type": name,
                "status": "True",
                "lastTransitionTime": now,
                "reason": reason,
                "message": message,
            }
            for name, reason, message in (
                ("NamesAccepted", "NoConflicts", "no conflicts found"),
                ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            )
        ],
    }


def _default_template(spec: Body) -> None:
    template = spec.get("template")
    if isinstance(template, dict) and isinstance(template.get("spec"), dict):
        _default_pod_spec(template["spec"])


def _default_pod_spec(spec: Body) -> None:
    _fill(spec, _POD_DEFAULTS)
    spec.setdefault("securityContext", {})
    for field in ("initContainers", "containers"):
        for container in spec.get(field) or ():
            if isinstance(container, dict):
                _default_container(container)


def _default_container(container: Body) -> None:
    image = container.get("image")
    latest = isinstance(image, str) and ":" not in image.rsplit("/", 1)[-1]
    latest = latest or (isinstance(image, str) and image.endswith(":latest"))
    _fill(
        container,
        {
            "resources": {},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "imagePullPolicy": "Always" if latest else "IfNotPresent",
        },
    )
    for port in container.get("ports") or ():
        if isinstance(port, dict):
            _fill(port, {"protocol": "TCP"})


def _qos_class(spec: Body) -> str:
    containers = [c for c in spec.get("containers") or () if isinstance(c, dict)]
    resources = [c.get("resources") or {} for c in containers]
    if not any(r.get("requests") or r.get("limits") for r in resources):
        return "BestEffort"
    limited = all({"cpu", "memory"} <= set(r.get("limits") or {}) for r in resources)
    equal = all((r.get("requests") or r.get("limits")) == r.get("limits") for r in resources)
    return "Guaranteed" if limited and equal else "Burstable"


def _fill(owner: Body, defaults: Body) -> None:
    for name, value in defaults.items():
        if owner.get(name) is None:
            owner[name] = _copied(value)


def _copied(value: Any) -> Any:
    """Defaults are shared constants; objects must not be."""
    if isinstance(value, dict):
        return {name: _copied(item) for name, item in value.items()}
    return list(value) if isinstance(value, list) else value
