"""The embedded scheduler: places pods on nodes and allocates devices to their claims."""
