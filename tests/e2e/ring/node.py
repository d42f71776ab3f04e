"""One node: a machine with containerd, kubelet and kube-proxy, and what can happen to it."""

from __future__ import annotations

import functools
import json
import uuid
from typing import TYPE_CHECKING

from . import cgroups
from .binaries import CNI_PLUGINS, CONTAINERD, KUBERNETES
from .errors import RingError
from .machine import Daemon, Machine, MachinePlan
from .network import MOST_NODES, NodeAddress, connect, set_cable
from .node_files import (
    BOOT_ID,
    CONTAINERD_SOCKET,
    KERNEL_SETTINGS,
    KUBELET_CONFIG,
    KUBELET_KUBECONFIG,
    NETWORK_SETTINGS,
    PROGRAMS,
    PROXY_CONFIG,
    PROXY_KUBECONFIG,
    NodeFiles,
)
from .patience import eventually
from .processes import run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from .controlplane import ControlPlane

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PATH = f"{PROGRAMS}/containerd:{PROGRAMS}/kubernetes:{_SYSTEM_PATH}"


@functools.cache
def _default_spec() -> dict[str, object]:
    """What containerd makes containers from when nobody says otherwise."""
    spec: dict[str, object] = json.loads(run([CONTAINERD.folder() / "ctr", "oci", "spec"]))
    return spec


class Node:
    """A node of the cluster; its disks outlive a reboot, ``/run``, ``/dev`` and mounts do not.

    Every path inside is the default one (``/var/lib/kubelet/plugins_registry``, ``/var/run/cdi``,
    ``/run/containerd/containerd.sock``), so that drivers run unchanged.
    """

    def __init__(
        self,
        index: int,
        *,
        cluster: str,
        folder: Path,
        control_plane: ControlPlane,
        rebooted: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = f"node-{index}"
        self.address = NodeAddress(index)
        self.cgroup = f"nvdra-{cluster}-{self.name}"
        self.folder = folder
        self._control_plane = control_plane
        self._rebooted = rebooted
        self._others = [NodeAddress(n) for n in range(1, MOST_NODES + 1) if n != index]
        self.boot_id = ""
        self.machine = self._boot()
        self._make_daemons()

    def __repr__(self) -> str:
        return f"<node {self.name} {self.address.ip}: {'on' if self.machine.is_on else 'off'}>"

    @property
    def root(self) -> Path:
        """The node's file system, for reading and writing from outside (see ``Machine.root``)."""
        return self.machine.root

    def enter(
        self, *command: str | Path, stdin: str | None = None, env: Mapping[str, str] | None = None
    ) -> str:
        """Run a command on the node to its end; see ``Machine.enter``."""
        return self.machine.enter(*command, stdin=stdin, env={"PATH": _PATH, **(env or {})})

    def daemon(
        self, *command: str | Path, env: Mapping[str, str] | None = None, log: str = ""
    ) -> Daemon:
        """A further program for this node, not started yet.

        It dies when the node does, and can be started again when the node is on again.
        """
        name = log or str(command[0]).rpartition("/")[2]
        path = self.folder / "logs" / f"{name}.log"
        return Daemon(lambda: self.machine, command, log=path, env={"PATH": _PATH, **(env or {})})

    def _boot(self) -> Machine:
        cgroups.create(self.cgroup)
        self.boot_id = str(uuid.uuid4())
        files = NodeFiles(
            name=self.name,
            address=self.address,
            cgroup=self.cgroup,
            default_spec=_default_spec(),
        )
        plan = MachinePlan(
            hostname=self.name,
            disk=self.folder / "disk",
            files=files.before_boot(),
            binds={
                str(CONTAINERD.folder()): f"{PROGRAMS}/containerd",
                str(KUBERNETES.folder()): f"{PROGRAMS}/kubernetes",
                str(CNI_PLUGINS.folder()): "/opt/cni/bin",
            },
            kernel_settings=KERNEL_SETTINGS | {BOOT_ID: f"{self.boot_id}\n"},
            network_settings=NETWORK_SETTINGS,
        )
        machine = Machine.power_on(plan, folder=self.folder)
        connect(self._control_plane.machine, machine, self.address, others=self._others)
        return machine

    def _make_daemons(self) -> None:
        self.containerd = self.daemon(f"{PROGRAMS}/containerd/containerd")
        self.kubelet = self.daemon(
            f"{PROGRAMS}/kubernetes/kubelet",
            f"--config={KUBELET_CONFIG}",
            f"--kubeconfig={KUBELET_KUBECONFIG}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address.ip}",
        )
        self.kube_proxy = self.daemon(
            f"{PROGRAMS}/kubernetes/kube-proxy", f"--config={PROXY_CONFIG}"
        )

    def start_containerd(self) -> None:
        """Start containerd; needs no API server."""
        self.containerd.start()

    def import_images(self, archives: Sequence[Path]) -> None:
        """Import images (OCI archives) once containerd answers."""
        self.wait_for_containerd()
        for archive in archives:
            self._ctr("images", "import", "--all-platforms=false", str(archive))

    def tag_image(self, image: str, further: str) -> None:
        """Give an image that is here another name as well."""
        self._ctr("images", "tag", "--force", image, further)

    def wait_for_containerd(self) -> None:
        eventually(self._containerd_answers, until=f"containerd of {self.name} answers")

    def _containerd_answers(self) -> str:
        self.containerd.check()
        return self._ctr("version")

    def _ctr(self, *arguments: str) -> str:
        program = f"{PROGRAMS}/containerd/ctr"
        return self.enter(
            program, f"--address={CONTAINERD_SOCKET}", "--namespace=k8s.io", *arguments
        )

    def join(self) -> None:
        """Start the kubelet; the API server must be ready."""
        self._write(KUBELET_KUBECONFIG, self._control_plane.node_kubeconfig(self.name))
        self._write(PROXY_KUBECONFIG, self._control_plane.proxy_kubeconfig())
        self.kubelet.start()

    def start_proxy(self) -> None:
        """Start kube-proxy, whose user must have got its rights."""
        self.kube_proxy.start()

    def _write(self, path: str, text: str) -> None:
        (self.root / path.lstrip("/")).write_text(text)

    def check(self) -> None:
        """Raise Ended when a program of the node ended that should run."""
        for daemon in (self.containerd, self.kubelet, self.kube_proxy):
            daemon.check()

    def kill_kubelet(self) -> None:
        """SIGKILL to the kubelet; pods run on."""
        self.kubelet.kill()

    def start_kubelet(self) -> None:
        self.kubelet.start()

    def restart_containerd(self) -> None:
        """Stop and start containerd under running pods; returns when it answers again."""
        self.containerd.restart()
        self.wait_for_containerd()

    def unplug(self) -> None:
        """Pull the network cable."""
        set_cable(self._control_plane.machine, self.address, plugged=False)

    def plug(self) -> None:
        """Plug the network cable in again."""
        set_cable(self._control_plane.machine, self.address, plugged=True)

    def power_off(self) -> None:
        """Cut the power: every process, mount and group of the node is gone on return."""
        self.machine.power_off()
        cgroups.remove(self.cgroup)

    def power_on(self) -> None:
        """Boot again with the old disks and a new boot id; its programs start."""
        if self.machine.is_on:
            raise RingError(f"{self.name} is on", remedy="power_off() first")
        self.machine = self._boot()
        self._rebooted()
        self.start_containerd()
        self.wait_for_containerd()
        self.join()
        self.start_proxy()

    def reboot(self) -> None:
        self.power_off()
        self.power_on()
