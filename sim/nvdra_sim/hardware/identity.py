"""Names and numbers of simulated GPUs and MIG devices, all arithmetic.

The nvidia-smi stand-in runs in containers that see nothing of the simulator but device nodes, and
must print the same UUIDs as the inventory. So nothing here is drawn by chance or remembered:

* a GPU's UUID follows from its node's name and its index;
* a GPU instance's id follows from its placement: instances are numbered through a binary tree of
  the memory slices, whole GPU first (0), then halves (1, 2), quarters (3..6), eighths (7..14),
  which is the range of ids that real GPUs use;
* a compute instance's id is the position of its profile among the profiles of the same size. Real
  GPUs number the only compute instance of a GPU instance 0; here the number also tells `1g.10gb`
  from `1g.10gb+me`;
* capability device nodes are numbered as the driver does in /proc/driver/nvidia-caps/mig-minors:
  1 and 2 for MIG configuration and monitoring, then for each of 32 GPUs 15 GPU instances with 8
  compute instances each.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nvdra_sim.hardware.profile import MigProfile, MigTable

MIG_CONFIG_CAP = 1
MIG_MONITOR_CAP = 2
FABRIC_CAP = 4323  # behind those of 32 GPUs
GPU_INSTANCES = 15
COMPUTE_INSTANCES = 8

_FIRST_GPU_CAP = 3
_CAPS_PER_INSTANCE = 1 + COMPUTE_INSTANCES
_CAPS_PER_GPU = GPU_INSTANCES * _CAPS_PER_INSTANCE
_NAMESPACE = uuid.UUID("6e766472-612d-5369-6d75-6c6174656421")


def gpu_uuid(node: str, index: int) -> str:
    return f"GPU-{_gpu(node, index)}"


def mig_uuid(node: str, index: int, gi_id: int, ci_id: int) -> str:
    return f"MIG-{uuid.uuid5(_gpu(node, index), f'gi{gi_id}/ci{ci_id}')}"


def gi_id(table: MigTable, *, start: int, size: int) -> int:
    return table.memory_slices // size - 1 + start // size


def ci_id(table: MigTable, profile: MigProfile) -> int:
    return table.variants(profile.size).index(profile)


def gi_cap(gpu_minor: int, gi: int) -> int:
    """Minor number of the capability node of a GPU instance."""
    return _FIRST_GPU_CAP + gpu_minor * _CAPS_PER_GPU + gi * _CAPS_PER_INSTANCE


def ci_cap(gpu_minor: int, gi: int, ci: int) -> int:
    """Minor number of the capability node of a compute instance."""
    return gi_cap(gpu_minor, gi) + 1 + ci


def _gpu(node: str, index: int) -> uuid.UUID:
    return uuid.uuid5(_NAMESPACE, f"{node}/gpu{index}")
