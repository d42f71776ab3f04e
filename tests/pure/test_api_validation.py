"""Defaults and rules of the opaque configs, the same in admission and on the node."""

from __future__ import annotations

from typing import Any

import pytest

from nvdra_api import (
    ConfigError,
    FeatureGates,
    GpuConfig,
    GpuSharing,
    IommuConfig,
    MigDeviceConfig,
    MigDeviceSharing,
    MpsConfig,
    TimeSlicingConfig,
    VfioDeviceConfig,
    load_config,
    normalise,
)
from nvdra_testing.configs import SHARING_ON, a_config, a_config_text, mps, time_slicing

OFF = FeatureGates()


def problems_of(raw: dict[str, Any], gates: FeatureGates = SHARING_ON) -> list[str]:
    with pytest.raises(ConfigError) as failure:
        load_config(raw, gates)
    return [str(problem) for problem in failure.value.problems]


def test_without_sharing_nothing_is_configured() -> None:
    assert load_config(a_config(), SHARING_ON) == GpuConfig()
    assert load_config(a_config("MigDeviceConfig"), OFF) == MigDeviceConfig()


@pytest.mark.parametrize(
    "sharing",
    [{"strategy": "TimeSlicing"}, time_slicing(), time_slicing(interval=None)],
    ids=["config absent", "config empty", "interval null"],
)
def test_time_slices_without_an_interval_have_the_default_one(sharing: dict[str, Any]) -> None:
    assert load_config(a_config(sharing=sharing), SHARING_ON) == GpuConfig(
        sharing=GpuSharing(
            strategy="TimeSlicing", time_slicing_config=TimeSlicingConfig(interval="Default")
        )
    )


def test_mps_without_a_config_gets_an_empty_one() -> None:
    raw = a_config(sharing={"strategy": "MPS"})
    assert load_config(raw, SHARING_ON) == GpuConfig(
        sharing=GpuSharing(strategy="MPS", mps_config=MpsConfig())
    )
    raw = a_config("MigDeviceConfig", sharing={"strategy": "MPS"})
    assert load_config(raw, SHARING_ON) == MigDeviceConfig(
        sharing=MigDeviceSharing(strategy="MPS", mps_config=MpsConfig())
    )


@pytest.mark.parametrize("strategy", ["TimeSlicing", "MPS"])
def test_a_strategy_whose_gate_is_off_gets_no_defaults(strategy: str) -> None:
    config = GpuConfig(sharing=GpuSharing(strategy=strategy))
    assert normalise(config, OFF) == config


def test_passthrough_defaults_to_the_legacy_backend() -> None:
    expected = VfioDeviceConfig(iommu=IommuConfig(backend_policy="LegacyOnly"))
    spellings: list[dict[str, Any]] = [{}, {"iommu": {}}, {"iommu": {"backendPolicy": ""}}]
    for fields in spellings:
        assert load_config(a_config("VfioDeviceConfig", **fields), OFF) == expected


def test_normalising_twice_changes_nothing() -> None:
    for sharing in (time_slicing(), mps(), {"strategy": "Foo"}):
        config = GpuConfig(sharing=GpuSharing(strategy=str(sharing["strategy"])))
        once = normalise(config, SHARING_ON)
        assert normalise(once, SHARING_ON) == once


