"""What the kubelet gets for its calls, and what is on the disk afterwards."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest_asyncio

from nvdra_kube.errors import ServerError
from nvdra_nodeagent.claims.model import ClaimRef, PreparedDevice
from nvdra_nodeagent.errors import AgentError, Permanent, Retryable
from nvdra_nodeagent.hardware.errors import HardwareError
from nvdra_testing.claims import (
    OTHER_BOOT,
    ClaimNode,
    a_config_entry,
    a_node_of,
    a_ref,
    a_result,
    cdi_id,
)
from nvdra_testing.configs import a_config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from nvdra_nodeagent.claims.service import NodeClaims


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[ClaimNode]:
    node = ClaimNode(tmp_path)
    yield node
    node.cdi.failing = None
    await node.close()


async def prepared(agent: NodeClaims, ref: ClaimRef) -> tuple[PreparedDevice, ...]:
    outcome = (await agent.prepare([ref]))[ref.uid]
    assert not isinstance(outcome, AgentError), outcome
    return outcome


async def refused(agent: NodeClaims, ref: ClaimRef) -> AgentError:
    outcome = (await agent.prepare([ref]))[ref.uid]
    assert isinstance(outcome, AgentError)
    return outcome


async def test_a_claim_is_prepared_and_leaves_nothing_when_unprepared(node: ClaimNode) -> None:
    ref, agent = node.api.add(a_ref(), "gpu-1"), node.agent()
    (device,) = await prepared(agent, ref)
    assert device == PreparedDevice(("gpu",), "node-a", "gpu-1", (cdi_id(ref.uid, "gpu-1"),))
    assert node.files() == [f"cdi/claim_{ref.uid}.txt", f"state/claims/{ref.uid}.json"]
    assert await agent.unprepare([ref]) == {ref.uid: None}
    assert node.files() == []


async def test_one_api_call_and_one_cdi_file_make_a_prepare(node: ClaimNode) -> None:
    await prepared(node.agent(), node.api.add(a_ref()))
    assert (node.api.calls, node.cdi.writes) == (["get v1 claim"], 1)


async def test_an_empty_call_is_answered(node: ClaimNode) -> None:
    agent = node.agent()
    assert (await agent.prepare([]), await agent.unprepare([])) == ({}, {})


async def test_each_claim_of_a_call_has_its_own_outcome(node: ClaimNode) -> None:
    good, missing, bad = node.api.add(a_ref("good")), a_ref("missing"), a_ref("bad")
    node.api.add(bad, "gpu-1", config=[a_config_entry(a_config(sharng=1))])
    outcomes = await node.agent().prepare([missing, good, bad])
    assert isinstance(outcomes[good.uid], tuple)
    assert isinstance(outcomes[missing.uid], Permanent)
    assert isinstance(outcomes[bad.uid], Permanent)


async def test_errors_say_which_claim_and_what(node: ClaimNode) -> None:
    ref = node.api.add(a_ref(), config=[a_config_entry(a_config(sharng=1))])
    text = str(await refused(node.agent(), ref))
    assert text.startswith(f"error preparing devices for claim default/claim:{ref.uid}: ")
    assert 'unknown field "sharng"' in text


async def test_a_refused_claim_leaves_nothing(node: ClaimNode) -> None:
    await refused(node.agent(), node.api.add(a_ref(), "gpu-7"))
    assert node.files() == []


async def test_a_repeated_prepare_answers_the_same_without_writing(node: ClaimNode) -> None:
    ref, agent = node.api.add(a_ref(), "gpu-1", "gpu-0"), node.agent()
    first = await prepared(agent, ref)
    record = node.record_path(ref).stat().st_ino
    assert await prepared(agent, ref) == first
    assert (node.record_path(ref).stat().st_ino, node.cdi.writes) == (record, 1)


async def test_a_repeated_prepare_makes_a_missing_cdi_file_anew(node: ClaimNode) -> None:
    ref, agent = node.api.add(a_ref()), node.agent()
    first = await prepared(agent, ref)
    node.cdi.path(ref.uid).unlink()
    assert await prepared(agent, ref) == first
    assert node.cdi.exists(ref.uid)


async def test_prepared_claims_outlive_a_restart(node: ClaimNode) -> None:
    ref, other = node.api.add(a_ref()), node.api.add(a_ref("other"))
    first = await prepared(node.agent(), ref)
    agent = node.agent()
    assert (await refused(agent, other)).reason == "DeviceInUse"
    assert await prepared(agent, ref) == first
    await agent.unprepare([ref])
    await prepared(agent, other)


async def test_a_reboot_makes_everything_anew(node: ClaimNode) -> None:
    ref = node.api.add(a_ref())
    await prepared(node.agent(), ref)
    node.cdi.path(ref.uid).unlink()  # a tmpfs
    await prepared(node.agent(boot_id=OTHER_BOOT), ref)
    assert OTHER_BOOT in node.record_path(ref).read_text()
    assert node.cdi.exists(ref.uid)


async def test_a_claim_allocated_anew_gets_its_new_devices(node: ClaimNode) -> None:
    ref, agent = node.api.add(a_ref(), "gpu-0"), node.agent()
    await prepared(agent, ref)
    node.api.add(ref, "gpu-1")
    (device,) = await prepared(agent, ref)
    assert device.device == "gpu-1"
    assert node.cdi.device_names(ref.uid) == ["gpu-1"]


async def test_unknown_claims_unprepare_with_success(node: ClaimNode) -> None:
    strange = ClaimRef("default", "x", "../../etc/passwd")
    agent = node.agent()
    assert await agent.unprepare([a_ref(), strange]) == {a_ref().uid: None, strange.uid: None}


async def test_a_uid_that_is_no_file_name_is_refused(node: ClaimNode) -> None:
    strange = ClaimRef("default", "x", "../../etc/passwd")
    assert (await refused(node.agent(), strange)).reason == "InvalidUid"
    assert node.files() == []


async def test_unprepare_without_record_removes_a_cdi_file_left_behind(node: ClaimNode) -> None:
    ref, agent = node.api.add(a_ref()), node.agent()
    await prepared(agent, ref)
    node.record_path(ref).unlink()  # by hand
    await agent.unprepare([ref])
    assert node.files() == []


async def test_unprepare_needs_no_api(node: ClaimNode) -> None:
    ref, agent = node.api.add(a_ref()), node.agent()
    await prepared(agent, ref)
    node.api.versions = ()
    assert await agent.unprepare([ref]) == {ref.uid: None}


async def test_admin_access_gets_a_gpu_that_is_held(node: ClaimNode) -> None:
    owner = node.api.add(a_ref("owner"))
    admin = node.api.add(a_ref("admin"), a_result(adminAccess=True))
    agent = node.agent()
    await prepared(agent, owner)
    await prepared(agent, admin)
    await agent.unprepare([admin])
    assert node.cdi.exists(owner.uid)


async def test_transient_api_failures_are_retried_inside_the_call(node: ClaimNode) -> None:
    ref = node.api.add(a_ref())
    node.api.errors.extend([ServerError("one", status=503), ServerError("two", status=503)])
    await prepared(node.agent(retry_budget_s=20), ref)
    assert len(node.api.calls) == 3


async def test_the_last_cause_is_told_when_the_time_is_up(node: ClaimNode) -> None:
    node.api.errors.extend(ServerError(f"cause {n}", status=500) for n in range(50))
    error = await refused(node.agent(retry_budget_s=0.5), node.api.add(a_ref()))
    assert isinstance(error, Retryable)
    assert f"cause {len(node.api.calls) - 1}" in str(error)


async def test_final_errors_are_not_retried(node: ClaimNode) -> None:
    await refused(node.agent(retry_budget_s=20), a_ref("missing"))
    assert len(node.api.calls) == 1


async def test_a_failed_cdi_write_leaves_nothing_and_the_next_prepare_works(
    node: ClaimNode,
) -> None:
    ref, agent = node.api.add(a_ref()), node.agent()
    node.cdi.on_write = _raise_once(HardwareError("no /dev/nvidia0"))
    error = await refused(agent, ref)
    assert "no /dev/nvidia0" in str(error)
    assert node.files() == []
    await prepared(agent, ref)


async def test_what_cannot_be_rolled_back_is_held_until_it_can(node: ClaimNode) -> None:
    ref, other = node.api.add(a_ref()), node.api.add(a_ref("other"))
    agent = node.agent()
    node.cdi.failing = Retryable("DiskFull", "cannot write claim_x: no space left")
    assert "no space left" in str(await refused(agent, ref))
    assert (await refused(agent, other)).reason == "DeviceInUse"
    assert isinstance((await agent.unprepare([ref]))[ref.uid], Retryable)
    node.cdi.failing = None
    assert (await agent.unprepare([ref]))[ref.uid] is None
    await prepared(agent, other)


async def test_an_unwritable_state_directory_is_named_before_anything_is_done(
    node: ClaimNode,
) -> None:
    ref, agent = node.api.add(a_ref()), node.agent()
    (node.root / "state" / "claims").write_text("in the way")
    assert str(node.root / "state" / "claims") in str(await refused(agent, ref))
    assert node.cdi.writes == 0


async def test_a_crash_in_the_work_on_one_claim_is_an_error_of_that_claim(node: ClaimNode) -> None:
    ref, other = node.api.add(a_ref()), node.api.add(a_ref("other"), "gpu-1")
    node.cdi.on_write = _raise_once(ZeroDivisionError("oops"), uid=ref.uid)
    outcomes = await node.agent().prepare([ref, other])
    assert isinstance(outcomes[other.uid], tuple)
    assert "ZeroDivisionError" in str(outcomes[ref.uid])
    assert node.files() == [f"cdi/claim_{other.uid}.txt", f"state/claims/{other.uid}.json"]


async def test_claims_on_different_gpus_are_worked_on_at_once(node: ClaimNode) -> None:
    node.inventory = a_node_of(8)
    refs = [node.api.add(a_ref(f"c{n}"), f"gpu-{n}") for n in range(8)]
    together = threading.Barrier(8)  # breaks if they do not all write at the same time
    node.cdi.on_write = lambda uid: _ignore(together.wait(timeout=35))
    outcomes = await node.agent().prepare(refs)
    assert all(isinstance(outcome, tuple) for outcome in outcomes.values()), outcomes


async def test_two_claims_for_one_gpu_do_not_both_get_it(node: ClaimNode) -> None:
    refs = [node.api.add(a_ref(f"c{n}"), "gpu-0") for n in range(6)]
    outcomes = (await node.agent().prepare(refs)).values()
    assert sum(isinstance(outcome, tuple) for outcome in outcomes) == 1


async def test_two_agents_do_not_both_grant_a_gpu(node: ClaimNode) -> None:
    refs = [node.api.add(a_ref(f"c{n}"), "gpu-0") for n in range(8)]
    agents = [node.agent(retry_budget_s=1.0), node.agent(retry_budget_s=1.0)]
    answers = await asyncio.gather(
        *(agents[number % 2].prepare([ref]) for number, ref in enumerate(refs))
    )
    outcomes = [outcome for answer in answers for outcome in answer.values()]
    assert sum(isinstance(outcome, tuple) for outcome in outcomes) == 1


async def test_a_claim_prepared_by_one_agent_is_unprepared_by_the_other(node: ClaimNode) -> None:
    old, new = node.agent(), node.agent()
    await new.start()
    ref, other = node.api.add(a_ref()), node.api.add(a_ref("other"))
    await prepared(old, ref)
    assert await new.unprepare([ref]) == {ref.uid: None}
    await prepared(old, other)


async def test_outcomes_are_observed(node: ClaimNode) -> None:
    ref, agent = node.api.add(a_ref(), "gpu-0", "gpu-1"), node.agent()
    await agent.prepare([ref, a_ref("missing")])
    assert sorted(node.observer.told) == ["prepare failed ClaimNotFound", "prepare finished"]
    assert (node.observer.counts, node.observer.flying) == ({"gpu": 2}, 0)
    await agent.unprepare([ref])
    assert node.observer.counts == {}


async def test_steps_are_observed(node: ClaimNode) -> None:
    ref, agent = node.api.add(a_ref()), node.agent()
    await agent.prepare([ref])
    await agent.prepare([ref])
    await agent.unprepare([ref])
    assert node.observer.steps == ["apply cdi", "holds cdi", "undo cdi"]


async def test_start_tells_what_is_prepared_already(node: ClaimNode) -> None:
    await prepared(node.agent(), node.api.add(a_ref()))
    node.observer.counts = {}
    await node.agent().start()
    assert node.observer.counts == {"gpu": 1}


def _raise_once(error: Exception, *, uid: str = "") -> Callable[[str], None]:
    pending = [error]

    def strike(writing: str) -> None:
        if pending and uid in ("", writing):
            raise pending.pop()

    return strike


def _ignore(_: int) -> None: ...
