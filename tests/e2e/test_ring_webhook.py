"""The API server calls admission webhooks by Service, over TLS."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest
import trustme
from tests.e2e.ring.errors import CommandFailed, RingError
from tests.e2e.ring.images import TOOL_IMAGE
from tests.e2e.ring.objects import a_service
from tests.e2e.ring.patience import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.ring.kubectl import Kubectl, Manifest

_PORT = 8443
_WORDS = "refused because of its label"


def _encoded(blob: trustme.Blob) -> str:
    return base64.b64encode(blob.bytes()).decode()


def _a_webhook_pod(namespace: str) -> Manifest:
    container = {
        "name": "main",
        "image": TOOL_IMAGE,
        "args": ["webhook", f":{_PORT}", "/tls/tls.crt", "/tls/tls.key"],
        "readinessProbe": {"httpGet": {"port": _PORT, "scheme": "HTTPS"}, "periodSeconds": 1},
        "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "webhook", "namespace": namespace, "labels": {"app": "webhook"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
            "volumes": [{"name": "tls", "secret": {"secretName": "tls"}}],
        },
    }


def _a_secret(namespace: str, certificate: trustme.LeafCert) -> Manifest:
    chain = base64.b64encode(certificate.cert_chain_pems[0].bytes()).decode()
    key = _encoded(certificate.private_key_pem)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "tls", "namespace": namespace},
        "data": {"tls.crt": chain, "tls.key": key},
    }


def _a_configuration(namespace: str, ca: trustme.CA) -> Manifest:
    webhook = {
        "name": "refuse.e2e.nvdra",
        "clientConfig": {
            "caBundle": _encoded(ca.cert_pem),
            "service": {"name": "webhook", "namespace": namespace, "port": _PORT},
        },
        "rules": [
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["configmaps"],
            }
        ],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Fail",
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": f"refuse-{namespace}"},
        "webhooks": [webhook],
    }


def _a_config_map(name: str, namespace: str, **labels: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
    }


@pytest.fixture
def webhook(kubectl: Kubectl, namespace: str) -> Iterator[str]:
    """The namespace in which the webhook judges ConfigMaps."""
    ca = trustme.CA()
    certificate = ca.issue_cert(f"webhook.{namespace}.svc")
    kubectl.create(
        _a_secret(namespace, certificate),
        _a_webhook_pod(namespace),
        a_service("webhook", {"app": "webhook"}, namespace=namespace, port=_PORT),
    )
    kubectl.wait_until_ready("webhook", namespace=namespace)
    configuration = _a_configuration(namespace, ca)
    kubectl.create(configuration)
    yield namespace
    kubectl.delete(configuration)


def _judges(kubectl: Kubectl, manifest: Manifest) -> bool:
    """Whether the API server knows the webhook and its endpoint; nothing is stored."""
    words = json.dumps(manifest)
    try:
        kubectl("create", "--dry-run=server", "--filename=-", stdin=words)
    except CommandFailed as refused:
        if _WORDS in refused.output:
            return True
        raise
    raise RingError("it is not asked yet")


def test_a_webhook_called_by_service_refuses_with_its_own_words(
    kubectl: Kubectl, webhook: str
) -> None:
    bad = _a_config_map("bad", webhook, **{"e2e.nvdra/refuse": "a-reason"})
    eventually(lambda: _judges(kubectl, bad), until="the webhook is asked")

    kubectl.create(_a_config_map("good", webhook))
    with pytest.raises(CommandFailed, match=f"{_WORDS}: a-reason"):
        kubectl.create(bad)
