"""What must hold for every allocation, whatever the cluster looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from nvdra_sim.cluster.scheduler.allocator import Placement, allocate
from nvdra_sim.cluster.scheduler.pools import gather_pools
from nvdra_sim.cluster.scheduler.usage import usage_of
from nvdra_testing.dra_objects import (
    a_claim,
    a_class,
    a_device,
    a_node,
    a_request,
    a_slice,
    allocated,
    first_available,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvdra_kube.api import Body

CLASSES = {"gpu.nvidia.com": a_class()}
PARENT = "gpu.nvidia.com/parent"
SLICES_PER_GPU = 7


@st.composite
def machines(draw: st.DrawFn) -> list[Body]:
    """A pool of partitions of two GPUs that draw on shared counters, and whole devices."""
    devices = []
    for index in range(draw(st.integers(0, 8))):
        parent = draw(st.sampled_from(["A", "B"]))
        size = draw(st.integers(0, SLICES_PER_GPU))
        uses = [{"counterSet": parent, "counters": {"slices": {"value": str(size)}}}]
        extra = {"consumesCounters": uses} if size else {}
        devices.append(a_device(f"d-{index}", attributes={"parent": parent}, **extra))
    counters = [
        {"name": name, "counters": {"slices": {"value": str(SLICES_PER_GPU)}}} for name in "AB"
    ]
    return [
        a_slice(devices, name="a", of=2),
        a_slice([], name="b", of=2, sharedCounters=counters),
    ]


@st.composite
def requests(draw: st.DrawFn, name: str) -> Body:
    wanted = [a_request(f"s{index}", count=draw(st.integers(1, 3))) for index in range(draw(_FEW))]
    if len(wanted) > 1:
        return first_available(name, *wanted)
    return a_request(name, count=wanted[0]["exactly"]["count"])


_FEW = st.integers(1, 2)


@st.composite
def claims(draw: st.DrawFn, name: str) -> Body:
    asked = [draw(requests(f"r{index}")) for index in range(draw(_FEW))]
    kind = draw(st.sampled_from(["", "matchAttribute", "distinctAttribute"]))
    return a_claim(name, *asked, constraints=[{"requests": [], kind: PARENT}] if kind else [])


pods = st.lists(st.integers(1, 2), min_size=1, max_size=4).flatmap(
    lambda sizes: st.tuples(
        *(
            st.tuples(*(claims(f"claim-{pod}-{index}") for index in range(size)))
            for pod, size in enumerate(sizes)
        )
    )
)


def schedule(machine: Sequence[Body], waiting: Sequence[Sequence[Body]]) -> list[Body]:
    """Place one pod after the other and return all claims that got devices."""
    done: list[Body] = []
    for wanted in waiting:
        outcome = allocate(
            wanted,
            node=a_node(),
            pools=gather_pools(machine),
            classes=CLASSES,
            usage=usage_of(done),
        )
        if isinstance(outcome, Placement):
            for claim in wanted:
                key = f"default/{claim['metadata']['name']}"
                done.append(allocated(claim, outcome.allocations[key]))
        else:
            assert outcome.reasons
    return done


def results(claim: Body) -> list[Body]:
    found: list[Body] = claim["status"]["allocation"]["devices"]["results"]
    return found


@given(machines(), pods)
def test_no_device_is_ever_granted_twice(
    machine: list[Body], waiting: tuple[tuple[Body, ...], ...]
) -> None:
    granted = [r["device"] for claim in schedule(machine, waiting) for r in results(claim)]
    assert len(granted) == len(set(granted))


@given(machines(), pods)
def test_each_request_gets_exactly_its_count(
    machine: list[Body], waiting: tuple[tuple[Body, ...], ...]
) -> None:
    for claim in schedule(machine, waiting):
        for request in claim["spec"]["devices"]["requests"]:
            options = request.get("firstAvailable") or [request["exactly"]]
            got = [r for r in results(claim) if r["request"].partition("/")[0] == request["name"]]
            (chosen,) = {r["request"] for r in got}
            sub = chosen.partition("/")[2]
            (wanted,) = [o for o in options if o.get("name", "") == sub]
            assert len(got) == wanted["count"]


@given(machines(), pods)
def test_constraints_hold_in_every_claim(
    machine: list[Body], waiting: tuple[tuple[Body, ...], ...]
) -> None:
    parents = {
        device["name"]: device["attributes"]["parent"]["string"]
        for device in machine[0]["spec"]["devices"]
    }
    for claim in schedule(machine, waiting):
        values = [parents[r["device"]] for r in results(claim)]
        for constraint in claim["spec"]["devices"].get("constraints", []):
            distinct = "distinctAttribute" in constraint
            assert len(set(values)) == (len(values) if distinct else 1)


@given(machines(), pods)
def test_counters_are_never_overdrawn(
    machine: list[Body], waiting: tuple[tuple[Body, ...], ...]
) -> None:
    uses = {d["name"]: d.get("consumesCounters", []) for d in machine[0]["spec"]["devices"]}
    drawn = {"A": 0, "B": 0}
    for claim in schedule(machine, waiting):
        for result in results(claim):
            for use in uses[result["device"]]:
                drawn[use["counterSet"]] += int(use["counters"]["slices"]["value"])
    assert all(amount <= SLICES_PER_GPU for amount in drawn.values())


@given(machines(), st.integers(1, 8))
@settings(max_examples=50)
def test_a_plain_request_succeeds_exactly_when_enough_free_devices_exist(
    machine: list[Body], count: int
) -> None:
    plain = [a_slice([{**d, "consumesCounters": []} for d in machine[0]["spec"]["devices"]])]
    done = schedule(plain, [[a_claim("c", a_request(count=count))]])
    assert bool(done) == (len(plain[0]["spec"]["devices"]) >= count)


@given(machines(), pods)
@settings(max_examples=30)
def test_the_same_cluster_gives_the_same_devices(
    machine: list[Body], waiting: tuple[tuple[Body, ...], ...]
) -> None:
    assert schedule(machine, waiting) == schedule(machine, waiting)
