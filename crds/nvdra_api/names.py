"""Every name that clusters, charts, scripts and dashboards know this product by.

These are a contract: objects, labels and files made under these names outlive the program that made
them. Change none of them; names that only one room uses stay in that room.
"""

from __future__ import annotations

from typing import Final

# The API of this product.
API_GROUP: Final = "resource.nvidia.com"
API_VERSION_NAME: Final = "v1beta1"
API_VERSION: Final = f"{API_GROUP}/{API_VERSION_NAME}"

# DRA drivers; a driver's attributes live in the domain of its own name.
GPU_DRIVER: Final = "gpu.nvidia.com"
COMPUTE_DOMAIN_DRIVER: Final = "compute-domain.nvidia.com"

# Device classes.
GPU_CLASS: Final = "gpu.nvidia.com"
MIG_CLASS: Final = "mig.nvidia.com"
VFIO_CLASS: Final = "vfio.gpu.nvidia.com"
COMPUTE_DOMAIN_DAEMON_CLASS: Final = "compute-domain-daemon.nvidia.com"
COMPUTE_DOMAIN_CHANNEL_CLASS: Final = "compute-domain-default-channel.nvidia.com"
EXTENDED_RESOURCE: Final = "nvidia.com/gpu"

# Values of the attribute `type`, which every device has.
TYPE_GPU: Final = "gpu"
TYPE_MIG: Final = "mig"
TYPE_VFIO: Final = "vfio"
TYPE_CHANNEL: Final = "channel"
TYPE_DAEMON: Final = "daemon"

# Device attributes in the driver's domain, published without it.
ATTRIBUTE_TYPE: Final = "type"
ATTRIBUTE_UUID: Final = "uuid"
ATTRIBUTE_PARENT_UUID: Final = "parentUUID"
ATTRIBUTE_PROFILE: Final = "profile"
ATTRIBUTE_PRODUCT_NAME: Final = "productName"
ATTRIBUTE_BRAND: Final = "brand"
ATTRIBUTE_ARCHITECTURE: Final = "architecture"
ATTRIBUTE_COMPUTE_CAPABILITY: Final = "cudaComputeCapability"
ATTRIBUTE_DRIVER_VERSION: Final = "driverVersion"
ATTRIBUTE_CUDA_DRIVER_VERSION: Final = "cudaDriverVersion"
ATTRIBUTE_ADDRESSING_MODE: Final = "addressingMode"
ATTRIBUTE_GPU_MODULE_ID: Final = "gpuModuleID"
ATTRIBUTE_ID: Final = "id"

# Standard device attributes of Kubernetes.
ATTRIBUTE_PCI_BUS_ID: Final = "resource.kubernetes.io/pciBusID"
ATTRIBUTE_PCIE_ROOT: Final = "resource.kubernetes.io/pcieRoot"
ATTRIBUTE_NUMA_NODE: Final = "resource.kubernetes.io/numaNode"

# Device capacities. A MIG device also has `memorySlice<i>` = 1 for each slice that it covers.
CAPACITY_MEMORY: Final = "memory"
CAPACITY_MULTIPROCESSORS: Final = "multiprocessors"
CAPACITY_COPY_ENGINES: Final = "copyEngines"
CAPACITY_DECODERS: Final = "decoders"
CAPACITY_ENCODERS: Final = "encoders"
CAPACITY_JPEG_ENGINES: Final = "jpegEngines"
CAPACITY_OFA_ENGINES: Final = "ofaEngines"
CAPACITY_MEMORY_SLICE_PREFIX: Final = "memorySlice"
CAPACITY_SHARES: Final = "shares"

# CDI vendors and classes. Running pods hold ids made of these across upgrades.
CDI_GPU_VENDOR: Final = "k8s.gpu.nvidia.com"
CDI_COMPUTE_DOMAIN_VENDOR: Final = "k8s.compute-domain.nvidia.com"
CDI_CLAIM_CLASS: Final = "claim"
CDI_DEVICE_CLASS: Final = "device"
CDI_COMPUTE_DOMAIN_DEVICE_ALL: Final = "all"

