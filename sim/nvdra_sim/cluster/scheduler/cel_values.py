"""Quantities and versions inside CEL, and the functions on them that Kubernetes adds to CEL.

CEL has no such types here, so that both are maps with one key. The value in it is canonical, which
makes `==` right: `quantity("1Gi") == quantity("1024Mi")`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from cel_expr_python import cel

from nvdra_kube.quantity import Quantity
from nvdra_kube.semver import Semver, parse_semver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CelMap: TypeAlias = dict[str, Any]

_QUANTITY: Final = "quantity"
_SEMVER: Final = "semver"
_T = cel.Type
_MAP: Final = _T.Map(_T.STRING, _T.DYN)


def quantity_value(text: str) -> CelMap:
    """`quantity("10Gi")`. Raises ValueError."""
    # Nanos do not fit into CEL's 64-bit integers.
    return _of_quantity(Quantity.parse(text))


def version_value(text: str, normalize: bool = False) -> CelMap:
    """`semver("1.2.3")`. Raises ValueError."""
    version = parse_semver(text, normalize=normalize)
    return {_SEMVER: str(Semver(version.major, version.minor, version.patch, version.prerelease))}


def _of_quantity(quantity: Quantity) -> CelMap:
    return {_QUANTITY: str(quantity.nanos)}


def _ordered(value: CelMap) -> Quantity | Semver:
    if _QUANTITY in value:
        return Quantity(int(_plain(value[_QUANTITY])))
    if _SEMVER in value:
        return parse_semver(_plain(value[_SEMVER]))
    raise ValueError("no such overload: the value is neither a quantity nor a version")


def _plain(value: Any) -> str:
    """Entries of a map come as CEL values from an expression, and plain from Python."""
    return str(value.plain_value() if isinstance(value, cel.Value) else value)


def _quantity(value: CelMap) -> Quantity:
    quantity = _ordered(value)
    if not isinstance(quantity, Quantity):
        raise ValueError("no such overload: a version where a quantity is needed")
    return quantity


def _version(value: CelMap) -> Semver:
    version = _ordered(value)
    if not isinstance(version, Semver):
        raise ValueError("no such overload: a quantity where a version is needed")
    return version


def _compare(left: CelMap, right: CelMap) -> int:
    a, b = _ordered(left), _ordered(right)
    if type(a) is not type(b):
        raise ValueError("no such overload: a quantity cannot be compared with a version")
    return int(a > b) - int(a < b)


def _sign(value: CelMap) -> int:
    nanos = _quantity(value).nanos
    return int(nanos > 0) - int(nanos < 0)


def _as_integer(value: CelMap) -> int:
    quantity = _quantity(value)
    if not quantity.is_integer:
        raise ValueError(f"quantity {quantity} is not an integer")
    return quantity.value


def _parses(parse: Callable[..., object], *arguments: object) -> bool:
    try:
        parse(*arguments)
    except ValueError:
        return False
    return True


def _find(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    return found[0] if found else ""


def declarations() -> list[cel.FunctionDecl]:
    """Everything above, as declarations for an environment."""
    text, boolean, integer, number = _T.STRING, _T.BOOL, _T.INT, _T.DOUBLE
    return [
        _declare("quantity", _function(_MAP, [text], quantity_value)),
        _declare("isQuantity", _function(boolean, [text], lambda t: _parses(quantity_value, t))),
        _declare(
            "semver",
            _function(_MAP, [text], version_value),
            _function(_MAP, [text, boolean], version_value),
        ),
        _declare(
            "isSemver",
            _function(boolean, [text], lambda t: _parses(version_value, t)),
            _function(boolean, [text, boolean], lambda t, n: _parses(version_value, t, n)),
        ),
        _declare("compareTo", _method(integer, [_MAP, _MAP], _compare)),
        _declare("isGreaterThan", _method(boolean, [_MAP, _MAP], lambda a, b: _compare(a, b) > 0)),
        _declare("isLessThan", _method(boolean, [_MAP, _MAP], lambda a, b: _compare(a, b) < 0)),
        *_arithmetic("add", lambda a, b: a + b),
        *_arithmetic("sub", lambda a, b: a - b),
        _declare("sign", _method(integer, [_MAP], _sign)),
        _declare("isInteger", _method(boolean, [_MAP], lambda q: _quantity(q).is_integer)),
        _declare("asInteger", _method(integer, [_MAP], _as_integer)),
        _declare(
            "asApproximateFloat",
            _method(number, [_MAP], lambda q: float(_quantity(q).as_decimal())),
        ),
        _declare("major", _method(integer, [_MAP], lambda v: _version(v).major)),
        _declare("minor", _method(integer, [_MAP], lambda v: _version(v).minor)),
        _declare("patch", _method(integer, [_MAP], lambda v: _version(v).patch)),
        _declare("find", _method(text, [text, text], _find)),
    ]


def _arithmetic(
    name: str, operate: Callable[[Quantity, Quantity], Quantity]
) -> list[cel.FunctionDecl]:
    def with_quantity(left: CelMap, right: CelMap) -> CelMap:
        return _of_quantity(operate(_quantity(left), _quantity(right)))

    def with_integer(left: CelMap, right: int) -> CelMap:
        return _of_quantity(operate(_quantity(left), Quantity.decimal(right)))

    return [
        _declare(
            name,
            _method(_MAP, [_MAP, _MAP], with_quantity),
            _method(_MAP, [_MAP, _T.INT], with_integer),
        )
    ]


def _declare(name: str, *overloads: _Shape) -> cel.FunctionDecl:
    return cel.FunctionDecl(
        name,
        [
            cel.Overload(
                f"nvdra_{name}_{index}",
                return_type=returns,
                parameters=parameters,
                is_member=is_member,
                impl=implementation,
            )
            for index, (returns, parameters, implementation, is_member) in enumerate(overloads)
        ],
    )


_Shape: TypeAlias = "tuple[cel.Type, Sequence[cel.Type], Callable[..., object], bool]"


def _function(
    returns: cel.Type, parameters: Sequence[cel.Type], implementation: Callable[..., object]
) -> _Shape:
    return returns, parameters, implementation, False


def _method(
    returns: cel.Type, parameters: Sequence[cel.Type], implementation: Callable[..., object]
) -> _Shape:
    return returns, parameters, implementation, True
