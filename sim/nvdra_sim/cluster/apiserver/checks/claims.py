"""Rules for ResourceClaims (also their status), ResourceClaimTemplates and DeviceClasses."""

from __future__ import annotations

import ipaddress
import re
import uuid
from typing import TYPE_CHECKING

from nvdra_sim.cluster.apiserver.checks.findings import Findings, each, part
from nvdra_sim.cluster.apiserver.checks.requests import (
    NO_SUCH_REQUEST,
    check_claim_spec,
    check_json_object,
    check_opaque,
    check_selectors,
    request_names,
)

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.gates import ServerProfile
    from nvdra_sim.cluster.apiserver.refusals import Problem

_MAX_RESULTS = 32
_MAX_RESULT_CONFIGS = 64
_MAX_CONSUMERS = 256
_MAX_CONDITIONS = 8
_MAX_ADDRESSES = 16
_MAX_INTERFACE = 256
_MAX_HARDWARE_ADDRESS = 128
_MAX_POOL = 253
_MAX_REASON = 1024
_MAX_MESSAGE = 32768
_REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")


def check_claim(body: Body, profile: ServerProfile) -> list[Problem]:
    findings = Findings()
    check_claim_spec(part(body, "spec"), "spec", findings)
    return findings.problems


def check_claim_update(body: Body, old: Body, profile: ServerProfile) -> list[Problem]:
    return _immutable_spec(body, old)


def check_template(body: Body, profile: ServerProfile) -> list[Problem]:
    findings = Findings()
    check_claim_spec(part(body, "spec", "spec"), "spec.spec", findings)
    return findings.problems


def check_template_update(body: Body, old: Body, profile: ServerProfile) -> list[Problem]:
    return _immutable_spec(body, old)


def check_class(body: Body, profile: ServerProfile) -> list[Problem]:
    findings = Findings()
    spec = part(body, "spec")
    check_selectors(spec, "spec", findings)
    findings.at_most("spec.config", spec.get("config"), 32)
    for path, config in each(spec, "config", "spec"):
        check_opaque(config, path, findings)
    if spec.get("extendedResourceName"):
        findings.qualified("spec.extendedResourceName", spec["extendedResourceName"])
    return findings.problems


def check_class_update(body: Body, old: Body, profile: ServerProfile) -> list[Problem]:
    return check_class(body, profile)


def settle_claim(body: Body, old: Body) -> None:
    """Device status belongs to an allocated device and goes with its allocation."""
    status = part(body, "status")
    gone = _allocated(part(old, "status")) - _allocated(status)
    if gone and status.get("devices"):
        status["devices"] = [each for each in status["devices"] if _key(each) not in gone]
        if not status["devices"]:
            del status["devices"]


def check_claim_status(body: Body, old: Body, profile: ServerProfile) -> list[Problem]:
    findings = Findings()
    status, before = part(body, "status"), part(old, "status")
    allocation = status.get("allocation")
    if before.get("allocation") and allocation and allocation != before["allocation"]:
        findings.invalid("status.allocation", allocation, "field is immutable")
    elif allocation and not before.get("allocation"):
        _check_allocation(allocation, body, findings)
    _check_consumers(body, old, findings)
    findings.no_duplicates("status.devices", [_key(d) for _, d in each(status, "devices", "")])
    allocated = _allocated(status)
    for path, device in each(status, "devices", "status"):
        _check_device_status(device, path, allocated, findings)
    return findings.problems


def _immutable_spec(body: Body, old: Body) -> list[Problem]:
    findings = Findings()
    if body.get("spec") != old.get("spec"):
        findings.invalid("spec", body.get("spec"), "field is immutable")
    return findings.problems


def _check_allocation(allocation: Body, body: Body, findings: Findings) -> None:
    path = "status.allocation.devices"
    devices = part(allocation, "devices")
    findings.at_most(f"{path}.results", devices.get("results"), _MAX_RESULTS)
    findings.at_most(f"{path}.config", devices.get("config"), _MAX_RESULT_CONFIGS)
    names = request_names(part(body, "spec"))
    for here, result in each(devices, "results", path):
        if result.get("request") not in names:
            findings.invalid(f"{here}.request", result.get("request", ""), NO_SUCH_REQUEST)
        findings.subdomain(f"{here}.driver", result.get("driver"), limit=63)
        check_pool_name(result.get("pool"), f"{here}.pool", findings)
        findings.label(f"{here}.device", result.get("device"))
        if result.get("shareID"):
            _check_uuid(result["shareID"], f"{here}.shareID", findings)
    for here, config in each(devices, "config", path):
        findings.supported(f"{here}.source", config.get("source"), ("FromClaim", "FromClass"))
        check_opaque(config, here, findings)


