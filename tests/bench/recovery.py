"""What a node waits for after things went wrong: an agent killed with 100 prepared claims, slices
wiped.

The floor of the first is the same start without claims, that of the second one list and one create
through the same kind of session.
"""

from __future__ import annotations

import asyncio
import time
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from nvdra_kube.resources import RESOURCE_SLICES

from .agent import delete_slices, running_agent
from .figures import print_document, progress, rounded, spread
from .kubelet import connected
from .setting import Setting, a_setting, rounds_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CLAIMS = 100
WIPE_PAUSE_S = 0.1


def main(argv: Sequence[str]) -> None:
    options = rounds_of("recovery", argv, rounds=7, quick=2)
    print_document(asyncio.run(_measure(options.rounds)))


async def _measure(rounds: int) -> dict[str, Any]:
    async with a_setting() as setting:
        async with running_agent(setting.node):
            pass  # lays out the simulated machine, and Python's bytecode caches
        return {
            "recovery": await _recoveries(setting, rounds),
            "wiped_slices": await _wipes(setting, rounds),
            "claims": CLAIMS,
            "rounds": rounds,
        }


async def _recoveries(setting: Setting, rounds: int) -> dict[str, Any]:
    """From the start of the agent after SIGKILL until it serves, and until it has answered for each
    claim again; those of a lane that are one too many for its GPU have admin access."""
    claims = _some_claims(setting)
    found: dict[str, list[float]] = {"serving_s": [], "all_answered_s": []}
    floor: dict[str, list[float]] = {"serving_s": [], "one_answered_s": []}
    for number in range(rounds):
        await _restarted(setting, claims[:1], floor["serving_s"], floor["one_answered_s"])
        await _prepared_and_killed(setting, claims)
        await _restarted(setting, claims, found["serving_s"], found["all_answered_s"])
        last = {name: rounded(values[-1]) for name, values in found.items()}
        progress(f"recovery {number + 1}/{rounds}: {last}")
    pairs = zip(found["all_answered_s"], floor["one_answered_s"], strict=True)
    return {
        "with_claims": {name: spread(values) for name, values in found.items()},
        "without": {name: spread(values) for name, values in floor.items()},
        "all_answered_to_without": spread([full / bare for full, bare in pairs]),
        "more_than_without_s": spread(
            [
                full - bare
                for full, bare in zip(found["all_answered_s"], floor["one_answered_s"], strict=True)
            ]
        ),
    }


def _some_claims(setting: Setting) -> list[dict[str, str]]:
    """One of each GPU, and the rest with admin access."""
    owners = [lane[0] for lane in setting.claims[:8]]
    guests = [claim for lane in setting.claims[8:] for claim in lane]
    return [*owners, *guests][:CLAIMS]


async def _prepared_and_killed(setting: Setting, claims: Sequence[Mapping[str, str]]) -> None:
    async with running_agent(setting.node) as agent:
        async with connected(setting.node.socket, [claims]) as driver:
            await driver.prepare_all(claims)
        agent.process.kill()
    setting.node.socket.unlink()


async def _restarted(
    setting: Setting,
    claims: Sequence[Mapping[str, str]],
    serving_s: list[float],
    answered_s: list[float],
) -> None:
    started = time.perf_counter()
    async with (
        running_agent(setting.node) as agent,
        connected(setting.node.socket, [claims]) as driver,
    ):
        serving_s.append(agent.serving_s)
        await driver.prepare_all(claims)
        answered_s.append(time.perf_counter() - started)
        await driver.unprepare_all(claims)


async def _wipes(setting: Setting, rounds: int) -> dict[str, Any]:
    """From the answer to the deletion until a watch shows the new slice."""
    found: list[float] = []
    floor: list[float] = []
    pauses = islice(cycle((0.0, WIPE_PAUSE_S)), 3 * rounds)  # shortly after they came, and later
    async with running_agent(setting.node), setting.node.session() as api:
        for pause_s in pauses:
            await asyncio.sleep(pause_s)
            revision = (await api.list(RESOURCE_SLICES))["metadata"]["resourceVersion"]
            await delete_slices(api)
            started = time.perf_counter()
            async for event in api.watch(RESOURCE_SLICES, resource_version=revision):
                if event.type == "ADDED" and event.object["spec"].get("devices"):
                    break
            found.append(time.perf_counter() - started)
            floor.append(await _one_write(api))
            progress(f"wiped slices: {found[-1]:.3f} s, floor {floor[-1]:.3f}")
    return {
        "back_s": spread(found),
        "floor_s": spread(floor),
        "back_to_floor": spread([back / least for back, least in zip(found, floor, strict=True)]),
    }


async def _one_write(api: Any) -> float:
    """One list, and one create of a slice of another pool; as little as a repair can be."""
    started = time.perf_counter()
    (body,) = (await api.list(RESOURCE_SLICES))["items"]
    spec = {**body["spec"], "driver": "floor.example.com"}
    made = await api.create(
        RESOURCE_SLICES, {**body, "metadata": {"generateName": "floor-"}, "spec": spec}
    )
    taken_s = time.perf_counter() - started
    await api.delete(RESOURCE_SLICES, made["metadata"]["name"])
    return taken_s
