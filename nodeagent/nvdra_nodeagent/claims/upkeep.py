"""What has to be done about claims without the kubelet asking: sweep, rebuild, finish, verify."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from nvdra_nodeagent.claims.model import ClaimRef
from nvdra_nodeagent.claims.reconcile import Reconciler
from nvdra_nodeagent.claims.sweeper import Sweeper
from nvdra_nodeagent.claims.undertaker import Undertaker
from nvdra_nodeagent.claims.verifier import Verifier

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nvdra_nodeagent.claims.books import Books, NodeFacts
    from nvdra_nodeagent.claims.observer import ClaimObserver
    from nvdra_nodeagent.claims.reader import ClaimReader
    from nvdra_nodeagent.claims.record import Record
    from nvdra_nodeagent.claims.workplace import Workplace
    from nvdra_nodeagent.inventory.model import Inventory
    from nvdra_nodeagent.steps.cdi import CdiFiles


class Keepers:
    """One of each kind; their endless runs belong to tasks of the owner."""

    def __init__(
        self,
        books: Books,
        reader: ClaimReader,
        *,
        node: NodeFacts,
        cdi: CdiFiles,
        place: Workplace,
        release: Callable[[ClaimRef], Awaitable[bool]],
        observer: ClaimObserver,
        sweep_grace_s: float,
        sweep_dry_run: bool,
    ) -> None:
        """`release` unprepares a claim on the ordinary path and tells whether it worked."""
        self._books = books
        self._reader = reader
        self._node = node
        self._cdi = cdi
        self._place = place
        self.sweeper = Sweeper(
            books.ledger,
            reader,
            cdi=cdi,
            state_dir=books.state_dir,
            directories=books.directories,
            boot_id=node.boot_id,
            run=place.in_thread,
            is_busy=place.work.is_busy,
            release=release,
            observer=observer,
            grace_s=sweep_grace_s,
            dry_run=sweep_dry_run,
        )
        self.reconciler = self._make_reconciler()
        self.undertaker = self._make_undertaker(observer)
        self.verifier = self._make_verifier()

    def _make_reconciler(self) -> Reconciler:
        return Reconciler(
            self._books.ledger,
            self._reader,
            traces=self._cdi,
            planner=self._node.planner,
            pool=self._node.pool,
            boot_id=self._node.boot_id,
            inventory=self._node.inventory,
            run=self._place.in_thread,
            exclusively=self._place.exclusively,
            is_busy=self._place.work.is_busy,
        )

    def _make_undertaker(self, observer: ClaimObserver) -> Undertaker:
        return Undertaker(
            self._books.executor.unfinished,
            run=self._place.in_thread,
            is_busy=self._place.work.is_busy,
            finish=self._finish,
            observer=observer,
        )

    def _make_verifier(self) -> Verifier:
        return Verifier(
            self._books.ledger,
            basis=partial(_basis, self._node.inventory, self._cdi),
            verify=self._verify,
            run=self._place.in_thread,
            with_files=self._cdi.claim_uids,
        )

    async def keep_swept(self, *, interval_s: float, jitter_s: float) -> None:
        """Reconcile and sweep; eternal."""
        async with asyncio.TaskGroup() as tasks:
            for name, keeper in (("reconciler", self.reconciler), ("sweeper", self.sweeper)):
                work = keeper.run(interval_s=interval_s, jitter_s=jitter_s)
                tasks.create_task(work, name=name)

    async def _finish(self, uid: str) -> ClaimRef | None:
        finish = partial(self._books.executor.finish, uid)
        return await self._place.in_line(
            "finish",
            ClaimRef("", "", uid),
            lambda deadline: self._place.locked(
                "unprepare",
                uid,
                lambda locked: finish(locked=locked),
                gpus=frozenset(),
                deadline=deadline,
            ),
        )

    async def _verify(self, record: Record) -> bool:
        verify = partial(self._books.executor.verify, record.claim.uid)
        held = await self._place.in_line(
            "verify",
            record.claim,
            lambda deadline: self._place.locked(
                "prepare",
                record.claim.uid,
                lambda locked: verify(locked=locked),
                gpus=record.gpu_uuids(),
                deadline=deadline,
            ),
        )
        return held is not False


def _basis(inventory: Callable[[], Inventory], cdi: CdiFiles) -> str:
    """What effects rest on: the load of the driver and its files."""
    load = inventory().driver_load
    return f"{load} {cdi.basis()}" if load else ""
