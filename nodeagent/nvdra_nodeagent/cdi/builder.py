"""Builds a claim's CDI document from its devices, the driver's files and the machine's nodes.

Containers are started later and by somebody else: whatever the document names must exist now, so
that a missing file is an error of the claim with a reason, not of a container without one.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import structlog

from nvdra_nodeagent.cdi.document import (
    NO_EDITS,
    CdiSpec,
    ContainerEdits,
    DeviceEntry,
    DeviceNodeEdit,
    HookEdit,
    MountEdit,
    smallest_version,
)
from nvdra_nodeagent.cdi.driver_files import DriverFiles, find_driver_files, is_current
from nvdra_nodeagent.cdi.installation import Installation
from nvdra_nodeagent.cdi.names import GPU_CLAIM_KIND
from nvdra_nodeagent.cdi.validation import problems_of
from nvdra_nodeagent.errors import NodeFault, Permanent
from nvdra_nodeagent.hardware.errors import DriverMissing, HardwareError, HookMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from nvdra_nodeagent.hardware.ports import DeviceNode, Machine
    from nvdra_nodeagent.inventory.model import Device, Gpu

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")
PathEdit = TypeVar("PathEdit", DeviceNodeEdit, MountEdit)

CONTROL_NODE: Final = "/dev/nvidiactl"
OPTIONAL_NODES: Final = ("/dev/nvidia-modeset", "/dev/nvidia-uvm-tools", "/dev/nvidia-uvm")
FILE_OPTIONS: Final = ("ro", "nosuid", "nodev", "rbind", "rprivate")
SOCKET_OPTIONS: Final = ("nosuid", "nodev", "rbind", "rprivate", "noexec")
_WORLD_READ_WRITE: Final = 0o006
_NODE_HINT: Final = (
    "check that the nvidia kernel modules are loaded on this node; "
    "running nvidia-smi or nvidia-modprobe there creates its device nodes"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimDevice:
    """A device of a claim, its name in CDI, and what sharing adds to it (MPS for instance)."""

    device: Device
    cdi_name: str
    extra_edits: ContainerEdits = NO_EDITS


@dataclass(frozen=True, slots=True, kw_only=True)
class _DriverEdits:
    """Edits that only change when the driver does, and what they were made from."""

    version: str
    hook: str
    files: DriverFiles
    edits: ContainerEdits

    @property
    def identity(self) -> str:
        """Another one when any container would see a difference."""
        return hashlib.blake2b(msgspec.json.encode(self.edits), digest_size=12).hexdigest()


class CdiBuilder:
    """Builds CDI documents for one machine. Calls block; any number may run at once.

    The driver's files are searched once and again whenever one of their directories has changed;
    device nodes are looked at each time, which costs little.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        driver_version: Callable[[], str] | None = None,
        kernel: str | None = None,
        kind: str = GPU_CLAIM_KIND,
    ) -> None:
        """`driver_version` gives the version as the driver itself spells it (default: asks NVML),
        `kernel` is the release of the running kernel."""
        self._machine = machine
        self._driver_version = driver_version or self._ask_nvml
        self._kernel = os.uname().release if kernel is None else kernel
        self._kind = kind
        self._cached: _DriverEdits | None = None
        self._progress = Installation()

    def build(self, claim_uid: str, devices: Sequence[ClaimDevice]) -> CdiSpec:
        """The document of a claim.

        :raises NodeFault: something that containers need is missing: `DriverMissing`,
            `CdiHookMissing`, `DeviceNodeMissing`; the message names it.
        :raises Retryable: `DriverChanging`: the driver's files are being replaced.
        :raises Permanent: `CdiSpecInvalid`: CDI cannot express the claim (names).
        """
        hook = _asked("CdiHookMissing", self._machine.cdi_hook.host_path)
        common = self._driver(hook).edits + edits_of_nodes(self._control_nodes())
        entries = tuple(
            DeviceEntry(name=device.cdi_name, container_edits=self._device_edits(device, hook))
            for device in sorted(devices, key=lambda device: device.cdi_name)
        )
        spec = CdiSpec(
            cdi_version=smallest_version(common, entries, self._kind),
            kind=self._kind,
            container_edits=common,
            devices=entries,
        )
        if problems := problems_of(spec):
            raise Permanent(
                "CdiSpecInvalid",
                f"claim {claim_uid} cannot be expressed in CDI: {'; '.join(problems)}",
            )
        return spec

    def management(self, gpus: Iterable[Gpu]) -> ContainerEdits:
        """What a program needs that manages all GPUs: driver, control nodes, and every GPU.

        A GPU that cannot be described is left out. :raises AgentError: as `build`.
        """
        hook = _asked("CdiHookMissing", self._machine.cdi_hook.host_path)
        edits = self._driver(hook).edits + edits_of_nodes(self._control_nodes())
        for gpu in gpus:
            try:
                edits += self._gpu_edits(gpu, hook)
            except (HardwareError, NodeFault) as error:
                log.warning("GPU left out of management", device=gpu.name, error=str(error))
        return edits

    def basis(self) -> str:
        """Identity of what all documents have in common: another driver, root or library set gives
        another one. Cheap while nothing has changed.

        :raises AgentError: there is no driver that a document could be made from.
        """
        hook = _asked("CdiHookMissing", self._machine.cdi_hook.host_path)
        return self._driver(hook).identity

    def _ask_nvml(self) -> str:
        self._machine.nvml.init()
        return self._machine.nvml.driver_version()

    def _driver(self, hook: str) -> _DriverEdits:
        version = _asked("DriverMissing", self._driver_version)
        if not version:
            raise NodeFault(
                "DriverMissing",
                "the version of the NVIDIA driver on this node is not known",
                hint="check that the kernel module is loaded: cat /proc/driver/nvidia/version",
            )
        root = self._machine.driver_root.container_path
        cached = self._cached
        if (
            cached is None
            or (cached.version, cached.hook) != (version, hook)
            or not is_current(cached.files, root)
        ):
            found = self._search_driver(version, hook)
            self._progress.check(found.files, before=cached.files if cached else None)
            cached = self._cached = found
        return cached

    def _search_driver(self, version: str, hook: str) -> _DriverEdits:
        root = self._machine.driver_root

        def search() -> DriverFiles:
            return find_driver_files(root, version=version, kernel=self._kernel)

        files = _asked("DriverMissing", search)
        edits = driver_edits(files, version=version, hook=hook, host_root=str(root.host_path))
        log.info("driver files found", version=version, mounts=len(edits.mounts))
        return _DriverEdits(version=version, hook=hook, files=files, edits=edits)

    def _control_nodes(self) -> list[DeviceNode]:
        nodes = self._machine.device_nodes
        optional = (nodes.stat(path) for path in OPTIONAL_NODES)
        try:
            return [self._node(CONTROL_NODE), *(node for node in optional if node)]
        except HardwareError as error:
            raise NodeFault("DeviceNodeMissing", str(error), hint=_NODE_HINT) from error

    def _node(self, path: str) -> DeviceNode:
        found = self._machine.device_nodes.stat(path)
        if found is None:
            raise NodeFault(
                "DeviceNodeMissing", f"device node {path} is not on this node", hint=_NODE_HINT
            )
        return found

    def _device_edits(self, device: ClaimDevice, hook: str) -> ContainerEdits:
        try:
            edits = self._gpu_edits(device.device.gpu, hook)
            if device.device.mig is not None:
                edits += edits_of_nodes(self._mig_nodes(device.device))
        except HardwareError as error:
            message = f"cannot describe {device.device.name} for CDI: {error}"
            raise NodeFault("DeviceNodeMissing", message, hint=_NODE_HINT) from error
        edits += device.extra_edits
        return msgspec.structs.replace(edits, device_nodes=_by_path(edits.device_nodes))

    def _gpu_edits(self, gpu: Gpu, hook: str) -> ContainerEdits:
        names = self._drm_names(gpu)
        stats = ((name, self._machine.device_nodes.stat(f"/dev/dri/{name}")) for name in names)
        drm = {name: node for name, node in stats if node}
        edits = edits_of_nodes([self._node(f"/dev/nvidia{gpu.minor}"), *drm.values()])
        links = [link for name in drm for link in _by_path_link(name, gpu.pci_bus_id)]
        if not links:
            return edits
        return edits + ContainerEdits(hooks=(_hook(hook, "create-symlinks", *links),))

    def _drm_names(self, gpu: Gpu) -> tuple[str, ...]:
        try:
            return self._machine.pci.drm_nodes(gpu.pci_bus_id)
        except HardwareError as error:  # computing does not need them
            log.warning("display nodes not known", device=gpu.name, error=str(error))
            return ()

    def _mig_nodes(self, device: Device) -> tuple[DeviceNode, ...]:
        assert device.mig is not None
        mig = device.mig
        nodes = self._machine.device_nodes.mig_caps(device.gpu.minor, mig.gi_id, mig.ci_id)
        if not nodes:
            raise HardwareError(f"no capability nodes of {mig.uuid} under /dev/nvidia-caps")
        return nodes