def _check_consumers(body: Body, old: Body, findings: Findings) -> None:
    status = part(body, "status")
    consumers = [consumer for _, consumer in each(status, "reservedFor", "status")]
    path = "status.reservedFor"
    findings.at_most(path, consumers, _MAX_CONSUMERS)
    findings.no_duplicates(path, [consumer.get("uid") for consumer in consumers])
    for position, consumer in enumerate(consumers):
        for field in ("resource", "name", "uid"):
            if not consumer.get(field):
                findings.required(f"{path}[{position}].{field}")
    if consumers and not status.get("allocation"):
        findings.forbidden(path, "may not be specified when `allocated` is not set")
    before = {c.get("uid") for _, c in each(part(old, "status"), "reservedFor", "")}
    added = [c for c in consumers if c.get("uid") not in before]
    if added and "deletionTimestamp" in old["metadata"]:
        findings.forbidden(path, "new consumers not allowed while the claim is being deleted")


def check_pool_name(name: str | None, path: str, findings: Findings) -> None:
    """DNS subdomains joined by slashes."""
    if not name:
        findings.required(path)
    elif findings.not_longer(path, name, _MAX_POOL):
        for segment in name.split("/"):
            if not findings.subdomain(path, segment):
                return


def _check_device_status(
    device: Body, path: str, allocated: set[tuple[object, ...]], findings: Findings
) -> None:
    if _key(device) not in allocated:
        named = "/".join(map(str, _key(device)[:3]))
        findings.invalid(path, named, "must be an allocated device in the claim")
    findings.at_most(f"{path}.conditions", device.get("conditions"), _MAX_CONDITIONS)
    for here, condition in each(device, "conditions", path):
        for field in ("type", "status", "reason", "lastTransitionTime"):
            if not condition.get(field):
                findings.required(f"{here}.{field}")
        _check_condition(condition, here, findings)
    if device.get("data") is not None:
        check_json_object(device["data"], f"{path}.data", findings)
    network = part(device, "networkData")
    here = f"{path}.networkData"
    findings.not_longer(f"{here}.interfaceName", network.get("interfaceName", ""), _MAX_INTERFACE)
    findings.not_longer(
        f"{here}.hardwareAddress", network.get("hardwareAddress", ""), _MAX_HARDWARE_ADDRESS
    )
    findings.at_most(f"{here}.ips", network.get("ips"), _MAX_ADDRESSES)
    for position, address in enumerate(network.get("ips") or ()):
        _check_address(address, f"{here}.ips[{position}]", findings)


def _check_condition(condition: Body, path: str, findings: Findings) -> None:
    if condition.get("status"):
        findings.supported(f"{path}.status", condition["status"], ("False", "True", "Unknown"))
    reason = condition.get("reason") or ""
    findings.not_longer(f"{path}.reason", reason, _MAX_REASON)
    if reason and not _REASON.fullmatch(reason):
        why = "a condition reason must start with alphabetic character (e.g. 'MyReason')"
        findings.invalid(f"{path}.reason", reason, why)
    findings.not_longer(f"{path}.message", condition.get("message") or "", _MAX_MESSAGE)


def _check_address(address: str, path: str, findings: Findings) -> None:
    try:
        interface = ipaddress.ip_interface(address)
    except ValueError:
        interface = None
    if interface is None or "/" not in address or str(interface) != address:
        why = "must be a valid address in canonical CIDR form, (e.g. 192.0.2.1/24)"
        findings.invalid(path, address, why)


def _check_uuid(text: str, path: str, findings: Findings) -> None:
    try:
        canonical = str(uuid.UUID(text))
    except ValueError:
        canonical = ""
    if canonical != text:
        findings.invalid(path, text, "must be a lowercase UUID in canonical form")


def _allocated(status: Body) -> set[tuple[object, ...]]:
    devices = part(status, "allocation", "devices")
    return {_key(result) for _, result in each(devices, "results", "")}


def _key(device: Body) -> tuple[object, ...]:
    return tuple(device.get(name) or None for name in ("driver", "pool", "device", "shareID"))
