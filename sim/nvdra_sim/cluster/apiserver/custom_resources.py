"""CustomResourceDefinitions: checked when they are written, and served from then on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nvdra_sim.cluster.apiserver.catalog import ResourceType
from nvdra_sim.cluster.apiserver.fields.structural_schema import StructuralSchema, schema_problems
from nvdra_sim.cluster.apiserver.printer_columns import BadPath, printer_columns, steps
from nvdra_sim.cluster.apiserver.refusals import Problem
from nvdra_sim.cluster.apiserver.rules import Rules

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.gates import ServerProfile

DEFINITIONS = ("apiextensions.k8s.io", "customresourcedefinitions")


@dataclass(frozen=True, slots=True)
class CustomResource:
    """What a definition adds to the server."""

    kind: ResourceType
    rules: Rules
    schemas: Mapping[str, StructuralSchema]


def check_definition(body: Body, profile: ServerProfile) -> list[Problem]:
    return list(_problems(body))


def custom_resource(definition: Body) -> CustomResource:
    """Read a definition that passed `check_definition` and was defaulted."""
    spec, names = definition["spec"], definition["spec"]["names"]
    served = [version for version in spec["versions"] if version.get("served")]
    storage = next(version for version in spec["versions"] if version.get("storage"))
    schemas = {
        version["name"]: StructuralSchema((version.get("schema") or {})["openAPIV3Schema"])
        for version in spec["versions"]
    }
    kind = ResourceType(
        spec["group"],
        names["plural"],
        names["kind"],
        namespaced=spec["scope"] == "Namespaced",
        versions=tuple(version["name"] for version in served),
        storage_version=storage["name"],
        singular=names.get("singular", ""),
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        status="status" in (storage.get("subresources") or {}),
        status_metadata="kept",
        generation=True,
        unconditional_update=False,
        custom=True,
        columns=printer_columns(storage),
    )
    return CustomResource(kind, _rules(schemas[storage["name"]]), schemas)


def _rules(schema: StructuralSchema) -> Rules:
    return Rules(
        default=lambda body, now: schema.default(body),
        create=lambda body, profile: schema.problems(body),
        update=lambda body, old, profile: schema.problems(body, old),
        status=lambda body, old, profile: schema.problems(body, old),
    )


def _problems(body: Body) -> Iterator[Problem]:
    spec = body.get("spec")
    if not isinstance(spec, dict):
        yield _required("spec")
        return
    names = spec.get("names") or {}
    for path, value in (
        ("spec.group", spec.get("group")),
        ("spec.names.plural", names.get("plural")),
        ("spec.names.kind", names.get("kind")),
    ):
        if not value:
            yield _required(path)
    expected = f"{names.get('plural')}.{spec.get('group')}"
    if body["metadata"]["name"] != expected:
        message = (
            f'Invalid value: "{body["metadata"]["name"]}": must be spec.names.plural+"."+spec.group'
        )
        yield Problem("metadata.name", "FieldValueInvalid", message)
    if spec.get("scope") not in ("Namespaced", "Cluster"):
        message = (
            f'Unsupported value: "{spec.get("scope")}": supported values: "Cluster", "Namespaced"'
        )
        yield Problem("spec.scope", "FieldValueNotSupported", message)
    yield from _version_problems(spec.get("versions"))


def _version_problems(versions: object) -> Iterator[Problem]:
    if not isinstance(versions, list) or not versions:
        yield _required("spec.versions")
        return
    if sum(bool(version.get("storage")) for version in versions) != 1:
        message = "Invalid value: must have exactly one version marked as storage version"
        yield Problem("spec.versions", "FieldValueInvalid", message)
    for position, version in enumerate(versions):
        path = f"spec.versions[{position}]"
        if not version.get("name"):
            yield _required(f"{path}.name")
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            yield _required(f"{path}.schema.openAPIV3Schema")
        else:
            yield from schema_problems(schema, f"{path}.schema.openAPIV3Schema")
        yield from _column_problems(version, f"{path}.additionalPrinterColumns")


def _column_problems(version: Body, where: str) -> Iterator[Problem]:
    for position, column in enumerate(version.get("additionalPrinterColumns") or ()):
        path = f"{where}[{position}]"
        missing = [name for name in ("name", "type", "jsonPath") if not column.get(name)]
        yield from (_required(f"{path}.{name}") for name in missing)
        try:
            steps(column.get("jsonPath") or "")
        except BadPath as error:
            yield Problem(f"{path}.jsonPath", "FieldValueInvalid", f"Invalid value: {error}")


def _required(path: str) -> Problem:
    return Problem(path, "FieldValueRequired", "Required value")
