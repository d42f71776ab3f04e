"""The name and namespace of an object that a client sends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_sim.cluster.apiserver import refusals
from nvdra_sim.cluster.apiserver.metadata import generated_name

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.catalog import ResourceType

_GENERATED_NAME_TRIES = 8


def namespace_of(kind: ResourceType, meta: Body, namespace: str) -> str:
    """The namespace that call and object agree on; "" for cluster-wide resources."""
    if not kind.namespaced:
        return ""
    given = meta.get("namespace") or ""
    if namespace and given and namespace != given:
        raise refusals.bad_request(
            f"the namespace of the provided object ({given}) does not match the namespace"
            f" sent on the request ({namespace})"
        )
    if not (namespace or given):
        raise refusals.bad_request(
            f"{kind.qualified} are namespaced: a namespace must be given in the call"
        )
    return namespace or given


def give_name(
    kind: ResourceType, meta: Body, *, taken: Callable[[str], bool], rng: random.Random
) -> None:
    """Make a name from `generateName` where there is none yet."""
    if meta.get("name"):
        return
    prefix = meta.get("generateName")
    if not prefix:
        message = "Required value: name or generateName is required"
        problem = refusals.Problem("metadata.name", "FieldValueRequired", message)
        raise refusals.invalid(kind, "", [problem])
    for _ in range(_GENERATED_NAME_TRIES):
        meta["name"] = generated_name(prefix, rng)
        if not taken(meta["name"]):
            return
