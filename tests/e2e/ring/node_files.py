"""The configuration files of one node, each where its program looks for it by default."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .images import PAUSE
from .network import POD_RANGE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .network import NodeAddress

KUBELET_CONFIG = "/etc/kubernetes/kubelet.json"
KUBELET_KUBECONFIG = "/etc/kubernetes/kubelet.kubeconfig"
PROXY_CONFIG = "/etc/kubernetes/proxy.json"
PROXY_KUBECONFIG = "/etc/kubernetes/proxy.kubeconfig"
PROGRAMS = "/opt/ring/bin"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"

# Seen from inside, the kernel is set as the kubelet wants it; the machine's own stays as it is.
KERNEL_SETTINGS = {
    "/proc/sys/vm/overcommit_memory": "1\n",
    "/proc/sys/vm/panic_on_oom": "0\n",
    "/proc/sys/kernel/panic": "10\n",
    "/proc/sys/kernel/panic_on_oops": "1\n",
    "/proc/sys/kernel/keys/root_maxkeys": "1000000\n",
    "/proc/sys/kernel/keys/root_maxbytes": "25000000\n",
}
NETWORK_SETTINGS = {"ipv4/ip_forward": "1"}
BOOT_ID = "/proc/sys/kernel/random/boot_id"

BASE_SPEC = "/etc/containerd/base-spec.json"

# Containers get a /proc of their own, in which the boot id would be the real machine's.
_SHOW_BOOT_ID = {
    "path": "/bin/sh",
    "args": ["sh", "-c", f"mount --bind {BOOT_ID} {BOOT_ID.lstrip('/')}"],
}

_CONTAINERD = f"""version = 3
root = '/var/lib/containerd'
state = '/run/containerd'
oom_score = 0
[grpc]
  address = '{CONTAINERD_SOCKET}'
# A shim that did not answer because the machine stood still has not lost its containers.
[timeouts]
  'io.containerd.timeout.shim.load' = '1m'
  'io.containerd.timeout.task.state' = '1m'
[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = '{PAUSE}'
[plugins.'io.containerd.cri.v1.runtime']
  # Without CAP_SYS_RESOURCE a lower score cannot be set, and every sandbox would fail on it.
  restrict_oom_score_adj = true
  enable_cdi = true
  cdi_spec_dirs = ['/etc/cdi', '/var/run/cdi']
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    base_runtime_spec = '{BASE_SPEC}'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['/opt/cni/bin']
    conf_dir = '/etc/cni/net.d'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFiles:
    """What differs between nodes."""

    name: str
    address: NodeAddress
    cgroup: str
    default_spec: Mapping[str, object]

    def before_boot(self) -> dict[str, str]:
        """Files that need no API server. Unknown names must fail at once: no resolver."""
        return {
            "/etc/hostname": f"{self.name}\n",
            "/etc/hosts": f"127.0.0.1 localhost\n{self.address.ip} {self.name}\n",
            "/etc/resolv.conf": "",
            "/etc/machine-id": uuid.uuid5(uuid.NAMESPACE_DNS, self.cgroup).hex + "\n",
            "/etc/containerd/config.toml": _CONTAINERD,
            BASE_SPEC: json.dumps(self._base_spec()),
            "/etc/cni/net.d/10-ring.conflist": json.dumps(self._cni()),
            KUBELET_CONFIG: json.dumps(self._kubelet()),
            PROXY_CONFIG: json.dumps(self._proxy()),
        }

    def _base_spec(self) -> dict[str, object]:
        """What every container is made from. Its hooks run in its mounts, before its root is /."""
        return {**self.default_spec, "hooks": {"createContainer": [_SHOW_BOOT_ID]}}

    def _cni(self) -> dict[str, object]:
        addresses = {
            "type": "host-local",
            "ranges": [[{"subnet": self.address.pod_range}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        bridge = {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": False,
            "hairpinMode": True,
            "ipam": addresses,
        }
        ports = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "1.0.0", "name": "ring", "plugins": [bridge, ports]}

    def _kubelet(self) -> dict[str, object]:
        nothing = ("memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available")
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "enforceNodeAllocatable": [],
            "evictionHard": dict.fromkeys(nothing, "0%"),
            "imageGCHighThresholdPercent": 100,
            "makeIPTablesUtilChains": False,
            "resolvConf": "",
            "clusterDomain": "cluster.local",
            "oomScoreAdj": 0,
            "volumePluginDir": "/var/lib/kubelet/volumeplugins",
            "registerNode": True,
            # A pod that came before its driver is tried again after this, not after 75 s.
            "syncFrequency": "5s",
        }

    def _proxy(self) -> dict[str, object]:
        untouched = {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        }
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "hostnameOverride": self.name,
            "clientConnection": {"kubeconfig": PROXY_KUBECONFIG},
            "clusterCIDR": POD_RANGE,
            "conntrack": untouched,
        }
