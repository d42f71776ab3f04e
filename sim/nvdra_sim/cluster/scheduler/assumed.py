"""Own writes that the informers have not shown yet, laid over what they show.

Without it the next pod would be given the devices that the last one just got.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nvdra_kube.api import Body
    from nvdra_kube.informer import Key


class Assumed:
    """The newest known form of some objects that existed in `items` when they were written."""

    def __init__(self, items: Mapping[Key, Body]) -> None:
        self._items = items
        self._written: dict[Key, Body] = {}

    def remember(self, body: Body) -> None:
        """Take the answer to a write."""
        metadata = body["metadata"]
        self._written[metadata.get("namespace", ""), metadata["name"]] = body

    def current(self) -> dict[Key, Body]:
        """All objects; forgets writes that the informer has caught up with."""
        self._written = {
            key: body
            for key, body in self._written.items()
            if (seen := self._items.get(key)) is not None and _is_newer(body, seen)
        }
        return {**self._items, **self._written}


def _is_newer(written: Body, seen: Body) -> bool:
    ours, theirs = written["metadata"], seen["metadata"]
    if ours.get("uid") != theirs.get("uid"):
        return False
    return _revision(ours) > _revision(theirs)


def _revision(metadata: Body) -> int:
    """Resource versions are ordered numbers since Kubernetes 1.35 (KEP-5504), and were before."""
    text = str(metadata.get("resourceVersion", ""))
    return int(text) if text.isdigit() else 0
