"""Admin access to devices: allowed only in namespaces that an administrator labelled for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_sim.cluster.apiserver.checks.findings import Findings, each, part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.refusals import Problem

_LABEL = "resource.kubernetes.io/admin-access"


def admin_access_problems(body: Body, namespace_labels: Mapping[str, str]) -> list[Problem]:
    """For ResourceClaims and their templates; other kinds have no such requests."""
    findings = Findings()
    if namespace_labels.get(_LABEL) == "true":
        return []
    spec, path = part(body, "spec"), "spec"
    if body["kind"] == "ResourceClaimTemplate":
        spec, path = part(spec, "spec"), "spec.spec"
    for here, request in each(part(spec, "devices"), "requests", f"{path}.devices"):
        if part(request, "exactly").get("adminAccess"):
            why = (
                f"admin access to devices requires the `{_LABEL}: true` label on the containing"
                " namespace"
            )
            findings.forbidden(f"{here}.adminAccess", why)
    return findings.problems
