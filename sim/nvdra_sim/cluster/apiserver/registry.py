"""Which rules belong to which built-in resource."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_sim.cluster.apiserver.checks import claims, pods, slices
from nvdra_sim.cluster.apiserver.custom_resources import DEFINITIONS, check_definition
from nvdra_sim.cluster.apiserver.fields import claim_defaults, gated_fields, workload_defaults
from nvdra_sim.cluster.apiserver.rules import Rules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nvdra_sim.cluster.apiserver.catalog import ResourceType, TypeKey

_TEMPLATE_OWNER = Rules(
    default=workload_defaults.default_template_owner,
    create=pods.check_template_owner,
    update=pods.check_template_owner_update,
)

_BUILT_IN: Mapping[TypeKey, Rules] = {
    ("", "namespaces"): Rules(start=workload_defaults.start_namespace),
    ("", "pods"): Rules(
        default=workload_defaults.default_pod,
        start=workload_defaults.start_pod,
        create=pods.check_pod,
        update=pods.check_pod_update,
    ),
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
        default=workload_defaults.default_job,
        start=workload_defaults.start_job,
        create=pods.check_job,
        update=pods.check_job_update,
    ),
    ("resource.k8s.io", "resourceclaims"): Rules(
        default=claim_defaults.default_claim,
        drop=gated_fields.drop_from_claim,
        create=claims.check_claim,
        update=claims.check_claim_update,
        settle=claims.settle_claim,
        status=claims.check_claim_status,
    ),
    ("resource.k8s.io", "resourceclaimtemplates"): Rules(
        default=claim_defaults.default_template,
        drop=gated_fields.drop_from_template,
        create=claims.check_template,
        update=claims.check_template_update,
    ),
    ("resource.k8s.io", "deviceclasses"): Rules(
        drop=gated_fields.drop_from_class,
        create=claims.check_class,
        update=claims.check_class_update,
    ),
    ("resource.k8s.io", "resourceslices"): Rules(
        default=claim_defaults.default_slice,
        drop=gated_fields.drop_from_slice,
        create=slices.check_slice,
        update=slices.check_slice_update,
    ),
}
_PLAIN = Rules()


def rules_of(kind: ResourceType) -> Rules:
    return _BUILT_IN.get(kind.key, _PLAIN)
