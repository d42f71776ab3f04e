"""One pass of a JSON document over the types of this API, finding every problem at once.

`msgspec` itself stops at the first problem and accepts repeated keys; users deserve the whole list.
The types stay the only description of the fields: this walk follows what `msgspec.inspect` tells.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import inspect

from nvdra_api.configs import QUANTITY_MARK
from nvdra_api.errors import Problem, duplicate_field, unknown_field
from nvdra_api.json_tree import Decimal, Members, members_of, type_name
from nvdra_api.quantity import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

ABSENT = object()
"""In the place of a value that was null, or that had a problem."""

_INT64 = range(-(2**63), 2**63)


class Walk:
    """Collects `problems` in document order.

    Unknown and repeated fields are problems that leave a value to go on with, others do not.
    """

    def __init__(self, *, strict: bool) -> None:
        self.problems: list[Problem] = []
        self._strict = strict

    def struct(
        self,
        node: object,
        type_: type[msgspec.Struct],
        path: str = "",
        *,
        ignored: tuple[str, ...] = (),
    ) -> Any:
        """A value of `type_`, or `ABSENT`. Fields named in `ignored` are known but not kept."""
        before = self._unusable
        fields = _fields(type_)
        values: dict[str, Any] = {}
        for name, member in self._unique(node, path):
            place = _join(path, name)
            if field := fields.get(name):
                values[field.name] = self._value(member, field.type, place)
            elif name not in ignored and self._strict:
                self.problems.append(unknown_field(place))
        values = {name: value for name, value in values.items() if value is not ABSENT}
        if self._unusable == before:
            self._require(fields, values, path)
        return type_(**values) if self._unusable == before else ABSENT

    @property
    def _unusable(self) -> int:
        return sum(not problem.strict for problem in self.problems)

    def _require(
        self, fields: Mapping[str, inspect.Field], values: Mapping[str, Any], path: str
    ) -> None:
        self.problems += [
            Problem(_join(path, name), "is required")
            for name, field in fields.items()
            if field.required and field.name not in values
        ]

    def _value(self, node: object, type_: inspect.Type, path: str) -> Any:
        if node is None:  # Kubernetes reads null as "not given", whatever the type
            return ABSENT
        match type_:
            case inspect.UnionType():
                some = next(t for t in type_.types if not isinstance(t, inspect.NoneType))
                return self._value(node, some, path)
            case inspect.StructType():
                return self.struct(node, type_.cls, path)
            case inspect.DictType():
                return self._map(node, type_.value_type, path)
            case inspect.VarTupleType():
                return self._list(node, type_.item_type, path)
            case inspect.Metadata() if (type_.extra_json_schema or {}).get(QUANTITY_MARK):
                return self._quantity(node, path)
            case _:
                return self._scalar(node, type_, path)

    def _map(self, node: object, value_type: inspect.Type, path: str) -> Any:
        found = {
            name: self._value(member, value_type, _join(path, name))
            for name, member in self._unique(node, path)
        }
        return {name: value for name, value in found.items() if value is not ABSENT}

    def _list(self, node: object, item_type: inspect.Type, path: str) -> Any:
        if not isinstance(node, list | tuple) or isinstance(node, Members):
            return self._wrong(node, "an array", path)
        found = [
            self._value(item, item_type, f"{path}[{index}]") for index, item in enumerate(node)
        ]
        return tuple(item for item in found if item is not ABSENT)

    def _quantity(self, node: object, path: str) -> Any:
        if isinstance(node, bool) or not isinstance(node, str | int | float):
            return self._wrong(node, "a quantity such as 512Mi", path)
        text = str(node)
        try:
            parse_quantity(text)
        except ValueError as error:
            self.problems.append(Problem(path, str(error)))
            return ABSENT
        return text

    def _scalar(self, node: object, type_: inspect.Type, path: str) -> Any:
        match type_:
            case inspect.StrType() if isinstance(node, str) and not isinstance(node, Decimal):
                return node
            case inspect.BoolType() if isinstance(node, bool):
                return node
            case inspect.IntType() if isinstance(node, int) and not isinstance(node, bool):
                if node in _INT64:
                    return node
                self.problems.append(Problem(path, "does not fit into 64 bits"))
                return ABSENT
            case _:
                return self._wrong(node, _SCALAR_NAMES[type(type_)], path)

    def _unique(self, node: object, path: str) -> list[tuple[str, Any]]:
        """The members of an object, the last of equal names; strictly, repetitions are problems."""
        members = members_of(node)
        if members is None:
            self._wrong(node, "an object", path)
            return []
        last = dict(members)
        if self._strict and len(last) < len(members):
            self.problems += [duplicate_field(_join(path, name)) for name in _repeated(members)]
        return list(last.items())

    def _wrong(self, node: object, expected: str, path: str) -> object:
        self.problems.append(Problem(path, f"expected {expected}, got {type_name(node)}"))
        return ABSENT


_SCALAR_NAMES: dict[type[inspect.Type], str] = {
    inspect.StrType: "a string",
    inspect.BoolType: "true or false",
    inspect.IntType: "a whole number",
}


@cache
def _fields(type_: type[msgspec.Struct]) -> Mapping[str, inspect.Field]:
    described = inspect.type_info(type_)
    assert isinstance(described, inspect.StructType)
    return MappingProxyType({field.encode_name: field for field in described.fields})


def _repeated(members: Members) -> list[str]:
    return [name for name, count in Counter(name for name, _ in members).items() if count > 1]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
