"""The node's NVLink clique, from what GPUs say."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.computedomain.clique import FabricUnsettled, GpuFabric, clique_of
from nvdra_nodeagent.computedomain.fabric import FabricKeeper
from nvdra_nodeagent.errors import Retryable
from nvdra_nodeagent.hardware.ports import FabricInfo, FabricState
from nvdra_testing.simulated import simulated

if TYPE_CHECKING:
    from pathlib import Path

    from nvdra_sim.hardware import SimulatedHardware

CLUSTER = "6f1b0bd0-1111-4000-8000-000000000002"
ZERO = "00000000-0000-0000-0000-000000000000"


def gpus(*infos: FabricInfo | None) -> list[GpuFabric]:
    return [GpuFabric(f"gpu {number}", info) for number, info in enumerate(infos)]


def registered(clique: int = 7, cluster: str = CLUSTER) -> FabricInfo:
    return FabricInfo(cluster, clique, FabricState.COMPLETED, 0)


def test_all_gpus_of_one_partition_make_its_clique() -> None:
    assert clique_of(gpus(registered(), registered()), strict=True) == f"{CLUSTER}.7"


@pytest.mark.parametrize(
    "info", [None, FabricInfo(ZERO, 0, FabricState.NOT_SUPPORTED, 0), registered(3, ZERO)]
)
def test_gpus_whose_nvlinks_stay_in_the_machine_make_none(info: FabricInfo | None) -> None:
    assert clique_of(gpus(info), strict=True) == ""
    assert clique_of(gpus(info, registered()), strict=True) == f"{CLUSTER}.7"


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (FabricInfo(CLUSTER, 7, FabricState.NOT_STARTED, 0), "not_started"),
        (FabricInfo(CLUSTER, 7, FabricState.IN_PROGRESS, 0), "in_progress"),
        (FabricInfo(CLUSTER, 7, 9, 0), "is 9"),
        (FabricInfo(CLUSTER, 7, FabricState.COMPLETED, 999), "NVML error 999"),
    ],
)
def test_a_registration_that_is_not_done_is_waited_for_unless_tolerated(
    info: FabricInfo, said: str
) -> None:
    with pytest.raises(FabricUnsettled, match=f"gpu 1: .*{said}"):
        clique_of(gpus(registered(), info), strict=True)
    assert clique_of(gpus(registered(), info), strict=False) == f"{CLUSTER}.7"


def test_partitions_of_one_machine_need_no_registration_but_no_failed_one() -> None:
    waiting = FabricInfo(ZERO, 0, FabricState.NOT_STARTED, 0)
    assert clique_of(gpus(waiting), strict=True, partitioned=True) == ""
    failed = FabricInfo(CLUSTER, 7, FabricState.COMPLETED, 3)
    with pytest.raises(FabricUnsettled):
        clique_of(gpus(failed), strict=True, partitioned=True)


def test_a_node_in_two_cliques_is_in_none() -> None:
    with pytest.raises(FabricUnsettled, match=r"gpu 0 is in .*\.7, gpu 1 is in .*\.8"):
        clique_of(gpus(registered(7), registered(8)), strict=True)


@dataclass
class Rules:
    strict: bool = True
    partitioned: bool = False


def a_keeper(hardware: SimulatedHardware) -> tuple[FabricKeeper, list[str]]:
    told: list[str] = []
    return FabricKeeper(hardware.machine.nvml, Rules(), on_change=told.append), told


async def test_at_boot_the_fabric_is_waited_for(tmp_path: Path) -> None:
    hardware = simulated(tmp_path, "gb200")
    hardware.set_fabric(clique=3, cluster=CLUSTER, state=FabricState.IN_PROGRESS)
    keeper, told = a_keeper(hardware)
    await keeper.look()
    with pytest.raises(Retryable, match="in_progress"):
        _ = keeper.clique
    running = asyncio.create_task(keeper.run())
    hardware.set_fabric(clique=3, cluster=CLUSTER)
    async with asyncio.timeout(20):
        await keeper.wait_settled()
    running.cancel()
    assert (keeper.clique, told) == (f"{CLUSTER}.3", [f"{CLUSTER}.3"])


async def test_a_known_clique_outlives_a_fabric_in_trouble(tmp_path: Path) -> None:
    hardware = simulated(tmp_path, "gb200")
    keeper, told = a_keeper(hardware)
    await keeper.look()
    known = keeper.clique
    hardware.set_fabric(clique=3, cluster=ZERO)
    await keeper.look()
    hardware.set_fabric(clique=3, cluster=CLUSTER, state=FabricState.NOT_STARTED)
    await keeper.look()
    assert (keeper.clique, keeper.problem != "") == (known, True)
    hardware.set_fabric(clique=3, cluster=CLUSTER)
    await keeper.look()
    assert (keeper.clique, told) == (f"{CLUSTER}.3", [known, f"{CLUSTER}.3"])


async def test_a_driver_without_fabric_has_no_clique(tmp_path: Path) -> None:
    keeper, _ = a_keeper(simulated(tmp_path, "h100"))
    await keeper.look()
    assert keeper.clique == ""


async def test_errors_of_nvml_are_waited_out(tmp_path: Path) -> None:
    hardware = simulated(tmp_path, "gb200")
    hardware.inject("fabric_info", code=999)
    keeper, _ = a_keeper(hardware)
    await keeper.look()
    with pytest.raises(Retryable, match="nvmlDeviceGetGpuFabricInfoV"):
        _ = keeper.clique


def test_channels_and_the_capability_have_the_numbers_of_the_driver(tmp_path: Path) -> None:
    nodes = simulated(tmp_path, "gb200").machine.imex_nodes
    first, last = nodes.channels([0, 2047])
    assert (first.path, first.major, first.minor, first.mode) == (
        "/dev/nvidia-caps-imex-channels/channel0",
        234,
        0,
        0o666,
    )
    assert (last.path, last.minor) == ("/dev/nvidia-caps-imex-channels/channel2047", 2047)
    management = nodes.management()
    assert (management.path, management.major) == ("/dev/nvidia-caps/nvidia-cap4323", 236)
