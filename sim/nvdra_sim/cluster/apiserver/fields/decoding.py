"""From what a client sent to an object in the storage version, strict about fields if asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nvdra_sim.cluster.apiserver import refusals
from nvdra_sim.cluster.apiserver.fields.claim_shapes import CLAIM_SHAPES
from nvdra_sim.cluster.apiserver.fields.conversion import to_storage
from nvdra_sim.cluster.apiserver.fields.shapes import Decoding, Leaf
from nvdra_sim.cluster.apiserver.fields.workload_shapes import METADATA, WORKLOAD_SHAPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.catalog import ResourceType
    from nvdra_sim.cluster.apiserver.fields.shapes import Shape


def decoded(
    kind: ResourceType,
    version: str,
    body: Any,
    *,
    field_validation: str,
    unknown_custom: list[str] | None = None,
) -> tuple[Body, tuple[str, ...]]:
    """The object in the storage version, and warnings about fields that were dropped.

    `field_validation` is Strict, Warn or Ignore, as in the query parameter. `body` is changed.
    `unknown_custom` are fields of a custom resource that its schema does not know.
    Raises `BadRequest` for wrong types, a wrong kind, and for unknown fields when strict.
    """
    check_type(kind, version, body)
    found = _decode_fields(kind, version, body)
    unknown = [*found.unknown, *(unknown_custom or ())]
    title = f'{kind.kind} in version "{version}" cannot be handled as a {kind.kind}'
    if found.wrong:
        raise refusals.bad_request(f"{title}: {'; '.join(found.wrong)}")
    warnings = tuple(f'unknown field "{path}"' for path in unknown)
    if warnings and field_validation == "Strict":
        raise refusals.bad_request(f"{title}: strict decoding error: {', '.join(warnings)}")
    return to_storage(kind, version, body), warnings if field_validation == "Warn" else ()


def check_type(kind: ResourceType, version: str, body: Any) -> None:
    """Objects may leave out apiVersion and kind, but not say wrong ones."""
    if not isinstance(body, dict):
        raise refusals.bad_request(
            f"the request body must be a JSON object, not {type(body).__name__}"
        )
    expected = (kind.api_version(version), kind.kind)
    given = (body.get("apiVersion") or expected[0], body.get("kind") or expected[1])
    if given != expected:
        raise refusals.bad_request(
            f"the API version and kind in the data ({given[0]}, {given[1]}) do not match the"
            f" expected ones ({expected[0]}, {expected[1]})"
        )


def _decode_fields(kind: ResourceType, version: str, body: Body) -> Decoding:
    shape = _shape(kind, version)
    decoding = Decoding()
    if shape is None:
        decoding.visit(body.get("metadata") or {}, METADATA, "metadata")
    else:
        decoding.visit(body, shape)
    return decoding


def _shape(kind: ResourceType, version: str) -> Shape | None:
    if kind.custom:
        return None
    if kind.group == "resource.k8s.io":
        fields: Mapping[str, Shape] | None = CLAIM_SHAPES[version].get(kind.kind)
    else:
        fields = WORKLOAD_SHAPES.get(kind.kind)
    if fields is None:
        return None
    return {"apiVersion": Leaf.TEXT, "kind": Leaf.TEXT, "metadata": METADATA, **fields}
