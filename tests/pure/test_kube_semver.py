"""Versions of attributes and servers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_kube.semver import Semver, SemverError, parse_semver, server_minor, to_semver


def test_precedence_is_that_of_the_specification() -> None:
    rising = "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 "
    rising += "1.0.0-rc.1 1.0.0 1.0.1 1.9.0 1.10.0 2.0.0"
    for lower, higher in pairwise(map(parse_semver, rising.split())):
        assert lower < higher
        assert higher > lower
        assert lower != higher


def test_build_metadata_does_not_count() -> None:
    assert parse_semver("1.2.3+a") == parse_semver("1.2.3+b")
    assert len({parse_semver("1.2.3+a"), parse_semver("1.2.3")}) == 1


@pytest.mark.parametrize(
    "text", ["", "1", "1.2", "v1.2.3", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3-a..b", "1.2.3 ", "a"]
)
def test_strict_parsing_refuses(text: str) -> None:
    with pytest.raises(SemverError, match="not a version"):
        parse_semver(text)


def test_numbers_have_64_bits() -> None:
    with pytest.raises(SemverError, match="64-bit"):
        parse_semver("1.2.18446744073709551616")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("570.158.01", "570.158.1"),
        ("550.54", "550.54.0"),
        ("550.54.15", "550.54.15"),
        ("9", "9.0.0"),
        ("13.0", "13.0.0"),
        ("v1.2", "1.2.0"),
        ("580.00.00", "580.0.0"),
        ("1.2.3-rc.1+build.7", "1.2.3-rc.1+build.7"),
        (" 570.158.01\n", "570.158.1"),
    ],
)
def test_loose_versions_become_semver(text: str, expected: str) -> None:
    assert to_semver(text) == expected


@pytest.mark.parametrize("text", ["", "N/A", "570.158.01.02", "570..1", "-1", "1.x", "5" * 300])
def test_what_has_no_semver_form_is_an_error(text: str) -> None:
    with pytest.raises(SemverError):
        to_semver(text)


def test_normalising_keeps_strict_versions() -> None:
    assert parse_semver("1.2.3", normalize=True) == Semver(1, 2, 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v1.35.0-gke.1", (1, 35)),
        ("v1.34.2+k3s1", (1, 34)),
        ("1.36", (1, 36)),
        ("v1.32.0-eks-a1b2", (1, 32)),
        ("v2.0.0", (2, 0)),
    ],
)
def test_server_versions_are_cut_to_major_and_minor(text: str, expected: tuple[int, int]) -> None:
    assert server_minor(text) == expected


@pytest.mark.parametrize("text", ["", "unknown", "v1", "v.1", "x1.35"])
def test_an_unreadable_server_version_is_an_error(text: str) -> None:
    with pytest.raises(SemverError, match="server version"):
        server_minor(text)


words = st.from_regex(r"(0|[1-9][0-9]{0,3}|[0-9]*[a-zA-Z-][0-9a-zA-Z-]{0,4})", fullmatch=True)
versions = st.builds(
    Semver,
    st.integers(0, 2**64 - 1),
    st.integers(0, 3),
    st.integers(0, 3),
    st.lists(words, max_size=3).map(tuple),
    st.lists(words, max_size=2).map(tuple),
)


@given(versions)
def test_printing_and_reading_are_inverse(version: Semver) -> None:
    again = parse_semver(str(version))
    assert (again, again.build) == (version, version.build)


@given(versions, versions)
def test_any_two_versions_are_ordered(left: Semver, right: Semver) -> None:
    assert [left < right, left == right, left > right].count(True) == 1


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=3), st.integers(0, 3))
def test_zero_padding_never_changes_the_version(numbers: list[int], width: int) -> None:
    padded = ".".join(str(number).zfill(width) for number in numbers)
    assert to_semver(padded) == to_semver(".".join(map(str, numbers)))
