"""The embedded kubelet: real gRPC to DRA drivers, real CDI files, containers in namespaces."""
