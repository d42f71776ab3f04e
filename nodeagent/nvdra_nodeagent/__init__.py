"""The node agent: publishes what the hardware offers and prepares claims for the kubelet."""
