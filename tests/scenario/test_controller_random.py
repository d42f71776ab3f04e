"""Random sequences of what happens to domains, under a controller that fails and is restarted; then
peace, and what must hold."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Literal

import pytest

from nvdra_sim.cluster.apiserver import ClusterStore
from nvdra_testing.compute_domains import DomainCluster
from nvdra_testing.domain_invariants import Sight
from nvdra_testing.domain_turmoil import Turmoil
from nvdra_testing.recorded_api import RecordedApi

pytestmark = pytest.mark.looptime

if TYPE_CHECKING:
    from collections.abc import Iterable

TERMS: Final = 8
# Longer than anything that the controller puts off, or asks again.
SILENCE_S: Final = 35.0
PATIENCE_S: Final = 20 * SILENCE_S
# A name that somebody else's object has is asked for again: nothing tells when it is free.
ASKED_AGAIN: Final = "create resourceclaimtemplates shared"


async def a_term(turmoil: Turmoil) -> None:
    """Of a controller that may die at a write, and is stopped in the end."""
    rng = turmoil.rng
    die_at = rng.choice((0, rng.randrange(1, 60)))
    when: Literal["before", "after"] = rng.choice(("before", "after"))
    turmoil.tell(f"a controller starts; dies {when} its write {die_at}")
    api = RecordedApi(turmoil.it.api, die_at=die_at, when=when)
    async with turmoil.it.running(api=api):
        for _ in range(rng.randrange(20, 50)):
            await turmoil.step()
            await asyncio.sleep(rng.choice((0.0, 0.0, 0.005, 0.05, 0.5, 3.0)))


async def come_to_rest(turmoil: Turmoil) -> list[str]:
    """Until nothing changed for a while. Returns what was written all the same; `TimeoutError`."""
    it = turmoil.it
    async with asyncio.timeout(PATIENCE_S):
        while True:
            await turmoil.end_daemons()
            revision, written = it.store.revision, len(it.writes)
            await asyncio.sleep(SILENCE_S)
            if it.store.revision == revision:
                return it.writes[written:]


async def broken(turmoil: Turmoil) -> list[str]:
    """What does not hold once the controller rests."""
    turmoil.tell("everybody waits")
    try:
        idle_writes = await come_to_rest(turmoil)
    except TimeoutError:
        return ["it never comes to rest", *turmoil.it.writes[-20:]]
    restless = [f"written at rest: {write}" for write in idle_writes if write != ASKED_AGAIN]
    return restless + (await Sight.of(turmoil.it)).broken()


def told(turmoil: Turmoil, seed: int, broken: Iterable[str]) -> str:
    return "\n".join([f"seed {seed}, broken:", *broken, "after:", *turmoil.story])


@pytest.mark.parametrize("seed", range(1, 9))
async def test_whatever_happened_the_controller_gets_everything_right_in_the_end(
    seed: int,
) -> None:
    it = DomainCluster(ClusterStore(seed=seed))
    await it.install()
    turmoil = Turmoil(it, seed=seed)
    for _ in range(TERMS):
        await a_term(turmoil)
    turmoil.calm()
    async with it.running():
        assert not (found := await broken(turmoil)), told(turmoil, seed, found)
        await turmoil.join_all()
        assert not (found := await broken(turmoil)), told(turmoil, seed, found)
        await turmoil.delete_all()
        assert not (found := await broken(turmoil)), told(turmoil, seed, found)
        assert not (await Sight.of(it)).domains
