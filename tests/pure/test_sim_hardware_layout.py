"""MIG layout files of the mig-parted form, and what is wrong with bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvdra_sim.hardware import BadLayout
from nvdra_sim.hardware.layout import Cut, read_layout
from nvdra_sim.hardware.profile import load_profile

PUBLIC = Path(__file__).parents[3] / "shared/inputs/public-specs/quickstart/mig-parted-config.yaml"


def layout(tmp_path: Path, groups: str, *, profile: str = "h100") -> dict[int, Cut]:
    """Read a file with one config of these groups."""
    file = tmp_path / "layout.yaml"
    file.write_text(f"version: v1\nmig-configs:\n  only:\n{groups}")
    return dict(read_layout(file, load_profile(profile))[1])


def shape(cut: Cut) -> list[tuple[str, int]]:
    return sorted((each.profile.name, each.start) for each in cut.placed)


def test_all_gpus_are_cut_alike(tmp_path: Path) -> None:
    cuts = layout(
        tmp_path,
        '  - devices: all\n    mig-enabled: true\n    mig-devices: {"1g.10gb": 7}\n',
    )
    assert sorted(cuts) == list(range(8))
    assert shape(cuts[3]) == [("1g.10gb", start) for start in range(7)]


def test_unnamed_gpus_stay_and_later_groups_win(tmp_path: Path) -> None:
    cuts = layout(
        tmp_path,
        "  - {devices: [1, 2], mig-enabled: true, mig-devices: {3g.40gb: 2}}\n"
        "  - {devices: [2], mig-enabled: false}\n",
    )
    assert sorted(cuts) == [1, 2]
    assert shape(cuts[1]) == [("3g.40gb", 0), ("3g.40gb", 4)]
    assert cuts[2] == Cut(mig_enabled=False)


def test_mig_mode_without_devices_is_a_layout(tmp_path: Path) -> None:
    cuts = layout(tmp_path, "  - {devices: [0], mig-enabled: true}\n")
    assert cuts[0] == Cut(mig_enabled=True)


@pytest.mark.parametrize(("pci_id", "cut"), [("0x233010DE", True), ("0x20B010DE", False)])
def test_a_device_filter_keeps_to_its_product(tmp_path: Path, pci_id: str, cut: bool) -> None:
    group = f'  - {{device-filter: ["{pci_id}"], devices: all, mig-enabled: true}}\n'
    assert bool(layout(tmp_path, group)) is cut


@pytest.mark.skipif(not PUBLIC.exists(), reason="the public example is not beside this checkout")
def test_the_public_example_cuts_half_of_the_gpus() -> None:
    name, cuts = read_layout(Path(f"{PUBLIC}#half-balanced"), load_profile("a100-40gb"))
    assert name == "mig-parted-config.yaml#half-balanced"
    assert [len(cuts[index].placed) for index in range(8)] == [4] * 4 + [0] * 4
    assert not cuts[7].mig_enabled


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        (
            "  - {devices: all, mig-enabled: true, mig-devices: {1g.10gb: 8}}\n",
            r"mig-configs.only\[0\].mig-devices: .*no room for 8 x 1g.10gb",
        ),
        (
            "  - {devices: all, mig-enabled: true, mig-devices: {1g.5gb: 1}}\n",
            r"no MIG profile '1g.5gb'; it has 1g.10gb, 1g.10gb\+me",
        ),
        ("  - {devices: [8], mig-enabled: true}\n", r"\[0\].devices: GPU 8 .*0 to 7"),
        (
            "  - {devices: all, mig-enabled: false, mig-devices: {1g.10gb: 1}}\n",
            "needs mig-enabled: true",
        ),
        ("  - {devices: some, mig-enabled: true}\n", r"\$.mig-configs\[...\]\[0\].devices"),
        ("  - {devices: all}\n", "missing required field `mig-enabled`"),
        ("  - {devices: all, mig-enabled: true, colour: red}\n", "unknown field `colour`"),
        ("  - {devices: all, mig-enabled: true, mig-devices: {1g.10gb: -1}}\n", ">= 0"),
        ("  - {devices: [}\n", "is no YAML"),
    ],
)
def test_a_bad_layout_says_where_and_what(tmp_path: Path, groups: str, problem: str) -> None:
    with pytest.raises(BadLayout, match=problem):
        layout(tmp_path, groups)


def test_gpus_without_mig_cannot_be_cut(tmp_path: Path) -> None:
    with pytest.raises(BadLayout, match=r"Tesla T4 \(t4\) has no MIG"):
        layout(tmp_path, "  - {devices: all, mig-enabled: true}\n", profile="t4")


def test_one_of_several_configs_has_to_be_chosen(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text("version: v1\nmig-configs:\n  one: []\n  two: []\n")
    with pytest.raises(BadLayout, match=r"several configs; choose with two.yaml#<name> from: one"):
        read_layout(file, load_profile("h100"))
    with pytest.raises(BadLayout, match="no config is named 'three'"):
        read_layout(Path(f"{file}#three"), load_profile("h100"))
    assert read_layout(Path(f"{file}#two"), load_profile("h100"))[1] == {}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadLayout, match=r"absent.yaml: cannot be read"):
        read_layout(tmp_path / "absent.yaml", load_profile("h100"))