def driver_edits(files: DriverFiles, *, version: str, hook: str, host_root: str) -> ContainerEdits:
    """The edits that bring the driver into a container: environment, mounts, hooks."""
    read_only = (*files.libraries, *files.others)
    mounts = [_mount(f.container_path, f.root_path, host_root, FILE_OPTIONS) for f in read_only]
    mounts += [
        _mount(f.container_path, f.root_path, host_root, SOCKET_OPTIONS) for f in files.sockets
    ]
    links = [part for link in files.links for part in ("--link", f"{link.target}::{link.path}")]
    folders = [part for folder in files.library_dirs for part in ("--folder", folder)]
    return ContainerEdits(
        env=("NVIDIA_VISIBLE_DEVICES=void", f"NVIDIA_CTK_LIBCUDA_DIR={files.libcuda_dir}"),
        mounts=_by_path(mounts),
        hooks=(
            *([_hook(hook, "create-symlinks", *links)] if links else []),
            _hook(hook, "enable-cuda-compat", f"--host-driver-version={version}"),
            _hook(hook, "update-ldcache", *folders),
            _hook(hook, "disable-device-node-modification"),
        ),
    )


def _mount(
    container_path: str, root_path: str, host_root: str, options: tuple[str, ...]
) -> MountEdit:
    host_path = posixpath.join(host_root, root_path.lstrip("/"))
    return MountEdit(host_path=host_path, container_path=container_path, options=options)


