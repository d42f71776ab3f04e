"""An embedded Kubernetes cluster in one process."""
