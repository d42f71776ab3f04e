"""etcd, API server, controller manager and scheduler on a machine of their own."""

from __future__ import annotations

import signal
import ssl
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from .binaries import KUBERNETES
from .credentials import Credentials, node_user
from .errors import RingError
from .machine import Daemon, Machine, MachinePlan
from .network import API_PORT, CONTROL_PLANE_IP, SERVICE_RANGE, Relay, switch_on
from .patience import eventually

if TYPE_CHECKING:
    import socket
    from pathlib import Path

# DeviceTaintRule is the one DRA API of 1.36 that is off by default.
_GATES = "--feature-gates=DRADeviceTaintRules=true"
_ETCD = "http://127.0.0.1:2379"
_ETCD_PEER = "http://127.0.0.1:2380"


class ControlPlane:
    """The machine that runs the cluster; powered on when made, ``start`` starts its programs."""

    def __init__(self, folder: Path, *, nodes: list[str], listening: socket.socket) -> None:
        self.folder = folder
        self.credentials = Credentials.make(folder / "pki", nodes=nodes)
        settings = {"ipv4/ip_forward": "1"}
        plan = MachinePlan(hostname="control-plane", network_settings=settings)
        self.machine = Machine.power_on(plan, folder=folder)
        switch_on(self.machine)
        self._relay = Relay(self.machine, listening)
        self.etcd = self._daemon("etcd", *self._etcd_flags())
        self.api_server = self._daemon("kube-apiserver", *self._api_server_flags())
        self.controller_manager = self._daemon(
            "kube-controller-manager",
            f"--kubeconfig={folder / 'admin.kubeconfig'}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--service-account-private-key-file={self.credentials.signing_key}",
            f"--root-ca-file={self.credentials.ca}",
            _GATES,
        )
        self.scheduler = self._daemon(
            "kube-scheduler",
            f"--kubeconfig={folder / 'scheduler.kubeconfig'}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            _GATES,
        )

    @property
    def server(self) -> str:
        """The API server's URL for programs on this machine."""
        return f"https://localhost:{self._relay.port}"

    @property
    def _internal(self) -> str:
        """The same for programs in the cluster; the certificate has this address."""
        return f"https://{CONTROL_PLANE_IP}:{API_PORT}"

    def start(self) -> None:
        """Start etcd and the API server; both come up while the caller does other things."""
        self.etcd.start()
        self.api_server.start()

    def complete(self) -> None:
        """Wait for the API server and start the programs that need it."""
        self.wait_until_ready()
        for user, name in (("admin", "admin"), ("system:kube-scheduler", "scheduler")):
            text = self.credentials.kubeconfig(user, server=self._internal)
            (self.folder / f"{name}.kubeconfig").write_text(text)
        self.controller_manager.start()
        self.scheduler.start()

    def node_kubeconfig(self, node: str) -> str:
        return self.credentials.kubeconfig(node_user(node), server=self._internal)

    def proxy_kubeconfig(self) -> str:
        return self.credentials.kubeconfig("system:kube-proxy", server=self._internal)

    def wait_until_ready(self) -> None:
        eventually(self._is_ready, until="the API server is ready")

    def _is_ready(self) -> bool:
        self.etcd.check()
        self.api_server.check()
        try:
            trust = ssl.create_default_context(cafile=self.credentials.ca)
            with urllib.request.urlopen(f"{self.server}/readyz", context=trust, timeout=5) as seen:
                return bool(seen.status == 200)
        except urllib.error.HTTPError as error:
            with error:
                raise RingError(f"API server: {error}") from error
        except (OSError, ssl.SSLError) as error:
            raise RingError(f"API server: {error}") from error

    def check(self) -> None:
        """Raise Ended when a program of the control plane ended that should run."""
        for daemon in (self.etcd, self.api_server, self.controller_manager, self.scheduler):
            daemon.check()

    def power_off(self) -> None:
        self._relay.close()
        self.machine.power_off()

    def _daemon(self, program: str, *flags: str) -> Daemon:
        log = self.folder / "logs" / f"{program}.log"
        # Asked politely, the API server would wait a minute for watches that nobody ends.
        ends_by = signal.SIGKILL if program == "kube-apiserver" else signal.SIGTERM
        command = [str(KUBERNETES.folder() / program), *flags]
        return Daemon(lambda: self.machine, command, log=log, stop_signal=ends_by)

    def _etcd_flags(self) -> list[str]:
        return [
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={_ETCD}",
            f"--advertise-client-urls={_ETCD}",
            f"--listen-peer-urls={_ETCD_PEER}",
            f"--initial-advertise-peer-urls={_ETCD_PEER}",
            f"--initial-cluster=default={_ETCD_PEER}",
            "--unsafe-no-fsync",
        ]

    def _api_server_flags(self) -> list[str]:
        pki = self.credentials
        return [
            f"--etcd-servers={_ETCD}",
            "--bind-address=0.0.0.0",
            f"--advertise-address={CONTROL_PLANE_IP}",
            f"--secure-port={API_PORT}",
            f"--cert-dir={pki.folder}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki.signing_key}",
            f"--service-account-signing-key-file={pki.signing_key}",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--token-auth-file={pki.tokens_file}",
            "--kubelet-preferred-address-types=InternalIP",
            # No kube-proxy runs here: webhooks by Service are dialled at their pods' addresses.
            "--enable-aggregator-routing=true",
            "--runtime-config=resource.k8s.io/v1beta2=true,resource.k8s.io/v1beta1=true",
            _GATES,
        ]
