"""CDI documents: what the container runtime shall put into the containers of a claim."""

from nvdra_nodeagent.cdi.builder import CdiBuilder, ClaimDevice
from nvdra_nodeagent.cdi.claim_files import ClaimFiles
from nvdra_nodeagent.cdi.document import CdiSpec, ContainerEdits
from nvdra_nodeagent.cdi.names import GPU_CLAIM_KIND, cdi_device_id, cdi_device_name
from nvdra_nodeagent.cdi.store import CdiStore

__all__ = [
    "GPU_CLAIM_KIND",
    "CdiBuilder",
    "CdiSpec",
    "CdiStore",
    "ClaimDevice",
    "ClaimFiles",
    "ContainerEdits",
    "cdi_device_id",
    "cdi_device_name",
]
