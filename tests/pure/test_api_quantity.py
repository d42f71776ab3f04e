"""Quantities are read exactly as Kubernetes reads them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_api.quantity import parse_quantity, shown

LARGEST = 2**63 - 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("100", 100),
        ("+5", 5),
        ("-5", -5),
        ("10Mi", 10 * 1024**2),
        ("10M", 10_000_000),
        ("2Gi", 2 * 1024**3),
        ("1.5Gi", 3 * 1024**3 // 2),
        ("1Ki", 1024),
        ("1Ei", 1024**6),
        ("1E", 10**18),
        ("1P", 10**15),
        ("1k", 1000),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1e+3", 1000),
        ("1500e-3", 2),
        ("5.", 5),
        (".5k", 500),
        ("100m", 1),
        ("1u", 1),
        ("1n", 1),
        ("0.1", 1),
        ("-0.5", -1),
        ("99E", LARGEST),
        ("-99E", -LARGEST),
        ("1e999999999", LARGEST),
        ("1e-999999999", 1),
        ("0e999999999", 0),
    ],
)
def test_a_quantity_has_its_value_rounded_up(text: str, value: int) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "+",
        "Mi",
        "1 Gi",
        " 1",
        "1Gi ",
        "1gi",
        "1K",
        "1kB",
        "1e",
        "1.1.M",
        "1+1",
        "0x10",
        "1_000",
        "١",
        "NaN",
        "1" * 300,
        "1e3Mi",
        "--1",
    ],
)
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)


@given(
    st.decimals(min_value=-(10**6), max_value=10**6, places=6, allow_nan=False),
    st.sampled_from([("", 1), ("k", 1000), ("Mi", 1024**2), ("e-2", Fraction(1, 100))]),
)
def test_the_value_is_the_ceiling_of_the_magnitude(
    number: object, suffix: tuple[str, Fraction]
) -> None:
    text, scale = suffix
    exact = abs(Fraction(str(number))) * scale
    magnitude = abs(parse_quantity(f"{number}{text}"))
    assert magnitude - 1 < exact <= magnitude


def test_values_of_users_are_shown_without_what_a_terminal_obeys() -> None:
    assert shown("Löng\x1b[31m\0\n") == r'"Löng\x1b[31m\x00\n"'


def test_long_values_of_users_are_cut() -> None:
    assert shown("x" * 61) == f'"{"x" * 60}…"'
