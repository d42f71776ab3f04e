"""Labels and names of MIG profiles against NVIDIA's published tables."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_nodeagent.inventory.profiles import (
    GI_PROFILE_COUNT,
    memory_label_gb,
    mig_device_name,
    profile_label,
)

MIB = 1024**2
A100_40, H100_80, H200, B200 = (size * MIB for size in (40536, 81559, 143771, 183359))


@pytest.mark.parametrize(
    ("index", "slices", "memory_mb", "gpu_bytes", "label"),
    [
        (0, 1, 4864, A100_40, "1g.5gb"),
        (7, 1, 4864, A100_40, "1g.5gb+me"),
        (9, 1, 9856, A100_40, "1g.10gb"),
        (4, 7, 40192, A100_40, "7g.40gb"),
        (0, 1, 9856, H100_80, "1g.10gb"),
        (9, 1, 19968, H100_80, "1g.20gb"),
        (2, 3, 40320, H100_80, "3g.40gb"),
        (4, 7, 80384, H100_80, "7g.80gb"),
        (0, 1, 16384, H200, "1g.18gb"),
        (2, 3, 71424, H200, "3g.71gb"),
        (0, 1, 21760, B200, "1g.23gb"),
        (12, 4, 40320, H100_80, "4g.40gb+gfx"),
        (13, 1, 9856, H100_80, "1g.10gb-me"),
        (15, 1, 9856, H100_80, "1g.10gb+me.all"),
    ],
)
def test_a_profile_is_labelled_as_nvidia_smi_prints_it(
    index: int, slices: int, memory_mb: int, gpu_bytes: int, label: str
) -> None:
    found = profile_label(index, gi_slices=slices, memory_mb=memory_mb, gpu_memory_bytes=gpu_bytes)
    assert found == label


def test_a_compute_instance_of_a_part_names_its_own_slices_first() -> None:
    label = profile_label(1, gi_slices=2, ci_slices=1, memory_mb=9856, gpu_memory_bytes=A100_40)
    assert label == "1c.2g.10gb"


@pytest.mark.parametrize(
    ("profile", "name"),
    [
        ("1g.24gb", "gpu-0-mig-1g24gb-19-3"),
        ("1g.18gb+me", "gpu-0-mig-1g18gb-me-19-3"),
        ("1g.24gb-me", "gpu-0-mig-1g24gb-me-19-3"),
        ("1g.24gb+me.all", "gpu-0-mig-1g24gb-meall-19-3"),
        ("1g.24gb+gfx", "gpu-0-mig-1g24gb-gfx-19-3"),
    ],
)
def test_a_mig_device_is_named_by_parent_profile_and_start(profile: str, name: str) -> None:
    assert mig_device_name(0, profile=profile, gi_profile_id=19, start=3) == name


@given(st.integers(1, 2**20), st.integers(1, 2**40))
def test_a_memory_label_is_never_larger_than_the_gpu_in_gib_and_an_eighth(
    memory_mb: int, spare_bytes: int
) -> None:
    gpu_bytes = memory_mb * MIB + spare_bytes
    label = memory_label_gb(memory_mb, gpu_memory_bytes=gpu_bytes)
    assert 0 <= label <= -(-gpu_bytes // 1024**3)


@given(st.integers(0, GI_PROFILE_COUNT - 1), st.integers(1, 8), st.integers(1, 300_000))
def test_every_name_is_a_dns_label(index: int, slices: int, memory_mb: int) -> None:
    label = profile_label(index, gi_slices=slices, memory_mb=memory_mb, gpu_memory_bytes=2**39)
    name = mig_device_name(255, profile=label, gi_profile_id=2**31, start=15)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name)
