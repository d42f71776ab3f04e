"""The gRPC edge: registration, the DRA service, draining."""
