"""Random sequences of what happens to claims, against a model of who holds which GPU."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvdra_kube.errors import ServerError
from nvdra_nodeagent.inventory.model import Inventory
from nvdra_testing.claims import BOOT, ClaimNode, a_gpu, a_mig, a_ref

if TYPE_CHECKING:
    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_nodeagent.claims.service import NodeClaims

MIGS = (a_mig(1, start=0, size=4), a_mig(1, start=4, size=4, gi=8))
BEFORE = Inventory((a_gpu(0), a_gpu(1)))
AFTER = Inventory((a_gpu(0), a_gpu(1, migs=MIGS)))
# Whoever holds gpu-1 keeps it when the GPU is cut up; both MIG devices overlap it, not each other.
WANTS = {"a": "gpu-0", "b": "gpu-0", "c": "gpu-1", "d": MIGS[0].name, "e": MIGS[1].name}
EXCLUDED = [{"a", "b"}, {"c", "d"}, {"c", "e"}]

ACTIONS = [
    *["prepare"] * 14,
    *["unprepare", "cut"] * 3,
    *["cancel", "overtake", "api-fails", "damage", "lose-record", "lose-cdi"],
    *["restart", "reboot", "second-agent", "sweep"],
]


@dataclass
class Model:
    """`holds` may be more than was prepared: a claim of unclear state holds too."""

    node: ClaimNode
    agent: NodeClaims
    boots: int = 0
    holds: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)  # records, or CDI files, but never both

    def ref(self, name: str) -> ClaimRef:
        return a_ref(name)

    def may_have(self, name: str) -> bool:
        if WANTS[name] not in self.node.inventory.devices:
            return name in self.holds and name not in self.lost
        return not any(name in pair and pair - {name} <= self.holds for pair in EXCLUDED)

    async def prepare(self, name: str) -> None:
        outcome = (await self.agent.prepare([self.ref(name)]))[self.ref(name).uid]
        granted = isinstance(outcome, tuple)
        if WANTS[name] in self.node.inventory.devices or name not in self.holds:
            assert granted == self.may_have(name), (name, outcome)
        if granted:
            assert self.node.cdi.exists(self.ref(name).uid)
            self.holds.add(name)
            self.lost.discard(name)

    async def unprepare(self, name: str) -> None:
        uid = self.ref(name).uid
        assert await self.agent.unprepare([self.ref(name)]) == {uid: None}
        self.holds.discard(name)
        self.lost.discard(name)

    async def cancel(self, name: str) -> None:
        call = asyncio.create_task(self.agent.prepare([self.ref(name)]))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        await self.agent.drain()
        await self.prepare(name)

    async def overtake(self, name: str) -> None:
        call = asyncio.create_task(self.agent.prepare([self.ref(name)]))
        await asyncio.sleep(0)
        await self.unprepare(name)
        await call

    async def api_fails(self, name: str) -> None:
        self.node.api.errors.append(ServerError("etcd", status=500))
        outcome = (await self.agent.prepare([self.ref(name)]))[self.ref(name).uid]
        assert not isinstance(outcome, tuple)

    async def damage(self, name: str) -> None:
        path = self.node.record_path(self.ref(name))
        if name in self.holds and name not in self.lost and path.exists():
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content[:-1])

    async def lose_record(self, name: str) -> None:
        path = self.node.record_path(self.ref(name))
        if name in self.holds - self.lost and path.exists():
            path.unlink()
            self.lost.add(name)

    async def lose_cdi(self, name: str) -> None:
        if name in self.holds - self.lost and self.node.record_path(self.ref(name)).exists():
            self.node.cdi.remove(self.ref(name).uid)
            self.lost.add(name)

    async def restart(self, name: str) -> None:
        self.agent = self.node.agent(boot_id=f"{BOOT}-{self.boots}", sweep_grace_s=0.0)

    async def reboot(self, name: str) -> None:
        self.boots += 1
        await self.restart(name)

    async def second_agent(self, name: str) -> None:
        """Both live on; the newer one gets the calls."""
        await self.restart(name)
        await self.agent.start()

    async def cut(self, name: str) -> None:
        self.node.inventory = AFTER

    async def sweep(self, name: str) -> None:
        assert (await self.agent.sweep()).released == []  # all claims exist


async def _play(root: Path, script: list[tuple[str, str]]) -> None:
    node = ClaimNode(root, inventory=BEFORE)
    for name, device in WANTS.items():
        node.api.add(a_ref(name), device)
    model = Model(node, node.agent(boot_id=f"{BOOT}-0"))
    for action, name in script:
        await getattr(model, action.replace("-", "_"))(name)
    for name in WANTS:
        await model.unprepare(name)
    assert node.files() == []
    await node.close()


_STEPS = st.tuples(st.sampled_from(ACTIONS), st.sampled_from([*WANTS]))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sampled_from(ACTIONS), st.sampled_from([*WANTS])), min_size=12, max_size=24
    )
)
async def test_no_sequence_grants_a_gpu_twice_or_leaves_anything(
    script: list[tuple[str, str]],
) -> None:
    with tempfile.TemporaryDirectory() as root:
        await _play(Path(root), script)
