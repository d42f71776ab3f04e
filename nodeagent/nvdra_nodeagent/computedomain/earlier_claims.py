"""Claims for channels and daemons that an earlier driver prepared: records of them.

Its checkpoint says which device and which ComputeDomain. The clique, and what the domain is called,
are in the CDI files of its daemons only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from nvdra_api.configs import ComputeDomainChannelConfig
from nvdra_api.names import MAX_NODES_PER_IMEX_DOMAIN
from nvdra_nodeagent.checkpoint.conversion import NotUnderstood, allocated
from nvdra_nodeagent.claims.overlap import Extent
from nvdra_nodeagent.claims.record import HeldDevice, Record, StepEntry
from nvdra_nodeagent.computedomain.domains import checked_uid
from nvdra_nodeagent.computedomain.plan import channel_steps, daemon_cdi, wanted
from nvdra_nodeagent.errors import AgentError
from nvdra_nodeagent.steps.domain_dir import DomainDirStep
from nvdra_nodeagent.steps.domain_ready import DomainReadyStep
from nvdra_nodeagent.steps.node_label import NodeLabelStep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from nvdra_api.gates import FeatureGates
    from nvdra_nodeagent.cdi.store import CdiStore
    from nvdra_nodeagent.checkpoint.conversion import EarlierNode
    from nvdra_nodeagent.checkpoint.document import ClaimEntry, PreparedPlace
    from nvdra_nodeagent.claims.allocation import AllocatedClaim
    from nvdra_nodeagent.computedomain.devices import DomainDevice
    from nvdra_nodeagent.steps.registry import DomainStep, Result

_VARIABLE: Final = re.compile(
    rb"\b(CLIQUE_ID|COMPUTE_DOMAIN_(?:UUID|NAME|NAMESPACE))=([A-Za-z0-9.-]*)(?=[\"'\s,]|$)"
)


class DaemonFiles:
    """What the CDI files of daemons tell their containers. Calls block."""

    def __init__(self, store: CdiStore) -> None:
        self._store = store

    def told(self, claim_uid: str) -> Mapping[str, str]:
        """Variables of the container, whoever wrote the file; none where it cannot be read."""
        try:
            content = self._store.path(claim_uid).read_bytes()
        except (AgentError, OSError):
            return {}
        return {name.decode(): value.decode() for name, value in _VARIABLE.findall(content)}

    def clique(self, domain: str) -> str | None:
        """The clique that a daemon of that domain runs for; None if there is no daemon."""
        for told in self._all():
            if told.get("COMPUTE_DOMAIN_UUID") == domain and "CLIQUE_ID" in told:
                return told["CLIQUE_ID"]
        return None

    def _all(self) -> Iterator[Mapping[str, str]]:
        try:
            uids = self._store.claim_uids()
        except AgentError:
            return
        yield from map(self.told, uids)


class EarlierClaims:
    """Makes records: calling it is a `RecordMaker`. Calls block."""

    def __init__(
        self,
        files: DaemonFiles,
        *,
        gates: FeatureGates,
        home: str,
        cdi_id: Callable[[str, str], str],
        clique: Callable[[], str | None],
        host_managed: bool = False,
    ) -> None:
        """`home` is where daemons live whose claim does not say it. `clique` is what the GPUs say,
        None while they do not; `cdi_id` names a claim's device for CDI."""
        self._files = files
        self._gates = gates
        self._home = home
        self._cdi_id = cdi_id
        self._clique = clique
        self._host_managed = host_managed

    def __call__(self, uid: str, entry: ClaimEntry, node: EarlierNode) -> Record:
        if self._host_managed:
            raise NotUnderstood("whether its node was in a domain: the hosts run nvidia-imex now")
        claim = allocated(uid, entry, node)
        device, config = wanted(claim, driver=node.driver, gates=self._gates)
        domain = checked_uid(config.domain_id)
        prepared = _prepared(entry, device, domain)
        cdi_ids = prepared.device.cdi_ids or ()
        if cdi_ids and self._cdi_id(uid, device.name) not in cdi_ids:
            raise NotUnderstood("its container was told of other devices than its own")
        steps: tuple[DomainStep, ...]
        if isinstance(config, ComputeDomainChannelConfig):
            clique = self._clique_of(domain) if cdi_ids else ""
            steps = channel_steps(claim, device, config, clique=clique)
        else:
            directory = self._directory(claim, device, domain)
            steps = (directory, daemon_cdi(directory, boot_id=node.boot_id))
        return Record(
            claim=claim.ref,
            boot_id=node.boot_id,
            allocation=claim.fingerprint,
            devices=(_held(claim, device, cdi_ids),),
            steps=tuple(StepEntry(step, _result(step)) for step in steps),
        )

    def _clique_of(self, domain: str) -> str:
        """That of the daemon goes first: the GPUs may have another one since."""
        clique = self._files.clique(domain) or self._clique()
        if not clique:
            raise NotUnderstood("it has a channel, and the NVLink clique of the node is not known")
        return clique

    def _directory(self, claim: AllocatedClaim, device: DomainDevice, domain: str) -> DomainDirStep:
        """Without a protocol: the daemon goes on as it was started."""
        told = self._files.told(claim.ref.uid)
        name, namespace = told.get("COMPUTE_DOMAIN_NAME"), told.get("COMPUTE_DOMAIN_NAMESPACE")
        if told.get("COMPUTE_DOMAIN_UUID") != domain or not name or not namespace:
            raise NotUnderstood("its CDI file does not say which domain its daemon is for")
        return DomainDirStep(
            claim_uid=claim.ref.uid,
            device=device.name,
            domain=domain,
            clique=told.get("CLIQUE_ID", ""),
            name=name,
            namespace=namespace,
            home=claim.ref.namespace or self._home,
            max_nodes=MAX_NODES_PER_IMEX_DOMAIN,
        )


def _prepared(entry: ClaimEntry, device: DomainDevice, domain: str) -> PreparedPlace:
    """What was prepared of the claim. :raises NotUnderstood: not what is allocated to it."""
    groups = entry.groups or ()
    places = [each.place() for group in groups for each in group.devices or ()]
    place = places[0] if len(places) == 1 else None
    if place is None:
        raise NotUnderstood("it holds other devices than one channel or one daemon")
    if {device.name} != {place.device.name, place.canonical_name}:
        raise NotUnderstood("its device is not the one that is allocated to it")
    if any(group.state.domain not in (msgspec.UNSET, "", domain) for group in groups):
        raise NotUnderstood("it was prepared for another domain than its config names")
    return place


def _held(claim: AllocatedClaim, device: DomainDevice, cdi_ids: tuple[str, ...]) -> HeldDevice:
    (result,) = claim.results
    return HeldDevice(
        request=result.main_request,
        pool=result.pool,
        device=result.device,
        type=device.type,
        uuid=result.device,
        extent=Extent(result.device),
        cdi_ids=cdi_ids,
        admin=result.admin,
        share_id=result.share_id,
    )


def _result(step: DomainStep) -> Result:
    """What the handlers answer where the step is done."""
    if isinstance(step, NodeLabelStep):
        return {"domain": step.domain}
    return {"ready": "once"} if isinstance(step, DomainReadyStep) else None
