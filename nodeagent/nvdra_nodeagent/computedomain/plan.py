"""From a claim for a channel or a daemon to its steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nvdra_api.configs import ComputeDomainChannelConfig, ComputeDomainDaemonConfig
from nvdra_api.domains import ALLOCATION_ALL, ALLOCATION_SINGLE
from nvdra_nodeagent.claims.overlap import Extent
from nvdra_nodeagent.claims.plan import Plan, Study
from nvdra_nodeagent.claims.record import HeldDevice
from nvdra_nodeagent.claims.selection import select_configs
from nvdra_nodeagent.computedomain.devices import CHANNELS, DAEMON, find_device
from nvdra_nodeagent.computedomain.domains import checked_uid, suffix_of
from nvdra_nodeagent.computedomain.driver_version import check_names_possible
from nvdra_nodeagent.errors import AgentError, Permanent, Retryable
from nvdra_nodeagent.steps.domain_cdi import ChannelCdiStep, DaemonCdiStep
from nvdra_nodeagent.steps.domain_dir import DomainDirStep
from nvdra_nodeagent.steps.domain_ready import DomainReadyStep
from nvdra_nodeagent.steps.node_label import NodeLabelStep

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from nvdra_api import FeatureGates
    from nvdra_nodeagent.claims.allocation import AllocatedClaim, DeviceResult
    from nvdra_nodeagent.claims.plan import Holdings
    from nvdra_nodeagent.computedomain.devices import DomainDevice
    from nvdra_nodeagent.computedomain.domains import DaemonPod, Domains
    from nvdra_nodeagent.steps.registry import DomainStep

_CLIQUES_GATE: Final = "ComputeDomainCliques"
_DNS_GATE: Final = "IMEXDaemonsWithDNSNames"


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainRules:
    """What does not change from claim to claim. `namespaces` are those that daemons may live in,
    `cdi_id` names a claim's device for CDI. With `host_managed` the host runs `nvidia-imex`.
    `driver_version` is that of the node, at a glance."""

    driver: str
    node: str
    namespaces: Collection[str]
    gates: FeatureGates
    boot_id: str
    cdi_id: Callable[[str, str], str]
    driver_version: Callable[[], str]
    host_managed: bool = False


@dataclass(frozen=True, slots=True)
class DomainStudy(Study):
    """A claim and the steps that it needs, or why it cannot have them."""

    claim: AllocatedClaim
    outcome: tuple[DomainStep, ...] | AgentError
    rules: DomainRules

    @property
    def locks(self) -> frozenset[str]:
        return frozenset(result.device for result in self.claim.results)

    def plan(self, holdings: Holdings) -> Plan:
        """:raises AgentError: what was found out speaks against it, or another claim has it."""
        if isinstance(self.outcome, AgentError):
            raise self.outcome
        held = tuple(self._hold(result) for result in self.claim.results)
        for device in held:
            _check_free(self.claim.ref.uid, device, holdings)
        return Plan(steps=self.outcome, devices=held)

    def _hold(self, result: DeviceResult) -> HeldDevice:
        device = find_device(result.device)
        uid, steps = self.claim.ref.uid, self.outcome
        assert not isinstance(steps, AgentError)
        visible = any(isinstance(step, ChannelCdiStep | DaemonCdiStep) for step in steps)
        return HeldDevice(
            request=result.main_request,
            pool=result.pool,
            device=result.device,
            type=device.type if device else "unknown",
            uuid=result.device,
            extent=Extent(result.device),
            cdi_ids=(self.rules.cdi_id(uid, result.device),) if visible else (),
            admin=result.admin,
            share_id=result.share_id,
        )


class DomainPlanner:
    """A `Planner`: looks up clique, domain and pod, and makes steps of them."""

    def __init__(self, domains: Domains, *, rules: DomainRules, clique: Callable[[], str]) -> None:
        """`clique` raises `Retryable` while it is not known."""
        self._domains = domains
        self._rules = rules
        self._clique = clique

    @property
    def driver(self) -> str:
        return self._rules.driver

    async def study(self, claim: AllocatedClaim) -> DomainStudy:
        try:
            return DomainStudy(claim, await self._steps(claim), self._rules)
        except AgentError as error:
            return DomainStudy(claim, error, self._rules)

    async def _steps(self, claim: AllocatedClaim) -> tuple[DomainStep, ...]:
        device, config = wanted(claim, driver=self._rules.driver, gates=self._rules.gates)
        if isinstance(config, ComputeDomainChannelConfig):
            domain = checked_uid(config.domain_id)
            await self._domains.find(domain, namespace=claim.ref.namespace)
            if self._rules.host_managed:
                return _host_steps(claim, device, config, clique=self._clique())
            return channel_steps(claim, device, config, clique=self._clique())
        return await self._daemon_steps(claim, checked_uid(config.domain_id))

    async def _daemon_steps(self, claim: AllocatedClaim, domain: str) -> tuple[DomainStep, ...]:
        rules, home = self._rules, claim.ref.namespace
        if rules.host_managed:
            raise Permanent(
                "HostManaged",
                "the hosts run nvidia-imex themselves: there are no daemons of ComputeDomains",
                hint="delete the claim; with imex.mode=hostManaged nothing should make one",
            )
        if home not in rules.namespaces:
            raise Permanent(
                "WrongNamespace",
                f"claims for IMEX daemons belong into {', '.join(sorted(rules.namespaces))}, "
                f"not into namespace {home}",
                hint="only the driver itself may have them",
            )
        pod = await self._daemon_pod(claim, domain)
        name = pod.domain or await self._domains.find(domain)
        gates = pod.gates or rules.gates
        uses_names, clique = gates[_DNS_GATE], self._clique()
        if uses_names and clique:
            check_names_possible(rules.driver_version())
        directory = DomainDirStep(
            claim_uid=claim.ref.uid,
            device=DAEMON.name,
            domain=domain,
            clique=clique,
            name=name.name,
            namespace=name.namespace,
            home=home,
            max_nodes=pod.max_nodes,
            num_nodes=0 if uses_names else await self._domains.num_nodes(name),
            mode="dns" if uses_names else "ip",
            suffix=suffix_of(domain) if pod.protocol else "",
            protocol=pod.protocol,
            # By address, nodes of all cliques are counted before a daemon starts.
            members="clique" if gates[_CLIQUES_GATE] and uses_names else "status",
        )
        return directory, daemon_cdi(directory, boot_id=rules.boot_id)

    async def _daemon_pod(self, claim: AllocatedClaim, domain: str) -> DaemonPod:
        pods = [each.name for each in claim.consumers if each.resource == "pods"]
        if not pods:
            raise Retryable("NotReserved", "the ResourceClaim is reserved for no pod")
        return await self._domains.daemon_pod(pods[0], namespace=claim.ref.namespace, domain=domain)


def wanted(
    claim: AllocatedClaim, *, driver: str, gates: FeatureGates
) -> tuple[DomainDevice, ComputeDomainChannelConfig | ComputeDomainDaemonConfig]:
    """The claim's one device, and the config that is for it.

    :raises AgentError: it has not exactly one, or configs that are wrong.
    """
    if len(claim.results) > 1:
        names = ", ".join(result.device for result in claim.results)
        raise Permanent(
            "DeviceConflict",
            f"a claim can have one device of driver {driver}, not {names}",
            hint="ask for one channel in each claim",
        )
    result = claim.results[0]
    device = find_device(result.device)
    if device is None:
        raise Retryable(
            "DeviceNotFound",
            f"device {result.device} of request {result.request} is none of driver {driver}",
            hint="delete the pod to have it scheduled anew",
        )
    (config,) = select_configs(claim.configs, [(result, device.type)], driver=driver, gates=gates)
    assert isinstance(config, ComputeDomainChannelConfig | ComputeDomainDaemonConfig)
    if isinstance(config, ComputeDomainChannelConfig):
        _check_mode(config.allocation_mode)
    return device, config


def _check_mode(mode: str) -> None:
    if mode not in ("", ALLOCATION_SINGLE, ALLOCATION_ALL):
        raise Permanent(
            "InvalidConfig",
            f"allocationMode {mode[:64]!r} is neither {ALLOCATION_SINGLE} nor {ALLOCATION_ALL}",
            hint="use the claim template that the ComputeDomain names",
        )


def channel_steps(
    claim: AllocatedClaim,
    device: DomainDevice,
    config: ComputeDomainChannelConfig,
    *,
    clique: str,
) -> tuple[DomainStep, ...]:
    """A node without a fabric has no IMEX to wait for, and its pods get no channel."""
    uid, domain = claim.ref.uid, config.domain_id
    label = NodeLabelStep(uid, device.name, domain, clique)
    if not clique:
        return (label,)
    everything = config.allocation_mode == ALLOCATION_ALL
    first, count = (0, CHANNELS) if everything else (device.number, 1)
    return (
        label,
        DomainReadyStep(uid, domain, clique),
        ChannelCdiStep(uid, device.name, first, count),
    )


def _host_steps(
    claim: AllocatedClaim,
    device: DomainDevice,
    config: ComputeDomainChannelConfig,
    *,
    clique: str,
) -> tuple[DomainStep, ...]:
    """One channel, whatever mode is asked for; the node joins nothing."""
    uid = claim.ref.uid
    ready = DomainReadyStep(uid, config.domain_id, clique)
    return (ready, ChannelCdiStep(uid, device.name, device.number, 1)) if clique else ()


def daemon_cdi(directory: DomainDirStep, *, boot_id: str) -> DaemonCdiStep:
    """Of the daemon that has the directory."""
    return DaemonCdiStep(
        claim_uid=directory.claim_uid,
        device=directory.device,
        domain=directory.domain,
        clique=directory.clique,
        name=directory.name,
        namespace=directory.namespace,
        boot_id=boot_id,
    )


def _check_free(uid: str, device: HeldDevice, holdings: Holdings) -> None:
    """A new claim must not overtake the end of the one before: it would lose label and daemon."""
    if device.admin:
        return
    for record in holdings.records:
        for other in record.devices:
            if record.claim.uid != uid and other.device == device.device and not other.admin:
                raise Retryable(
                    "DeviceInUse",
                    f"{device.device} of request {device.request} is held by claim {record.claim}",
                    hint="it becomes free when the pods of that claim have ended",
                )
    for fence in holdings.fences:
        if fence.uid != uid and device.device in (*fence.devices, *fence.gpu_uuids):
            raise Retryable(
                "DeviceFenced",
                f"{device.device} of request {device.request} is held back: claim {fence.uid} "
                f"may hold it ({fence.why()})",
                hint="it becomes free when that claim is prepared again, unprepared or deleted",
            )
