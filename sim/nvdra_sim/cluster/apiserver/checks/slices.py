"""Rules for ResourceSlices: who offers what, where, and how much of it fits into one object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_sim.cluster.apiserver.checks.claims import check_pool_name
from nvdra_sim.cluster.apiserver.checks.devices import (
    MAX_COUNTERS,
    check_counters,
    check_devices,
)
from nvdra_sim.cluster.apiserver.checks.findings import Findings, each, part
from nvdra_sim.cluster.apiserver.checks.placement import check_placement

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.gates import ServerProfile
    from nvdra_sim.cluster.apiserver.refusals import Problem

_PLACES = ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection")
_MAX_COUNTER_SETS = 8


def check_slice(body: Body, profile: ServerProfile) -> list[Problem]:
    findings = Findings()
    spec = part(body, "spec")
    findings.subdomain("spec.driver", spec.get("driver"), limit=63)
    _check_pool(part(spec, "pool"), findings)
    check_placement(spec, _PLACES, "spec", findings)
    if spec.get("nodeName"):
        findings.subdomain("spec.nodeName", spec["nodeName"])
    _check_counter_sets(spec, profile, findings)
    check_devices(spec, profile, findings)
    return findings.problems


def check_slice_update(body: Body, old: Body, profile: ServerProfile) -> list[Problem]:
    findings = Findings()
    for path in (("driver",), ("pool", "name"), ("nodeName",)):
        here = f"spec.{'.'.join(path)}"
        owner, before = part(body, "spec", *path[:-1]), part(old, "spec", *path[:-1])
        if owner.get(path[-1]) != before.get(path[-1]):
            findings.invalid(here, owner.get(path[-1], ""), "field is immutable")
    return [*findings.problems, *check_slice(body, profile)]


def _check_pool(pool: Body, findings: Findings) -> None:
    check_pool_name(pool.get("name"), "spec.pool.name", findings)
    count, generation = pool.get("resourceSliceCount") or 0, pool.get("generation") or 0
    if count <= 0:
        findings.invalid("spec.pool.resourceSliceCount", count, "must be greater than zero")
    if generation < 0:
        why = "must be greater than or equal to zero"
        findings.invalid("spec.pool.generation", generation, why)


def _check_counter_sets(spec: Body, profile: ServerProfile, findings: Findings) -> None:
    sets = [found for _, found in each(spec, "sharedCounters", "spec")]
    findings.no_duplicates("spec.sharedCounters", [found.get("name") for found in sets])
    if profile.minor >= (1, 35):
        findings.at_most("spec.sharedCounters", sets, _MAX_COUNTER_SETS)
        if sets and spec.get("devices"):
            why = "only one of `sharedCounters` or `devices` is allowed in a slice"
            findings.invalid("spec", "{devices, sharedCounters}", why)
    else:
        total = sum(len(part(found, "counters")) for found in sets)
        if total > MAX_COUNTERS:
            why = f"the total number of counters must not exceed {MAX_COUNTERS}"
            findings.invalid("spec.sharedCounters", total, why)
    for path, found in each(spec, "sharedCounters", "spec"):
        findings.label(f"{path}.name", found.get("name"))
        check_counters(found, path, findings)
