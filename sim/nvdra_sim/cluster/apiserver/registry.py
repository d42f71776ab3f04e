"""Which rules belong to which built-in resource."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_sim.cluster.apiserver.rules import Rules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nvdra_sim.cluster.apiserver.catalog import ResourceType, TypeKey

_BUILT_IN: Mapping[TypeKey, Rules] = {}
_PLAIN = Rules()


def rules_of(kind: ResourceType) -> Rules:
    return _BUILT_IN.get(kind.key, _PLAIN)
