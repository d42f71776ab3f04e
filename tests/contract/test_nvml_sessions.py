"""Sessions of the real NVML adapter: lost, ended, stuck, and begun with a replaced library."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.hardware.driver_root import MountedDriverRoot
from nvdra_nodeagent.hardware.errors import DriverMissing, NvmlError, SessionLost
from nvdra_nodeagent.hardware.nvml import LibraryNvml
from nvdra_nodeagent.inventory.surveyor import Surveyor
from nvdra_testing.machine import a_machine
from nvdra_testing.nvml_stub import NvmlStub, build_stub, compiler

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(compiler is None, reason="needs a C compiler")

SOURCE = Path(__file__).with_name("nvml_stub.c")
NEWER = '-DDRIVER_VERSION="580.65.06"'


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory) -> NvmlStub:
    return build_stub(SOURCE, tmp_path_factory.mktemp("newer") / "root", options=[NEWER])


@pytest.fixture
def stub(tmp_path: Path) -> NvmlStub:
    return build_stub(SOURCE, tmp_path / "root")


@pytest.fixture
def nvml(stub: NvmlStub) -> Iterator[LibraryNvml]:
    nvml = LibraryNvml(MountedDriverRoot(stub.driver_root, host_path=Path("/")), patience_s=0.05)
    nvml.init()
    yield nvml
    stub.reset()
    nvml.shutdown()


def put_in_place(library: NvmlStub, of: NvmlStub) -> None:
    """As a package does it: the new file gets the name of the old one."""
    fresh = of.path.with_name("fresh")
    fresh.write_bytes(library.path.read_bytes())
    fresh.replace(of.path)


@pytest.mark.parametrize("code", [1, 9, 18])
def test_an_error_that_ends_the_session_lets_the_next_init_begin_anew(
    nvml: LibraryNvml, stub: NvmlStub, code: int
) -> None:
    stub.fail("nvmlDeviceGetCount", code)
    with pytest.raises(SessionLost):
        nvml.device_count()
    stub.reset()
    nvml.init()
    assert (nvml.device_count(), stub.initialised) == (2, 1)


def test_other_errors_keep_the_session(nvml: LibraryNvml, stub: NvmlStub) -> None:
    gpu = nvml.device(0)
    stub.fail("nvmlDeviceGetCount", 999)
    with pytest.raises(NvmlError):
        nvml.device_count()
    nvml.init()
    assert gpu.minor_number() == 0


def test_a_device_of_an_ended_session_is_never_asked_again(nvml: LibraryNvml) -> None:
    gpu = nvml.device(0)
    nvml.shutdown()
    nvml.init()
    with pytest.raises(SessionLost, match="nvmlDeviceGetUUID: Uninitialized"):
        gpu.uuid()


def test_a_library_replaced_at_its_place_is_loaded_by_the_next_init(
    nvml: LibraryNvml, stub: NvmlStub, newer: NvmlStub
) -> None:
    gpu = nvml.device(0)
    put_in_place(newer, stub)
    nvml.init()
    assert nvml.driver_version() == "580.65.06"
    with pytest.raises(SessionLost):
        gpu.uuid()


def test_libraries_may_be_replaced_again_and_again(
    nvml: LibraryNvml, stub: NvmlStub, newer: NvmlStub, tmp_path: Path
) -> None:
    older = build_stub(SOURCE, tmp_path / "older")
    for _ in range(3):
        put_in_place(newer, stub)
        nvml.init()
        assert nvml.driver_version() == "580.65.06"
        put_in_place(older, stub)
        nvml.init()
        assert nvml.driver_version() == "570.158.01"


def test_a_library_that_is_still_the_same_is_not_loaded_again(
    nvml: LibraryNvml, stub: NvmlStub
) -> None:
    gpu = nvml.device(0)
    nvml.init()
    assert gpu.minor_number() == 0
    assert stub.initialised == 1


def test_a_library_that_was_removed_is_said_and_found_when_it_is_back(
    nvml: LibraryNvml, stub: NvmlStub, newer: NvmlStub
) -> None:
    stub.path.unlink()
    with pytest.raises(DriverMissing):
        nvml.init()
    put_in_place(newer, stub)
    nvml.init()
    assert nvml.driver_version() == "580.65.06"


def test_a_session_does_not_end_under_a_call_that_is_stuck(
    nvml: LibraryNvml, stub: NvmlStub
) -> None:
    stub.hold("nvmlDeviceGetCount")
    caller = threading.Thread(target=nvml.device_count)
    caller.start()
    while not stub.is_held:
        time.sleep(0.001)
    with pytest.raises(NvmlError, match="an earlier call has not returned yet"):
        nvml.shutdown()
    assert stub.initialised == 1
    stub.reset()
    caller.join()
    nvml.init()
    assert (nvml.device_count(), stub.initialised) == (2, 1)


def test_a_driver_that_arrives_late_is_found(tmp_path: Path, newer: NvmlStub) -> None:
    root = tmp_path / "root"
    nvml = LibraryNvml(MountedDriverRoot(root, host_path=Path("/")))
    surveyor = Surveyor(a_machine(nvml=nvml))
    (defect,) = surveyor.look().defects
    assert "libnvidia-ml.so.1 not found" in defect.cause
    place = root / "usr/lib64"
    place.mkdir(parents=True)
    put_in_place(newer, NvmlStub(root))
    assert [gpu.name for gpu in surveyor.look().gpus] == ["gpu-0", "gpu-1"]
    nvml.shutdown()


def test_a_driver_upgraded_under_the_agent_is_read_without_a_restart(
    nvml: LibraryNvml, stub: NvmlStub, newer: NvmlStub
) -> None:
    surveyor = Surveyor(a_machine(nvml=nvml))
    before = surveyor.look()
    put_in_place(newer, stub)
    after = surveyor.look()
    assert (before.driver_version, after.driver_version) == ("570.158.01", "580.65.06")
    assert after.driver_load != before.driver_load
