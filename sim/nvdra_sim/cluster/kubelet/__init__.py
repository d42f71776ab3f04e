"""The embedded kubelet: real gRPC to DRA drivers, real CDI files, containers in namespaces."""

from nvdra_sim.cluster.kubelet.images import ImageStore
from nvdra_sim.cluster.kubelet.kubelet import Kubelet, KubeletTimes

__all__ = ["ImageStore", "Kubelet", "KubeletTimes"]
