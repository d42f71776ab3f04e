"""MIG instances go where the driver puts them, and never over one another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_sim.hardware.placement import Placed, choose_start, fit, free_starts
from nvdra_sim.hardware.profile import MigProfile, MigTable, load_profile


def table(name: str = "h100") -> MigTable:
    found = load_profile(name).mig
    assert found is not None
    return found


def named(name: str, *, of: str = "h100") -> MigProfile:
    found = table(of).named(name)
    assert found is not None
    return found


def created_one_by_one(wanted: list[MigProfile], *, of: str = "h100") -> list[Placed]:
    placed: list[Placed] = []
    for profile in wanted:
        start = choose_start(table(of), placed, profile)
        if start is not None:
            placed.append(Placed(profile, start))
    return placed


@pytest.mark.parametrize(
    ("name", "starts"),
    [
        # Orders in which real drivers fill an empty GPU.
        ("1g.10gb", [6, 4, 5, 0, 1, 2, 3]),
        ("2g.20gb", [4, 0, 2]),
        ("3g.40gb", [4, 0]),
        ("7g.80gb", [0]),
    ],
)
def test_instances_of_one_kind_fill_the_gpu_as_the_driver_does(
    name: str, starts: list[int]
) -> None:
    assert [each.start for each in created_one_by_one([named(name)] * 8)] == starts


def test_only_one_instance_has_the_media_extensions() -> None:
    media = named("1g.10gb+me")
    assert len(created_one_by_one([media, media])) == 1


def test_nothing_fits_beside_the_whole_gpu() -> None:
    placed = [Placed(named("7g.80gb"), 0)]
    assert all(free_starts(table(), placed, each) == () for each in table().profiles)


def test_a_layout_is_found_where_the_given_order_would_fail() -> None:
    small_first = [named("1g.10gb")] * 3 + [named("4g.40gb")]
    found = fit(table(), small_first)
    assert found is not None
    assert {(each.profile.name, each.start) for each in found} == {
        ("4g.40gb", 0),
        ("1g.10gb", 4),
        ("1g.10gb", 5),
        ("1g.10gb", 6),
    }


@pytest.mark.parametrize(
    "names",
    [
        ["1g.10gb"] * 8,
        ["4g.40gb", "4g.40gb"],
        ["4g.40gb", "3g.40gb", "1g.10gb"],
        ["2g.20gb"] * 4,
        ["7g.80gb", "1g.10gb"],
    ],
)
def test_impossible_combinations_are_found_impossible(names: list[str]) -> None:
    assert fit(table(), [named(name) for name in names]) is None


wishes = st.sampled_from(["a30", "a100-40gb", "h100", "gb300", "rtx-pro-6000"]).flatmap(
    lambda name: st.tuples(
        st.just(name), st.lists(st.sampled_from(table(name).profiles), max_size=9)
    )
)


@given(wishes)
def test_instances_never_overlap_or_take_more_than_there_is(
    wish: tuple[str, list[MigProfile]],
) -> None:
    name, wanted = wish
    placed = created_one_by_one(wanted, of=name)
    slices = [
        number for each in placed for number in range(each.start, each.start + each.profile.size)
    ]
    assert len(set(slices)) == len(slices)
    assert all(number < table(name).memory_slices for number in slices)
    assert sum(each.profile.slices for each in placed) <= table(name).compute_slices
    assert sum(each.profile.ofa_engines for each in placed) <= 1


@given(wishes)
def test_what_fits_one_by_one_also_fits_as_a_layout(wish: tuple[str, list[MigProfile]]) -> None:
    name, wanted = wish
    made = [each.profile for each in created_one_by_one(wanted, of=name)]
    assert fit(table(name), made) is not None
