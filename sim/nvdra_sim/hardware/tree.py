"""The files of a simulated machine: driver root, sysfs and procfs, as far as anybody reads them."""

from __future__ import annotations

import contextlib
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nvdra_nodeagent.hardware.pci import normalise_bus_id
from nvdra_sim.hardware import identity, smi
from nvdra_sim.hardware.devices import drm_names, node_table
from nvdra_sim.hardware.driver_files import BINARIES, CONFIG_FILES, LIBRARIES, PLAIN_LIBRARIES
from nvdra_sim.hardware.errors import UnusableStateDir
from nvdra_sim.imex import programs as imex

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nvdra_sim.hardware.profile import GpuSlot, Profile

DRIVER_ROOT = "driver-root"
SYSFS = "sys"
PROCFS = "proc"
HOOK = "bin/nvidia-cdi-hook"
PROC_VERSION = f"{PROCFS}/driver/nvidia/version"

_NVIDIA_VENDOR = "0x10de"
_3D_CONTROLLER = "0x030200"
_PLACEHOLDER = "placeholder of a simulated driver\n"


@dataclass(slots=True)
class Tree:
    """Files and links to lay out below one directory; paths are relative to it."""

    files: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    programs: set[str] = field(default_factory=set)

    def lay_out(self, root: Path) -> None:
        """Create or replace them all."""
        made: set[Path] = set()
        for path, text in self.files.items():
            target = _prepared(root, path, made)
            target.unlink(missing_ok=True)
            target.write_text(text, encoding="utf-8")
            # Whatever the umask: containers run as anybody.
            target.chmod(0o755 if path in self.programs else 0o644)
        for path, text in self.links.items():
            target = _prepared(root, path, made)
            target.unlink(missing_ok=True)
            target.symlink_to(text)

    def clear(self, root: Path) -> None:
        """Remove its files and links, and the directories that are empty then."""
        for path in (*self.links, *self.files):
            target = root / path
            target.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                target.parent.rmdir()


def _prepared(root: Path, path: str, made: set[Path]) -> Path:
    """`path` below `root`, its directory made, nothing real in its place."""
    target = root / path
    if target.parent not in made:
        target.parent.mkdir(parents=True, exist_ok=True)
        made.add(target.parent)
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return target
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        problem = f"{target} is a real device or directory, and is left alone"
        raise UnusableStateDir(root, f"{problem}; choose another directory")
    return target


def machine_tree(profile: Profile, *, node: str) -> Tree:
    """Everything that does not change while the machine lives."""
    tree = driver_tree(profile, node=node)
    tree.files[HOOK] = smi.cdi_hook()
    tree.programs.add(HOOK)
    # As on a distribution with a merged /usr.
    tree.links[f"{DRIVER_ROOT}/lib"] = "usr/lib"
    tree.links[f"{DRIVER_ROOT}/bin"] = "usr/bin"
    _add_devices(tree, profile)
    _add_proc(tree, profile)
    for position, gpu in enumerate(profile.gpus):
        _add_pci_function(tree, profile, gpu, position)
        _add_proc_gpu(tree, profile, gpu, position)
    return tree


def driver_tree(profile: Profile, *, node: str) -> Tree:
    """What an installation of the driver brings: libraries, settings, programs."""
    tree = Tree()
    _add_libraries(tree, profile)
    _add_programs(tree, profile, node=node)
    return tree


def gpu_tree(profile: Profile, position: int) -> Tree:
    """What comes and goes with one GPU: its device node and its places in sysfs and procfs."""
    tree, gpu = Tree(), profile.gpus[position]
    tree.files[f"{DRIVER_ROOT}/dev/nvidia{gpu.minor}"] = ""
    _add_pci_function(tree, profile, gpu, position)
    _add_proc_gpu(tree, profile, gpu, position)
    return tree


def version_text(profile: Profile) -> str:
    """/proc/driver/nvidia/version."""
    return (
        f"NVRM version: NVIDIA UNIX Open Kernel Module for {profile.machine}  "
        f"{profile.driver_version}  (simulated)\n"
    )


def mig_tree(gpu_minor: int, gi: int, ci: int) -> Tree:
    """What appears with a MIG device: its capability files and their device nodes."""
    tree = Tree()
    instance = f"{PROCFS}/driver/nvidia/capabilities/gpu{gpu_minor}/mig/gi{gi}"
    for directory, minor in (
        (instance, identity.gi_cap(gpu_minor, gi)),
        (f"{instance}/ci{ci}", identity.ci_cap(gpu_minor, gi, ci)),
    ):
        tree.files[f"{directory}/access"] = _capability(minor)
        tree.files[f"{DRIVER_ROOT}/dev/nvidia-caps/nvidia-cap{minor}"] = ""
    return tree


def _capability(minor: int, mode: int = 0o444) -> str:
    # The driver prints the mode in decimal.
    return f"DeviceFileMinor: {minor}\nDeviceFileMode: {mode}\nDeviceFileModify: 1\n"


