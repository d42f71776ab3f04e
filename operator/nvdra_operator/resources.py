"""The resources that the controller reads and writes besides the built-in ones of the client."""

from __future__ import annotations

from typing import Final

from nvdra_api.names import API_GROUP, API_VERSION_NAME
from nvdra_kube.api import Resource

DAEMON_SETS: Final = Resource("apps", "v1", "daemonsets", "DaemonSet")
COMPUTE_DOMAINS: Final = Resource(API_GROUP, API_VERSION_NAME, "computedomains", "ComputeDomain")
CLIQUES: Final = Resource(
    API_GROUP, API_VERSION_NAME, "computedomaincliques", "ComputeDomainClique"
)
