"""Steps of ComputeDomains on a node whose API and container runtime are files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from nvdra_nodeagent.claims.plan import GpuPlanner, GpuStudy, Plan, Planner, Study
from nvdra_nodeagent.computedomain.directories import DomainDirectories
from nvdra_nodeagent.computedomain.readiness import domains_of_others
from nvdra_nodeagent.durable import remove_with_temporaries, write_durably
from nvdra_nodeagent.steps.domain_cdi import ChannelCdiStep, DaemonCdiStep, DomainCdiHandler
from nvdra_nodeagent.steps.domain_dir import DomainDirHandler, DomainDirStep
from nvdra_nodeagent.steps.domain_ready import DomainReadyHandler, DomainReadyStep
from nvdra_nodeagent.steps.node_label import NodeLabelHandler, NodeLabelStep

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from nvdra_nodeagent.claims.allocation import AllocatedClaim
    from nvdra_nodeagent.claims.plan import Holdings
    from nvdra_nodeagent.claims.record import Record
    from nvdra_nodeagent.steps.domain_cdi import DomainCdiStep
    from nvdra_nodeagent.steps.registry import AnyStep, StepHandler

DOMAIN: Final = "0d9c6b7a-0000-4000-8000-000000000001"


def a_domain_dir(claim_uid: str, *, domain: str = "", **changes: Any) -> DomainDirStep:
    """By default of a domain of the claim's own."""
    values = {
        "claim_uid": claim_uid,
        "device": "daemon-0",
        "domain": domain or claim_uid,
        "clique": "clique",
        "name": "job",
        "namespace": "default",
        "home": "driver",
        "max_nodes": 18,
        "protocol": "1",
    }
    return DomainDirStep(**{**values, **changes})


def a_daemon_cdi(claim_uid: str) -> DaemonCdiStep:
    return DaemonCdiStep(
        claim_uid=claim_uid,
        device="daemon-0",
        domain=DOMAIN,
        clique="clique",
        name="job",
        namespace="default",
        boot_id="boot",
    )


def no_steps(records: Callable[[], Sequence[Record]]) -> Mapping[type[AnyStep], StepHandler[Any]]:
    return {}


@dataclass(frozen=True)
class StudyWith(Study):
    study: GpuStudy
    more: AnyStep

    @property
    def locks(self) -> frozenset[str]:
        return self.study.locks

    def plan(self, holdings: Holdings) -> Plan:
        plan = self.study.plan(holdings)
        return replace(plan, steps=(self.more, *plan.steps))


@dataclass(frozen=True)
class PlannerWith(Planner):
    """Puts one step before those of a claim for GPUs."""

    planner: GpuPlanner
    more: Callable[[str], AnyStep]

    @property
    def driver(self) -> str:
        return self.planner.driver

    async def study(self, claim: AllocatedClaim) -> StudyWith:
        return StudyWith(await self.planner.study(claim), self.more(claim.ref.uid))


class FolderDomain:
    """Marks of the node, CDI files and shared directories below `root`. All of them, and readiness,
    raise `failing`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.failing: Exception | None = None
        self.files = _Files(self)

    def handlers(
        self, records: Callable[[], Sequence[Record]]
    ) -> Mapping[type[AnyStep], StepHandler[Any]]:
        files = DomainCdiHandler(self.files)
        return {
            NodeLabelStep: NodeLabelHandler(
                _Marks(self), domains_of_others=lambda uid: domains_of_others(records(), uid)
            ),
            DomainReadyStep: DomainReadyHandler(self._obstacle),
            DomainDirStep: DomainDirHandler(_Directories(self)),
            ChannelCdiStep: files,
            DaemonCdiStep: files,
        }

    def check(self) -> None:
        if self.failing:
            raise self.failing

    def _obstacle(self, domain: str, clique: str) -> str:
        return str(self.failing) if self.failing else ""


class _Marks:
    def __init__(self, folder: FolderDomain) -> None:
        self._folder = folder
        self._path = folder.root / "label"

    def put(self, domain: str, clique: str) -> None:
        self._folder.check()
        if not self.is_put(domain, clique):
            write_durably(self._path, f"{domain} {clique}".encode())

    def is_put(self, domain: str, clique: str) -> bool:
        return self._path.exists() and self._path.read_text() == f"{domain} {clique}"

    def remove(self, domain: str) -> None:
        self._folder.check()
        remove_with_temporaries(self._path)

    def remove_unless(self, domains: set[str]) -> None:
        label = self._path.read_text() if self._path.exists() else ""
        if label.partition(" ")[0] not in domains:
            self.remove("")


class _Files:
    def __init__(self, folder: FolderDomain) -> None:
        self._folder = folder

    def path(self, claim_uid: str) -> Path:
        return self._folder.root / f"claim_{claim_uid}.json"

    def put(self, step: DomainCdiStep) -> None:
        self._folder.check()
        write_durably(self.path(step.claim_uid), msgspec.json.encode(step))

    def is_put(self, step: DomainCdiStep) -> bool:
        path = self.path(step.claim_uid)
        return path.exists() and path.read_bytes() == msgspec.json.encode(step)

    def remove(self, claim_uid: str) -> bool:
        self._folder.check()
        return remove_with_temporaries(self.path(claim_uid))


class _Directories(DomainDirectories):
    def __init__(self, folder: FolderDomain) -> None:
        super().__init__(folder.root / "domains", node="node-a", boot_id="boot")
        self._folder = folder

    def occupy(self, step: DomainDirStep) -> None:
        self._folder.check()
        super().occupy(step)

    def vacate(self, step: DomainDirStep) -> None:
        self._folder.check()
        super().vacate(step)
