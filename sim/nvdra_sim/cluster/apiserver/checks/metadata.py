"""Rules for the metadata of every object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_sim.cluster.apiserver.checks.findings import Findings, each, part

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.catalog import ResourceType
    from nvdra_sim.cluster.apiserver.refusals import Problem

_MAX_ANNOTATIONS = 256 * 1024
# Names that become DNS labels by themselves; all others may have dots.
_LABEL_NAMES = frozenset({("", "namespaces"), ("", "services")})
_PATH_NAMES = frozenset({"rbac.authorization.k8s.io"})


def metadata_problems(kind: ResourceType, body: Body) -> list[Problem]:
    findings = Findings()
    meta = body["metadata"]
    _check_name(kind, meta, findings)
    for key, value in part(meta, "labels").items():
        findings.qualified("metadata.labels", key)
        findings.label_value("metadata.labels", value)
    size = 0
    for key, value in part(meta, "annotations").items():
        findings.qualified("metadata.annotations", key.lower())
        size += len(key) + len(str(value))
    if size > _MAX_ANNOTATIONS:
        findings.not_longer("metadata.annotations", " " * size, _MAX_ANNOTATIONS)
    for path, owner in each(meta, "ownerReferences", "metadata"):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                findings.invalid(f"{path}.{field}", "", f"{field} must not be empty")
    for position, name in enumerate(meta.get("finalizers") or ()):
        findings.qualified(f"metadata.finalizers[{position}]", name)
    controllers = [o for _, o in each(meta, "ownerReferences", "metadata") if o.get("controller")]
    if len(controllers) > 1:
        why = "Only one reference can have Controller set to true"
        findings.invalid("metadata.ownerReferences", len(controllers), why)
    return findings.problems


def _check_name(kind: ResourceType, meta: Body, findings: Findings) -> None:
    name = meta["name"]
    if kind.group in _PATH_NAMES:
        if "/" in name or "%" in name or name in (".", ".."):
            findings.invalid("metadata.name", name, "may not contain '/' or '%'")
    elif kind.key in _LABEL_NAMES:
        findings.label("metadata.name", name)
    else:
        findings.subdomain("metadata.name", name)
