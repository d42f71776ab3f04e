"""Identities are arithmetic: nobody has to remember them."""

from __future__ import annotations

import itertools

import pytest

from nvdra_sim.hardware import identity
from nvdra_sim.hardware.profile import load_profile


def test_capabilities_are_numbered_as_the_driver_numbers_them() -> None:
    assert identity.gi_cap(0, 0) == 3
    assert identity.ci_cap(0, 0, 0) == 4
    assert identity.gi_cap(0, 11) == 102
    # The last lines of /proc/driver/nvidia-caps/mig-minors in the MIG user guide.
    assert identity.ci_cap(31, 14, 6) == 4321
    assert identity.ci_cap(31, 14, 7) == 4322


@pytest.mark.parametrize("name", ["a30", "h100", "gb300", "rtx-pro-6000"])
def test_every_possible_mig_device_has_ids_of_its_own(name: str) -> None:
    table = load_profile(name).mig
    assert table is not None
    ids = [
        (identity.gi_id(table, start=start, size=each.size), identity.ci_id(table, each))
        for each in table.profiles
        for start in each.starts
    ]
    assert len(set(ids)) == len(ids)
    assert all(gi < identity.GPU_INSTANCES and ci < identity.COMPUTE_INSTANCES for gi, ci in ids)


def test_instances_that_do_not_overlap_have_different_numbers() -> None:
    table = load_profile("h100").mig
    assert table is not None
    places = [(size, start) for size in (1, 2, 4, 8) for start in range(0, 8, size)]
    numbers = {identity.gi_id(table, start=start, size=size) for size, start in places}
    assert numbers == set(range(15))


def test_the_usual_profile_of_a_size_is_compute_instance_zero() -> None:
    table = load_profile("h100").mig
    assert table is not None
    zero = {each.name for each in table.profiles if identity.ci_id(table, each) == 0}
    assert zero == {"1g.10gb", "2g.20gb", "3g.40gb", "7g.80gb"}


def test_uuids_differ_by_node_gpu_and_instance_and_repeat() -> None:
    seen = [
        identity.mig_uuid(node, gpu, gi, ci)
        for node, gpu, gi, ci in itertools.product("ab", range(8), range(15), range(2))
    ]
    seen += [identity.gpu_uuid(node, gpu) for node, gpu in itertools.product("ab", range(8))]
    assert len(set(seen)) == len(seen)
    assert identity.gpu_uuid("a", 0) == seen[-16]
