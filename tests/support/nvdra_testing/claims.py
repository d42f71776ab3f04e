"""A small node for tests of claims: GPUs, allocated claims, their API, CDI files in a folder."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nvdra_api import FeatureGates
from nvdra_kube.errors import NotFound
from nvdra_nodeagent.claims.allocation import parse_claim
from nvdra_nodeagent.claims.books import NodeFacts
from nvdra_nodeagent.claims.model import ClaimRef
from nvdra_nodeagent.claims.observer import ClaimObserver
from nvdra_nodeagent.claims.plan import GpuPlanner, PlanRules
from nvdra_nodeagent.claims.record import Record, StepEntry
from nvdra_nodeagent.claims.service import Limits, NodeClaims
from nvdra_nodeagent.durable import (
    find_temporaries,
    remove_durably,
    remove_with_temporaries,
    write_durably,
)
from nvdra_nodeagent.errors import Retryable
from nvdra_nodeagent.inventory.model import Engines, Gpu, Inventory, MigDevice
from nvdra_nodeagent.steps.time_slice import TimeSliceStep
from nvdra_testing.domain_steps import FolderDomain, PlannerWith, no_steps
from nvdra_testing.kube_stub import KubeStub

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from nvdra_kube.api import Body, Resource
    from nvdra_nodeagent.claims.allocation import AllocatedClaim
    from nvdra_nodeagent.claims.model import PreparedDevice
    from nvdra_nodeagent.claims.observer import Attempt, Damage, Operation
    from nvdra_nodeagent.claims.plan import Plan
    from nvdra_nodeagent.errors import AgentError
    from nvdra_nodeagent.inventory.model import Device
    from nvdra_nodeagent.steps.registry import AnyStep, Verb
    from nvdra_nodeagent.steps.shared import Value

DRIVER = "gpu.nvidia.com"
NODE = "node-a"
BOOT = "11111111-1111-1111-1111-111111111111"
OTHER_BOOT = "22222222-2222-2222-2222-222222222222"
GATES = FeatureGates()

_NAMESPACE = uuid.UUID("6f0a1f9e-4a35-4a3c-9a55-2f1c1d5b8c00")


def cdi_id(claim_uid: str, device_name: str) -> str:
    return f"k8s.gpu.nvidia.com/claim={claim_uid}-{device_name}"


RULES = PlanRules(driver=DRIVER, gates=GATES, cdi_id=cdi_id)


def gpu_uuid(minor: int) -> str:
    return f"GPU-{uuid.uuid5(_NAMESPACE, f'gpu {minor}')}"


def a_gpu(minor: int = 0, *, migs: Sequence[MigDevice] = ()) -> Gpu:
    return Gpu(
        name=f"gpu-{minor}",
        minor=minor,
        uuid=gpu_uuid(minor),
        product_name="NVIDIA H100 80GB HBM3",
        brand="Nvidia",
        architecture="Hopper",
        compute_capability="9.0.0",
        driver_version="570.158.1",
        cuda_driver_version="12.8.0",
        pci_bus_id=f"0000:{0x10 + minor:02x}:00.0",
        mig_capable=True,
        mig_enabled=bool(migs),
        mig_devices=tuple(migs),
    )


def a_mig(
    minor: int = 0, *, start: int = 0, size: int = 1, gi: int = 7, ci: int = 0, profile: int = 19
) -> MigDevice:
    name = f"gpu-{minor}-mig-{size}g{size * 10}gb-{profile}-{start}"
    return MigDevice(
        name=name if not ci else f"{name}-{ci}",
        uuid=f"MIG-{uuid.uuid5(_NAMESPACE, f'{minor} {gi} {ci} {start} {size}')}",
        profile=f"{size}g.{size * 10}gb",
        gi_id=gi,
        ci_id=ci,
        gi_profile_id=profile,
        placement_start=start,
        placement_size=size,
        engines=Engines(16, 1, 1, 0, 1, 0, size * 10 * 1024**3),
    )


def a_node_of(count: int = 2) -> Inventory:
    """That many whole GPUs."""
    return Inventory(tuple(a_gpu(minor) for minor in range(count)), driver_version="570.158.01")


def a_ref(name: str = "claim") -> ClaimRef:
    return ClaimRef("default", name, str(uuid.uuid5(_NAMESPACE, name)))


def a_result(device: str = "gpu-0", *, request: str = "gpu", **extra: Any) -> Body:
    return {"request": request, "driver": DRIVER, "pool": NODE, "device": device, **extra}


def a_config_entry(
    parameters: Any, *, source: str = "FromClaim", driver: str = DRIVER, **extra: Any
) -> Body:
    return {"source": source, "opaque": {"driver": driver, "parameters": parameters}, **extra}


def a_claim_body(ref: ClaimRef, *results: Body | str, config: Sequence[Body] = ()) -> Body:
    """A claim as the API returns it, allocated; results may be given as device names."""
    full = [a_result(each) if isinstance(each, str) else each for each in results]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"namespace": ref.namespace, "name": ref.name, "uid": ref.uid},
        "spec": {"devices": {"requests": []}},
        "status": {"allocation": {"devices": {"results": full, "config": list(config)}}},
    }


def an_allocated(
    *results: Body | str, name: str = "claim", config: Sequence[Body] = ()
) -> AllocatedClaim:
    ref = a_ref(name)
    body = a_claim_body(ref, *(results or ("gpu-0",)), config=config)
    return parse_claim(body, ref=ref, driver=DRIVER, pool=NODE)


def a_record(claim: AllocatedClaim, plan: Plan, *, boot_id: str = BOOT) -> Record:
    """What the journal holds of a claim that was prepared by this plan."""
    return Record(
        claim=claim.ref,
        boot_id=boot_id,
        allocation=claim.fingerprint,
        devices=plan.devices,
        steps=tuple(StepEntry(step) for step in plan.steps),
    )


@dataclass
class ClaimApi(KubeStub):
    """Claims by name. `errors` are raised first, one a call; `gate`, if set, holds calls back."""

    claims: dict[str, Body] = field(default_factory=dict)
    versions: tuple[str, ...] = ("v1",)
    errors: deque[Exception] = field(default_factory=deque)
    gate: asyncio.Event | None = None
    calls: list[str] = field(default_factory=list)

    def add(self, ref: ClaimRef, *results: Body | str, config: Sequence[Body] = ()) -> ClaimRef:
        self.claims[ref.name] = a_claim_body(ref, *(results or ("gpu-0",)), config=config)
        return ref

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Body:
        await self._enter(f"get {resource.version} {name}", resource)
        if name not in self.claims:
            raise NotFound(f'resourceclaims "{name}" not found', status=404, details={"name": name})
        copy: Body = json.loads(json.dumps(self.claims[name]))
        return copy

    async def list(self, resource: Resource, **_: Any) -> Body:
        await self._enter(f"list {resource.version}", resource)
        return {"metadata": {"resourceVersion": "1"}, "items": list(self.claims.values())}

    async def _enter(self, call: str, resource: Resource) -> None:
        self.calls.append(call)
        await asyncio.sleep(0)
        if self.gate:
            await self.gate.wait()
        if self.errors:
            raise self.errors.popleft()
        if resource.version not in self.versions:
            raise NotFound("the server could not find the requested resource", status=404)


class FolderCdi:
    """`CdiFiles` that says in one line per device what a container would see.

    `failing` is raised by writes and removals; `on_write` is called in the writing thread.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.failing: Exception | None = None
        self.on_write: Callable[[str], None] = lambda uid: None
        self.writes = 0

    def path(self, claim_uid: str) -> Path:
        return self.root / f"claim_{claim_uid}.txt"

    def device_id(self, claim_uid: str, device_name: str) -> str:
        return cdi_id(claim_uid, device_name)

    def write(self, claim_uid: str, devices: Sequence[Device]) -> None:
        self.on_write(claim_uid)
        if self.failing:
            raise self.failing
        write_durably(self.path(claim_uid), self._text(devices))
        self.writes += 1

    def is_current(self, claim_uid: str, devices: Sequence[Device]) -> bool:
        path = self.path(claim_uid)
        return path.exists() and path.read_bytes() == self._text(devices)

    def _text(self, devices: Sequence[Device]) -> bytes:
        return "".join(f"{device.name} {device.uuid}\n" for device in devices).encode()

    def exists(self, claim_uid: str) -> bool:
        return self.path(claim_uid).exists()

    def remove(self, claim_uid: str) -> bool:
        if self.failing:
            raise Retryable("StorageUnwritable", str(self.failing))
        return remove_with_temporaries(self.path(claim_uid))

    def claim_uids(self) -> Sequence[str]:
        if not self.root.exists():
            return []
        return [path.stem.removeprefix("claim_") for path in self.root.glob("claim_*.txt")]

    def device_names(self, claim_uid: str) -> Sequence[str]:
        if not self.exists(claim_uid):
            return []
        return [line.split()[0] for line in self.path(claim_uid).read_text().splitlines()]

    def basis(self) -> str:
        return ""

    def find_temporaries(self, *, older_than_s: float) -> Sequence[Path]:
        return find_temporaries(self.root, older_than_s=older_than_s)