def _add_libraries(tree: Tree, profile: Profile) -> None:
    version = profile.driver_version
    base = f"{DRIVER_ROOT}/usr/lib/{profile.machine}-linux-gnu"
    for name in PLAIN_LIBRARIES:
        tree.files[f"{base}/{name}.so.{version}"] = _PLACEHOLDER
    for name, soname in LIBRARIES.items():
        tree.files[f"{base}/{name}.so.{version}"] = _PLACEHOLDER
        link = f"{base}/{name}.so.{soname}"
        tree.links[link] = f"{name.rpartition('/')[2]}.so.{version}"
    tree.links[f"{base}/libcuda.so"] = "libcuda.so.1"
    tree.links[f"{base}/gbm/nvidia-drm_gbm.so"] = "../libnvidia-allocator.so.1"
    for chip in ("ga10x", "tu10x"):
        tree.files[f"{DRIVER_ROOT}/usr/lib/firmware/nvidia/{version}/gsp_{chip}.bin"] = _PLACEHOLDER
    for path in CONFIG_FILES:
        tree.files[f"{DRIVER_ROOT}/{path}"] = _PLACEHOLDER


def _add_programs(tree: Tree, profile: Profile, *, node: str) -> None:
    scripts = {f"{DRIVER_ROOT}/usr/bin/nvidia-smi": smi.nvidia_smi(profile, node=node)}
    for name in BINARIES:
        note = f"{name}: the driver is simulated; there is nothing to do"
        scripts[f"{DRIVER_ROOT}/usr/bin/{name}"] = f"#!/bin/sh\necho '{note}' >&2\nexit 1\n"
    for name in imex.PROGRAMS:
        scripts[f"{DRIVER_ROOT}/usr/bin/{name}"] = imex.program(name)
    tree.files |= scripts
    tree.programs |= scripts.keys()


def _add_devices(tree: Tree, profile: Profile) -> None:
    for path in node_table(profile):
        tree.files[f"{DRIVER_ROOT}{path}"] = ""
    for position, gpu in enumerate(profile.gpus):
        bus = normalise_bus_id(gpu.bus_id)
        for name, kind in zip(drm_names(position), ("card", "render"), strict=True):
            tree.links[f"{DRIVER_ROOT}/dev/dri/by-path/pci-{bus}-{kind}"] = f"../{name}"


def _add_proc(tree: Tree, profile: Profile) -> None:
    nvidia = profile.majors.nvidia
    majors = [
        *profile.majors.by_driver().items(),
        ("nvidiactl", nvidia),
        ("nvidia-modeset", nvidia),
    ]
    lines = [f"{major:3d} {name}" for name, major in sorted(majors, key=lambda each: each[1])]
    tree.files[f"{PROCFS}/devices"] = "\n".join(
        ["Character devices:", "  1 mem", *lines, "", "Block devices:", "259 blkext", ""]
    )
    tree.files[PROC_VERSION] = version_text(profile)
    if profile.fabric is not None:
        management = f"{PROCFS}/driver/nvidia/capabilities/fabric-imex-mgmt"
        tree.files[management] = _capability(identity.FABRIC_CAP, 0o400)
    if profile.mig is None:
        return
    capabilities = f"{PROCFS}/driver/nvidia/capabilities/mig"
    tree.files[f"{capabilities}/config"] = _capability(identity.MIG_CONFIG_CAP, 0o400)
    tree.files[f"{capabilities}/monitor"] = _capability(identity.MIG_MONITOR_CAP)
    tree.files[f"{PROCFS}/driver/nvidia-caps/mig-minors"] = "".join(_mig_minors(profile))


def _mig_minors(profile: Profile) -> Iterator[str]:
    yield f"config {identity.MIG_CONFIG_CAP}\nmonitor {identity.MIG_MONITOR_CAP}\n"
    for minor in sorted(gpu.minor for gpu in profile.gpus):
        for gi in range(identity.GPU_INSTANCES):
            yield f"gpu{minor}/gi{gi}/access {identity.gi_cap(minor, gi)}\n"
            for ci in range(identity.COMPUTE_INSTANCES):
                yield f"gpu{minor}/gi{gi}/ci{ci}/access {identity.ci_cap(minor, gi, ci)}\n"


def _add_proc_gpu(tree: Tree, profile: Profile, gpu: GpuSlot, position: int) -> None:
    bus = normalise_bus_id(gpu.bus_id)
    tree.files[f"{PROCFS}/driver/nvidia/gpus/{bus}/information"] = (
        f"Model: \t\t {profile.product}\n"
        f"Bus Location: \t {bus}\n"
        f"Device Minor: \t {gpu.minor}\n"
        f"GPU Excluded:\t No\n"
    )


def _add_pci_function(tree: Tree, profile: Profile, gpu: GpuSlot, position: int) -> None:
    bus = normalise_bus_id(gpu.bus_id)
    port = f"{gpu.root.removeprefix('pci')}:01.0"
    function = f"devices/{gpu.root}/{port}/{bus}"
    for name, text in (
        ("vendor", _NVIDIA_VENDOR),
        ("device", profile.pci_device_id),
        ("class", _3D_CONTROLLER),
        ("numa_node", str(gpu.numa_node)),
        *((f"drm/{node}/uevent", "") for node in drm_names(position)),
    ):
        tree.files[f"{SYSFS}/{function}/{name}"] = f"{text}\n"
    tree.links[f"{SYSFS}/{function}/driver"] = "../../../../bus/pci/drivers/nvidia"
    tree.links[f"{SYSFS}/bus/pci/devices/{bus}"] = f"../../../{function}"
    tree.links[f"{SYSFS}/bus/pci/drivers/nvidia/{bus}"] = f"../../../../{function}"
