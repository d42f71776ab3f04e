"""A real Kubernetes cluster on this machine, as a context manager."""

from __future__ import annotations

import contextlib
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from . import images, preflight
from .binaries import KUBERNETES, ensure_built
from .controlplane import ControlPlane
from .errors import RingError
from .kubectl import Kubectl, Manifest, is_ready
from .network import MOST_NODES, listen
from .node import Node
from .patience import eventually
from .record import ClusterRecord
from .storage import cache_root

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from .machine import Daemon

# Users known by token are outside of the default bindings.
_KUBE_PROXY_RIGHTS: Manifest = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "kube-proxy"},
    "roleRef": {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": "system:node-proxier",
    },
    "subjects": [
        {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-proxy"}
    ],
}


class RealCluster:
    """etcd, control plane and nodes; up on entering, gone without trace on leaving.

    More nodes can be added while it runs. It belongs to this process: should it be killed,
    everything in the cluster ends at once and the next run of anything here clears up the rest.

    Raises (on entering):
        Refused: this machine cannot run it; one line for each reason.
        RingError: building or starting something failed.
    """

    def __init__(
        self,
        *,
        name: str,
        nodes: int = 2,
        port: int = 0,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.name = name
        self.nodes: list[Node] = []
        self._node_count = nodes
        self._port = port
        self._say = say
        self._record = ClusterRecord.own(name)
        self._stack = contextlib.ExitStack()
        self._control_plane: ControlPlane | None = None

    def __enter__(self) -> Self:
        preflight.check(preflight.Wanted(cluster=self.name, port=self._port), say=self._say)
        ensure_built(say=self._say)
        with contextlib.ExitStack() as stack:
            stack.callback(self._record.erase)
            try:
                self._start(stack)
            except RingError:
                self._say(f"the logs of the attempt are in {self.save_logs()}")
                raise
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def kubeconfig(self) -> Path:
        """For the administrator, with everything in one file."""
        return self._record.kubeconfig

    @property
    def folder(self) -> Path:
        """Disks and logs: ``control-plane/logs``, ``node-1/logs``."""
        return self._record.folder

    @property
    def control_plane(self) -> ControlPlane:
        assert self._control_plane is not None, "the cluster is up"
        return self._control_plane

    @property
    def api_server(self) -> Daemon:
        """To be stopped and started; ``control_plane.wait_until_ready`` afterwards."""
        return self.control_plane.api_server

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(KUBERNETES.folder() / "kubectl", self.kubeconfig)

    def add_nodes(self, count: int) -> list[Node]:
        """Further nodes, Ready, with the images of the ring only; they stay to the end.

        Raises:
            RingError: they did not start, or are too many.
        """
        first, last = len(self.nodes) + 1, len(self.nodes) + count
        if last > MOST_NODES:
            raise RingError(f"{last} nodes", remedy=f"{MOST_NODES} have addresses and users")
        self._node_count = last
        added = [self._power_on_node(index, self._stack) for index in range(first, last + 1)]
        self._note()
        _import(added, images.archives())
        for node in added:
            node.join()
            node.start_proxy()
        self.wait_until_nodes_ready()
        return added

    def load_images(self, *archives: Path) -> None:
        """Import OCI archives into every node."""
        _import(self.nodes, archives)

    def save_logs(self) -> Path:
        """Copy the logs to where they outlive the cluster (those of the last such copy go)."""
        saved = cache_root() / "logs"
        shutil.rmtree(saved, ignore_errors=True)
        for log in self.folder.glob("*/logs/*.log"):
            target = saved / log.parent.parent.name / log.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(log, target)
        return saved

    def wait_until_nodes_ready(self) -> None:
        eventually(self._all_ready, until=f"all {self._node_count} nodes are Ready", every_s=0.2)

    def _all_ready(self) -> bool:
        self.control_plane.check()
        for node in self.nodes:
            node.check()
        return sum(map(is_ready, self.kubectl.list("nodes"))) == self._node_count

    def _start(self, stack: contextlib.ExitStack) -> None:
        started = time.monotonic()
        names = [f"node-{n}" for n in range(1, MOST_NODES + 1)]
        self._record.cgroups = [f"nvdra-{self.name}-{node}" for node in names]
        self._record.write()
        control_plane = ControlPlane(
            self.folder / "control-plane", nodes=names, listening=listen(self._port)
        )
        self._control_plane = control_plane
        stack.callback(control_plane.power_off)
        control_plane.start()
        for index in range(1, self._node_count + 1):
            self._power_on_node(index, stack)
        self._note()
        self.load_images(*images.archives())
        control_plane.complete()
        self._write_kubeconfig(control_plane)
        for node in self.nodes:
            node.join()
        self.kubectl.create(_KUBE_PROXY_RIGHTS)
        for node in self.nodes:
            node.start_proxy()
        self.wait_until_nodes_ready()
        until = "the controller manager works"
        eventually(lambda: self.kubectl.get("serviceaccount", "default"), until=until)
        self._note(ready=True)
        self._say(f"cluster {self.name} is up after {time.monotonic() - started:.1f} s")

    def _power_on_node(self, index: int, stack: contextlib.ExitStack) -> Node:
        node = Node(
            index,
            cluster=self.name,
            folder=self.folder / f"node-{index}",
            control_plane=self.control_plane,
            rebooted=self._note,
        )
        self.nodes.append(node)
        stack.callback(node.power_off)
        node.start_containerd()
        return node

    def _note(self, *, ready: bool = False) -> None:
        """Keep the record true; nodes call it when they were powered on again."""
        machines = [self.control_plane.machine, *(node.machine for node in self.nodes)]
        self._record.machines = {machine.name: machine.init for machine in machines}
        self._record.is_ready |= ready
        self._record.write()

    def _write_kubeconfig(self, control_plane: ControlPlane) -> None:
        self._record.server = control_plane.server
        text = control_plane.credentials.kubeconfig("admin", server=control_plane.server)
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(text)


def _import(nodes: Sequence[Node], archives: Sequence[Path]) -> None:
    with ThreadPoolExecutor(max(1, len(nodes))) as pool:
        list(pool.map(lambda node: node.import_images(archives), nodes))
