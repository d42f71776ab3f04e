"""The custom resources that the node reads."""

from __future__ import annotations

from typing import Final

from nvdra_api.names import API_GROUP, API_VERSION_NAME
from nvdra_kube.api import Resource

COMPUTE_DOMAINS: Final = Resource(API_GROUP, API_VERSION_NAME, "computedomains", "ComputeDomain")
CLIQUES: Final = Resource(
    API_GROUP, API_VERSION_NAME, "computedomaincliques", "ComputeDomainClique"
)
