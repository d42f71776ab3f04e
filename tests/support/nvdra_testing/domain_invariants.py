"""What holds of ComputeDomains and all that is theirs once the controller has come to rest.

Each invariant says in words what breaks it, and nothing when it holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nvdra_api.names import LABEL_CLIQUE_ID, NAMESPACE, daemon_set_name
from nvdra_kube.resources import NODES, PODS, RESOURCE_CLAIM_TEMPLATES
from nvdra_operator.domains.scene import condition, domain_of, is_dying, labels_of, node_of
from nvdra_operator.resources import CLIQUES, COMPUTE_DOMAINS, DAEMON_SETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from nvdra_kube.api import Body
    from nvdra_testing.compute_domains import DomainCluster


@dataclass(frozen=True, slots=True)
class Sight:
    """Everything that there is at a moment."""

    domains: dict[str, Body]  # by UID
    daemon_sets: list[Body]
    templates: list[Body]
    cliques: list[Body]
    nodes: list[Body]
    pods: list[Body]

    @classmethod
    async def of(cls, it: DomainCluster) -> Sight:
        return cls(
            domains={_uid(body): body for body in await it.everything(COMPUTE_DOMAINS)},
            daemon_sets=await it.everything(DAEMON_SETS),
            templates=await it.everything(RESOURCE_CLAIM_TEMPLATES),
            cliques=await it.everything(CLIQUES),
            nodes=await it.everything(NODES),
            pods=await it.everything(PODS),
        )

    def broken(self) -> list[str]:
        """Which invariants are broken, by what."""
        return [
            f"{invariant.__name__}: {found}"
            for invariant in INVARIANTS
            for found in invariant(self)
        ]

    def taking_part(self, uid: str) -> set[str]:
        """Nodes that bear the domain's label, or have a daemon of it."""
        nodes = {_name(body) for body in self.nodes if domain_of(body) == uid}
        return nodes | {node_of(pod) for pod in self.pods if domain_of(pod) == uid}


def deleted_domains_are_gone(sight: Sight) -> Iterator[str]:
    yield from (_name(body) for body in sight.domains.values() if is_dying(body))


def nothing_is_left_of_a_domain_that_is_gone(sight: Sight) -> Iterator[str]:
    for body in (*sight.daemon_sets, *sight.templates, *sight.cliques, *sight.nodes):
        if domain_of(body) and domain_of(body) not in sight.domains:
            yield f"{body['kind']} {_name(body)} of {domain_of(body)}"


def each_domain_has_its_daemon_set(sight: Sight) -> Iterator[str]:
    yield from _missing(sight, sight.daemon_sets)


def each_domain_has_its_daemon_template(sight: Sight) -> Iterator[str]:
    yield from _missing(sight, sight.templates)


def each_domain_is_accepted_if_the_workload_template_is_its_own(sight: Sight) -> Iterator[str]:
    owners = {_place(body): domain_of(body) for body in sight.templates}
    for uid, body in sight.domains.items():
        wanted = body["spec"]["channel"]["resourceClaimTemplate"]["name"]
        owner = owners.get((body["metadata"]["namespace"], wanted))
        accepted = condition(body, "Accepted").get("status")
        if owner is None:
            yield f"{_name(body)} has no template {wanted}, and says {accepted}"
        elif accepted != str(owner == uid):
            yield f"{_name(body)} says {accepted}, its template belongs to {owner or 'nobody'}"


def each_domain_says_whether_it_is_ready(sight: Sight) -> Iterator[str]:
    for body in sight.domains.values():
        ready = condition(body, "Ready").get("status")
        wanted = {"True": "Ready", "False": "NotReady"}.get(str(ready))
        if wanted is None or body["status"]["status"] != wanted:
            yield f"{_name(body)}: {body.get('status')}"


def no_index_is_twice_in_a_clique(sight: Sight) -> Iterator[str]:
    for body in sight.cliques:
        yield from _twice(body, (entry["index"] for entry in _entries(body)))


def no_node_is_in_two_cliques_of_a_domain(sight: Sight) -> Iterator[str]:
    for uid, body in sight.domains.items():
        yield from _twice(body, (entry["nodeName"] for entry in _entries_of(sight, uid)))


def each_node_is_once_in_the_status(sight: Sight) -> Iterator[str]:
    for body in sight.domains.values():
        yield from _twice(body, (entry["name"] for entry in _listed(body)))


def each_entry_is_of_a_node_that_takes_part(sight: Sight) -> Iterator[str]:
    for uid, body in sight.domains.items():
        names = {entry["nodeName"] for entry in _entries_of(sight, uid)}
        names |= {entry["name"] for entry in _listed(body)}
        yield from (f"{name} in {_name(body)}" for name in names - sight.taking_part(uid))


def each_daemon_with_an_address_has_its_entry(sight: Sight) -> Iterator[str]:
    for pod in sight.pods:
        has_all = labels_of(pod).get(LABEL_CLIQUE_ID) and pod.get("status", {}).get("podIP")
        entries = _entries_of(sight, domain_of(pod))
        if has_all and node_of(pod) not in {entry["nodeName"] for entry in entries}:
            yield f"{_name(pod)} on {node_of(pod)}"


def the_status_tells_what_the_cliques_tell(sight: Sight) -> Iterator[str]:
    for uid, body in sight.domains.items():
        told = [entry for entry in _listed(body) if entry.get("cliqueID")]
        entries = [{"name": one.pop("nodeName"), **one} for one in _entries_of(sight, uid)]
        if _sorted(told) != _sorted(entries):
            yield f"{_name(body)}: {told}, but {entries}"


INVARIANTS: Final[tuple[Callable[[Sight], Iterator[str]], ...]] = (
    deleted_domains_are_gone,
    nothing_is_left_of_a_domain_that_is_gone,
    each_domain_has_its_daemon_set,
    each_domain_has_its_daemon_template,
    each_domain_is_accepted_if_the_workload_template_is_its_own,
    each_domain_says_whether_it_is_ready,
    no_index_is_twice_in_a_clique,
    no_node_is_in_two_cliques_of_a_domain,
    each_node_is_once_in_the_status,
    each_entry_is_of_a_node_that_takes_part,
    each_daemon_with_an_address_has_its_entry,
    the_status_tells_what_the_cliques_tell,
)


def _missing(sight: Sight, bodies: Iterable[Body]) -> Iterator[str]:
    found = {_place(body): domain_of(body) for body in bodies}
    for uid, body in sight.domains.items():
        if found.get((NAMESPACE, daemon_set_name(uid))) != uid:
            yield f"{daemon_set_name(uid)} of {_name(body)}"


def _twice(body: Body, values: Iterable[object]) -> Iterator[str]:
    values = list(values)
    if len(values) != len(set(values)):
        yield f"{_name(body)}: {values}"


def _entries(clique: Body) -> list[Body]:
    return [dict(entry) for entry in clique.get("daemons") or ()]


def _entries_of(sight: Sight, uid: str) -> list[Body]:
    return [entry for body in sight.cliques if domain_of(body) == uid for entry in _entries(body)]


def _listed(domain: Body) -> list[Body]:
    return (domain.get("status") or {}).get("nodes") or []


def _sorted(entries: list[Body]) -> list[Any]:
    return sorted(entries, key=lambda entry: str(entry["name"]))


def _uid(body: Body) -> str:
    return str(body["metadata"]["uid"])


def _name(body: Body) -> str:
    return str(body["metadata"]["name"])


def _place(body: Body) -> tuple[str, str]:
    return body["metadata"]["namespace"], body["metadata"]["name"]
