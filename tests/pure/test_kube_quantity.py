"""Quantities: the rules of apimachinery, and what must hold for all of them."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_kube.quantity import Format, Quantity, QuantityError

CANONICAL = {
    # bytes
    "40Gi": "40Gi",
    "40960Mi": "40Gi",
    "4864Mi": "4864Mi",
    "81559Mi": "81559Mi",
    "1.5Gi": "1536Mi",
    "1024Ei": "1024Ei",
    "1023Ki": "1023Ki",
    "1025": "1025",
    "0Gi": "0",
    "-2048Ki": "-2Mi",
    # binary values that are small or no integers fall back to decimal suffixes
    "0.5Ki": "512",
    "0.1Gi": "107374182400m",
    "1.5Ki": "1536",
    "0.001Ki": "1024m",
    # decimal
    "1": "1",
    "0": "0",
    "0.5": "500m",
    "1000": "1k",
    "1500m": "1500m",
    "0.0005": "500u",
    "1000k": "1M",
    "12E": "12E",
    "1000E": "1000E",
    "100M": "100M",
    "+7": "7",
    "1.": "1",
    ".5": "500m",
    # finer than a nano: rounded away from zero
    "0.1n": "1n",
    "-0.1n": "-1n",
    "0.0000000001": "1n",
    # exponents
    "1e3": "1e3",
    "1E3": "1e3",
    "1000e0": "1e3",
    "12e1": "120",
    "15e-1": "1500e-3",
    "1e24": "1e24",
    "1e-50": "1e-9",
}

NO_QUANTITIES = [
    *("", "Gi", "1 Gi", " 1", "1Gi\n", "1gi", "1KI", "1mi", "1e", "1e1.5", "--1", "1.2.3"),
    *("0x10", "nan", "inf", "1e999999999", "٣", "1_000", "1,5", "9" * 5000),
]


@pytest.mark.parametrize(("text", "canonical"), CANONICAL.items())
def test_prints_as_the_api_server_does(text: str, canonical: str) -> None:
    assert str(Quantity.parse(text)) == canonical


@pytest.mark.parametrize("text", NO_QUANTITIES)
def test_refuses_what_is_no_quantity(text: str) -> None:
    with pytest.raises(QuantityError, match="not a quantity"):
        Quantity.parse(text)


def test_a_refusal_quotes_the_text_and_shows_the_way() -> None:
    with pytest.raises(QuantityError, match=r"'12 GB'.*40Gi"):
        Quantity.parse("12 GB")


@pytest.mark.parametrize(("number", "text"), [(3, "3"), (0.5, "500m"), (1e-7, "100e-9")])
def test_reads_bare_numbers(number: float, text: str) -> None:
    assert str(Quantity.parse(number)) == text


def test_zero_with_a_huge_exponent_is_zero() -> None:
    assert str(Quantity.parse("0e999999999")) == "0"


@pytest.mark.parametrize(("amount", "text"), [(85899345920, "80Gi"), (1023, "1023"), (1, "1")])
def test_bytes_print_with_binary_suffixes(amount: int, text: str) -> None:
    assert str(Quantity.binary(amount)) == text


def test_counts_print_with_decimal_suffixes() -> None:
    assert str(Quantity.decimal(4000)) == "4k"


def test_equal_values_are_equal_however_written() -> None:
    assert Quantity.parse("1Gi") == Quantity.parse("1024Mi") == Quantity.decimal(2**30)
    assert len({Quantity.parse("1k"), Quantity.parse("1000"), Quantity.parse("1e3")}) == 1
    assert Quantity.parse("1Gi") != 2**30


def test_orders_by_value() -> None:
    assert Quantity.parse("1G") < Quantity.parse("1Gi") <= Quantity.parse("1.1Gi")
    assert max(map(Quantity.parse, ["900m", "1", "999u"])) == Quantity.decimal(1)


@pytest.mark.parametrize(("text", "value"), [("1500m", 2), ("-1500m", -2), ("2", 2), ("1n", 1)])
def test_the_integer_value_is_rounded_away_from_zero(text: str, value: int) -> None:
    assert int(Quantity.parse(text)) == value


def test_thousandths_are_rounded_away_from_zero() -> None:
    assert Quantity.parse("1.0001").milli_value == 1001


def test_a_sum_keeps_the_format_of_what_is_not_zero() -> None:
    assert str(Quantity.parse("1Gi") + Quantity.parse("1Mi")) == "1025Mi"
    assert str(Quantity.decimal(0) + Quantity.binary(2048)) == "2Ki"


def test_a_difference_may_be_negative() -> None:
    assert str(Quantity.parse("1Gi") - Quantity.parse("2Gi")) == "-1Gi"


def test_the_exact_amount_is_at_hand() -> None:
    assert Quantity.parse("1.5Ki").as_decimal() == Decimal(1536)
    assert Quantity.parse("3n").as_decimal() == Decimal("3E-9")


quantities = st.builds(Quantity, st.integers(-(10**30), 10**30), st.sampled_from(Format))


@given(quantities)
def test_printing_loses_nothing(quantity: Quantity) -> None:
    assert Quantity.parse(str(quantity)) == quantity


@given(quantities)
def test_the_canonical_form_is_stable(quantity: Quantity) -> None:
    # A binary quantity that is no multiple of 1024 is printed as a plain number, which says nothing
    # of its form and is read as a decimal one: 610.3515625Ki, 625000, 625k.
    once = str(Quantity.parse(str(quantity)))
    assert str(Quantity.parse(once)) == once
    assert Quantity.parse(once) == quantity


@given(st.decimals(-(10**12), 10**12, places=9), st.sampled_from(["Ki", "Gi", "", "k", "M"]))
def test_parsing_is_exact(number: Decimal, suffix: str) -> None:
    factor = {"Ki": 2**10, "Gi": 2**30, "": 1, "k": 1000, "M": 10**6}[suffix]
    text = f"{number:f}{suffix}"
    error = abs(Fraction(Quantity.parse(text).nanos, 10**9)) - abs(Fraction(number) * factor)
    assert 0 <= error < Fraction(1, 10**9)


@given(st.integers(1024, 2**63))
def test_binary_form_has_no_factor_left(amount: int) -> None:
    text = str(Quantity.binary(amount))
    number = int(text.rstrip("KMGTPEi"))
    assert number % 1024 != 0
    assert text.endswith("i") == (amount % 1024 == 0)


def test_small_bytes_print_with_decimal_suffixes() -> None:
    assert str(Quantity.binary(1000)) == "1k"


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        quantity = Quantity.parse(text)
    except QuantityError:
        return
    assert Quantity.parse(str(quantity)) == quantity
