"""The CDI step writes the devices that were planned, or says which is not what it was."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.errors import Retryable
from nvdra_nodeagent.hardware.errors import HardwareError
from nvdra_nodeagent.inventory.model import Inventory
from nvdra_nodeagent.steps.cdi import CdiDevice, CdiHandler, CdiStep
from nvdra_testing.claims import FolderCdi, a_gpu, a_node_of, a_ref, gpu_uuid

if TYPE_CHECKING:
    from pathlib import Path

UID = a_ref().uid
STEP = CdiStep(UID, (CdiDevice("gpu-1", gpu_uuid(1)), CdiDevice("gpu-0", gpu_uuid(0))))


@pytest.fixture
def cdi(tmp_path: Path) -> FolderCdi:
    return FolderCdi(tmp_path)


def a_handler(cdi: FolderCdi, inventory: Inventory | None = None) -> CdiHandler:
    return CdiHandler(cdi, inventory=lambda: inventory or a_node_of(2))


def test_an_applied_step_holds_with_its_devices_in_order(cdi: FolderCdi) -> None:
    handler = a_handler(cdi)
    assert not handler.holds(STEP)
    handler.apply(STEP)
    assert handler.holds(STEP)
    assert cdi.device_names(UID) == ["gpu-1", "gpu-0"]


def test_a_file_that_says_something_else_does_not_hold(cdi: FolderCdi) -> None:
    handler = a_handler(cdi)
    handler.apply(STEP)
    cdi.path(UID).write_text("gpu-1 of an earlier driver\n")
    assert not handler.holds(STEP)


def test_undoing_twice_is_undoing_once(cdi: FolderCdi) -> None:
    handler = a_handler(cdi)
    handler.apply(STEP)
    handler.undo(STEP)
    handler.undo(STEP)
    assert not handler.holds(STEP)


def test_a_name_that_now_means_another_gpu_is_refused(cdi: FolderCdi) -> None:
    swapped = Inventory((a_gpu(0), replace(a_gpu(7), name="gpu-1")))
    with pytest.raises(Retryable, match=f"gpu-1 was {gpu_uuid(1)}.*now is {gpu_uuid(7)}"):
        a_handler(cdi, swapped).apply(STEP)
    assert not cdi.exists(UID)


def test_a_gpu_that_vanished_is_refused(cdi: FolderCdi) -> None:
    with pytest.raises(Retryable, match=r"gpu-1 .* is not on this node"):
        a_handler(cdi, a_node_of(1)).apply(STEP)


def test_a_machine_that_does_not_answer_is_a_retryable_error(cdi: FolderCdi) -> None:
    cdi.failing = HardwareError("no /dev/nvidiactl")
    with pytest.raises(Retryable, match="gpu-1, gpu-0 for CDI: no /dev/nvidiactl"):
        a_handler(cdi).apply(STEP)
