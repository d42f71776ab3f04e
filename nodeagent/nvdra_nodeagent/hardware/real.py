"""Puts the real adapters together to the machine this process runs on."""

from __future__ import annotations

from pathlib import Path

from nvdra_nodeagent.hardware.cdi_hook import CopiedHook, HostHook
from nvdra_nodeagent.hardware.device_nodes import HostDeviceNodes
from nvdra_nodeagent.hardware.driver_module import KernelDriverModule
from nvdra_nodeagent.hardware.driver_root import MountedDriverRoot
from nvdra_nodeagent.hardware.file_events import FileAnnouncer
from nvdra_nodeagent.hardware.imex_nodes import HostImexNodes
from nvdra_nodeagent.hardware.nvidia_smi import DriverNvidiaSmi
from nvdra_nodeagent.hardware.pci import SysfsPci
from nvdra_nodeagent.hardware.ports import Machine
from nvdra_nodeagent.hardware.uevents import UeventAnnouncer


def real_machine(
    *,
    driver_root: Path,
    host_driver_root: Path,
    sysfs: Path,
    procfs: Path,
    plugin_dir: Path,
    hook_source: Path,
    hook_path: str = "",
    dev_root: Path = Path("/"),
    proc_devices: Path | None = None,
) -> Machine:
    """The machine as seen from this container. Touches nothing yet.

    `driver_root` is the mount of the host's `host_driver_root`. Devices are looked for below it
    when it has a `dev` directory, else below `dev_root`, which the host knows as `/`.
    `hook_path` names a hook on the host (checked where the driver root is the whole host); without
    it `hook_source` is copied into `plugin_dir`. `proc_devices` stands in for /proc/devices.
    """
    # Here, not above: the binding costs 5 MiB, which agents on simulated hardware can do without.
    from nvdra_nodeagent.hardware.nvml import LibraryNvml

    whole_host = driver_root if host_driver_root == Path("/") else None
    nodes = HostDeviceNodes(
        driver_root,
        host_dev_root=host_driver_root,
        procfs=procfs,
        proc_devices=proc_devices,
        own_root=dev_root,
    )
    copied = CopiedHook(hook_source, plugin_dir=plugin_dir)
    root = MountedDriverRoot(driver_root, host_path=host_driver_root)
    return Machine(
        nvml=LibraryNvml(root),
        pci=SysfsPci(sysfs),
        device_nodes=nodes,
        imex_nodes=HostImexNodes(
            nodes, driver_root=driver_root, procfs=procfs, proc_devices=proc_devices
        ),
        driver_root=root,
        cdi_hook=HostHook(hook_path, host_root=whole_host) if hook_path else copied,
        nvidia_smi=DriverNvidiaSmi(root),
        driver_module=KernelDriverModule(sysfs=sysfs, procfs=procfs),
        announcers=(UeventAnnouncer(), FileAnnouncer(driver_root)),
    )
