"""Collecting what is wrong with an object, in the words of the API."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from nvdra_kube.quantity import Quantity, QuantityError
from nvdra_sim.cluster.apiserver.refusals import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from nvdra_kube.api import Body

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")

_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and"
    " must start and end with an alphanumeric character"
)
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or"
    " '.', and must start and end with an alphanumeric character"
)
_QUALIFIED_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end"
    " with an alphanumeric character"
)


class Findings:
    """A list of problems under construction. Checks that take a value return whether it is fine."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def required(self, path: str, why: str = "") -> None:
        self._add(path, "FieldValueRequired", f"Required value{': ' if why else ''}{why}")

    def invalid(self, path: str, value: Any, why: str) -> None:
        self._add(path, "FieldValueInvalid", f"Invalid value: {shown(value)}: {why}")

    def forbidden(self, path: str, why: str) -> None:
        self._add(path, "FieldValueForbidden", f"Forbidden: {why}")

    def duplicate(self, path: str, value: Any) -> None:
        self._add(path, "FieldValueDuplicate", f"Duplicate value: {shown(value)}")

    def unknown(self, path: str, value: Any) -> None:
        self._add(path, "FieldValueNotFound", f"Not found: {shown(value)}")

    def supported(self, path: str, value: Any, choices: Sequence[str]) -> bool:
        if value in choices:
            return True
        allowed = ", ".join(f'"{choice}"' for choice in choices)
        text = f"Unsupported value: {shown(value)}: supported values: {allowed}"
        self._add(path, "FieldValueNotSupported", text)
        return False

    def at_most(self, path: str, items: Any, limit: int) -> bool:
        count = len(items or ())
        if count <= limit:
            return True
        self._add(path, "FieldValueTooMany", f"Too many: {count}: must have at most {limit} items")
        return False

    def not_longer(self, path: str, text: str, limit: int) -> bool:
        if len(text.encode()) <= limit:
            return True
        self._add(path, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")
        return False

    def label(self, path: str, value: Any) -> bool:
        """A DNS label: device, request, container and volume names."""
        return self._name(path, value, _LABEL, 63, _LABEL_RULE)

    def subdomain(self, path: str, value: Any, *, limit: int = 253) -> bool:
        """A DNS subdomain: names of objects, drivers, classes."""
        return self._name(path, value, _SUBDOMAIN, limit, _SUBDOMAIN_RULE)

    def qualified(self, path: str, value: Any) -> bool:
        """`name` or `domain/name`, as label keys, taints and finalizers are named."""
        if not value:
            self.required(path)
            return False
        domain, slash, name = str(value).rpartition("/")
        if slash and not _fits(domain, _SUBDOMAIN, 253):
            self.invalid(path, value, f"prefix part {_SUBDOMAIN_RULE}")
            return False
        if not _fits(name, _QUALIFIED, 63):
            self.invalid(path, value, _QUALIFIED_RULE)
            return False
        return True

    def label_value(self, path: str, value: Any) -> bool:
        if _fits(str(value), _LABEL_VALUE, 63):
            return True
        why = (
            "a valid label must be an empty string or consist of at most 63 alphanumeric"
            " characters, '-', '_' or '.', and must start and end with an alphanumeric character"
        )
        self.invalid(path, value, why)
        return False

    def quantity(self, path: str, value: Any) -> Quantity | None:
        if value is None:
            self.required(path)
            return None
        try:
            return Quantity.parse(value)
        except QuantityError as error:
            self.invalid(path, value, str(error))
            return None

    def no_duplicates(self, path: str, values: Iterable[Any]) -> None:
        seen: list[Any] = []
        for position, value in enumerate(values):
            if value in seen:
                self.duplicate(f"{path}[{position}]", value)
            seen.append(value)

    def _name(self, path: str, value: Any, form: re.Pattern[str], limit: int, rule: str) -> bool:
        if not value:
            self.required(path)
            return False
        if not self.not_longer(path, str(value), limit):
            return False
        if not form.fullmatch(str(value)):
            self.invalid(path, value, rule)
            return False
        return True

    def _add(self, path: str, reason: str, message: str) -> None:
        self.problems.append(Problem(path, reason, message))


def _fits(value: str, form: re.Pattern[str], limit: int) -> bool:
    return len(value) <= limit and bool(form.fullmatch(value))


def shown(value: Any) -> str:
    """A value as messages show it; objects are not printed whole."""
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= 256 else f'"{value[:256]}..."'
    if isinstance(value, dict):
        return "object"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def each(owner: Body, field: str, path: str) -> Iterator[tuple[str, Body]]:
    """The objects of a list with their paths."""
    items = owner.get(field)
    if isinstance(items, list):
        for position, item in enumerate(items):
            if isinstance(item, dict):
                yield f"{path}.{field}[{position}]", item


def part(owner: Body | None, *fields: str) -> Body:
    """The object at nested fields; an empty one where there is none."""
    node: Any = owner
    for field in fields:
        node = node.get(field) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}
