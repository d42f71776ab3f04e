"""The documents by which clients learn what is served: groups, resources, OpenAPI stubs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_sim.cluster.apiserver.refusals import no_such_resource

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.catalog import Catalog, ResourceType
    from nvdra_sim.cluster.apiserver.gates import ServerProfile

_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
# Strategic merge works, but naming it makes kubectl look for merge keys in the schemas, which are
# stubs; without, it uses those that it was built with.
_PATCH_TYPES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
)


def version_document(profile: ServerProfile) -> Body:
    major, minor = profile.minor
    return {
        "major": str(major),
        "minor": str(minor),
        "gitVersion": profile.version,
        "gitCommit": "embedded",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "none",
        "platform": "linux/amd64",
    }


def discover(catalog: Catalog, path: str) -> Body | None:
    """The discovery document at a path; None when no discovery path fits."""
    match [part for part in path.split("/") if part]:
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            groups = [
                _group(name, versions)
                for name, versions in catalog.group_versions().items()
                if name
            ]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        case ["apis", group]:
            versions = catalog.group_versions().get(group)
            if not versions:
                raise no_such_resource()
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, versions)}
        case ["api", version]:
            return _resources(catalog, "", version)
        case ["apis", group, version]:
            return _resources(catalog, group, version)
        case ["openapi", "v3"]:
            return _openapi_index(catalog)
        case ["openapi", "v3", "api", version]:
            return _openapi(catalog, "", version)
        case ["openapi", "v3", "apis", group, version]:
            return _openapi(catalog, group, version)
    return None


def _group(name: str, versions: list[str]) -> Body:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _served(catalog: Catalog, group: str, version: str) -> list[ResourceType]:
    found = [kind for kind in catalog if kind.group == group and version in kind.versions]
    if not found:
        raise no_such_resource()
    return found


def _resources(catalog: Catalog, group: str, version: str) -> Body:
    resources: list[Body] = []
    for kind in _served(catalog, group, version):
        resources.append(_resource(kind))
        subresources = (*(("status",) if kind.status else ()), *kind.subresources)
        resources += [_subresource(kind, name) for name in subresources]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": resources,
    }


def _resource(kind: ResourceType) -> Body:
    document: Body = {
        "name": kind.plural,
        "singularName": kind.singular or kind.kind.lower(),
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(_VERBS),
    }
    if kind.short_names:
        document["shortNames"] = list(kind.short_names)
    if kind.categories:
        document["categories"] = list(kind.categories)
    return document


def _subresource(kind: ResourceType, name: str) -> Body:
    verbs = {"status": ["get", "patch", "update"], "finalize": ["update"], "log": ["get"]}
    verbs["scale"] = verbs["status"]
    return {
        "name": f"{kind.plural}/{name}",
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": {"binding": "Binding", "eviction": "Eviction", "scale": "Scale"}.get(
            name, kind.kind
        ),
        "verbs": verbs.get(name, ["create"]),
    }


def _openapi_index(catalog: Catalog) -> Body:
    paths = {}
    for group, versions in catalog.group_versions().items():
        for version in versions:
            path = f"apis/{group}/{version}" if group else f"api/{version}"
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}"}
    return {"paths": paths}


def _openapi(catalog: Catalog, group: str, version: str) -> Body:
    """Just enough for kubectl to see that the server validates fields, and how to patch."""
    prefix = f"/apis/{group}/{version}" if group else f"/api/{version}"
    paths, schemas = {}, {}
    for kind in _served(catalog, group, version):
        gvk = {"group": group, "version": version, "kind": kind.kind}
        parent = "/namespaces/{namespace}" if kind.namespaced else ""
        paths[f"{prefix}{parent}/{kind.plural}/{{name}}"] = {"patch": _patch(kind, gvk)}
        schemas[f"{group or 'core'}.{version}.{kind.kind}"] = {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
            "x-kubernetes-group-version-kind": [gvk],
        }
    return {
        "openapi": "3.0.0",
        "info": {"title": "nvdra embedded API server", "version": "unversioned"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _patch(kind: ResourceType, gvk: Body) -> Body:
    return {
        "operationId": f"patch{kind.kind}",
        "parameters": [
            {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
            for name in ("dryRun", "fieldManager", "fieldValidation", "force")
        ],
        "requestBody": {"content": {name: {"schema": {"type": "object"}} for name in _PATCH_TYPES}},
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": gvk,
    }
