"""A ComputeDomain as an earlier driver has it: its objects, and what its daemons do with the API.

Nothing of that driver runs here: its daemons are shells, and the test writes to the API what they
would write, with their account.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.e2e.product.domains import DRIVER, Domains, a_domain
from tests.e2e.product.release import NAMESPACE
from tests.e2e.ring.images import UBUNTU

from nvdra_api.names import (
    API_VERSION,
    COMPUTE_DOMAIN_CHANNEL_CLASS,
    COMPUTE_DOMAIN_DAEMON_CLASS,
    COMPUTE_DOMAIN_DAEMON_SERVICE_ACCOUNT,
    FINALIZER_COMPUTE_DOMAIN,
    LABEL_CLAIM_TEMPLATE_TARGET,
    LABEL_CLIQUE_ID,
    LABEL_COMPUTE_DOMAIN,
    clique_name,
    daemon_set_name,
)

if TYPE_CHECKING:
    from tests.e2e.ring.kubectl import Manifest

_ACCOUNT: Final = f"system:serviceaccount:{NAMESPACE}:{COMPUTE_DOMAIN_DAEMON_SERVICE_ACCOUNT}"


@dataclass(frozen=True, slots=True)
class EarlierDomain:
    """One such domain, made while no controller was there."""

    domains: Domains
    body: Manifest

    @classmethod
    def made(cls, domains: Domains, name: str) -> EarlierDomain:
        body = a_domain(name, namespace=domains.namespace)
        body["metadata"]["finalizers"] = [FINALIZER_COMPUTE_DOMAIN]
        domains.kubectl.create(body)
        domain = cls(domains, domains.get(name))
        domains.kubectl.create(*domain._objects())
        return domain

    @property
    def uid(self) -> str:
        return str(self.body["metadata"]["uid"])

    @property
    def name(self) -> str:
        return daemon_set_name(self.uid)

    def say_ready(self, *daemons: Manifest) -> None:
        """What the daemons do when their IMEX is ready: write themselves into their clique."""
        nodes = [self.domains.kubectl.get("node", pod["spec"]["nodeName"]) for pod in daemons]
        cliques = [node["metadata"]["annotations"][LABEL_CLIQUE_ID] for node in nodes]
        for pod, clique in zip(daemons, cliques, strict=True):
            patch = json.dumps({"metadata": {"labels": {LABEL_CLIQUE_ID: clique}}})
            self._as_daemon("patch", "pod", pod["metadata"]["name"], f"--patch={patch}")
        entries = [
            {
                "nodeName": pod["spec"]["nodeName"],
                "ipAddress": pod["status"]["podIP"],
                "cliqueID": clique,
                "index": index,
                "status": "Ready",
            }
            for index, (pod, clique) in enumerate(zip(daemons, cliques, strict=True))
        ]
        clique = {
            "apiVersion": API_VERSION,
            "kind": "ComputeDomainClique",
            "metadata": {
                "name": clique_name(self.uid, cliques[0]),
                "labels": {LABEL_COMPUTE_DOMAIN: self.uid, LABEL_CLIQUE_ID: cliques[0]},
            },
            "daemons": entries,
        }
        self._as_daemon("apply", "--filename=-", stdin=json.dumps(clique))

    def _as_daemon(self, *arguments: str, stdin: str | None = None) -> None:
        who = f"--as={_ACCOUNT}", f"--namespace={NAMESPACE}"
        self.domains.kubectl(*arguments, *who, stdin=stdin)

    def _objects(self) -> list[Manifest]:
        target = self.domains.namespace, f"{self.body['metadata']['name']}-channel"
        channel = {"kind": "ComputeDomainChannelConfig", "allocationMode": "Single"}
        return [
            self._template(target, "Workload", COMPUTE_DOMAIN_CHANNEL_CLASS, channel),
            self._template(
                (NAMESPACE, self.name),
                "Daemon",
                COMPUTE_DOMAIN_DAEMON_CLASS,
                {"kind": "ComputeDomainDaemonConfig"},
            ),
            self._daemon_set(),
        ]

    def _template(
        self, where: tuple[str, str], target: str, device_class: str, config: dict[str, Any]
    ) -> Manifest:
        request = "channel" if target == "Workload" else "daemon"
        parameters = {"apiVersion": API_VERSION, "domainID": self.uid, **config}
        opaque = {"driver": DRIVER, "parameters": parameters}
        devices = {
            "requests": [{"name": request, "exactly": {"deviceClassName": device_class}}],
            "config": [{"requests": [request], "opaque": opaque}],
        }
        labels = {LABEL_CLAIM_TEMPLATE_TARGET: target}
        return {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceClaimTemplate",
            "metadata": self._metadata(*where, **labels),
            "spec": {"spec": {"devices": devices}},
        }

    def _daemon_set(self) -> Manifest:
        labels = {LABEL_COMPUTE_DOMAIN: self.uid}
        name = "compute-domain-daemon"
        container = {
            "name": name,
            "image": UBUNTU[0],
            "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 9999 & wait"],
            "resources": {"claims": [{"name": name}]},
            # What that driver's daemon begins with.
            "readinessProbe": {"exec": {"command": ["test", "-s", "/imexd/imexd.cfg.tmpl"]}},
        }
        spec = {
            "nodeSelector": labels,
            "serviceAccountName": COMPUTE_DOMAIN_DAEMON_SERVICE_ACCOUNT,
            "containers": [container],
            "resourceClaims": [{"name": name, "resourceClaimTemplateName": self.name}],
        }
        return {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": self._metadata(NAMESPACE, self.name),
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        }

    def _metadata(self, namespace: str, name: str, **labels: str) -> Manifest:
        return {
            "name": name,
            "namespace": namespace,
            "labels": {LABEL_COMPUTE_DOMAIN: self.uid, **labels},
            "finalizers": [FINALIZER_COMPUTE_DOMAIN],
        }
