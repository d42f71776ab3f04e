"""What follows from a committed write inside the server itself.

Definitions of custom resources take effect, and a namespace that is being deleted is emptied a
moment later. (In a real cluster a controller does the latter, with a delay too.)
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nvdra_sim.cluster.apiserver.bodies import own
from nvdra_sim.cluster.apiserver.custom_resources import DEFINITIONS, custom_resource

if TYPE_CHECKING:
    from nvdra_sim.cluster.apiserver.catalog import ResourceType
    from nvdra_sim.cluster.apiserver.history import Change
    from nvdra_sim.cluster.apiserver.store import ClusterStore

_NAMESPACES = ("", "namespaces")


def after_commit(store: ClusterStore, kind: ResourceType, change: Change) -> None:
    if kind.key == DEFINITIONS:
        _follow_definition(store, change)
    elif kind.key == _NAMESPACES and change.type == "MODIFIED":
        _terminate(store, change)
    elif kind.namespaced and change.type == "DELETED":
        _release(store, change.key[0])


def _follow_definition(store: ClusterStore, change: Change) -> None:
    custom = custom_resource(change.new.body)
    if change.type == "DELETED":
        store.withdraw(custom.kind)
    else:
        store.serve(custom)


def _terminate(store: ClusterStore, change: Change) -> None:
    """Start to delete everything in a namespace that has just begun to terminate."""
    before = change.old.body["metadata"] if change.old else {}
    if "deletionTimestamp" not in change.new.body["metadata"] or "deletionTimestamp" in before:
        return
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        _delete_content(store, change.key[1])
    else:
        loop.call_later(store.namespace_delay_s, _delete_content, store, change.key[1])


def _delete_content(store: ClusterStore, namespace: str) -> None:
    for kind in store.catalog:
        if not kind.namespaced:
            continue
        for stored in store.list(kind, namespace=namespace):
            name = stored.body["metadata"]["name"]
            if store.has(kind, (namespace, name)):
                store.delete(kind, name, namespace=namespace)
    _release(store, namespace)


def _release(store: ClusterStore, namespace: str) -> None:
    """Let a terminating namespace go once nothing is left in it."""
    kind = store.catalog.at("", "v1", "namespaces")
    if not store.has(kind, ("", namespace)):
        return
    body = store.get(kind, namespace).body
    if "deletionTimestamp" not in body["metadata"] or not body["spec"].get("finalizers"):
        return
    if any(store.list(other, namespace=namespace) for other in store.catalog if other.namespaced):
        return
    emptied = own(body)
    emptied["spec"]["finalizers"] = []
    store.update(kind, emptied, subresource="finalize")
