"""JSON text or objects into the types of this API.

Strict decoding is for what users write. Lenient decoding is for what programs stored, perhaps newer
ones: an unknown field is dropped, and the last of several equal keys wins.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, TypeVar, cast

from nvdra_api.configs import CONFIG_TYPES, OpaqueConfig
from nvdra_api.domains import OBJECT_TYPES, ComputeDomain, ComputeDomainClique
from nvdra_api.errors import ConfigError, Problem
from nvdra_api.json_tree import Decimal, Members, members_of, read_json, type_name
from nvdra_api.names import API_VERSION
from nvdra_api.quantity import shown
from nvdra_api.walk import ABSENT, Walk

if TYPE_CHECKING:
    from collections.abc import Mapping

    import msgspec

CustomObject = TypeVar("CustomObject", ComputeDomain, ComputeDomainClique)

_TYPE_FIELDS = ("kind", "apiVersion")


def decode_config(raw: bytes | str | Mapping[str, Any], *, strict: bool = True) -> OpaqueConfig:
    """An opaque config from JSON text, or from an object that was decoded already.

    Text is better: an object decoded elsewhere has lost its repeated keys. Nothing is defaulted or
    validated here, `nvdra_api.loading.load_config` does all three.

    :raises ConfigError: with every problem and its JSON path.
    """
    config, problems = read_config(raw, strict=strict)
    if problems:
        raise ConfigError(problems)
    return config


def read_config(
    raw: bytes | str | Mapping[str, Any], *, strict: bool = True
) -> tuple[OpaqueConfig, list[Problem]]:
    """Like `decode_config`, but unknown and repeated fields are returned beside the config, so that
    the rest can be judged too.

    :raises ConfigError: there is no config to go on with.
    """
    members = _root(raw)
    kind = _kind_of(members)
    if kind not in CONFIG_TYPES:
        known = ", ".join(CONFIG_TYPES)
        raise ConfigError([Problem("kind", f"{kind} is not a device config; use one of {known}")])
    value, problems = _decode(members, CONFIG_TYPES[kind], strict=strict)
    return cast("OpaqueConfig", value), problems


def decode_object(raw: bytes | str | Mapping[str, Any], type_: type[CustomObject]) -> CustomObject:
    """A custom resource of the expected kind, leniently: the API server knows its schema.

    :raises ConfigError: with every problem and its JSON path; also when it is of another kind.
    """
    members = _root(raw)
    kind = _kind_of(members)
    if kind != type_.__name__:
        raise ConfigError([Problem("kind", f"expected {type_.__name__}, got {kind}")])
    value, _ = _decode(members, type_, strict=False)
    return cast("CustomObject", value)


def _root(raw: bytes | str | Mapping[str, Any]) -> Members:
    node = read_json(raw) if isinstance(raw, bytes | str) else raw
    members = members_of(node)
    if members is None:
        raise ConfigError([Problem("", f"expected a JSON object, got {type_name(node)}")])
    return members


def _decode(
    members: Members, type_: type[msgspec.Struct], *, strict: bool
) -> tuple[msgspec.Struct, list[Problem]]:
    walk = Walk(strict=strict)
    value = walk.struct(members, type_, ignored=_TYPE_FIELDS)
    if value is ABSENT:
        raise ConfigError(walk.problems)
    return cast("msgspec.Struct", value), walk.problems


def _kind_of(members: Members) -> str:
    """The kind that the object claims to be: its type has to be known before its fields are."""
    values = dict(members)
    problems = [problem for name in _TYPE_FIELDS for problem in _judge_type(name, values.get(name))]
    if problems:
        raise ConfigError(problems)
    kind, version = str(values["kind"]), str(values["apiVersion"])
    if version != API_VERSION or (kind not in CONFIG_TYPES and kind not in OBJECT_TYPES):
        raise ConfigError([_not_registered(kind, version)])
    return kind


def _judge_type(name: str, value: object) -> list[Problem]:
    if value is None or value == "":
        example = API_VERSION if name == "apiVersion" else "GpuConfig"
        return [Problem(name, f"{name} is missing; write for instance {name}: {example}")]
    if not isinstance(value, str) or isinstance(value, Decimal):
        return [Problem(name, f"expected a string, got {type_name(value)}")]
    return []


def _not_registered(kind: str, version: str) -> Problem:
    text = f"no kind {shown(kind)} is registered for version {shown(version)}"
    if version != API_VERSION:
        return Problem("apiVersion", f'{text}; the version is "{API_VERSION}"')
    near = difflib.get_close_matches(kind, (*CONFIG_TYPES, *OBJECT_TYPES), n=1)
    advice = f"did you mean {near[0]}?" if near else f"known: {', '.join(CONFIG_TYPES)}"
    return Problem("kind", f"{text}; {advice}")
