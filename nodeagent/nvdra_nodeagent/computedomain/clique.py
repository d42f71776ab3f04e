"""Which NVLink clique the node is in, from what its GPUs say of the fabric. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nvdra_nodeagent.hardware.ports import FabricState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nvdra_nodeagent.hardware.ports import FabricInfo

_ONE_MACHINE: Final = "00000000-0000-0000-0000-000000000000"
"""The cluster of GPUs whose NVLinks do not leave the machine."""


class FabricUnsettled(Exception):
    """The GPUs do not tell one clique (yet); the message says which one says what."""


@dataclass(frozen=True, slots=True)
class GpuFabric:
    """One GPU's answer. `info` is None where neither GPU nor driver know of a fabric."""

    gpu: str
    info: FabricInfo | None


def clique_of(gpus: Iterable[GpuFabric], *, strict: bool, partitioned: bool = False) -> str:
    """The clique id `<cluster UUID>.<number>`, "" where there is no fabric beyond the machine.

    Not `strict` (gate CrashOnNVLinkFabricErrors off): GPUs that are not registered are passed over.
    `partitioned` (gate FabricManagerPartitioning): registration may stay incomplete where a fabric
    manager of this one machine cuts its NVSwitches into partitions.

    :raises FabricUnsettled: a registration is under way or failed, or GPUs are in several cliques.
    """
    found: dict[str, str] = {}
    for gpu in gpus:
        if gpu.info is None or gpu.info.state == FabricState.NOT_SUPPORTED:
            continue
        problem = _problem(gpu.info)
        if problem and (not strict or (partitioned and gpu.info.state != FabricState.COMPLETED)):
            continue
        if problem:
            raise FabricUnsettled(f"{gpu.gpu}: {problem}")
        if gpu.info.cluster_uuid != _ONE_MACHINE:
            found.setdefault(f"{gpu.info.cluster_uuid}.{gpu.info.clique}", gpu.gpu)
    if len(found) > 1:
        told = ", ".join(f"{gpu} is in {clique}" for clique, gpu in found.items())
        raise FabricUnsettled(f"the GPUs are in different NVLink cliques: {told}")
    return next(iter(found), "")


def is_registering(gpu: GpuFabric) -> bool:
    """Whether the GPU may still join the fabric."""
    return gpu.info is not None and gpu.info.state in (
        FabricState.NOT_STARTED,
        FabricState.IN_PROGRESS,
    )


def _problem(info: FabricInfo) -> str:
    if info.state != FabricState.COMPLETED:
        known = {state.value: state.name.lower() for state in FabricState}
        return f"registration with the NVLink fabric is {known.get(info.state, info.state)}"
    if info.status:
        return f"registration with the NVLink fabric failed with NVML error {info.status}"
    return ""