# Labels, finalizer, annotations.
LABEL_COMPONENT: Final = "dra-driver-nvidia-gpu-component"
COMPONENT_KUBELET_PLUGIN: Final = "kubelet-plugin"
COMPONENT_CONTROLLER: Final = "controller"
LABEL_APP_NAME: Final = "app.kubernetes.io/name"
LABEL_COMPUTE_DOMAIN: Final = "resource.nvidia.com/computeDomain"
LABEL_CLIQUE_ID: Final = "resource.nvidia.com/computeDomain.cliqueID"
LABEL_CLAIM_TEMPLATE_TARGET: Final = "resource.nvidia.com/computeDomainTarget"
TARGET_DAEMON: Final = "Daemon"
TARGET_WORKLOAD: Final = "Workload"
FINALIZER_COMPUTE_DOMAIN: Final = LABEL_COMPUTE_DOMAIN
LABEL_NODE_CLIQUE: Final = "nvidia.com/gpu.clique"

# Objects of an installation. They follow the chart's name, not the release's.
CHART: Final = "dra-driver-nvidia-gpu"
NAMESPACE: Final = CHART
KUBELET_PLUGIN: Final = f"{CHART}-kubelet-plugin"
CONTROLLER: Final = f"{CHART}-controller"
WEBHOOK: Final = f"{CHART}-webhook"
CONTAINER_GPU_PLUGIN: Final = "gpus"
CONTAINER_COMPUTE_DOMAIN_PLUGIN: Final = "compute-domains"
CONTAINER_CONTROLLER: Final = "compute-domain"
CONTAINER_WEBHOOK: Final = "webhook"
CONTAINER_IMEX_DAEMON: Final = "compute-domain-daemon"
WEBHOOK_PATH: Final = "/validate-resource-claim-parameters"

# Objects of one ComputeDomain.
COMPUTE_DOMAIN_OBJECT_PREFIX: Final = "computedomain-daemon-"
COMPUTE_DOMAIN_DAEMON_SERVICE_ACCOUNT: Final = "compute-domain-daemon-service-account"
IMEX_DAEMON_HOSTNAME: Final = "compute-domain-daemon-{index:04d}"
MAX_NODES_PER_IMEX_DOMAIN: Final = 18
IMEX_PEER_PORT: Final = 50000
IMEX_COMMAND_PORT: Final = 50005

# ComputeDomain protocol: what controller, node agents and IMEX daemons tell each other.
PROTOCOL_VERSION: Final = "1"
ANNOTATION_PROTOCOL: Final = f"{LABEL_COMPUTE_DOMAIN}.protocol"
ANNOTATION_DOMAIN_NAME: Final = f"{LABEL_COMPUTE_DOMAIN}.name"
ANNOTATION_DOMAIN_NAMESPACE: Final = f"{LABEL_COMPUTE_DOMAIN}.namespace"
ANNOTATION_NODE_CLIQUE: Final = LABEL_CLIQUE_ID  # on nodes; empty: no NVLink fabric
ANNOTATION_RESERVATIONS: Final = f"{LABEL_COMPUTE_DOMAIN}.reservations"
ANNOTATION_TEMPLATE: Final = f"{LABEL_COMPUTE_DOMAIN}.template"  # digest of a DaemonSet's pods
IMEX_PROBE_PORT: Final = 50006
IMEX_STARTUP_PATH: Final = "/startup"
IMEX_READY_PATH: Final = "/ready"
IMEX_LIVE_PATH: Final = "/live"

# Directories of the kubelet and files below them.
KUBELET_PLUGINS_DIRECTORY: Final = "/var/lib/kubelet/plugins"
KUBELET_REGISTRAR_DIRECTORY: Final = "/var/lib/kubelet/plugins_registry"
DRA_SOCKET: Final = "dra.sock"
FOREIGN_CHECKPOINT: Final = "checkpoint.json"  # state of the driver that this one replaces
CDI_HOOK: Final = "nvidia-cdi-hook"

# Metrics: families and their ports.
METRICS_PREFIX: Final = "nvidia_dra_"
GPU_METRICS_PORT: Final = 8080
COMPUTE_DOMAIN_METRICS_PORT: Final = 8081


def registration_socket(driver: str) -> str:
    """File name of a driver's registration socket in the kubelet's registrar directory."""
    return f"{driver}-reg.sock"


def daemon_set_name(compute_domain_uid: str) -> str:
    """Name of a ComputeDomain's DaemonSet and of the claim template of its daemons."""
    return f"{COMPUTE_DOMAIN_OBJECT_PREFIX}{compute_domain_uid}"


def clique_name(compute_domain_uid: str, clique_id: str) -> str:
    """Name of the ComputeDomainClique of one domain and one NVLink clique."""
    return f"{compute_domain_uid}.{clique_id}"