class FolderGpus:
    """`GpuSetting` of GPUs that are files: those that are not in their first state have one.

    `failing` is raised by each call; `on_call` is told of it before, in the calling thread.
    """

    parts = ("compute_mode", "time_slice")

    def __init__(self, root: Path) -> None:
        self.root = root
        self.failing: Exception | None = None
        self.on_call: Callable[[str, str], None] = lambda verb, gpu_uuid: None
        self.calls: list[str] = []

    def value(self, minor: int = 0) -> Value:
        """What the GPU is set to, parts that are 0 left out."""
        path = self.root / gpu_uuid(minor)
        found: Value = json.loads(path.read_text()) if path.exists() else {}
        return found

    def make(self, minor: int = 0, **value: int) -> None:
        """As somebody else would set it, or as a reboot leaves it."""
        self._write(gpu_uuid(minor), value)

    def look(self, gpu_uuid: str) -> Value:
        self._enter("look", gpu_uuid)
        path = self.root / gpu_uuid
        found: Value = json.loads(path.read_text()) if path.exists() else {}
        return {"compute_mode": 0, "time_slice": 0} | found

    def set(self, gpu_uuid: str, value: Value, *, known: Value) -> None:
        changed = {part: number for part, number in value.items() if known.get(part) != number}
        if changed:
            self._enter("set", gpu_uuid)
            path = self.root / gpu_uuid
            before: Value = json.loads(path.read_text()) if path.exists() else {}
            self._write(gpu_uuid, before | changed)

    def _enter(self, verb: str, gpu_uuid: str) -> None:
        self.on_call(verb, gpu_uuid)
        self.calls.append(verb)
        if self.failing:
            raise self.failing

    def _write(self, gpu_uuid: str, value: Value) -> None:
        kept = {part: number for part, number in value.items() if number}
        if kept:
            write_durably(self.root / gpu_uuid, json.dumps(kept, sort_keys=True).encode())
        else:
            remove_durably(self.root / gpu_uuid)


