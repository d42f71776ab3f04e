"""Kubernetes quantities read as whole numbers, exactly as the API server reads them.

Only reading: opaque configs carry memory limits. Grammar and rounding follow
`k8s.io/apimachinery/pkg/api/resource`.
"""

from __future__ import annotations

import re
from fractions import Fraction
from types import MappingProxyType
from typing import Final

_FORM: Final = re.compile(
    r"(?P<sign>[+-]?)(?P<digits>[0-9]+\.?[0-9]*|\.[0-9]+)"
    r"(?P<suffix>[KMGTPE]i|[numkMGTPE]?|[eE][+-]?[0-9]+)",
)
_MAXIMUM: Final = 2**63 - 1
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15}
_SCALES: Final = MappingProxyType(
    {suffix: Fraction(10) ** exponent for suffix, exponent in _DECIMAL.items()}
    | {"E": Fraction(10) ** 18}
    | {f"{prefix}i": Fraction(1024) ** power for power, prefix in enumerate("KMGTPE", start=1)}
)
_LONGEST: Final = 200  # longer texts are no honest numbers and slow to compute with
_FAR: Final = 40  # powers of ten beyond which only zero, the smallest and the largest value remain


def parse_quantity(text: str) -> int:
    """The value of a quantity such as `10Gi`, `1.5G`, `2e9` or `100`, rounded up to an integer.

    Values beyond 64 bits are capped, as Kubernetes does.

    :raises ValueError: the text is not a quantity.
    """
    form = _FORM.fullmatch(text) if len(text) <= _LONGEST else None
    if form is None:
        raise ValueError(
            f"{shown(text)} is not a quantity: write a number with an optional unit, "
            "such as 512Mi, 10Gi or 1000000"
        )
    number = Fraction(_with_integer_part(form["digits"]))
    magnitude = _scaled_up(number, form["suffix"])
    return max(-_MAXIMUM, -magnitude) if form["sign"] == "-" else magnitude


def shown(value: object, *, limit: int = 60) -> str:
    """A value of the user's for an error message: quoted, on one line, and cut when it is long."""
    text = str(value)
    cut = "".join(map(_printable, text[:limit]))
    return f'"{cut}"' if len(text) <= limit else f'"{cut}…"'


def _printable(character: str) -> str:
    """Messages end up in terminals and logs, which obey control characters."""
    return character if character.isprintable() else ascii(character)[1:-1]


def _with_integer_part(digits: str) -> str:
    whole, _, fraction = digits.partition(".")
    return f"{whole or '0'}.{fraction or '0'}"


def _scaled_up(number: Fraction, suffix: str) -> int:
    if not number:
        return 0
    if suffix in _SCALES:
        return min(_MAXIMUM, _ceiling(number * _SCALES[suffix]))
    exponent = int(suffix[1:])
    digits = len(str(number.numerator)) + len(str(number.denominator))
    if exponent > _FAR + digits:
        return _MAXIMUM
    if exponent < -_FAR - digits:
        return 1
    return min(_MAXIMUM, _ceiling(number * Fraction(10) ** exponent))


def _ceiling(number: Fraction) -> int:
    return -(-number.numerator // number.denominator)
