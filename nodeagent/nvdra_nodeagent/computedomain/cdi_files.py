"""The CDI files of the driver's claims: channels for workloads, everything that a daemon needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_nodeagent.cdi.builder import edits_of_nodes
from nvdra_nodeagent.cdi.claim_files import StoredFiles
from nvdra_nodeagent.cdi.document import (
    NO_EDITS,
    CdiSpec,
    ContainerEdits,
    DeviceEntry,
    DeviceNodeEdit,
    MountEdit,
    smallest_version,
)
from nvdra_nodeagent.cdi.names import DOMAIN_CLAIM_KIND, cdi_device_id, cdi_device_name
from nvdra_nodeagent.computedomain.directories import IN_CONTAINER
from nvdra_nodeagent.steps.domain_cdi import ChannelCdiStep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nvdra_nodeagent.cdi.builder import CdiBuilder
    from nvdra_nodeagent.cdi.store import CdiStore
    from nvdra_nodeagent.computedomain.directories import DomainDirectories
    from nvdra_nodeagent.hardware.ports import DeviceNode, ImexNodes
    from nvdra_nodeagent.inventory.model import Device, Gpu
    from nvdra_nodeagent.steps.domain_cdi import DaemonCdiStep, DomainCdiStep

_MOUNT_OPTIONS = ("rw", "nosuid", "nodev", "bind")


class DomainCdiFiles(StoredFiles):
    """The `DomainCdi` and the `CdiFiles` of steps. Calls block."""

    def __init__(
        self,
        store: CdiStore,
        *,
        builder: CdiBuilder,
        nodes: ImexNodes,
        directories: DomainDirectories,
        gpus: Callable[[], Sequence[Gpu]],
    ) -> None:
        super().__init__(builder, store)
        self._nodes = nodes
        self._directories = directories
        self._gpus = gpus

    def device_id(self, claim_uid: str, device_name: str) -> str:
        """The qualified id of a claim's device."""
        return cdi_device_id(claim_uid, device_name, kind=DOMAIN_CLAIM_KIND)

    def put(self, step: DomainCdiStep) -> None:
        """One durable write. May raise `HardwareError`."""
        self._store.write(step.claim_uid, self._spec(step))

    def is_put(self, step: DomainCdiStep) -> bool:
        """Also untrue when the driver's files have changed under a daemon."""
        return self._store.holds(step.claim_uid, self._spec(step))

    def write(self, claim_uid: str, devices: Sequence[Device]) -> None:
        """Never planned: GPUs are the other driver's."""
        raise AssertionError(f"claim {claim_uid} has no GPUs here")

    def is_current(self, claim_uid: str, devices: Sequence[Device]) -> bool:
        """As `write`."""
        raise AssertionError(f"claim {claim_uid} has no GPUs here")

    def _spec(self, step: DomainCdiStep) -> CdiSpec:
        if isinstance(step, ChannelCdiStep):
            channels = self._nodes.channels(range(step.first, step.first + step.count))
            edits = ContainerEdits(device_nodes=tuple(map(_channel, channels)))
        else:
            edits = self._daemon(step)
        name = cdi_device_name(step.claim_uid, step.device)
        entries = (DeviceEntry(name=name, container_edits=edits),)
        return CdiSpec(
            cdi_version=smallest_version(NO_EDITS, entries, DOMAIN_CLAIM_KIND),
            kind=DOMAIN_CLAIM_KIND,
            devices=entries,
        )

    def _daemon(self, step: DaemonCdiStep) -> ContainerEdits:
        """A daemon on a node without a fabric only waits: it gets no driver."""
        own = ContainerEdits(
            env=(
                f"CLIQUE_ID={step.clique}",
                f"COMPUTE_DOMAIN_UUID={step.domain}",
                f"COMPUTE_DOMAIN_NAME={step.name}",
                f"COMPUTE_DOMAIN_NAMESPACE={step.namespace}",
                f"COMPUTE_DOMAIN_CLAIM_UID={step.claim_uid}",
                f"COMPUTE_DOMAIN_BOOT_ID={step.boot_id}",
                "NVIDIA_VISIBLE_DEVICES=void",
            ),
            mounts=(
                MountEdit(
                    host_path=str(self._directories.path(step.domain)),
                    container_path=IN_CONTAINER,
                    options=_MOUNT_OPTIONS,
                ),
            ),
        )
        if not step.clique:
            return own
        capability = edits_of_nodes([self._nodes.management()])
        return self._builder.management(self._gpus()) + capability + own


def _channel(node: DeviceNode) -> DeviceNodeEdit:
    """Made by the container runtime, which so also allows its use: the host needs no such node."""
    return DeviceNodeEdit(
        path=node.path,
        type="c",
        major=node.major,
        minor=node.minor,
        file_mode=node.mode,
        permissions="rwm",
    )
