"""Which rules belong to which built-in resource."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_sim.cluster.apiserver import claim_defaults, workload_defaults
from nvdra_sim.cluster.apiserver.custom_resources import DEFINITIONS, check_definition
from nvdra_sim.cluster.apiserver.rules import Rules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nvdra_sim.cluster.apiserver.catalog import ResourceType, TypeKey

_TEMPLATE_OWNER = Rules(default=workload_defaults.default_template_owner)

_BUILT_IN: Mapping[TypeKey, Rules] = {
    ("", "namespaces"): Rules(start=workload_defaults.start_namespace),
    ("", "pods"): Rules(default=workload_defaults.default_pod, start=workload_defaults.start_pod),
    ("", "secrets"): Rules(default=workload_defaults.default_secret),
    ("", "services"): Rules(default=workload_defaults.default_service),
    ("apps", "deployments"): _TEMPLATE_OWNER,
    ("apps", "daemonsets"): _TEMPLATE_OWNER,
    ("apps", "replicasets"): _TEMPLATE_OWNER,
    DEFINITIONS: Rules(
        default=workload_defaults.default_crd,
        start=workload_defaults.start_crd,
        create=check_definition,
        update=lambda body, old, profile: check_definition(body, profile),
    ),
    ("batch", "jobs"): Rules(
        default=workload_defaults.default_job, start=workload_defaults.start_job
    ),
    ("resource.k8s.io", "resourceclaims"): Rules(default=claim_defaults.default_claim),
    ("resource.k8s.io", "resourceclaimtemplates"): Rules(default=claim_defaults.default_template),
    ("resource.k8s.io", "resourceslices"): Rules(default=claim_defaults.default_slice),
}
_PLAIN = Rules()


def rules_of(kind: ResourceType) -> Rules:
    return _BUILT_IN.get(kind.key, _PLAIN)
