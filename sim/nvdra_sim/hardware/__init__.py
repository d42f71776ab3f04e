"""Simulated hardware behind the node agent's ports, driven by a profile and a state directory."""
