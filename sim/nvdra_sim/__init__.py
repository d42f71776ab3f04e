"""Simulated NVIDIA hardware and an embedded Kubernetes cluster."""
