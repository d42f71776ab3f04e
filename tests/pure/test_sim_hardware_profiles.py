"""Every hardware profile decodes, adds up, and says what NVIDIA's tables say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

import nvdra_sim.hardware
from nvdra_sim.hardware import BadProfile, UnknownProfile, describe, profile_names
from nvdra_sim.hardware.placement import fit
from nvdra_sim.hardware.profile import load_profile

ALL = profile_names()
WITH_MIG = [name for name in ALL if load_profile(name).mig is not None]


def document(name: str) -> dict[str, Any]:
    file = Path(nvdra_sim.hardware.__file__).parent / "profiles" / f"{name}.json"
    return cast("dict[str, Any]", json.loads(file.read_text()))


def edited(tmp_path: Path, original: str, **changes: Any) -> str:
    """The path of a copy of a profile with some fields replaced."""
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(document(original) | changes))
    return str(path)


def test_the_expected_kinds_of_node_are_there() -> None:
    assert set(ALL) == {
        *("v100", "t4", "a10", "l40s", "a30", "a100-40gb", "a100-80gb", "h100", "h200"),
        *("gh200-96gb", "b200", "gb200", "gb300", "rtx-pro-6000"),
    }


@pytest.mark.parametrize("name", ALL)
def test_a_profile_is_named_as_its_file_and_valid(name: str) -> None:
    assert load_profile(name).name == name


@pytest.mark.parametrize(
    ("name", "product", "mebibytes", "architecture", "capability", "gpus"),
    [
        ("v100", "Tesla V100-SXM2-32GB", 32768, 5, (7, 0), 8),
        ("t4", "Tesla T4", 15360, 6, (7, 5), 4),
        ("a10", "NVIDIA A10", 23028, 7, (8, 6), 4),
        ("l40s", "NVIDIA L40S", 46068, 8, (8, 9), 8),
        ("a30", "NVIDIA A30", 24576, 7, (8, 0), 4),
        ("a100-40gb", "NVIDIA A100-SXM4-40GB", 40960, 7, (8, 0), 8),
        ("a100-80gb", "NVIDIA A100-SXM4-80GB", 81920, 7, (8, 0), 8),
        ("h100", "NVIDIA H100 80GB HBM3", 81559, 9, (9, 0), 8),
        ("h200", "NVIDIA H200", 143771, 9, (9, 0), 8),
        ("gh200-96gb", "NVIDIA GH200 480GB", 97871, 9, (9, 0), 1),
        ("b200", "NVIDIA B200", 183359, 10, (10, 0), 8),
        ("gb200", "NVIDIA GB200", 189471, 10, (10, 0), 4),
        ("gb300", "NVIDIA GB300", 284208, 10, (10, 3), 4),
        ("rtx-pro-6000", "NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887, 10, (12, 0), 8),
    ],
)
def test_product_data_is_what_nvml_reports(
    name: str,
    product: str,
    mebibytes: int,
    architecture: int,
    capability: tuple[int, int],
    gpus: int,
) -> None:
    profile = load_profile(name)
    assert profile.product == product
    assert profile.memory_bytes == mebibytes * 1024**2
    assert profile.architecture == architecture
    assert profile.compute_capability == capability
    assert len(profile.gpus) == gpus


@pytest.mark.parametrize("name", ALL)
def test_grace_nodes_are_arm_with_address_translation_by_the_processor(name: str) -> None:
    profile = load_profile(name)
    assert (profile.machine == "aarch64") == name.startswith("g")
    assert (profile.addressing_mode == 2) == name.startswith("g")


@pytest.mark.parametrize("name", WITH_MIG)
def test_as_many_instances_fit_as_a_mig_profile_promises(name: str) -> None:
    table = load_profile(name).mig
    assert table is not None
    for profile in table.profiles:
        assert fit(table, [profile] * profile.instances) is not None, profile.name
        assert fit(table, [profile] * (profile.instances + 1)) is None, profile.name


@pytest.mark.parametrize("name", sorted({*WITH_MIG} - {"a30", "rtx-pro-6000"}))
def test_seven_slice_gpus_have_the_ids_and_placements_of_the_mig_guide(name: str) -> None:
    table = load_profile(name).mig
    assert table is not None
    assert {(each.id, each.index, each.size, each.starts) for each in table.profiles} == {
        (19, 0, 1, (0, 1, 2, 3, 4, 5, 6)),
        (20, 7, 1, (0, 1, 2, 3, 4, 5, 6)),
        (15, 9, 2, (0, 2, 4, 6)),
        (14, 1, 2, (0, 2, 4)),
        (9, 2, 4, (0, 4)),
        (5, 3, 4, (0,)),
        (0, 4, 8, (0,)),
    }


def test_the_a30_has_four_slices() -> None:
    assert describe("a30").mig_profiles == (
        *("1g.6gb", "1g.6gb+me", "2g.12gb", "2g.12gb+me", "4g.24gb"),
    )


def test_a_description_says_what_one_chooses_by() -> None:
    summary = describe("gb300")
    assert (summary.gpus, summary.machine, summary.compute_capability) == (4, "aarch64", "10.3")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownProfile, match=r"'p100'.*a10, a100-40gb.*v100"):
        load_profile("p100")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"colour": "green"}, "unknown field `colour`"),
        ({"memory_mib": "80G"}, r"Expected `int`.*\$.memory_mib"),
        ({"gpus": []}, "length >= 1"),
        ({"memory_mib": 40000}, r"MIG profile 2g.20gb: 20096 MiB of 40000 MiB are called 25gb"),
    ],
)
def test_a_bad_profile_file_is_refused_with_the_place(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(BadProfile, match=problem):
        load_profile(edited(tmp_path, "h100", **changes))


def test_gpus_that_share_a_device_node_are_refused(tmp_path: Path) -> None:
    gpus = document("t4")["gpus"]
    with pytest.raises(BadProfile, match="two GPUs have the same minor"):
        load_profile(edited(tmp_path, "t4", gpus=[gpu | {"minor": 0} for gpu in gpus]))


def test_a_profile_of_ones_own_is_named_by_its_path(tmp_path: Path) -> None:
    gpus = document("t4")["gpus"]
    assert len(load_profile(edited(tmp_path, "t4", name="mine", gpus=gpus[:1])).gpus) == 1
