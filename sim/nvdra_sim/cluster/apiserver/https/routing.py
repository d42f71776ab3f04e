"""From an HTTP request line to a `Call`: paths, query parameters, media types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from nvdra_sim.cluster.apiserver import refusals
from nvdra_sim.cluster.apiserver.deletion import Deletion
from nvdra_sim.cluster.apiserver.front import Call
from nvdra_sim.cluster.apiserver.paging import continued
from nvdra_sim.cluster.apiserver.selectors import parse_selector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nvdra_sim.cluster.apiserver.catalog import Catalog, ResourceType

_DEFAULT_WATCH_S = 1800.0
_JSON = ("", "application/json")
_YAML = ("application/yaml", "application/x-yaml", "text/yaml")
_PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
# What stands behind /namespaces/<name>/ without being a resource of that namespace.
_NAMESPACE_SUBRESOURCES = ("status", "finalize")


@dataclass(frozen=True, slots=True)
class Place:
    """What a resource path points at."""

    kind: ResourceType
    version: str
    namespace: str
    name: str
    subresource: str


def find_place(catalog: Catalog, path: str) -> Place | None:
    """The object or collection at a path; None when it is no resource path at all."""
    parts = [part for part in path.split("/") if part]
    match parts:
        case ["api", version, *rest] if rest:
            return _place(catalog, "", version, rest)
        case ["apis", group, version, *rest] if rest:
            return _place(catalog, group, version, rest)
    return None


def _place(catalog: Catalog, group: str, version: str, rest: list[str]) -> Place:
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in _NAMESPACE_SUBRESOURCES:
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3:
        raise refusals.no_such_resource()
    plural, name, subresource = [*rest, "", ""][:3]
    return Place(catalog.at(group, version, plural), version, namespace, name, subresource)


def make_call(
    place: Place, method: str, query: Mapping[str, str], content_type: str, raw: bytes
) -> Call:
    """Raises `ApiError` for what does not fit together."""
    watching = query.get("watch", "") in ("1", "true")
    verb = _verb(method, place, watching)
    if place.kind.namespaced and not place.namespace and (place.name or verb == "create"):
        raise refusals.no_such_resource()
    selector = parse_selector(
        place.kind,
        labels=query.get("labelSelector", ""),
        fields=query.get("fieldSelector", ""),
    )
    media_type = content_type.split(";")[0].strip()
    body = _body(verb, media_type, raw)
    return Call(
        verb=verb,
        kind=place.kind,
        version=place.version,
        namespace=place.namespace,
        name=place.name,
        subresource=place.subresource,
        body=body,
        patch_type=media_type if verb == "patch" else "",
        field_manager=query.get("fieldManager", ""),
        force=query.get("force") == "true",
        dry_run=query.get("dryRun") == "All" or _dry_run(body),
        field_validation=query.get("fieldValidation") or "Warn",
        selector=selector,
        resource_version=query.get("resourceVersion", ""),
        limit=_number(query, "limit", 0),
        after=continued(query.get("continue", "")),
        deletion=_deletion(verb, body, query),
        timeout_s=float(_number(query, "timeoutSeconds", 0)) or _DEFAULT_WATCH_S,
        bookmarks=query.get("allowWatchBookmarks") in ("1", "true"),
        initial_events=query.get("sendInitialEvents") in ("1", "true"),
    )


_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def _verb(method: str, place: Place, watching: bool) -> str:
    verb = _VERBS.get(method)
    on_object = bool(place.name)
    match verb, on_object:
        case ("get", True) if not watching:
            return "get"
        case ("get", _):
            return "watch" if watching else "list"
        case ("create", True) if place.subresource:
            return "create"
        case ("create", False):
            return "create"
        case ("delete", False):
            return "deletecollection"
        case (("update" | "patch" | "delete") as known, True):
            return known
    raise refusals.method_not_allowed(
        f"the server does not allow this method on the requested resource: {method}"
        f" {place.kind.qualified}"
    )


def _body(verb: str, media_type: str, raw: bytes) -> Any:
    if verb == "patch" and media_type not in _PATCHES:
        raise refusals.unsupported_media_type(media_type, ", ".join(_PATCHES))
    if not raw:
        if verb in ("create", "update", "patch"):
            raise refusals.bad_request("the request body is empty")
        return None
    if media_type in _YAML or media_type == "application/apply-patch+yaml":
        return _from_yaml(raw)
    if verb != "patch" and media_type not in _JSON:
        raise refusals.unsupported_media_type(media_type, "application/json, application/yaml")
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError as exc:
        raise refusals.bad_request(f"the request body is not valid JSON: {exc}") from exc


def _from_yaml(raw: bytes) -> Any:
    if raw.lstrip()[:1] == b"{":
        try:
            return msgspec.json.decode(raw)
        except msgspec.DecodeError:
            pass  # A YAML flow mapping may begin like a JSON object.
    try:
        return yaml.load(raw, Loader=_TextLoader)
    except yaml.YAMLError as exc:
        raise refusals.bad_request(f"the request body is not valid YAML: {exc}") from exc


class _TextLoader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: what looks like a date stays text."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML's own class attribute
        first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _deletion(verb: str, body: Any, query: Mapping[str, str]) -> Deletion:
    if verb not in ("delete", "deletecollection"):
        return Deletion()
    options = body if isinstance(body, dict) else {}
    preconditions = options.get("preconditions") or {}
    grace = options.get("gracePeriodSeconds")
    if grace is None and "gracePeriodSeconds" in query:
        grace = _number(query, "gracePeriodSeconds", 0)
    if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool)):
        raise refusals.bad_request("gracePeriodSeconds must be an integer")
    return Deletion(
        uid=preconditions.get("uid") or "",
        resource_version=preconditions.get("resourceVersion") or "",
        grace_period_s=grace,
    )


def _dry_run(body: Any) -> bool:
    options = isinstance(body, dict) and body.get("kind") == "DeleteOptions"
    return options and "All" in (body.get("dryRun") or ())


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not text.isdecimal():
        raise refusals.bad_request(f"query parameter {name}={text!r} must be a number")
    return int(text)
