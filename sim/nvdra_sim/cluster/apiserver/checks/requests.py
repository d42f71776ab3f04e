"""Rules for device requests, constraints and configs: the spec of claims and of their templates."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nvdra_sim.cluster.apiserver.checks.attribute_names import check_attribute_name
from nvdra_sim.cluster.apiserver.checks.findings import Findings, each, part
from nvdra_sim.cluster.scheduler.cel import BadExpression, compile_selector

if TYPE_CHECKING:
    from nvdra_kube.api import Body

MAX_PARAMETERS = 10 * 1024
MAX_EXPRESSION = 10 * 1024
NO_SUCH_REQUEST = (
    "must be the name of a request in the claim or the name of a request and a subrequest"
    " separated by '/'"
)
_MAX_LIST = 32
_MAX_ALTERNATIVES = 8
_MAX_TOLERATIONS = 16


def check_claim_spec(spec: Body, path: str, findings: Findings) -> None:
    devices, path = part(spec, "devices"), f"{path}.devices"
    for field in ("requests", "constraints", "config"):
        findings.at_most(f"{path}.{field}", devices.get(field), _MAX_LIST)
    requests = list(each(devices, "requests", path))
    findings.no_duplicates(f"{path}.requests", [r.get("name") for _, r in requests])
    for here, request in requests:
        _check_request(request, here, findings)
    names = request_names(spec)
    for here, constraint in each(devices, "constraints", path):
        _check_constraint(constraint, here, names, findings)
    for here, config in each(devices, "config", path):
        _check_references(config, here, names, findings)
        check_opaque(config, here, findings)


def request_names(spec: Body) -> frozenset[str]:
    """What constraints, configs and results may refer to: `main`, and `main/sub`."""
    names = set()
    for _, request in each(part(spec, "devices"), "requests", ""):
        main = request.get("name", "")
        names.add(main)
        names |= {f"{main}/{sub.get('name', '')}" for _, sub in each(request, "firstAvailable", "")}
    return frozenset(names)


def check_selectors(owner: Body, path: str, findings: Findings) -> None:
    """Presence, size, and that it compiles; what it gives for a device is for the scheduler."""
    findings.at_most(f"{path}.selectors", owner.get("selectors"), _MAX_LIST)
    for here, selector in each(owner, "selectors", path):
        if "cel" not in selector:
            findings.required(f"{here}.cel")
            continue
        expression = part(selector, "cel").get("expression")
        if not expression:
            findings.required(f"{here}.cel.expression")
        elif findings.not_longer(f"{here}.cel.expression", expression, MAX_EXPRESSION):
            _check_compiles(expression, f"{here}.cel.expression", findings)


def _check_compiles(expression: str, path: str, findings: Findings) -> None:
    try:
        compile_selector(expression)
    except BadExpression as error:
        findings.invalid(path, expression, f"compilation failed: {error.problem}")


def check_opaque(config: Body, path: str, findings: Findings) -> None:
    opaque = config.get("opaque")
    if not isinstance(opaque, dict):
        findings.required(f"{path}.opaque")
        return
    findings.subdomain(f"{path}.opaque.driver", opaque.get("driver"), limit=63)
    check_json_object(opaque.get("parameters"), f"{path}.opaque.parameters", findings)


def check_json_object(value: Any, path: str, findings: Findings) -> None:
    """An arbitrary JSON object of limited size."""
    if value is None:
        findings.required(path)
    elif not isinstance(value, dict):
        findings.invalid(path, value, "must be a valid JSON object")
    else:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        findings.not_longer(path, text, MAX_PARAMETERS)


def _check_request(request: Body, path: str, findings: Findings) -> None:
    findings.label(f"{path}.name", request.get("name"))
    exactly, alternatives = request.get("exactly"), request.get("firstAvailable")
    if bool(alternatives) == (exactly is not None):
        why = "exactly one of `exactly` or `firstAvailable` is required"
        if alternatives:
            findings.invalid(path, request, f"{why}, but both are set")
        else:
            findings.required(path, why)
    if exactly is not None:
        _check_exact(exactly, f"{path}.exactly", findings)
    findings.at_most(f"{path}.firstAvailable", alternatives, _MAX_ALTERNATIVES)
    subs = list(each(request, "firstAvailable", path))
    findings.no_duplicates(f"{path}.firstAvailable", [sub.get("name") for _, sub in subs])
    for here, sub in subs:
        findings.label(f"{here}.name", sub.get("name"))
        _check_exact(sub, here, findings)


def _check_exact(request: Body, path: str, findings: Findings) -> None:
    findings.subdomain(f"{path}.deviceClassName", request.get("deviceClassName"))
    check_selectors(request, path, findings)
    mode, count = request.get("allocationMode"), request.get("count")
    if mode == "All":
        if count:
            findings.invalid(
                f"{path}.count", count, "must not be specified when allocationMode is 'All'"
            )
    elif findings.supported(f"{path}.allocationMode", mode, ("All", "ExactCount")) and (
        not isinstance(count, int) or count <= 0
    ):
        findings.invalid(f"{path}.count", count, "must be greater than zero")
    findings.at_most(f"{path}.tolerations", request.get("tolerations"), _MAX_TOLERATIONS)
    for here, toleration in each(request, "tolerations", path):
        _check_toleration(toleration, here, findings)
    for name, value in part(request, "capacity", "requests").items():
        here = f"{path}.capacity.requests[{name}]"
        check_attribute_name(name, here, findings)
        findings.quantity(here, value)


def _check_toleration(toleration: Body, path: str, findings: Findings) -> None:
    key, operator = toleration.get("key"), toleration.get("operator")
    if key:
        findings.qualified(f"{path}.key", key)
    elif operator != "Exists":
        why = "operator must be 'Exists' when `key` is empty, which means \"match all keys\""
        findings.invalid(f"{path}.operator", operator, why)
    findings.supported(f"{path}.operator", operator, ("Equal", "Exists"))
    if toleration.get("value"):
        if operator == "Exists":
            why = "must be empty when operator is 'Exists'"
            findings.invalid(f"{path}.value", toleration["value"], why)
        else:
            findings.label_value(f"{path}.value", toleration["value"])
    if toleration.get("effect"):
        effects = ("NoExecute", "NoSchedule", "None")
        findings.supported(f"{path}.effect", toleration["effect"], effects)


def _check_constraint(
    constraint: Body, path: str, names: frozenset[str], findings: Findings
) -> None:
    _check_references(constraint, path, names, findings)
    given = [field for field in ("matchAttribute", "distinctAttribute") if constraint.get(field)]
    if len(given) != 1:
        findings.required(path, "exactly one of `matchAttribute` or `distinctAttribute`")
    for field in given:
        name = constraint[field]
        check_attribute_name(name, f"{path}.{field}", findings)
        if "/" not in name:
            why = "a fully qualified name must be a domain and a name separated by a slash"
            findings.invalid(f"{path}.{field}", name, why)


def _check_references(owner: Body, path: str, names: frozenset[str], findings: Findings) -> None:
    given = owner.get("requests") or []
    findings.at_most(f"{path}.requests", given, _MAX_LIST)
    findings.no_duplicates(f"{path}.requests", given)
    for position, name in enumerate(given):
        if name not in names:
            findings.invalid(f"{path}.requests[{position}]", name, NO_SUCH_REQUEST)
