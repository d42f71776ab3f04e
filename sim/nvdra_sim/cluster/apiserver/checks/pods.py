"""Rules for pods, as far as mistakes in manifests about devices go, and for what makes pods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_sim.cluster.apiserver.bodies import own
from nvdra_sim.cluster.apiserver.checks.findings import Findings, each, part
from nvdra_sim.cluster.apiserver.selectors import parse_labels

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.gates import ServerProfile
    from nvdra_sim.cluster.apiserver.refusals import Problem

_RESTARTS = ("Always", "Never", "OnFailure")
_PULLS = ("Always", "IfNotPresent", "Never")
_CLAIM_SOURCES = ("resourceClaimName", "resourceClaimTemplateName", "podGroupResourceClaim")
_UPDATABLE = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def check_pod(body: Body, profile: ServerProfile) -> list[Problem]:
    findings = Findings()
    _check_pod_spec(body.get("spec"), "spec", findings)
    return findings.problems


def check_pod_update(body: Body, old: Body, profile: ServerProfile) -> list[Problem]:
    findings = Findings()
    if _frozen(body) != _frozen(old):
        why = f"pod updates may not change fields other than {_UPDATABLE}"
        findings.forbidden("spec", why)
    before = part(old, "spec").get("tolerations") or []
    after = part(body, "spec").get("tolerations") or []
    if any(toleration not in after for toleration in before):
        why = "existing toleration can not be modified except its tolerationSeconds"
        findings.forbidden("spec.tolerations", why)
    return [*findings.problems, *check_pod(body, profile)]


def check_template_owner(body: Body, profile: ServerProfile) -> list[Problem]:
    """Deployments, daemon sets, replica sets."""
    findings = Findings()
    spec = _spec(body, findings)
    template = part(spec, "template")
    _check_pod_spec(template.get("spec"), "spec.template.spec", findings)
    restart = part(template, "spec").get("restartPolicy")
    if restart is not None:
        findings.supported("spec.template.spec.restartPolicy", restart, ("Always",))
    selector = spec.get("selector")
    if not selector:
        findings.required("spec.selector")
    elif not _selects(selector, part(template, "metadata", "labels")):
        why = "`selector` does not match template `labels`"
        findings.invalid("spec.template.metadata.labels", part(template, "metadata", "labels"), why)
    return findings.problems


def check_template_owner_update(body: Body, old: Body, profile: ServerProfile) -> list[Problem]:
    findings = Findings()
    if part(body, "spec").get("selector") != part(old, "spec").get("selector"):
        findings.invalid("spec.selector", "object", "field is immutable")
    return [*findings.problems, *check_template_owner(body, profile)]


def check_job(body: Body, profile: ServerProfile) -> list[Problem]:
    findings = Findings()
    template = part(_spec(body, findings), "template")
    _check_pod_spec(template.get("spec"), "spec.template.spec", findings)
    restart = part(template, "spec").get("restartPolicy")
    findings.supported("spec.template.spec.restartPolicy", restart, ("Never", "OnFailure"))
    return findings.problems


def check_job_update(body: Body, old: Body, profile: ServerProfile) -> list[Problem]:
    findings = Findings()
    for field in ("selector", "template", "completions"):
        if part(body, "spec").get(field) != part(old, "spec").get(field):
            findings.invalid(f"spec.{field}", "object", "field is immutable")
    return findings.problems


def _spec(body: Body, findings: Findings) -> Body:
    if not isinstance(body.get("spec"), dict):
        findings.required("spec")
    return part(body, "spec")


def _check_pod_spec(spec: Body | None, path: str, findings: Findings) -> None:
    if not isinstance(spec, dict) or not spec.get("containers"):
        findings.required(f"{path}.containers")
        return
    findings.supported(f"{path}.restartPolicy", spec.get("restartPolicy"), _RESTARTS)
    volumes = [volume.get("name", "") for _, volume in each(spec, "volumes", path)]
    findings.no_duplicates(f"{path}.volumes", volumes)
    claims = _check_claims(spec, path, findings)
    fields = ("containers", "initContainers")
    containers = [found for field in fields for found in each(spec, field, path)]
    findings.no_duplicates(f"{path}.containers", [c.get("name") for _, c in containers])
    for here, container in containers:
        _check_container(container, here, volumes, claims, findings)


def _check_claims(spec: Body, path: str, findings: Findings) -> list[str]:
    claims = list(each(spec, "resourceClaims", path))
    names = [claim.get("name", "") for _, claim in claims]
    findings.no_duplicates(f"{path}.resourceClaims", names)
    for here, claim in claims:
        findings.label(f"{here}.name", claim.get("name"))
        given = [source for source in _CLAIM_SOURCES if source in claim]
        why = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
        if len(given) > 1:
            findings.invalid(here, "{" + ", ".join(given) + "}", why.replace("one", "exactly one"))
        elif not given:
            findings.invalid(here, claim.get("name", ""), why)
        for source in given:
            findings.subdomain(f"{here}.{source}", claim[source])
    return names


def _check_container(
    container: Body, path: str, volumes: list[str], claims: list[str], findings: Findings
) -> None:
    findings.label(f"{path}.name", container.get("name"))
    if not container.get("image"):
        findings.required(f"{path}.image")
    findings.supported(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), _PULLS)
    for here, mount in each(container, "volumeMounts", path):
        if mount.get("name") not in volumes:
            findings.unknown(f"{here}.name", mount.get("name", ""))
        if not mount.get("mountPath"):
            findings.required(f"{here}.mountPath")
    resources, here = part(container, "resources"), f"{path}.resources"
    for field in ("limits", "requests"):
        for name, value in part(resources, field).items():
            findings.quantity(f"{here}.{field}[{name}]", value)
    used = [claim for _, claim in each(resources, "claims", here)]
    findings.no_duplicates(f"{here}.claims", used)
    for position, claim in enumerate(used):
        if claim.get("name") not in claims:
            findings.unknown(f"{here}.claims[{position}].name", claim.get("name", ""))
    for where, variable in each(container, "env", path):
        if not variable.get("name"):
            findings.required(f"{where}.name")


def _frozen(body: Body) -> Body:
    """The part of a pod's spec that cannot change."""
    spec: Body = own(part(body, "spec"))
    for field in ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"):
        spec.pop(field, None)
    for field in ("containers", "initContainers"):
        for _, container in each(spec, field, ""):
            container.pop("image", None)
    return spec


def _selects(selector: Body, labels: Body) -> bool:
    if any(labels.get(name) != value for name, value in part(selector, "matchLabels").items()):
        return False
    operators = {"In": "in", "NotIn": "notin"}
    for _, term in each(selector, "matchExpressions", ""):
        key, operator = term.get("key", ""), term.get("operator", "")
        if operator in operators:
            text = f"{key} {operators[operator]} ({','.join(term.get('values') or ())})"
        else:
            text = key if operator == "Exists" else f"!{key}"
        if not all(requirement.matches(labels) for requirement in parse_labels(text)):
            return False
    return True
