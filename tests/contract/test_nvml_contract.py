"""What every NVML promises: the real adapter on a stub library, and the simulated one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.hardware.driver_root import MountedDriverRoot
from nvdra_nodeagent.hardware.errors import GpuLost, NotFound, NotSupported, NvmlError
from nvdra_nodeagent.hardware.nvml import LibraryNvml
from nvdra_nodeagent.hardware.pci import normalise_bus_id
from nvdra_nodeagent.hardware.ports import MigMode, Nvml, NvmlDevice, Placement
from nvdra_nodeagent.inventory.snapshot import take_snapshot
from nvdra_sim.hardware.calls import GPU_CALLS
from nvdra_testing.machine import a_machine
from nvdra_testing.nvml_stub import NvmlStub, build_stub, compiler
from nvdra_testing.simulated import simulated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nvdra_sim.hardware import SimulatedHardware

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

# How each call about a GPU is made on the one that is in MIG mode.
CALLS: dict[str, Callable[[NvmlDevice], object]] = {
    "uuid": lambda gpu: gpu.uuid(),
    "minor_number": lambda gpu: gpu.minor_number(),
    "name": lambda gpu: gpu.name(),
    "memory_bytes": lambda gpu: gpu.memory_bytes(),
    "architecture": lambda gpu: gpu.architecture(),
    "brand": lambda gpu: gpu.brand(),
    "compute_capability": lambda gpu: gpu.compute_capability(),
    "pci_bus_id": lambda gpu: gpu.pci_bus_id(),
    "addressing_mode": lambda gpu: gpu.addressing_mode(),
    "mig_mode": lambda gpu: gpu.mig_mode(),
    "mig_devices": lambda gpu: gpu.mig_devices(),
    "compute_mode": lambda gpu: gpu.compute_mode(),
    "set_compute_mode": lambda gpu: gpu.set_compute_mode(0),
    "fabric_info": lambda gpu: gpu.fabric_info(),
    "gi_profile": lambda gpu: gpu.gi_profile(0),
    "gpu_instance": lambda gpu: gpu.gpu_instance(gpu.mig_devices()[0].gi_id),
    "compute_instance": lambda gpu: gpu.compute_instance(
        gpu.mig_devices()[0].gi_id, gpu.mig_devices()[0].ci_id
    ),
}


@dataclass(frozen=True)
class Scene:
    """A machine of H100 GPUs; `cut` is the index of one with 1g.10gb, 3g.40gb and 1g.20gb."""

    nvml: Nvml
    whole: int
    cut: int
    fail: Callable[[str, int], None]
    """Let a method of the port fail with an NVML error code."""

    @property
    def gpu(self) -> NvmlDevice:
        return self.nvml.device(self.whole)

    @property
    def mig_gpu(self) -> NvmlDevice:
        return self.nvml.device(self.cut)


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory) -> NvmlStub:
    if compiler is None:
        pytest.skip("needs a C compiler")
    source = Path(__file__).with_name("nvml_stub.c")
    return build_stub(source, tmp_path_factory.mktemp("nvml") / "driver-root")


@pytest.fixture(scope="session")
def hardware(tmp_path_factory: pytest.TempPathFactory) -> SimulatedHardware:
    cut = ["1g.10gb", "3g.40gb", "1g.20gb"]
    return simulated(tmp_path_factory.mktemp("machine"), "h100", mig=cut)


@pytest.fixture(params=["library", "simulated"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    if request.param == "library":
        stub: NvmlStub = request.getfixturevalue("stub")
        nvml: Nvml = LibraryNvml(MountedDriverRoot(stub.driver_root, host_path=Path("/")))
        yield from _opened(
            Scene(nvml, 0, 1, fail=lambda method, code: stub.fail(GPU_CALLS[method], code))
        )
        stub.reset()
    else:
        hardware: SimulatedHardware = request.getfixturevalue("hardware")
        nvml = hardware.machine.nvml
        yield from _opened(
            Scene(nvml, 1, 0, fail=lambda method, code: hardware.inject(method, code=code))
        )
        hardware.heal()


def _opened(scene: Scene) -> Iterator[Scene]:
    scene.nvml.init()
    yield scene
    scene.nvml.shutdown()


def test_every_call_about_a_gpu_is_known_here() -> None:
    methods = {name for name in vars(NvmlDevice) if not name.startswith("_")}
    assert set(CALLS) == methods
    assert set(GPU_CALLS) == methods | {"device", "device_by_uuid"}


def test_init_and_shutdown_may_be_repeated(scene: Scene) -> None:
    scene.nvml.init()
    assert scene.nvml.device_count() >= 2
    scene.nvml.shutdown()
    scene.nvml.shutdown()
    with pytest.raises(NvmlError, match="Uninitialized"):
        scene.nvml.device_count()
    scene.nvml.init()
    assert scene.nvml.device_count() >= 2


def test_versions_are_as_the_driver_prints_them(scene: Scene) -> None:
    assert re.fullmatch(r"\d+(\.\d+){1,2}", scene.nvml.driver_version())
    assert 11000 <= scene.nvml.cuda_driver_version() < 20000


def test_an_index_beyond_the_last_gpu_is_an_error(scene: Scene) -> None:
    with pytest.raises(NvmlError, match="nvmlDeviceGetHandleByIndex: Invalid Argument"):
        scene.nvml.device(scene.nvml.device_count())


def test_a_gpu_says_what_it_is(scene: Scene) -> None:
    gpu = scene.gpu
    assert re.fullmatch(f"GPU-{UUID}", gpu.uuid())
    assert gpu.name() == "NVIDIA H100 80GB HBM3"
    assert gpu.memory_bytes() == 81559 * 1024**2
    assert (gpu.architecture(), gpu.compute_capability()) == (9, (9, 0))
    assert (gpu.brand(), gpu.addressing_mode()) == (14, 1)


def test_gpus_differ_in_uuid_minor_and_address(scene: Scene) -> None:
    gpus = [scene.nvml.device(index) for index in range(scene.nvml.device_count())]
    assert len({gpu.uuid() for gpu in gpus}) == len(gpus)
    assert sorted(gpu.minor_number() for gpu in gpus) == list(range(len(gpus)))
    assert len({normalise_bus_id(gpu.pci_bus_id()) for gpu in gpus}) == len(gpus)


def test_a_gpu_is_found_by_its_uuid(scene: Scene) -> None:
    assert scene.nvml.device_by_uuid(scene.gpu.uuid()).minor_number() == scene.gpu.minor_number()


def test_a_uuid_that_the_driver_does_not_have_is_not_found(scene: Scene) -> None:
    with pytest.raises(NotFound):
        scene.nvml.device_by_uuid("GPU-99999999-9999-9999-9999-999999999999")


def test_the_compute_mode_stays_as_it_was_set(scene: Scene) -> None:
    assert scene.gpu.compute_mode() == 0
    scene.gpu.set_compute_mode(3)
    assert (scene.gpu.compute_mode(), scene.mig_gpu.compute_mode()) == (3, 0)
    scene.gpu.set_compute_mode(0)


def test_a_compute_mode_that_does_not_exist_is_refused(scene: Scene) -> None:
    with pytest.raises(NvmlError, match="nvmlDeviceSetComputeMode: Invalid Argument"):
        scene.gpu.set_compute_mode(17)


def test_mig_mode_is_told_for_each_gpu(scene: Scene) -> None:
    assert scene.gpu.mig_mode() == MigMode(current=False, pending=False)
    assert scene.mig_gpu.mig_mode() == MigMode(current=True, pending=True)


def test_a_gpu_without_mig_devices_has_none(scene: Scene) -> None:
    assert scene.gpu.mig_devices() == ()


def test_mig_devices_lead_to_their_instances(scene: Scene) -> None:
    gpu = scene.mig_gpu
    handles = gpu.mig_devices()
    assert len({handle.uuid for handle in handles}) == 3
    for handle in handles:
        assert re.fullmatch(f"MIG-{UUID}", handle.uuid)
        assert gpu.gpu_instance(handle.gi_id).id == handle.gi_id
        instance = gpu.compute_instance(handle.gi_id, handle.ci_id)
        assert (instance.id, instance.gi_id) == (handle.ci_id, handle.gi_id)


def test_instances_tell_profile_and_placement(scene: Scene) -> None:
    gpu = scene.mig_gpu
    found = {
        (instance.profile_id, instance.placement.size, slices)
        for handle in gpu.mig_devices()
        for instance in [gpu.gpu_instance(handle.gi_id)]
        for slices in [gpu.compute_instance(handle.gi_id, handle.ci_id).slice_count]
    }
    assert found == {(19, 1, 1), (9, 4, 3), (15, 2, 1)}
    assert isinstance(gpu.gpu_instance(gpu.mig_devices()[0].gi_id).placement, Placement)


def test_a_profile_is_found_by_its_index(scene: Scene) -> None:
    profile = scene.mig_gpu.gi_profile(2)
    assert (profile.index, profile.id, profile.slice_count) == (2, 9, 3)
    assert (profile.multiprocessors, profile.encoders) == (60, 0)
    assert profile.memory_mb > 40000


@pytest.mark.parametrize("index", [5, 17, 18, 1000])
def test_a_profile_that_the_gpu_lacks_is_not_supported(scene: Scene, index: int) -> None:
    with pytest.raises(NotSupported):
        scene.mig_gpu.gi_profile(index)


def test_an_instance_that_is_not_there_is_not_found(scene: Scene) -> None:
    gpu = scene.mig_gpu
    used = {handle.gi_id for handle in gpu.mig_devices()}
    free = next(number for number in range(1, 8) if number not in used)
    with pytest.raises(NotFound):
        gpu.gpu_instance(free)
    with pytest.raises(NotFound):
        gpu.compute_instance(free, 0)
    with pytest.raises(NotFound):
        gpu.compute_instance(min(used), 5)


@pytest.mark.parametrize("method", sorted(CALLS))
@pytest.mark.parametrize(
    ("code", "kind"), [(3, NotSupported), (6, NotFound), (15, GpuLost), (17, NvmlError)]
)
def test_an_error_code_becomes_an_error_that_names_the_call(
    scene: Scene, method: str, code: int, kind: type[NvmlError]
) -> None:
    if (method, code) == ("mig_devices", 6):
        pytest.skip("NVML says so for a gap between two MIG devices")
    gpu = scene.mig_gpu
    scene.fail(method, code)
    with pytest.raises(NvmlError) as caught:
        CALLS[method](gpu)
    assert type(caught.value) is kind
    assert (caught.value.call, caught.value.code) == (GPU_CALLS[method], code)
    assert str(caught.value).startswith(GPU_CALLS[method])


def test_a_snapshot_names_every_device(scene: Scene) -> None:
    inventory = take_snapshot(a_machine(nvml=scene.nvml))
    assert inventory.defects == ()
    cut = next(gpu for gpu in inventory.gpus if gpu.mig_enabled)
    profiles = [mig.profile for mig in cut.mig_devices]
    assert profiles == ["1g.10gb", "1g.20gb", "3g.40gb"]
    for mig in cut.mig_devices:
        tail = f"{mig.gi_profile_id}-{mig.placement_start}"
        assert mig.name == f"{cut.name}-mig-{mig.profile.replace('.', '')}-{tail}"