class CountingObserver(ClaimObserver):
    """Remembers what it was told, in words."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.steps: list[str] = []
        self.counts: Mapping[str, int] = {}
        self.flying = 0

    def in_flight(self, operation: Operation, change: int) -> None:
        self.flying += change

    def finished(self, attempt: Attempt, *, devices: Sequence[PreparedDevice]) -> None:
        self.told.append(f"{attempt.operation} finished")

    def failed(self, attempt: Attempt, *, error: AgentError) -> None:
        self.told.append(f"{attempt.operation} failed {error.reason}")

    def step_done(self, kind: str, verb: Verb, duration_s: float) -> None:
        self.steps.append(f"{verb} {kind}")

    def prepared_devices(self, counts: Mapping[str, int]) -> None:
        self.counts = counts

    def quarantined(self, damage: Damage) -> None:
        self.told.append(f"quarantined {damage.uid}")

    def swept(self, kind: str) -> None:
        self.told.append(f"swept {kind}")

    def would_sweep(self, counts: Mapping[str, int]) -> None:
        found = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
        self.told.append(f"would sweep {found}")

    def tombstone(self, ref: ClaimRef, *, error: AgentError | None) -> None:
        self.told.append(f"put off {error.reason}" if error else "finished later")


@dataclass
class ClaimNode:
    """A node with its disk; `agent()` starts an agent on it, as often as a test likes."""

    root: Path
    inventory: Inventory = field(default_factory=a_node_of)
    gates: FeatureGates = GATES
    api: ClaimApi = field(default_factory=ClaimApi)
    observer: CountingObserver = field(default_factory=CountingObserver)
    agents: list[NodeClaims] = field(default_factory=list)
    more: Callable[[str], AnyStep] | None = None
    """A step, made for a claim's UID, that comes before those that its config asks for."""

    def __post_init__(self) -> None:
        self.cdi = FolderCdi(self.root / "cdi")
        self.domain = FolderDomain(self.root / "domain")
        self.gpus = FolderGpus(self.root / "gpus")

    def agent(self, *, boot_id: str = BOOT, retry_budget_s: float = 0.0, **more: Any) -> NodeClaims:
        """`more` are further limits."""
        rules = PlanRules(driver=DRIVER, gates=self.gates, cdi_id=cdi_id)
        planner = GpuPlanner(rules, lambda: self.inventory)
        agent = NodeClaims(
            self.api,
            node=NodeFacts(
                pool=NODE,
                planner=PlannerWith(planner, self.more) if self.more else planner,
                boot_id=boot_id,
                inventory=lambda: self.inventory,
            ),
            cdi=self.cdi,
            settings={TimeSliceStep: self.gpus},
            state_dir=self.root / "state",
            own_steps=self.domain.handlers if self.more else no_steps,
            observer=self.observer,
            limits=Limits(retry_budget_s=retry_budget_s, **more),
        )
        self.agents.append(agent)
        return agent

    async def close(self) -> None:
        for agent in self.agents:
            await agent.drain()
            agent.close()

    def record_path(self, ref: ClaimRef) -> Path:
        return self.root / "state" / "claims" / f"{ref.uid}.json"

    def files(self) -> list[str]:
        """All files of the node but the lock file, relative to its root."""
        found = (path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file())
        return sorted(str(path) for path in found if path.name != "locks")
