"""The custom resources: ComputeDomain and ComputeDomainClique, as the CRDs describe them."""

from __future__ import annotations

from typing import Final

import msgspec

READY: Final = "Ready"
NOT_READY: Final = "NotReady"
ALLOCATION_SINGLE: Final = "Single"
ALLOCATION_ALL: Final = "All"


class _Value(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """An object inside a custom resource."""


class OwnerReference(_Value, frozen=True):
    """Who keeps an object alive."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False


class ObjectMeta(_Value, frozen=True):
    """As much of an object's metadata as the programs read."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[OwnerReference, ...] = ()


class ResourceClaimTemplateRef(_Value, frozen=True):
    """Name of the claim template that the controller makes for a domain's workloads."""

    name: str


class ChannelSpec(_Value, frozen=True):
    """How workloads get their IMEX channels: one, or with `All` every one of the node."""

    resource_claim_template: ResourceClaimTemplateRef
    allocation_mode: str = ALLOCATION_SINGLE


class ComputeDomainSpec(_Value, frozen=True):
    """What the user asked for; immutable. `num_nodes` 0 means: as many as come."""

    channel: ChannelSpec
    num_nodes: int = 0


class ComputeDomainNode(_Value, frozen=True):
    """A node of the domain. `index` is its slot in the clique, -1 without an NVLink fabric."""

    name: str
    ip_address: str
    clique_id: str = msgspec.field(name="cliqueID")
    index: int = 0
    status: str = NOT_READY


class Condition(_Value, frozen=True):
    """A standard Kubernetes condition."""

    type: str
    status: str
    reason: str
    last_transition_time: str
    message: str = ""
    observed_generation: int = 0


class ComputeDomainStatus(_Value, frozen=True):
    """What the controller observed."""

    status: str = NOT_READY
    nodes: tuple[ComputeDomainNode, ...] = ()
    conditions: tuple[Condition, ...] = ()


class ComputeDomain(_Value, frozen=True):
    """The nodes of one multi-node job that share memory over NVLink. Objects without a spec exist:
    the CRD does not require one."""

    metadata: ObjectMeta = ObjectMeta()
    spec: ComputeDomainSpec | None = None
    status: ComputeDomainStatus | None = None


class CliqueDaemon(_Value, frozen=True):
    """An IMEX daemon of a clique; `index` is its slot and part of its host name."""

    node_name: str
    ip_address: str
    clique_id: str = msgspec.field(name="cliqueID")
    index: int = 0
    status: str = NOT_READY


class ComputeDomainClique(_Value, frozen=True):
    """The members of one domain in one NVLink clique. The payload is at the top, not in a spec."""

    metadata: ObjectMeta = ObjectMeta()
    daemons: tuple[CliqueDaemon, ...] = ()


OBJECT_TYPES: Final[dict[str, type[msgspec.Struct]]] = {
    "ComputeDomain": ComputeDomain,
    "ComputeDomainClique": ComputeDomainClique,
}
"""The kinds of custom resources."""
