"""CEL selectors of DRA: compile once, evaluate for a device.

The `device` variable is that of resource.k8s.io/v1: `driver`, `attributes[domain].name`,
`capacity[domain].name`, `allowMultipleAllocations`. A domain that the device does not have is an
empty map; a name that it does not have is the error "no such key".
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final

from cel_expr_python import cel
from cel_expr_python.ext.ext_bindings import ExtBindings
from cel_expr_python.ext.ext_math import ExtMath
from cel_expr_python.ext.ext_optional import ExtOptional
from cel_expr_python.ext.ext_strings import ExtStrings

from nvdra_sim.cluster.scheduler.cel_values import (
    CelMap,
    declarations,
    quantity_value,
    version_value,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nvdra_kube.api import Body

_FIELDS: Final = ("driver", "attributes", "capacity", "allowMultipleAllocations")
_STRING_LITERAL: Final = re.compile(r"""'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*\"""")
_DEVICE_FIELD: Final = re.compile(r"(?<![\w.])device\s*\.\s*\??\s*([A-Za-z_]\w*)")
_STATUS_CODE: Final = re.compile(r"^[A-Z_]+: ")
_MISSING_KEY: Final = re.compile(r'^Key not found in map : "?(.*?)"?$')
_ATTRIBUTE: Final = re.compile(
    r"""device\s*\.\s*(attributes|capacity)\s*\[\s*\??\s*(['"])([^'"]+)\2\s*\]"""
    r"""\s*\.\s*\??\s*([A-Za-z_]\w*)"""
)


class BadExpression(Exception):
    """The expression does not compile, or is not boolean. `expression` is its text."""

    def __init__(self, expression: str, problem: str) -> None:
        super().__init__(f"`{expression}` does not compile: {problem}")
        self.expression = expression
        self.problem = problem


class EvaluationError(Exception):
    """The expression has no value for this device, e.g. `no such key: profile`."""


class DeviceView:
    """A device of a slice as selectors see it. Raises EvaluationError for a malformed value."""

    def __init__(self, driver: str, device: Body) -> None:
        self._driver = driver
        self._shareable = bool(device.get("allowMultipleAllocations"))
        self._attributes = self._by_domain(device.get("attributes") or {}, _attribute)
        self._capacity = self._by_domain(device.get("capacity") or {}, _capacity)

    def _by_domain(
        self, values: Mapping[str, Body], convert: Callable[[Body], Any]
    ) -> dict[str, CelMap]:
        domains: dict[str, CelMap] = {self._driver: {}}
        for name, value in values.items():
            domain, _, short = name.rpartition("/")
            try:
                domains.setdefault(domain or self._driver, {})[short] = convert(value)
            except ValueError as error:
                raise EvaluationError(f"{name}: {error}") from error
        return domains

    def variable(self, domains: frozenset[str]) -> CelMap:
        """The `device` variable; `domains` are those that must be there, if only empty."""
        empty: dict[str, CelMap] = {domain: {} for domain in domains}
        return {
            "driver": self._driver,
            "attributes": empty | self._attributes,
            "capacity": empty | self._capacity,
            "allowMultipleAllocations": self._shareable,
        }


def _attribute(value: Body) -> Any:
    """Exactly one of bool, int, string, version, or (1.36+) a list form of them."""
    for kind, plain in value.items():
        if kind == "version":
            return version_value(plain)
        if kind == "versions":
            return [version_value(item) for item in plain]
        return plain
    raise ValueError("the attribute has no value")


def _capacity(value: Body) -> CelMap:
    return quantity_value(str(value["value"]))


class Program:
    """A compiled selector; shared, stateless. Build it with `compile_selector`."""

    __slots__ = ("_compiled", "_domains", "expression")

    def __init__(self, expression: str, compiled: cel.Expression) -> None:
        self.expression = expression
        self._compiled = compiled
        # CEL maps have no default value, so every domain that may be looked up is put in.
        self._domains = frozenset(text[1:-1] for text in _STRING_LITERAL.findall(expression))

    def matches(self, device: DeviceView) -> bool:
        """Whether the device is selected. Raises EvaluationError."""
        try:
            outcome = self._compiled.eval(data={"device": device.variable(self._domains)})
        except RuntimeError as error:
            # Such as a budget of iterations that is used up.
            raise EvaluationError(_runtime_problem(str(error))) from error
        if outcome.type() == cel.Type.ERROR:
            raise EvaluationError(_runtime_problem(str(outcome.value())))
        if outcome.type() != cel.Type.BOOL:
            raise EvaluationError(f"the result is {outcome.type().name()}, not a boolean")
        return bool(outcome.value())

    def mentioned(self) -> tuple[str, ...]:
        """Attributes and capacities that the text names, fully qualified, for messages."""
        names = (f"{domain}/{name}" for _, _, domain, name in _ATTRIBUTE.findall(self.expression))
        return tuple(dict.fromkeys(names))


@lru_cache(maxsize=1024)
def compile_selector(expression: str) -> Program:
    """Compile and type-check. Raises BadExpression."""
    if unknown := _unknown_field(expression):
        raise BadExpression(
            expression, f"undefined field '{unknown}'; device has {', '.join(_FIELDS)}"
        )
    try:
        compiled = _environment().compile(expression)
    except (RuntimeError, ValueError) as error:
        raise BadExpression(expression, _compile_problem(str(error))) from error
    returns = compiled.return_type()
    if returns not in (cel.Type.BOOL, cel.Type.DYN):
        raise BadExpression(expression, f"must evaluate to bool, not {returns.name().lower()}")
    return Program(expression, compiled)


@cache
def _environment() -> cel.Env:
    return cel.NewEnv(
        variables={"device": cel.Type.Map(cel.Type.STRING, cel.Type.DYN)},
        extensions=[ExtStrings(), ExtBindings(), ExtOptional(), ExtMath()],
        functions=declarations(),
    )


def _unknown_field(expression: str) -> str:
    """The first field that `device` does not have; the variable is a map to the type checker."""
    names = _DEVICE_FIELD.findall(_STRING_LITERAL.sub("''", expression))
    return next((name for name in names if name not in _FIELDS), "")


def _compile_problem(message: str) -> str:
    """The first error of the compiler without the picture of the source."""
    first = message.partition("\n")[0]
    return first.removeprefix("INVALID_ARGUMENT: ").removeprefix("ERROR: ").strip()


def _runtime_problem(message: str) -> str:
    plain = _STATUS_CODE.sub("", message)
    if missing := _MISSING_KEY.match(plain):
        return f"no such key: {missing[1]}"
    return plain.replace("No matching overloads found :", "no such overload:")
