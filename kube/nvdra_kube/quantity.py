"""Kubernetes quantities (`40Gi`, `100m`, `1e3`), exact, printed as the API server prints them.

The rules are those of the `Quantity` type of apimachinery: nothing is finer than a nano (finer
input is rounded away from zero), and the canonical form keeps the family of suffixes in which a
value was written where that loses nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import total_ordering
from typing import Final

_NANO: Final = 10**9
_BINARY: Final = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL: Final = ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")
_FACTORS: Final = {suffix: Fraction(1024) ** power for power, suffix in enumerate(_BINARY)} | {
    suffix: Fraction(1000) ** (power - 3) for power, suffix in enumerate(_DECIMAL)
}
_SYNTAX: Final = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))"
    r"(?:(?P<suffix>[KMGTPE]i|[numkMGTPE]?)|[eE](?P<exponent>[+-]?[0-9]+))"
)
# Far beyond what any resource needs, and small enough that no input can eat the memory.
_MAX_TEXT: Final = 100
_MAX_EXPONENT: Final = 60


class QuantityError(ValueError):
    """The text is no quantity."""

    def __init__(self, text: object) -> None:
        super().__init__(
            f"{str(text)[:_MAX_TEXT]!r} is not a quantity; "
            "write a number with an optional suffix, such as 40Gi, 500m or 1e3"
        )


class Format(Enum):
    """The family of suffixes in which a quantity is printed where possible."""

    BINARY_SI = "BinarySI"
    DECIMAL_SI = "DecimalSI"
    DECIMAL_EXPONENT = "DecimalExponent"


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Quantity:
    """An exact amount. Comparison and hash go by value: `1Gi` equals `1024Mi`."""

    nanos: int
    format: Format = Format.DECIMAL_SI

    @classmethod
    def parse(cls, text: str | float) -> Quantity:
        """Read a quantity as it stands in YAML or JSON, where bare numbers are allowed too.

        Raises `QuantityError`.
        """
        found = _SYNTAX.fullmatch(str(text)) if len(str(text)) <= _MAX_TEXT else None
        if found is None:
            raise QuantityError(text)
        number = Fraction(found["number"].removesuffix("."))
        if found["exponent"]:
            return cls(_scaled(number, int(found["exponent"]), text), Format.DECIMAL_EXPONENT)
        nanos = _away_from_zero(number * _FACTORS[found["suffix"]] * _NANO)
        binary = found["suffix"].endswith("i") and not 0 < abs(nanos) < _NANO
        return cls(nanos, Format.BINARY_SI if binary else Format.DECIMAL_SI)

    @classmethod
    def binary(cls, amount: int) -> Quantity:
        """Bytes and their like: printed with Ki, Mi, Gi."""
        return cls(amount * _NANO, Format.BINARY_SI)

    @classmethod
    def decimal(cls, amount: int) -> Quantity:
        """Counts and their like: printed with k, M, G."""
        return cls(amount * _NANO, Format.DECIMAL_SI)

    @property
    def value(self) -> int:
        """The amount as an integer, rounded away from zero."""
        return _away_from_zero(Fraction(self.nanos, _NANO))

    @property
    def milli_value(self) -> int:
        """The amount in thousandths, rounded away from zero."""
        return _away_from_zero(Fraction(self.nanos, _NANO // 1000))

    @property
    def is_integer(self) -> bool:
        return self.nanos % _NANO == 0

    def as_decimal(self) -> Decimal:
        """The exact amount."""
        return Decimal(self.nanos).scaleb(-9)

    def __str__(self) -> str:
        if self.format is Format.BINARY_SI and self.is_integer and abs(self.value) >= 1024:
            return self._as_binary()
        # Also for binary quantities that are small or broken: nothing may be lost in print.
        return self._as_decimal()

    def __repr__(self) -> str:
        return f"Quantity({str(self)!r})"

    def __int__(self) -> int:
        return self.value

    def __bool__(self) -> bool:
        return self.nanos != 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Quantity):
            return NotImplemented
        return self.nanos == other.nanos

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Quantity):
            return NotImplemented
        return self.nanos < other.nanos

    def __hash__(self) -> int:
        return hash(self.nanos)

    def __add__(self, other: Quantity) -> Quantity:
        """The sum, in the format of the first operand that is not zero."""
        return Quantity(self.nanos + other.nanos, self.format if self else other.format)

    def __sub__(self, other: Quantity) -> Quantity:
        return self + -other

    def __neg__(self) -> Quantity:
        return Quantity(-self.nanos, self.format)

    def _as_binary(self) -> str:
        number, power = self.value, 0
        while number % 1024 == 0 and power < len(_BINARY) - 1:
            number, power = number // 1024, power + 1
        return f"{number}{_BINARY[power]}"

    def _as_decimal(self) -> str:
        if not self.nanos:
            return "0"
        exponential = self.format is Format.DECIMAL_EXPONENT
        number, power = self.nanos, 0
        while number % 1000 == 0 and (exponential or power < len(_DECIMAL) - 1):
            number, power = number // 1000, power + 1
        if not exponential:
            return f"{number}{_DECIMAL[power]}"
        exponent = 3 * power - 9
        return f"{number}e{exponent}" if exponent else str(number)


def _scaled(number: Fraction, exponent: int, text: object) -> int:
    if not number:
        return 0
    if exponent > _MAX_EXPONENT:
        raise QuantityError(text)
    # Anything smaller is rounded to one nano in any case.
    scale = Fraction(10) ** max(exponent, -_MAX_TEXT - _MAX_EXPONENT)
    return _away_from_zero(number * scale * _NANO)


def _away_from_zero(amount: Fraction) -> int:
    rounded = -(-abs(amount.numerator) // amount.denominator)
    return rounded if amount >= 0 else -rounded
