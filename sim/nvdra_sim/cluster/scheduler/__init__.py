"""The embedded scheduler: places pods on nodes and allocates devices to their claims."""

from nvdra_sim.cluster.scheduler.scheduler import Scheduler

__all__ = ["Scheduler"]
