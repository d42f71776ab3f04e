"""Owner references: who made an object, and who must go with whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nvdra_kube.api import Body, Resource
    from nvdra_kube.informer import Key


def uid_of(body: Body) -> str:
    uid: str = body["metadata"]["uid"]
    return uid


def key_of(body: Body) -> Key:
    metadata = body["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def is_dying(body: Body) -> bool:
    return bool(body["metadata"].get("deletionTimestamp"))


def owners_of(body: Body) -> list[Body]:
    owners: list[Body] = body["metadata"].get("ownerReferences") or []
    return owners


def controller_of(body: Body) -> Body | None:
    """The reference to the one controlling owner."""
    return next((owner for owner in owners_of(body) if owner.get("controller")), None)


def is_controlled_by(body: Body, owner: Body) -> bool:
    reference = controller_of(body)
    return reference is not None and reference["uid"] == uid_of(owner)


def controller_reference(owner: Body, resource: Resource) -> Body:
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": owner["metadata"]["name"],
        "uid": uid_of(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }
