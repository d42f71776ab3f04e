"""A claim's CDI document names exactly what its containers need, and nothing that is missing."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.cdi import CdiBuilder, CdiSpec, ClaimDevice, ContainerEdits, cdi_device_name
from nvdra_nodeagent.cdi.document import MountEdit, encode_spec
from nvdra_nodeagent.errors import Permanent, Retryable
from nvdra_nodeagent.inventory.snapshot import take_snapshot
from nvdra_sim.cluster.kubelet.cdi_spec import parse_document
from nvdra_sim.hardware import SimulatedHardware

if TYPE_CHECKING:
    from pathlib import Path

    from nvdra_nodeagent.cdi.document import HookEdit
    from nvdra_nodeagent.hardware.ports import Machine
    from nvdra_nodeagent.inventory.model import Device

UID = "2f3e9a7e-7c1d-4a7e-9d5e-0123456789ab"


class Node:
    """A simulated node with the H100s of its profile, and a builder for it."""

    def __init__(self, directory: Path) -> None:
        self.hardware = SimulatedHardware.open("h100", directory)
        self.machine: Machine = self.hardware.machine
        self.root = self.machine.driver_root.container_path
        self.builder = CdiBuilder(self.machine)
        self.machine.nvml.init()
        self.driver_version = self.machine.nvml.driver_version()

    def device(self, name: str) -> Device:
        return take_snapshot(self.machine).devices[name]

    def build(self, *names: str, builder: CdiBuilder | None = None) -> CdiSpec:
        devices = [a_claim_device(self.device(name)) for name in names]
        return (builder or self.builder).build(UID, devices)

    def hide(self, path: str) -> None:
        """Take a file away in a way that a coarse clock of the file system shows."""
        file = self.root / path.lstrip("/")
        file.unlink()
        os.utime(file.parent, (1, 1))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def a_claim_device(device: Device, **fields: ContainerEdits) -> ClaimDevice:
    name = cdi_device_name(UID, device.name)
    return ClaimDevice(device=device, cdi_name=name, **fields)


def node_paths(edits: ContainerEdits) -> list[str]:
    return [node.path for node in edits.device_nodes]


def hook_named(edits: ContainerEdits, name: str) -> HookEdit:
    return next(hook for hook in edits.hooks if hook.args[1] == name)


def test_every_container_gets_the_driver(node: Node) -> None:
    common = node.build("gpu-0").container_edits
    assert common.env == (
        "NVIDIA_VISIBLE_DEVICES=void",
        "NVIDIA_CTK_LIBCUDA_DIR=/usr/lib/x86_64-linux-gnu",
    )
    version = node.driver_version
    mounts = {mount.container_path: mount for mount in common.mounts}
    libcuda = mounts[f"/usr/lib/x86_64-linux-gnu/libcuda.so.{version}"]
    assert libcuda.host_path == f"{node.root}{libcuda.container_path}"
    assert libcuda.options == ("ro", "nosuid", "nodev", "rbind", "rprivate")
    assert "/usr/bin/nvidia-smi" in mounts
    assert node_paths(common) == [
        "/dev/nvidia-modeset",
        "/dev/nvidia-uvm",
        "/dev/nvidia-uvm-tools",
        "/dev/nvidiactl",
    ]


def test_hooks_run_the_host_program_in_the_order_that_they_need(node: Node) -> None:
    common = node.build("gpu-0").container_edits
    assert [hook.args[1] for hook in common.hooks] == [
        "create-symlinks",
        "enable-cuda-compat",
        "update-ldcache",
        "disable-device-node-modification",
    ]
    hook = node.machine.cdi_hook.host_path()
    for edit in common.hooks:
        assert (edit.hook_name, edit.path, edit.args[0]) == (
            "createContainer",
            hook,
            "nvidia-cdi-hook",
        )
        assert edit.env == ("NVIDIA_CTK_DEBUG=false",)
    version = node.driver_version
    assert hook_named(common, "enable-cuda-compat").args[2:] == (
        f"--host-driver-version={version}",
    )
    assert (
        "libcuda.so.1::/usr/lib/x86_64-linux-gnu/libcuda.so"
        in hook_named(common, "create-symlinks").args
    )
    assert "/usr/lib/x86_64-linux-gnu" in hook_named(common, "update-ldcache").args


def test_nvidia_ctk_has_the_hooks_one_level_down(node: Node) -> None:
    class Toolkit:
        def host_path(self) -> str:
            return "/usr/bin/nvidia-ctk"

    machine = dataclasses.replace(node.machine, cdi_hook=Toolkit())
    hooks = node.build("gpu-0", builder=CdiBuilder(machine)).container_edits.hooks
    assert hooks[-1].args == ("nvidia-ctk", "hook", "disable-device-node-modification")


def test_a_gpu_is_its_node_and_its_display_nodes_by_stable_names(node: Node) -> None:
    gpu = node.device("gpu-1").gpu
    [entry] = node.build("gpu-1").devices
    card, render = node.machine.pci.drm_nodes(gpu.pci_bus_id)
    assert entry.name == f"{UID}-gpu-1"
    assert node_paths(entry.container_edits) == [
        "/dev/nvidia1",
        f"/dev/dri/{card}",
        f"/dev/dri/{render}",
    ]
    assert hook_named(entry.container_edits, "create-symlinks").args[2:] == (
        "--link",
        f"../{card}::/dev/dri/by-path/pci-{gpu.pci_bus_id}-card",
        "--link",
        f"../{render}::/dev/dri/by-path/pci-{gpu.pci_bus_id}-render",
    )


def test_a_node_carries_its_numbers_and_a_group_that_may_use_it(node: Node) -> None:
    [entry] = node.build("gpu-0").devices
    gpu, card, _ = entry.container_edits.device_nodes
    assert (gpu.type, gpu.major, gpu.minor, gpu.file_mode) == ("c", 195, 0, 0o666)
    assert (gpu.permissions, gpu.gid) == ("rwm", None)
    assert (card.gid, card.file_mode) == (44, 0o660)
    assert entry.container_edits.additional_gids == (44, 105)


def test_a_host_path_equal_to_the_path_is_left_out(node: Node) -> None:
    class OnTheHost:
        def __init__(self) -> None:
            self.simulated = node.machine.device_nodes
            self.mig_caps = self.simulated.mig_caps

        def stat(self, path: str) -> object:
            found = self.simulated.stat(path)
            return found and dataclasses.replace(found, host_path=path)

    machine = dataclasses.replace(node.machine, device_nodes=OnTheHost())  # type: ignore[arg-type]
    [entry] = node.build("gpu-0", builder=CdiBuilder(machine)).devices
    assert {edit.host_path for edit in entry.container_edits.device_nodes} == {""}


def test_a_mig_device_is_its_gpu_and_its_two_capabilities(node: Node) -> None:
    node.hardware.set_mig_mode(0, enabled=True)
    node.hardware.reset(0)
    node.hardware.create_mig(0, "1g.10gb")
    [name] = [name for name in take_snapshot(node.machine).devices if name.startswith("gpu-0-mig")]
    mig = node.device(name).mig
    assert mig is not None
    caps = node.machine.device_nodes.mig_caps(0, mig.gi_id, mig.ci_id)
    [entry] = node.build(name).devices
    paths = node_paths(entry.container_edits)
    assert "/dev/nvidia0" in paths
    assert [path for path in paths if "caps" in path] == sorted(cap.path for cap in caps)
    assert len(caps) == 2


def test_sharing_adds_its_own_edits(node: Node) -> None:
    extra = ContainerEdits(
        env=("CUDA_MPS_PIPE_DIRECTORY=/tmp/nvidia-mps",),
        mounts=(MountEdit(host_path="/mps/pipe", container_path="/tmp/nvidia-mps"),),
    )
    device = a_claim_device(node.device("gpu-0"), extra_edits=extra)
    [entry] = node.builder.build(UID, [device]).devices
    assert entry.container_edits.env == extra.env
    assert entry.container_edits.mounts == extra.mounts


def test_devices_are_in_order_whatever_the_claim_says(node: Node) -> None:
    spec = node.build("gpu-2", "gpu-0")
    assert [device.name for device in spec.devices] == [f"{UID}-gpu-0", f"{UID}-gpu-2"]
    assert spec == node.build("gpu-0", "gpu-2")


def test_a_strict_reader_accepts_the_document(node: Node) -> None:
    document = parse_document(encode_spec(node.build("gpu-0", "gpu-1")))
    assert document.kind == "k8s.gpu.nvidia.com/claim"
    assert document.cdi_version == "0.7.0"  # display nodes need additionalGids
    assert len(document.devices) == 2


def test_everything_named_on_the_host_exists(node: Node) -> None:
    spec = node.build("gpu-0")
    named = [mount.host_path for mount in spec.container_edits.mounts]
    named += [hook.path for hook in spec.container_edits.hooks]
    named += [edit.host_path for edit in spec.devices[0].container_edits.device_nodes]
    assert [path for path in named if not os.path.exists(path)] == []  # noqa: PTH110


def refused(node: Node, *names: str, builder: CdiBuilder | None = None) -> Retryable:
    with pytest.raises(Retryable) as failure:
        node.build(*names, builder=builder)
    return failure.value


@pytest.mark.parametrize("used_before", [False, True])
def test_a_missing_libcuda_is_named(node: Node, used_before: bool) -> None:
    if used_before:
        node.build("gpu-0")
    version = node.driver_version
    node.hide(f"/usr/lib/x86_64-linux-gnu/libcuda.so.{version}")
    error = refused(node, "gpu-0")
    assert error.reason == "DriverMissing"
    assert f"libcuda.so.{version} not found under driver root {node.root}" in str(error)


def test_a_missing_library_is_just_not_mounted(node: Node) -> None:
    version = node.driver_version
    path = f"/usr/lib/x86_64-linux-gnu/libnvcuvid.so.{version}"
    assert path in {mount.container_path for mount in node.build("gpu-0").container_edits.mounts}
    node.hide(path)
    mounts = node.build("gpu-0", builder=CdiBuilder(node.machine)).container_edits.mounts
    assert path not in {mount.container_path for mount in mounts}


@pytest.mark.parametrize("path", ["/dev/nvidiactl", "/dev/nvidia0"])
def test_a_missing_device_node_is_named(node: Node, path: str) -> None:
    node.build("gpu-0")
    node.hide(path)
    error = refused(node, "gpu-0")
    assert error.reason == "DeviceNodeMissing"
    assert path in error.message
    assert "nvidia-modprobe" in error.hint


def test_optional_nodes_may_be_missing(node: Node) -> None:
    node.hide("/dev/nvidia-modeset")
    assert "/dev/nvidia-modeset" not in node_paths(node.build("gpu-0").container_edits)


def test_one_gpu_without_its_node_leaves_the_others_usable(node: Node) -> None:
    node.hide("/dev/nvidia0")
    assert len(node.build("gpu-1").devices) == 1


def test_unknown_display_nodes_are_left_out(node: Node) -> None:
    node.hardware.inject("drm_nodes", gpu=0)
    [entry] = node.build("gpu-0").devices
    assert node_paths(entry.container_edits) == ["/dev/nvidia0"]


def test_a_missing_hook_is_named(node: Node) -> None:
    hook = node.machine.cdi_hook.host_path()
    os.unlink(hook)  # noqa: PTH108
    error = refused(node, "gpu-0")
    assert error.reason == "CdiHookMissing"
    assert hook in error.message


def test_missing_capabilities_of_a_mig_device_are_named(node: Node) -> None:
    node.hardware.set_mig_mode(0, enabled=True)
    node.hardware.reset(0)
    handle = node.hardware.create_mig(0, "1g.10gb")
    device = next(d for d in take_snapshot(node.machine).devices.values() if d.uuid == handle.uuid)
    node.hardware.destroy_mig(0, handle.gi_id)
    with pytest.raises(Retryable) as failure:
        node.builder.build(UID, [a_claim_device(device)])
    assert failure.value.reason == "DeviceNodeMissing"
    assert device.name in failure.value.message


def test_an_unknown_driver_version_is_an_error_of_the_claim(node: Node) -> None:
    error = refused(node, "gpu-0", builder=CdiBuilder(node.machine, driver_version=str))
    assert error.reason == "DriverMissing"


def test_the_driver_version_is_asked_of_nvml_if_of_nobody_else(tmp_path: Path) -> None:
    Node(tmp_path)
    machine = SimulatedHardware.attach(tmp_path).machine  # where nobody called init yet
    device = take_snapshot(SimulatedHardware.attach(tmp_path).machine).devices["gpu-0"]
    assert CdiBuilder(machine).build(UID, [a_claim_device(device)]).devices


def test_another_driver_version_is_searched_for(node: Node) -> None:
    versions = [node.driver_version, "999.1"]
    builder = CdiBuilder(node.machine, driver_version=lambda: versions.pop(0))
    node.build("gpu-0", builder=builder)
    assert "running driver is 999.1" in refused(node, "gpu-0", builder=builder).message


def test_names_that_cdi_does_not_know_are_refused(node: Node) -> None:
    device = ClaimDevice(device=node.device("gpu-0"), cdi_name="gpu 0")
    with pytest.raises(Permanent, match="device 'gpu 0': not a CDI device name"):
        node.builder.build(UID, [device])


def test_a_claim_without_devices_or_with_one_twice_is_refused(node: Node) -> None:
    with pytest.raises(Permanent, match="no devices"):
        node.build()
    with pytest.raises(Permanent, match="named twice"):
        node.build("gpu-0", "gpu-0")
