"""The in-cluster side of the driver: leader election, ComputeDomains and their cliques."""

__version__ = "0.1.0"
