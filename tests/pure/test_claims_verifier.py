"""When claims are verified: at start, after the driver changed, again while some have to wait."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import pytest
from structlog.testing import capture_logs

from nvdra_nodeagent.claims.plan import Holdings, make_plan
from nvdra_nodeagent.claims.verifier import Verifier
from nvdra_nodeagent.errors import NodeFault, Retryable
from nvdra_testing.claims import RULES, a_node_of, a_record, an_allocated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from nvdra_nodeagent.claims.record import Record

# Time is the loop's own: waits cost nothing.
pytestmark = pytest.mark.looptime

T = TypeVar("T")


def a_prepared(name: str, device: str) -> Record:
    claim = an_allocated(device, name=name)
    return a_record(
        claim, make_plan(claim, inventory=a_node_of(4), holdings=Holdings(), rules=RULES)
    )


class Books:
    """Two records, a basis to be changed, and what was asked."""

    def __init__(self) -> None:
        self.kept = (a_prepared("one", "gpu-0"), a_prepared("two", "gpu-1"))
        self.basis = "driver 1"
        self.failing: set[str] = set()
        self.hanging: set[str] = set()
        self.crashing: set[str] = set()
        self.disk_works = True
        self.asked: list[str] = []
        self.files = [record.claim.uid for record in self.kept]

    def refresh(self) -> None:
        if not self.disk_works:
            raise NodeFault("StorageUnreadable", "no disk")

    def records(self) -> tuple[Record, ...]:
        return self.kept

    def current_basis(self) -> str:
        if not self.basis:
            raise NodeFault("DriverMissing", "no driver")
        return self.basis

    async def verify(self, record: Record) -> bool:
        self.asked.append(record.claim.name)
        if record.claim.name in self.hanging:
            await asyncio.Event().wait()
        if record.claim.name in self.crashing:
            raise ValueError("unforeseen")
        if record.claim.name in self.failing:
            raise Retryable("DeviceChanged", "gone")
        self.files.append(record.claim.uid)
        return True

    async def run(self, work: Callable[[], T]) -> T:
        return work()

    def with_files(self) -> list[str]:
        return self.files

    def verifier(self) -> Verifier:
        return Verifier(
            self,  # type: ignore[arg-type]
            basis=self.current_basis,
            verify=self.verify,
            run=self.run,
            with_files=self.with_files,
        )


@pytest.fixture
def books() -> Books:
    return Books()


@asynccontextmanager
async def running(books: Books) -> AsyncIterator[Verifier]:
    verifier = books.verifier()
    task = asyncio.create_task(verifier.run(), name="verifier")
    try:
        yield verifier
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_all_claims_are_verified_once_at_start_and_then_left_alone(books: Books) -> None:
    async with running(books):
        await asyncio.sleep(1000.0)
    assert books.asked == ["one", "two"]


async def test_a_cdi_file_that_somebody_removed_has_all_verified_again(books: Books) -> None:
    async with running(books):
        await asyncio.sleep(100.0)
        books.files.clear()
        await asyncio.sleep(1000.0)
    assert books.asked == ["one", "two"] * 2


async def test_another_driver_has_all_verified_again(books: Books) -> None:
    async with running(books) as verifier:
        await asyncio.sleep(100.0)
        books.basis = "driver 2"
        verifier.wake()
        await asyncio.sleep(5.0)
    assert books.asked == ["one", "two"] * 2


async def test_another_driver_is_found_without_a_hint(books: Books) -> None:
    async with running(books):
        await asyncio.sleep(100.0)
        books.basis = "driver 2"
        await asyncio.sleep(45.0)
    assert books.asked == ["one", "two"] * 2


async def test_a_driver_that_keeps_changing_is_let_come_to_rest(books: Books) -> None:
    async with running(books) as verifier:
        await asyncio.sleep(100.0)
        books.asked.clear()
        for number in range(20):
            books.basis = f"driver 2 with {number} files"
            verifier.wake()
            await asyncio.sleep(1.0)
        assert books.asked == []
        await asyncio.sleep(60.0)
    assert books.asked == ["one", "two"]


async def test_without_a_driver_nothing_is_touched_until_it_is_there(books: Books) -> None:
    books.basis = ""
    async with running(books):
        await asyncio.sleep(100.0)
        assert books.asked == []
        books.basis = "driver 1"
        await asyncio.sleep(60.0)
    assert books.asked == ["one", "two"]


async def test_a_claim_that_has_to_wait_is_tried_again_and_keeps_no_other(books: Books) -> None:
    books.failing = {"one"}
    async with running(books):
        await asyncio.sleep(20.0)
        assert books.asked.count("two") >= 2
        books.failing.clear()
        await asyncio.sleep(60.0)
        books.asked.clear()
        await asyncio.sleep(1000.0)
    assert books.asked == []


async def test_a_pass_tells_what_became_of_each_claim(books: Books) -> None:
    books.failing = {"two"}
    report = await books.verifier().verify_all()
    one, two = (record.claim.uid for record in books.kept)
    assert (report.held, report.mended) == ([one], [])
    assert list(report.waiting) == [two]
    assert "DeviceChanged" in report.waiting[two]


async def test_why_a_claim_waits_is_said_once_and_anew_after_it_held(books: Books) -> None:
    verifier = books.verifier()
    with capture_logs() as lines:
        for failing in ({"one"}, {"one"}, set[str](), {"one"}):
            books.failing = failing
            await verifier.verify_all()
    assert [line["event"] for line in lines].count("claim not as prepared") == 2


async def test_a_disk_that_fails_at_the_wrong_moment_only_delays_it(books: Books) -> None:
    books.disk_works = False
    async with running(books):
        await asyncio.sleep(100.0)
        assert books.asked == []
        books.disk_works = True
        await asyncio.sleep(60.0)
    assert books.asked == ["one", "two"]


async def test_who_is_stopped_in_the_middle_verifies_all_when_begun_again(books: Books) -> None:
    verifier = books.verifier()
    books.hanging = {"one"}
    task = asyncio.create_task(verifier.run(), name="verifier")
    await asyncio.sleep(10.0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    books.hanging.clear()
    books.asked.clear()
    task = asyncio.create_task(verifier.run(), name="verifier again")
    await asyncio.sleep(10.0)
    task.cancel()
    assert books.asked == ["one", "two"]


@pytest.mark.parametrize("trouble", ["hanging", "crashing"])
async def test_a_claim_that_cannot_be_looked_at_keeps_no_other(books: Books, trouble: str) -> None:
    getattr(books, trouble).add("one")
    async with running(books):
        await asyncio.sleep(10.0)
    assert "two" in books.asked
