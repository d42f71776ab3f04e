"""The real NVML adapter: which library it loads, and how it meets broken and older ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.hardware.driver_root import MountedDriverRoot
from nvdra_nodeagent.hardware.errors import (
    DriverMissing,
    LibraryUnusable,
    NotSupported,
    NvmlError,
)
from nvdra_nodeagent.hardware.nvml import LibraryNvml
from nvdra_nodeagent.inventory.snapshot import take_snapshot
from nvdra_sim.hardware.calls import GPU_CALLS
from nvdra_testing.machine import a_machine
from nvdra_testing.nvml_stub import LIBRARY, NvmlStub, build_stub, compiler

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(compiler is None, reason="needs a C compiler")

SOURCE = Path(__file__).with_name("nvml_stub.c")
# On the way to a MIG device's description NVML is asked these, too.
INNER_CALLS = [
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetGpuInstanceId",
    "nvmlDeviceGetComputeInstanceId",
    "nvmlGpuInstanceGetInfo",
    "nvmlComputeInstanceGetInfo_v2",
    "nvmlGpuInstanceGetComputeInstanceProfileInfo",
]
# No question of the inventory.
UNREAD = {
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetComputeMode",
    "nvmlDeviceSetComputeMode",
}
MANDATORY = {
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetName",
    "nvmlDeviceGetPciInfo",
    "nvmlDeviceGetCudaComputeCapability",
}


def library_of(root: Path) -> LibraryNvml:
    return LibraryNvml(MountedDriverRoot(root, host_path=Path("/")))


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory) -> NvmlStub:
    return build_stub(SOURCE, tmp_path_factory.mktemp("nvml") / "driver-root")


@pytest.fixture
def nvml(stub: NvmlStub) -> Iterator[LibraryNvml]:
    nvml = library_of(stub.driver_root)
    nvml.init()
    yield nvml
    stub.reset()
    nvml.shutdown()


def test_init_asks_for_no_gpus_and_once(nvml: LibraryNvml, stub: NvmlStub) -> None:
    nvml.init()
    assert (stub.init_flags, stub.initialised) == (1, 1)


def test_shutdown_undoes_one_init(nvml: LibraryNvml, stub: NvmlStub) -> None:
    nvml.shutdown()
    nvml.shutdown()
    assert stub.initialised == 0


def test_an_init_that_failed_can_be_tried_again(stub: NvmlStub) -> None:
    nvml = library_of(stub.driver_root)
    stub.fail("nvmlInitWithFlags", 9)
    with pytest.raises(NvmlError, match="nvmlInitWithFlags: Driver Not Loaded"):
        nvml.init()
    stub.reset()
    nvml.init()
    assert nvml.device_count() == 2
    nvml.shutdown()


def test_the_library_comes_from_the_driver_root_given(nvml: LibraryNvml, tmp_path: Path) -> None:
    assert nvml.driver_version() == "570.158.01"
    nvml.shutdown()
    other = build_stub(SOURCE, tmp_path / "root", options=['-DDRIVER_VERSION="999.1"'])
    newer = library_of(other.driver_root)
    newer.init()
    assert newer.driver_version() == "999.1"
    newer.shutdown()
    nvml.init()
    assert nvml.driver_version() == "570.158.01"


def test_a_driver_root_without_the_library_is_said(tmp_path: Path) -> None:
    with pytest.raises(DriverMissing, match=rf"{LIBRARY} not found under driver root"):
        library_of(tmp_path).init()


def test_a_library_that_is_none_is_said(tmp_path: Path) -> None:
    file = tmp_path / "usr/lib64" / LIBRARY
    file.parent.mkdir(parents=True)
    file.write_text("not an ELF file")
    with pytest.raises(LibraryUnusable, match=r"cannot be loaded: .*(ELF|file too short)"):
        library_of(tmp_path).init()


def test_a_code_that_the_binding_does_not_know_brings_the_librarys_own_words(
    nvml: LibraryNvml, stub: NvmlStub
) -> None:
    stub.fail("nvmlDeviceGetCount", 777)
    with pytest.raises(NvmlError, match=r"nvmlDeviceGetCount: Stub is in a bad mood") as caught:
        nvml.device_count()
    assert caught.value.code == 777


def test_a_name_as_long_as_its_buffer_is_read_whole(nvml: LibraryNvml, stub: NvmlStub) -> None:
    stub.rename(b"N" * 95)
    assert nvml.device(0).name() == "N" * 95


def test_a_name_that_is_no_text_is_an_error_not_a_crash(nvml: LibraryNvml, stub: NvmlStub) -> None:
    stub.rename(b"\xff\xfe broken")
    with pytest.raises(NvmlError, match="nvmlDeviceGetName: answer is not text"):
        nvml.device(0).name()


def test_gaps_between_mig_devices_are_skipped(nvml: LibraryNvml) -> None:
    assert [handle.gi_id for handle in nvml.device(1).mig_devices()] == [7, 2, 9]


@pytest.mark.parametrize("call", INNER_CALLS)
def test_a_failure_on_the_way_to_a_mig_device_names_the_inner_call(
    nvml: LibraryNvml, stub: NvmlStub, call: str
) -> None:
    stub.fail(call, 17)
    inventory = take_snapshot(a_machine(nvml=nvml))
    assert [gpu.name for gpu in inventory.gpus] == ["gpu-0", "gpu-1"]
    assert any(defect.cause.startswith(call) for defect in inventory.defects)
    assert inventory.gpus[1].mig_devices == ()


@pytest.mark.parametrize("call", sorted({*GPU_CALLS.values(), *INNER_CALLS} - UNREAD))
def test_a_driver_that_lacks_a_function_answers_not_supported(tmp_path: Path, call: str) -> None:
    older = build_stub(SOURCE, tmp_path / "root", without=call)
    nvml = library_of(older.driver_root)
    nvml.init()
    inventory = take_snapshot(a_machine(nvml=nvml))
    nvml.shutdown()
    if call in MANDATORY:
        assert inventory.gpus == ()
        assert {defect.cause.partition(":")[0] for defect in inventory.defects} == {call}
    else:
        assert [gpu.name for gpu in inventory.gpus] == ["gpu-0", "gpu-1"]


def test_a_missing_function_is_told_by_its_class(tmp_path: Path) -> None:
    call = "nvmlDeviceGetAddressingMode"
    older = build_stub(SOURCE, tmp_path / "root", without=call)
    nvml = library_of(older.driver_root)
    nvml.init()
    with pytest.raises(NotSupported, match=f"{call}: Function Not Found"):
        nvml.device(0).addressing_mode()
    nvml.shutdown()
