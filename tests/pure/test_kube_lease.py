"""The elector in fake time: two and three candidates, and every kind of trouble on the line."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from nvdra_kube.lease import Elector, LeaseTimes, Role, identity_of
from nvdra_kube.resources import LEASES
from nvdra_testing.election import Election, Worker, now_s
from nvdra_testing.kube_stub import KubeStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.looptime


@asynccontextmanager
async def election() -> AsyncIterator[Election]:
    running = Election()
    try:
        yield running
        assert running.never_two_at_work()
    finally:
        await running.close()


async def a_leader(it: Election, *, for_s: float) -> Worker:
    """A candidate without rivals, that many seconds later."""
    first = it.candidate("a")
    await asyncio.sleep(for_s)
    return first


async def test_a_lone_candidate_leads_at_once() -> None:
    async with election() as it:
        first = await a_leader(it, for_s=0.1)
        record = await it.record()
    assert (record.holder, record.duration_s, record.transitions) == ("a", 15, 0)
    assert first.spans[0][0] < 0.1


async def test_the_log_says_that_the_lease_was_acquired() -> None:
    with capture_logs() as logs:
        async with election() as it:
            it.candidate("a")
            await asyncio.sleep(0.1)
    assert "successfully acquired lease" in [line["event"] for line in logs]


async def test_the_leader_renews_each_retry_period_with_one_request() -> None:
    async with election() as it:
        first = await a_leader(it, for_s=20.5)
        renewals = [at_s for verb, at_s in first.wire.asked if verb == "update"]
    assert renewals == pytest.approx([2.0 * n for n in range(1, 11)], abs=0.01)
    assert [verb for verb, _ in first.wire.asked][:3] == ["get", "create", "update"]


async def test_renewing_keeps_when_the_lease_was_acquired() -> None:
    stamps = (f"2026-01-01T00:00:{n:02}.000000Z" for n in range(60))
    async with election() as it:
        it.candidate("a", stamp=lambda: next(stamps))
        await asyncio.sleep(6.5)
        record = await it.record()
    assert record.acquired == "2026-01-01T00:00:00.000000Z"
    assert record.renewed == "2026-01-01T00:00:03.000000Z"


async def test_of_three_candidates_one_works() -> None:
    async with election() as it:
        workers = [it.candidate(name) for name in "abc"]
        await asyncio.sleep(60)
        assert sum(worker.working for worker in workers) == 1
        assert sum(len(worker.spans) for worker in workers) == 1


async def test_candidates_wait_longer_than_the_retry_period_by_chance() -> None:
    async with election() as it:
        it.candidate("a")
        await asyncio.sleep(0.1)
        second = it.candidate("b")
        await asyncio.sleep(9)
        asked = [at_s for _, at_s in second.wire.asked]
    gaps = [later - sooner for sooner, later in itertools.pairwise(asked)]
    assert gaps == pytest.approx([3.2, 3.2], abs=0.01)


async def test_a_released_lease_is_taken_at_the_next_look() -> None:
    async with election() as it:
        first = await a_leader(it, for_s=0.1)
        second = it.candidate("b")
        await asyncio.sleep(10)
        await first.stop()
        stopped_s = now_s()
        await asyncio.sleep(5)
        record = await it.record()
    assert second.spans[0][0] - stopped_s < 4.4
    assert (record.holder, record.transitions) == ("b", 1)


async def test_the_lease_is_released_only_after_the_work_has_stopped() -> None:
    async with election() as it:
        first = it.candidate("a", slow_s=3.0)
        await asyncio.sleep(1)
        leaving = asyncio.create_task(first.stop())
        await asyncio.sleep(2.9)
        during = await it.record()
        await leaving
        after = await it.record()
    assert during.holder == "a"
    assert (after.holder, after.duration_s) == ("", 1)


async def test_a_lease_is_renewed_while_the_work_stops() -> None:
    async with election() as it:
        first = it.candidate("a", slow_s=30.0)
        second = it.candidate("b")
        await asyncio.sleep(1)
        await first.stop()
        assert first.overruns == 0
        await asyncio.sleep(5)
        assert second.working


async def test_a_killed_leader_is_followed_after_the_lease_duration() -> None:
    async with election() as it:
        first = await a_leader(it, for_s=0.1)
        second = it.candidate("b")
        await asyncio.sleep(20)
        first.wire.line = "hangs"
        killed_s = now_s()
        await asyncio.sleep(25)
        waited_s = second.spans[0][0] - killed_s
    assert 13.0 <= waited_s <= 15.0 + 4.4


@pytest.mark.parametrize("line", ["hangs", "refuses", "hangs after writes"])
async def test_work_stops_at_the_renew_deadline_without_a_server(line: str) -> None:
    async with election() as it:
        first = await a_leader(it, for_s=8.5)
        first.wire.line = line  # type: ignore[assignment]
        await asyncio.sleep(10)
    assert first.spans[0][1] == pytest.approx(18.0, abs=0.01)


async def test_one_hung_request_does_not_cost_the_leadership() -> None:
    async with election() as it:
        first = await a_leader(it, for_s=3.9)
        first.wire.line = "hangs"
        await asyncio.sleep(0.2)
        first.wire.line = "good"
        await asyncio.sleep(30)
        assert first.working
        assert first.lost == 0


async def test_a_leader_that_lost_stands_again() -> None:
    async with election() as it:
        first = await a_leader(it, for_s=1)
        first.wire.line = "refuses"
        await asyncio.sleep(30)
        assert len(first.spans[0]) == 2
        first.wire.line = "good"
        await asyncio.sleep(10)
        assert first.working
        assert len(first.spans) == 2


async def test_a_stolen_lease_ends_the_work_at_the_next_renewal() -> None:
    async with election() as it:
        first = await a_leader(it, for_s=4.5)
        await it.edit(holderIdentity="thief", leaseDurationSeconds=60)
        await asyncio.sleep(3)
        assert first.elector.deadline_s < now_s()
        record = await it.record()
    assert first.spans[0][1] == pytest.approx(6.0, abs=0.1)
    assert record.holder == "thief"


async def test_a_lease_deleted_by_hand_is_made_again() -> None:
    async with election() as it:
        first = await a_leader(it, for_s=1)
        await it.api.delete(LEASES, "controller", namespace="default")
        await asyncio.sleep(5)
        assert first.working
        assert (await it.record()).holder == "a"


async def test_an_update_whose_answer_was_lost_does_not_lock_the_leader_out() -> None:
    async with election() as it:
        first = await a_leader(it, for_s=1)
        first.wire.line = "loses answers"
        await asyncio.sleep(4)
        first.wire.line = "good"
        await asyncio.sleep(20)
        assert first.working
        assert len(first.spans) == 1


async def test_a_candidate_that_leaves_gives_back_what_it_may_have_got_unknowingly() -> None:
    async with election() as it:
        first = it.candidate("a")
        first.wire.line = "hangs after writes"
        await asyncio.sleep(3)
        assert (await it.record()).holder == "a"
        first.wire.line = "good"
        await first.stop()
        assert first.spans == []
        assert (await it.record()).holder == ""


async def test_clocks_that_are_hours_off_do_not_matter() -> None:
    async with election() as it:
        first = it.candidate("a", stamp=lambda: "1999-01-01T00:00:00.000000Z")
        await asyncio.sleep(0.1)
        second = it.candidate("b", stamp=lambda: "2040-01-01T00:00:00.000000Z")
        await asyncio.sleep(5)
        assert first.working
        first.wire.line = "hangs"
        await asyncio.sleep(20)
        assert second.working


async def test_a_newcomer_does_not_trust_an_old_renew_time() -> None:
    async with election() as it:
        await it.edit(
            holderIdentity="gone",
            leaseDurationSeconds=15,
            renewTime="2001-01-01T00:00:00.000000Z",
            acquireTime="2001-01-01T00:00:00.000000Z",
            leaseTransitions=7,
        )
        first = await a_leader(it, for_s=30)
        record = await it.record()
    assert 15.0 <= first.spans[0][0] <= 15.0 + 4.4
    assert record.transitions == 8


async def test_the_duration_that_counts_is_the_one_in_the_record() -> None:
    async with election() as it:
        await it.edit(holderIdentity="gone", leaseDurationSeconds=40)
        first = await a_leader(it, for_s=60)
    assert first.spans[0][0] >= 40.0


async def test_work_that_does_not_stop_is_reported_when_the_lease_runs_out() -> None:
    async with election() as it:
        first = it.candidate("a", slow_s=100.0)
        await asyncio.sleep(0.5)
        first.wire.line = "hangs"
        await asyncio.sleep(14.0)
        assert first.overruns == 0
        await asyncio.sleep(1.0)
        assert first.overruns == 1


async def test_a_timer_that_rings_a_trace_early_lets_no_elector_spin() -> None:
    # The loop wakes what is due within a nanosecond, and no time passes in between.
    trace_s = 5e-10
    times = LeaseTimes(lease_duration_s=15 + trace_s, renew_deadline_s=10 + trace_s)
    async with election() as it:
        first = it.candidate("a", slow_s=100.0, times=times)
        await asyncio.sleep(0.5)
        first.wire.line = "refuses"
        await asyncio.sleep(20)
        assert first.overruns == 1
        assert len(first.wire.asked) < 20


async def test_run_returns_when_the_work_is_done() -> None:
    async def work() -> None:
        await asyncio.sleep(1)

    async with election() as it:
        first = it.candidate("a", start=False)
        await first.elector.run(work)
        assert first.elector.role is Role.IDLE
        assert (await it.record()).holder == ""


async def test_what_the_work_raises_comes_out_after_the_release() -> None:
    async def work() -> None:
        raise ValueError("broken")

    async with election() as it:
        first = it.candidate("a", start=False)
        with pytest.raises(ValueError, match="broken"):
            await first.elector.run(work)
        assert (await it.record()).holder == ""


async def test_a_leader_that_neither_renews_nor_stops_is_unhealthy() -> None:
    async with election() as it:
        first = await a_leader(it, for_s=1)
        assert first.elector.unhealthy() == ""
        first.elector._renewed_s -= 60
        assert "last renewed" in first.elector.unhealthy()


@pytest.mark.timeout(300)
@given(
    line=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(["good", "hangs", "refuses", "loses answers", "hangs after writes"]),
            st.floats(0.1, 25.0),
        ),
        max_size=8,
    )
)
def test_whatever_happens_on_the_lines_never_two_work(
    line: list[tuple[int, str, float]],
) -> None:
    import looptime

    async def play() -> None:
        async with election() as it:
            workers = [it.candidate(name) for name in "abc"]
            for number, state, lasts_s in line:
                workers[number].wire.line = state  # type: ignore[assignment]
                await asyncio.sleep(lasts_s)
                assert it.never_two_at_work()
                for worker in workers:
                    assert not worker.working or now_s() <= worker.elector.deadline_s + 0.01

    loop = looptime.new_event_loop()
    try:
        loop.run_until_complete(play())
    finally:
        loop.close()


@pytest.mark.parametrize(
    ("times", "problem"),
    [
        ({"lease_duration_s": 10.0}, "longer than the renew deadline"),
        ({"renew_deadline_s": 2.4}, "x the retry period"),
        ({"retry_period_s": 0.0}, "positive"),
    ],
)
def test_times_that_cannot_work_are_refused(times: dict[str, float], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        LeaseTimes(**times)


def test_an_empty_identity_is_refused() -> None:
    with pytest.raises(ValueError, match="identity"):
        Elector(KubeStub(), namespace="default", name="controller", identity="")


def test_a_restarted_pod_is_another_candidate() -> None:
    assert identity_of("controller-0") != identity_of("controller-0")
    assert identity_of("controller-0").startswith("controller-0-")
