"""The DRA allocator: devices for the claims of one pod on one node, or why there are none.

Pure: everything comes in, nothing is remembered. Order of choice and form of the result follow
KEP-4381 and resource.k8s.io/v1.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from nvdra_sim.cluster.scheduler.capacity import as_quantities
from nvdra_sim.cluster.scheduler.demand import ClaimDemand, DemandError, read_demand
from nvdra_sim.cluster.scheduler.explain import explain
from nvdra_sim.cluster.scheduler.ledger import Ledger
from nvdra_sim.cluster.scheduler.nodes import name_of
from nvdra_sim.cluster.scheduler.search import Search, SearchTooLong, SelectorFailed
from nvdra_sim.cluster.scheduler.verdicts import Judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from nvdra_kube.api import Body
    from nvdra_sim.cluster.scheduler.ledger import Grant
    from nvdra_sim.cluster.scheduler.pools import Pool
    from nvdra_sim.cluster.scheduler.usage import Usage

ShareIds: TypeAlias = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Placement:
    """Devices were found: `status.allocation` of each claim by its `namespace/name`."""

    allocations: Mapping[str, Body]


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """No devices. One reason for each request that has no chance, or for their combination."""

    reasons: tuple[str, ...]


def allocate(
    claims: Sequence[Body],
    *,
    node: Body,
    pools: Sequence[Pool],
    classes: Mapping[str, Body],
    usage: Usage,
    new_share_id: ShareIds = lambda: str(uuid.uuid4()),
) -> Placement | Unsatisfiable:
    """Find devices on the node for all claims together.

    `claims` are those of one pod that have no allocation yet; `pools` come from `gather_pools`,
    `usage` from the allocations of all claims. All or nothing.
    """
    here = [pool for pool in pools if pool.is_on(node)]
    judge = Judge()
    try:
        demands = [read_demand(claim, classes=classes) for claim in claims]
        search = Search(
            demands,
            devices=[device for pool in here for device in pool.devices_on(node)],
            all_blocked=next((f"pool {p.name} is {p.defect}" for p in here if p.defect), ""),
            ledger=Ledger(here, usage=usage),
            judge=judge,
        )
        if search.run():
            return Placement(_allocations(demands, search.grants, node, new_share_id))
    except (DemandError, SelectorFailed, SearchTooLong) as error:
        return Unsatisfiable((str(error),))
    return Unsatisfiable(explain(demands, node=node, pools=here, usage=usage, judge=judge))


def _allocations(
    demands: Iterable[ClaimDemand], grants: Sequence[Grant], node: Body, new_share_id: ShareIds
) -> dict[str, Body]:
    return {
        demand.key: _allocation(
            demand, [grant for grant in grants if grant.claim == demand.key], node, new_share_id
        )
        for demand in demands
    }


def _allocation(
    demand: ClaimDemand, grants: Sequence[Grant], node: Body, new_share_id: ShareIds
) -> Body:
    devices: Body = {"results": [_result(grant, new_share_id) for grant in grants]}
    if config := _config(demand, grants):
        devices["config"] = config
    allocation: Body = {"devices": devices}
    if selector := _node_selector(grants, node):
        allocation["nodeSelector"] = selector
    return allocation


def _result(grant: Grant, new_share_id: ShareIds) -> Body:
    device, option = grant.device, grant.option
    result: Body = {"request": option.name, **device.id._asdict()}
    if option.admin_access:
        result["adminAccess"] = True
    if option.tolerations:
        result["tolerations"] = list(option.tolerations)
    for field in ("bindingConditions", "bindingFailureConditions"):
        if conditions := device.body.get(field):
            result[field] = list(conditions)
    if grant.share is not None:
        result["shareID"] = new_share_id()
        result["consumedCapacity"] = as_quantities(device, grant.share)
    return result


def _config(demand: ClaimDemand, grants: Iterable[Grant]) -> list[Body]:
    """Configs of the classes, each class once and for all requests, then those of the claim.

    A claim's config that names several requests is repeated for each, with the full list.
    """
    chosen = list(dict.fromkeys(grant.option for grant in grants))
    classes = {option.class_name: option.device_class for option in chosen}
    entries = [
        {"source": "FromClass", **config}
        for device_class in classes.values()
        for config in (device_class.get("spec") or {}).get("config") or []
    ]
    names = [(option.name, option.name.partition("/")[0]) for option in chosen]
    for config in demand.claim["spec"].get("devices", {}).get("config") or []:
        wanted = config.get("requests") or []
        copies = sum(full in wanted or main in wanted for full, main in names) if wanted else 1
        entries += [{"source": "FromClaim", **config}] * copies
    return entries


def _node_selector(grants: Iterable[Grant], node: Body) -> Body | None:
    """Where the devices can be reached: this node, or what their slices' selectors say."""
    fields: list[Any] = []
    expressions: list[Any] = []
    for grant in grants:
        placement = grant.device.placement
        if placement.get("nodeName") or grant.device.body.get("bindsToNode"):
            need = {"key": "metadata.name", "operator": "In", "values": [name_of(node)]}
            _add_new(fields, [need])
        elif selector := placement.get("nodeSelector"):
            term = selector["nodeSelectorTerms"][0]
            _add_new(fields, term.get("matchFields") or [])
            _add_new(expressions, term.get("matchExpressions") or [])
    term = {"matchFields": fields, "matchExpressions": expressions}
    filled = {key: needs for key, needs in term.items() if needs}
    return {"nodeSelectorTerms": [filled]} if filled else None


def _add_new(needs: list[Any], more: Iterable[Any]) -> None:
    needs += [need for need in more if need not in needs]