def _hook(path: str, *args: str) -> HookEdit:
    program = posixpath.basename(path)
    # NVIDIA's older tool has the same hooks one level down.
    words = (program, "hook", *args) if program == "nvidia-ctk" else (program, *args)
    return HookEdit(
        hook_name="createContainer", path=path, args=words, env=("NVIDIA_CTK_DEBUG=false",)
    )


def _by_path_link(name: str, bus_id: str) -> tuple[str, ...]:
    """The stable name of a display node, as udev would link it."""
    kind = {"card": "card", "renderD": "render"}.get(name.rstrip("0123456789"))
    return ("--link", f"../{name}::/dev/dri/by-path/pci-{bus_id}-{kind}") if kind else ()


def edits_of_nodes(nodes: Iterable[DeviceNode]) -> ContainerEdits:
    """Edits that make these nodes in a container."""
    nodes = list(nodes)
    restricted = {node.gid for node in nodes if not _is_open_to_all(node) and node.gid}
    return ContainerEdits(
        device_nodes=_by_path(_node_edit(node) for node in nodes),
        additional_gids=tuple(sorted(restricted)),
    )


def _is_open_to_all(node: DeviceNode) -> bool:
    return node.mode & _WORLD_READ_WRITE == _WORLD_READ_WRITE


def _node_edit(node: DeviceNode) -> DeviceNodeEdit:
    return DeviceNodeEdit(
        path=node.path,
        host_path="" if node.host_path == node.path else node.host_path,
        type="c",
        major=node.major,
        minor=node.minor,
        file_mode=node.mode,
        permissions="rwm",
        gid=node.gid or None,
    )


def _by_path(edits: Iterable[PathEdit]) -> tuple[PathEdit, ...]:
    """Parents before what is mounted into them."""
    return tuple(sorted(edits, key=_depth_and_path))


def _depth_and_path(edit: DeviceNodeEdit | MountEdit) -> tuple[int, str]:
    path = edit.path if isinstance(edit, DeviceNodeEdit) else edit.container_path
    return path.count("/"), path


def _asked(reason: str, question: Callable[[], Answer]) -> Answer:
    """Ask the machine; what it cannot answer becomes an error of the claim with this reason."""
    try:
        return question()
    except HookMissing as error:
        raise NodeFault("CdiHookMissing", str(error)) from error
    except DriverMissing as error:
        raise NodeFault("DriverMissing", str(error)) from error
    except HardwareError as error:
        raise NodeFault(reason, str(error)) from error
