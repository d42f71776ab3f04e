"""Devices that claims hold and the hardware has lost: how they stand in the pool."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from nvdra_nodeagent.inventory.model import Inventory
from nvdra_nodeagent.slices.body import comparable, device_body, keep_taint_times
from nvdra_nodeagent.slices.missing import GPU_LOST, MIG_LOST, missing_devices
from nvdra_nodeagent.slices.model import SliceDevice, Taint
from nvdra_nodeagent.slices.planner import PoolPlan, plan_pool
from nvdra_testing.inventories import a_gpu, a_partitioned_gpu, an_inventory

WHOLE = an_inventory(*(a_gpu(minor) for minor in range(3)))
LOST = an_inventory(a_gpu(0), a_gpu(2))
GPU_1 = a_gpu(1).uuid
SERVER = (1, 36)


@dataclass
class On:
    gpu_uuid: str


@dataclass
class HeldGpu:
    device: str = "gpu-1"
    type: str = "gpu"
    uuid: str = GPU_1
    extent: On = field(default_factory=lambda: On(GPU_1))


HELD = HeldGpu()
HELD_MIG = HeldGpu("gpu-1-mig-1g10gb-19-0", "mig", "MIG-1-0")


def planned(
    *held: HeldGpu,
    now: Inventory = LOST,
    before: Inventory = WHOLE,
    server: tuple[int, int] = SERVER,
) -> PoolPlan:
    missing = missing_devices(held, now, seen=before.devices)
    return plan_pool(now, node="node-1", server=server, missing=missing)


def devices(plan: PoolPlan) -> dict[str, SliceDevice]:
    return {device.name: device for content in plan.slices for device in content.devices}


def test_a_held_device_that_vanished_keeps_its_place_and_its_facts_and_gets_a_taint() -> None:
    before = devices(plan_pool(WHOLE, node="node-1", server=SERVER))
    after = devices(planned(HELD))
    assert list(after) == list(before)
    assert after["gpu-1"].attributes == before["gpu-1"].attributes
    assert after["gpu-1"].taints == (GPU_LOST,)
    assert not after["gpu-0"].taints


def test_the_taint_is_the_one_that_dashboards_know() -> None:
    assert Taint("gpu.nvidia.com/gpu-lost", "NoSchedule") == GPU_LOST


def test_a_device_that_nobody_holds_leaves_the_pool() -> None:
    assert list(devices(planned())) == ["gpu-0", "gpu-2"]


def test_a_held_device_that_is_there_has_no_taint() -> None:
    assert not devices(planned(HELD, now=WHOLE))["gpu-1"].taints


def test_a_device_that_this_agent_never_saw_is_published_by_what_its_claim_says() -> None:
    found = devices(planned(HELD, before=Inventory()))
    assert list(found) == ["gpu-0", "gpu-2", "gpu-1"]
    assert found["gpu-1"].attributes == {"type": "gpu", "uuid": GPU_1}


def test_a_mig_device_that_is_gone_from_a_gpu_that_is_there_says_so() -> None:
    cut = an_inventory(a_partitioned_gpu(1, devices=2))
    found = devices(planned(HELD_MIG, now=an_inventory(a_gpu(1)), before=cut))
    assert found[HELD_MIG.device].taints == (MIG_LOST,)
    assert found[HELD_MIG.device].attributes["profile"] == "1g.10gb"
    assert not found["gpu-1"].taints


def test_a_name_that_passed_to_another_gpu_is_published_as_that_gpu() -> None:
    other = a_gpu(1, uuid="GPU-other")
    found = devices(planned(HELD, now=an_inventory(a_gpu(0), other)))
    assert found["gpu-1"].attributes["uuid"] == "GPU-other"
    assert not found["gpu-1"].taints


def test_a_device_of_several_claims_stands_there_once() -> None:
    plan = planned(HELD, HELD)
    assert list(devices(plan)) == ["gpu-0", "gpu-1", "gpu-2"]
    assert plan.defects == ()


@pytest.mark.parametrize("server", [(1, 32), (0, 0)])
def test_a_server_that_knows_no_taints_does_not_see_the_device(server: tuple[int, int]) -> None:
    assert list(devices(planned(HELD, server=server))) == ["gpu-0", "gpu-2"]


def tainted(**since: str) -> dict[str, object]:
    taint = {"key": GPU_LOST.key, "effect": "NoSchedule", **since}
    return {"devices": [{"name": "gpu-1", "taints": [taint]}]}


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_taints_are_where_each_version_has_them(version: str) -> None:
    body = device_body(devices(planned(HELD))["gpu-1"], version=version)
    fields = body.get("basic", body)
    assert fields["taints"] == [{"key": "gpu.nvidia.com/gpu-lost", "effect": "NoSchedule"}]


def test_since_when_a_taint_is_there_makes_no_difference() -> None:
    assert comparable(tainted(timeAdded="2026-01-01T00:00:00Z")) == comparable(tainted())


def test_a_taint_that_stays_keeps_its_time() -> None:
    spec, stored = tainted(), tainted(timeAdded="2026-01-01T00:00:00Z")
    keep_taint_times(spec, stored)
    assert spec == stored


def test_a_taint_that_is_another_one_gets_no_time() -> None:
    spec, stored = tainted(value="48"), tainted(timeAdded="2026-01-01T00:00:00Z")
    keep_taint_times(spec, stored)
    assert spec == tainted(value="48")
