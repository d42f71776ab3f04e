"""Makes a node of a real cluster look as if it had GPUs, so that the unchanged agent finds them.

`nvdra-simulate-node` runs in the agent's pod before the agent: it chooses the hardware by the
node's labels, lays it out on the host and makes the device nodes that containers get through CDI.
"""

from nvdra_sim.node.device_files import DeviceFiles
from nvdra_sim.node.free_majors import free_majors
from nvdra_sim.node.furnishing import Furnished, furnish
from nvdra_sim.node.wish import LabelNames, Wish, wish_for

__all__ = ["DeviceFiles", "Furnished", "LabelNames", "Wish", "free_majors", "furnish", "wish_for"]
