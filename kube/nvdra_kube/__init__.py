"""Talking to Kubernetes: session, informer, events and the value types of its API.

Knows nothing of NVIDIA.
"""
