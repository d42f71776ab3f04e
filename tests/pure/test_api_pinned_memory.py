"""Pinned memory limits of MPS clients, resolved to devices."""

from __future__ import annotations

import pytest

from nvdra_api import ConfigError, MpsConfig, resolve_pinned_limits

A, B = "GPU-aaaa", "GPU-bbbb"


def limits(*, default: str | None = None, per_device: dict[str, str] | None = None) -> MpsConfig:
    return MpsConfig(
        default_pinned_device_memory_limit=default,
        default_per_device_pinned_memory_limit=per_device or {},
    )


def test_without_limits_no_device_has_one() -> None:
    assert resolve_pinned_limits(limits(), [A, B]) == {}


@pytest.mark.parametrize(
    ("text", "mebibytes"), [("2Gi", 2048), ("10Mi", 10), ("10M", 9), ("1G", 953), ("1Mi", 1)]
)
def test_the_default_limit_counts_for_every_device(text: str, mebibytes: int) -> None:
    resolved = resolve_pinned_limits(limits(default=text), [B, A])
    assert resolved == {A: mebibytes, B: mebibytes}


def test_a_limit_may_name_its_device_by_uuid_or_by_position_in_sorted_order() -> None:
    mps = limits(default="1Gi", per_device={"1": "2Gi", A: "3Gi"})
    assert resolve_pinned_limits(mps, [B, A]) == {A: 3072, B: 2048}


def test_without_a_default_only_named_devices_have_a_limit() -> None:
    assert resolve_pinned_limits(limits(per_device={"0": "1Gi"}), [A, B]) == {A: 1024}


def test_without_devices_a_default_is_no_limit() -> None:
    assert resolve_pinned_limits(limits(default="1Gi"), []) == {}


@pytest.mark.parametrize(
    ("mps", "uuids", "problem"),
    [
        (limits(default="1M"), [A], "is below 1Mi"),
        (limits(per_device={"0": "1M"}), [A], "is below 1Mi"),
        (limits(default="much"), [A], "is not a quantity"),
        (limits(per_device={"1": "1Gi"}), [A], "names no device of the claim; use 0 to 0"),
        (limits(per_device={B: "1Gi"}), [A], "names no device of the claim"),
        (limits(per_device={"0": "1Gi"}), [], "no device shares this daemon"),
        (limits(per_device={"0": "1Gi", A: "2Gi"}), [A], "has a limit already, under 0"),
        (limits(per_device={A: "1Gi", "+0": "2Gi"}), [A], f"has a limit already, under {A}"),
    ],
)
def test_bad_limits_are_refused(mps: MpsConfig, uuids: list[str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        resolve_pinned_limits(mps, uuids)
