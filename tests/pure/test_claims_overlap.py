"""Devices exclude each other by the silicon they use, not by their names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nvdra_nodeagent.claims.overlap import Extent, MigExtent, extent_of, overlap
from nvdra_nodeagent.inventory.model import Device
from nvdra_testing.claims import a_gpu, a_mig

migs = st.builds(
    MigExtent,
    start=st.integers(0, 7),
    size=st.integers(1, 8),
    gi_id=st.integers(0, 3),
    ci_id=st.integers(0, 2),
)
extents = st.builds(Extent, st.sampled_from(["GPU-a", "GPU-b"]), st.none() | migs)


@given(extents, extents)
def test_overlap_is_mutual(one: Extent, other: Extent) -> None:
    assert overlap(one, other) == overlap(other, one)


@given(extents)
def test_everything_overlaps_itself(one: Extent) -> None:
    assert overlap(one, one)


@given(extents, extents)
def test_devices_of_different_gpus_never_overlap(one: Extent, other: Extent) -> None:
    if one.gpu_uuid != other.gpu_uuid:
        assert not overlap(one, other)


@given(extents)
def test_a_whole_gpu_overlaps_all_that_is_on_it(one: Extent) -> None:
    assert overlap(one, Extent(one.gpu_uuid))


@given(migs, migs)
def test_mig_devices_of_different_instances_overlap_iff_they_share_a_slice(
    one: MigExtent, other: MigExtent
) -> None:
    shared = {*range(one.start, one.start + one.size)} & {
        *range(other.start, other.start + other.size)
    }
    if one.gi_id != other.gi_id:
        assert overlap(Extent("GPU-a", one), Extent("GPU-a", other)) == bool(shared)


def test_compute_instances_of_one_gpu_instance_live_side_by_side() -> None:
    one, other = a_mig(ci=0, size=4), a_mig(ci=1, size=4)
    gpu = a_gpu(migs=(one, other))
    assert not overlap(extent_of(Device(gpu, one)), extent_of(Device(gpu, other)))


def test_the_extent_of_a_mig_device_names_its_physical_gpu() -> None:
    mig = a_mig(2, start=4, size=2)
    gpu = a_gpu(2, migs=(mig,))
    assert extent_of(Device(gpu, mig)) == Extent(gpu.uuid, MigExtent(4, 2, mig.gi_id, mig.ci_id))