@pytest.mark.parametrize(
    ("sharing", "problem"),
    [
        (
            {"strategy": "Foo"},
            'sharing.strategy: unknown sharing strategy "Foo"; supported: TimeSlicing, MPS',
        ),
        ({}, "sharing.strategy: is missing; supported: TimeSlicing, MPS"),
        (
            time_slicing(interval="Foo"),
            (
                'sharing.timeSlicingConfig.interval: unknown time-slice interval "Foo"; '
                "supported: Default, Short, Medium, Long"
            ),
        ),
        (
            {**time_slicing(), "mpsConfig": {}},
            (
                "sharing.mpsConfig: contradicts strategy TimeSlicing; "
                "remove it or set sharing.strategy to MPS"
            ),
        ),
        (
            {**mps(), "timeSlicingConfig": {}},
            (
                "sharing.timeSlicingConfig: contradicts strategy MPS; "
                "remove it or set sharing.strategy to TimeSlicing"
            ),
        ),
        (
            mps(defaultActiveThreadPercentage=-1),
            (
                "sharing.mpsConfig.defaultActiveThreadPercentage: "
                "active thread percentage must not be negative, got -1"
            ),
        ),
        (
            mps(defaultActiveThreadPercentage=101),
            (
                "sharing.mpsConfig.defaultActiveThreadPercentage: "
                "active thread percentage must not be greater than 100, got 101"
            ),
        ),
        (
            mps(defaultPinnedDeviceMemoryLimit="1M"),
            (
                "sharing.mpsConfig.defaultPinnedDeviceMemoryLimit: "
                'limit "1M" is below 1Mi, the smallest that MPS can set'
            ),
        ),
        (
            mps(defaultPerDevicePinnedMemoryLimit={"0": "0"}),
            (
                "sharing.mpsConfig.defaultPerDevicePinnedMemoryLimit.0: "
                'limit "0" is below 1Mi, the smallest that MPS can set'
            ),
        ),
        (
            mps(defaultPerDevicePinnedMemoryLimit={"first": "1Gi"}),
            (
                "sharing.mpsConfig.defaultPerDevicePinnedMemoryLimit.first: "
                '"first" is neither a device UUID nor the index of a device'
            ),
        ),
        (
            mps(defaultPerDevicePinnedMemoryLimit={"-1": "1Gi"}),
            (
                "sharing.mpsConfig.defaultPerDevicePinnedMemoryLimit.-1: "
                "a device index must not be negative"
            ),
        ),
        (
            mps(defaultPerDevicePinnedMemoryLimit={"1": "1Gi", "01": "2Gi"}),
            (
                "sharing.mpsConfig.defaultPerDevicePinnedMemoryLimit.01: "
                "device 1 has a limit already, under 1"
            ),
        ),
    ],
)
def test_a_bad_sharing_is_refused(sharing: dict[str, Any], problem: str) -> None:
    assert problems_of(a_config(sharing=sharing)) == [problem]


@pytest.mark.parametrize("percentage", [0, 100])
def test_the_bounds_of_the_thread_percentage_are_allowed(percentage: int) -> None:
    load_config(a_config(sharing=mps(defaultActiveThreadPercentage=percentage)), SHARING_ON)


@pytest.mark.parametrize("kind", ["GpuConfig", "MigDeviceConfig"])
@pytest.mark.parametrize(
    ("strategy", "gate"), [("TimeSlicing", "TimeSlicingSettings"), ("MPS", "MPSSupport")]
)
def test_a_strategy_needs_its_gate(kind: str, strategy: str, gate: str) -> None:
    raw = a_config(kind, sharing={"strategy": strategy})
    assert problems_of(raw, OFF) == [
        f'sharing.strategy: strategy "{strategy}" needs the feature gate "{gate}" to be on'
    ]
    load_config(raw, FeatureGates({gate: True}))


def test_time_slicing_of_a_mig_device_is_accepted() -> None:
    raw = a_config("MigDeviceConfig", sharing={"strategy": "TimeSlicing"})
    assert load_config(raw, SHARING_ON) == MigDeviceConfig(
        sharing=MigDeviceSharing(strategy="TimeSlicing")
    )


def test_an_mps_config_contradicts_the_time_slicing_of_a_mig_device() -> None:
    raw = a_config("MigDeviceConfig", sharing={"strategy": "TimeSlicing", "mpsConfig": {}})
    [problem] = problems_of(raw)
    assert problem.startswith("sharing.mpsConfig: contradicts strategy TimeSlicing")


def test_an_unknown_backend_policy_is_refused() -> None:
    raw = a_config("VfioDeviceConfig", iommu={"backendPolicy": "Newest"})
    assert problems_of(raw) == [
        (
            'iommu.backendPolicy: unknown IOMMU backend policy "Newest"; '
            "supported: LegacyOnly, PreferIommuFD"
        )
    ]


@pytest.mark.parametrize("kind", ["ComputeDomainChannelConfig", "ComputeDomainDaemonConfig"])
def test_a_compute_domain_config_needs_its_domain(kind: str) -> None:
    assert problems_of(a_config(kind)) == ["domainID: is missing; write the UID of a ComputeDomain"]
    load_config(a_config(kind, domainID="uid"), OFF)


def test_problems_of_decoding_and_of_validation_come_in_one_error() -> None:
    sharing = {**time_slicing(interval="Foo"), "foo": 1}
    with pytest.raises(ConfigError) as failure:
        load_config(a_config_text(sharing=sharing), OFF)
    assert str(failure.value) == (
        'strict decoding error: unknown field "sharing.foo"; '
        'sharing.strategy: strategy "TimeSlicing" needs the feature gate "TimeSlicingSettings" '
        'to be on; sharing.timeSlicingConfig.interval: unknown time-slice interval "Foo"; '
        "supported: Default, Short, Medium, Long"
    )


def test_a_long_value_is_cut_in_the_message() -> None:
    [problem] = problems_of(a_config(sharing={"strategy": "x" * 5000}))
    assert len(problem) < 200
