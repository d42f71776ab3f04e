"""The node's NVLink clique, from what GPUs say."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

import nvdra_sim.hardware
from nvdra_api.gates import FeatureGates
from nvdra_nodeagent.computedomain.clique import FabricUnsettled, GpuFabric, clique_of
from nvdra_nodeagent.computedomain.driver_version import check_names_possible
from nvdra_nodeagent.computedomain.fabric import FabricKeeper, GatedFabric
from nvdra_nodeagent.errors import NodeFault, Retryable
from nvdra_nodeagent.hardware.ports import FabricInfo, FabricState
from nvdra_sim.hardware import SimulatedHardware
from nvdra_testing.simulated import simulated

PROFILES = Path(nvdra_sim.hardware.__file__).parent / "profiles"
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
    by_name: bool = True


def a_keeper(
    hardware: SimulatedHardware, rules: Rules | None = None
) -> tuple[FabricKeeper, list[str]]:
    told: list[str] = []
    nvml = hardware.machine.nvml
    return FabricKeeper(nvml, rules or Rules(), on_change=told.append), told


async def test_at_boot_the_fabric_is_waited_for(tmp_path: Path) -> None:
    hardware = simulated(tmp_path, "gb200")
    hardware.set_fabric(clique=3, cluster=CLUSTER, state=FabricState.IN_PROGRESS)
    keeper, told = a_keeper(hardware)
    await keeper.look()
    with pytest.raises(Retryable, match="in_progress"):
        _ = keeper.clique
    running = asyncio.create_task(keeper.run())
    hardware.set_fabric(clique=3, cluster=CLUSTER)
    async with asyncio.timeout(50):
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


def an_old_driver(root: Path) -> SimulatedHardware:
    profile = json.loads((PROFILES / "gb200.json").read_text()) | {"driver_version": "560.35.03"}
    (root / "old.json").write_text(json.dumps(profile))
    return SimulatedHardware.open(str(root / "old.json"), root / "old", node="node-a")


async def test_a_driver_too_old_for_names_is_the_cause_and_not_a_crash(tmp_path: Path) -> None:
    keeper, told = a_keeper(an_old_driver(tmp_path))
    await keeper.look()
    with pytest.raises(NodeFault, match=r"560\.35\.03 cannot find .* takes 570\.158\.01"):
        _ = keeper.clique
    assert told == []
    assert "DriverTooOld" in keeper.problem


async def test_without_names_any_driver_will_do(tmp_path: Path) -> None:
    keeper, _ = a_keeper(an_old_driver(tmp_path), Rules(by_name=False))
    await keeper.look()
    assert keeper.clique.endswith(".1")


@pytest.mark.parametrize(
    "version", ["570.158.01", "570.158.1", "570.158.01.2", "580.0", "1000.1", "", "unknown", "r570"]
)
def test_drivers_new_enough_or_unreadable_are_taken(version: str) -> None:
    check_names_possible(version)


@pytest.mark.parametrize("version", ["570.158.00", "570.158", "570.86.15", "535.230.02", "0.1"])
def test_older_drivers_are_refused(version: str) -> None:
    with pytest.raises(NodeFault, match="or later"):
        check_names_possible(version)


async def test_a_changed_driver_is_looked_at_without_waiting(tmp_path: Path) -> None:
    hardware = simulated(tmp_path, "gb200")
    keeper, told = a_keeper(hardware)
    running = asyncio.create_task(keeper.run())
    async with asyncio.timeout(50):
        await keeper.wait_settled()
        hardware.set_fabric(clique=5, cluster=CLUSTER)
        keeper.look_again()
        while len(told) < 2:
            await asyncio.sleep(0.01)
    running.cancel()
    assert told[1] == f"{CLUSTER}.5"


@pytest.mark.parametrize(("strict", "found"), [(True, None), (False, f"{CLUSTER}.7")])
async def test_the_gate_says_whether_a_gpu_out_of_the_fabric_is_waited_for(
    tmp_path: Path, strict: bool, found: str | None
) -> None:
    gates = FeatureGates.parse(f"CrashOnNVLinkFabricErrors={str(strict).lower()}")
    rules = GatedFabric(gates, host_managed=False)
    lost = FabricInfo(CLUSTER, 7, FabricState.NOT_STARTED, 0)
    try:
        clique = clique_of(
            gpus(registered(), lost), strict=rules.strict, partitioned=rules.partitioned
        )
    except FabricUnsettled:
        assert found is None
    else:
        assert clique == found


async def test_a_gpu_that_was_passed_over_is_looked_at_again_soon(tmp_path: Path) -> None:
    hardware = simulated(tmp_path, "gb200")
    hardware.set_fabric(clique=3, cluster=CLUSTER, state=FabricState.IN_PROGRESS)
    told: list[str] = []
    keeper = FabricKeeper(
        hardware.machine.nvml, Rules(strict=False), on_change=told.append, unsettled_s=0.05
    )
    running = asyncio.create_task(keeper.run())
    async with asyncio.timeout(50):
        await keeper.wait_settled()
        assert keeper.clique == ""
        hardware.set_fabric(clique=3, cluster=CLUSTER)
        while not keeper.known:
            await asyncio.sleep(0.01)
    running.cancel()
    assert told == ["", f"{CLUSTER}.3"]
