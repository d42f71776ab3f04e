"""What follows from a committed write inside the server itself: definitions take effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_sim.cluster.apiserver.custom_resources import DEFINITIONS, custom_resource

if TYPE_CHECKING:
    from nvdra_sim.cluster.apiserver.catalog import ResourceType
    from nvdra_sim.cluster.apiserver.history import Change
    from nvdra_sim.cluster.apiserver.store import ClusterStore


def after_commit(store: ClusterStore, kind: ResourceType, change: Change) -> None:
    if kind.key == DEFINITIONS:
        _follow_definition(store, change)


def _follow_definition(store: ClusterStore, change: Change) -> None:
    custom = custom_resource(change.new.body)
    if change.type == "DELETED":
        store.withdraw(custom.kind)
    else:
        store.serve(custom)
