"""What users write becomes a config, or an error that names every problem and its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_api import (
    ComputeDomainChannelConfig,
    ConfigError,
    GpuConfig,
    GpuSharing,
    IommuConfig,
    MigDeviceConfig,
    MigDeviceSharing,
    MpsConfig,
    OpaqueConfig,
    TimeSlicingConfig,
    VfioDeviceConfig,
    decode_config,
    encode_config,
)
from nvdra_api.configs import CONFIG_TYPES, ComputeDomainDaemonConfig
from nvdra_testing.configs import a_config, a_config_text, mps, time_slicing


def problem_texts(raw: bytes | str | dict[str, object], *, strict: bool = True) -> list[str]:
    with pytest.raises(ConfigError) as failure:
        decode_config(raw, strict=strict)
    return [str(problem) for problem in failure.value.problems]


@pytest.mark.parametrize("kind", CONFIG_TYPES)
def test_every_config_kind_decodes_when_empty(kind: str) -> None:
    assert decode_config(a_config_text(kind)) == CONFIG_TYPES[kind]()


def test_all_fields_of_a_gpu_config_arrive() -> None:
    sharing = {
        **time_slicing(interval="Long"),
        "mpsConfig": {
            "defaultActiveThreadPercentage": 50,
            "defaultPinnedDeviceMemoryLimit": "10Gi",
            "defaultPerDevicePinnedMemoryLimit": {"0": "1Gi"},
            "multiUser": True,
        },
    }
    assert decode_config(a_config_text(sharing=sharing)) == GpuConfig(
        sharing=GpuSharing(
            strategy="TimeSlicing",
            time_slicing_config=TimeSlicingConfig(interval="Long"),
            mps_config=MpsConfig(
                default_active_thread_percentage=50,
                default_pinned_device_memory_limit="10Gi",
                default_per_device_pinned_memory_limit={"0": "1Gi"},
                multi_user=True,
            ),
        )
    )


def test_the_fields_with_unusual_spelling_arrive() -> None:
    iommu = {"backendPolicy": "PreferIommuFD", "enableAPIDevice": True}
    assert decode_config(a_config("VfioDeviceConfig", iommu=iommu)) == VfioDeviceConfig(
        iommu=IommuConfig(backend_policy="PreferIommuFD", enable_api_device=True)
    )
    channel = a_config("ComputeDomainChannelConfig", domainID="uid", allocationMode="All")
    assert decode_config(channel) == ComputeDomainChannelConfig(
        domain_id="uid", allocation_mode="All"
    )


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"foo": 1}, "foo"),
        ({"Sharing": {}}, "Sharing"),
        ({"sharing": time_slicing(foo=1)}, "sharing.timeSlicingConfig.foo"),
        ({"sharing": mps(foo={"bar": 1})}, "sharing.mpsConfig.foo"),
        ({"metadata": {"name": "x"}}, "metadata"),
    ],
)
def test_an_unknown_field_is_named_with_its_path(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as failure:
        decode_config(a_config_text(**fields))
    assert str(failure.value) == f'strict decoding error: unknown field "{path}"'


def test_a_long_or_unprintable_name_of_a_field_is_cut_and_escaped() -> None:
    fields: dict[str, Any] = {f"\x1b[31m{'x' * 3000}": 1}
    (text,) = problem_texts(a_config_text(**fields))
    assert text.startswith(r'unknown field "\x1b[31mxxx')
    assert len(text) < 300


def test_time_slices_are_unknown_to_mig_devices() -> None:
    raw = a_config_text("MigDeviceConfig", sharing=time_slicing(interval="Long"))
    assert problem_texts(raw) == ['unknown field "sharing.timeSlicingConfig"']


def test_a_repeated_key_is_named_with_its_path() -> None:
    raw = a_config_text(sharing={"strategy": "MPS"}).replace(
        b'"strategy": "MPS"', b'"strategy": "MPS", "strategy": "TimeSlicing"'
    )
    assert problem_texts(raw) == ['duplicate field "sharing.strategy"']


def test_a_repeated_key_of_a_map_and_of_the_type_is_found() -> None:
    raw = a_config_text(sharing=mps(defaultPerDevicePinnedMemoryLimit={"0": "1Gi"}))
    raw = raw.replace(b'"0": "1Gi"', b'"0": "1Gi", "0": "2Gi"')
    raw = raw.replace(b'"kind"', b'"kind": "GpuConfig", "kind"')
    assert problem_texts(raw) == [
        'duplicate field "kind"',
        'duplicate field "sharing.mpsConfig.defaultPerDevicePinnedMemoryLimit.0"',
    ]


def test_all_problems_are_reported_at_once() -> None:
    sharing = {"strategy": 1, "mpsConfig": {"foo": 1, "defaultActiveThreadPercentage": "50"}}
    with pytest.raises(ConfigError) as failure:
        decode_config(a_config_text(bar=1, sharing=sharing))
    assert str(failure.value) == (
        'strict decoding error: unknown field "bar", unknown field "sharing.mpsConfig.foo"; '
        "sharing.strategy: expected a string, got number; "
        "sharing.mpsConfig.defaultActiveThreadPercentage: expected a whole number, got string"
    )


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"sharing": "MPS"}, "sharing: expected an object, got string"),
        ({"sharing": []}, "sharing: expected an object, got array"),
        ({"sharing": {"strategy": True}}, "sharing.strategy: expected a string, got boolean"),
        ({"sharing": {"strategy": 1.5}}, "sharing.strategy: expected a string, got number"),
        (
            {"sharing": mps(multiUser=1)},
            "sharing.mpsConfig.multiUser: expected true or false, got number",
        ),
        (
            {"sharing": mps(defaultActiveThreadPercentage=True)},
            "sharing.mpsConfig.defaultActiveThreadPercentage: expected a whole number, got boolean",
        ),
        (
            {"sharing": mps(defaultActiveThreadPercentage=50.0)},
            "sharing.mpsConfig.defaultActiveThreadPercentage: expected a whole number, got number",
        ),
        (
            {"sharing": mps(defaultActiveThreadPercentage=2**63)},
            "sharing.mpsConfig.defaultActiveThreadPercentage: does not fit into 64 bits",
        ),
        (
            {"sharing": mps(defaultPinnedDeviceMemoryLimit=False)},
            (
                "sharing.mpsConfig.defaultPinnedDeviceMemoryLimit: "
                "expected a quantity such as 512Mi, got boolean"
            ),
        ),
        (
            {"sharing": mps(defaultPerDevicePinnedMemoryLimit=["1Gi"])},
            "sharing.mpsConfig.defaultPerDevicePinnedMemoryLimit: expected an object, got array",
        ),
    ],
)
def test_a_wrong_type_is_named_with_its_path(fields: dict[str, Any], problem: str) -> None:
    assert problem_texts(a_config_text(**fields)) == [problem]


def test_a_text_that_is_no_quantity_is_refused() -> None:
    [problem] = problem_texts(a_config_text(sharing=mps(defaultPinnedDeviceMemoryLimit="ten")))
    assert '.defaultPinnedDeviceMemoryLimit: "ten" is not a quantity' in problem


@pytest.mark.parametrize("number", [b"1073741824", b"1.5e9", b"1e9"])
def test_a_quantity_may_be_a_plain_number(number: bytes) -> None:
    raw = a_config_text(sharing=mps(defaultPinnedDeviceMemoryLimit="here"))
    config = decode_config(raw.replace(b'"here"', number))
    assert isinstance(config, GpuConfig) and config.sharing and config.sharing.mps_config
    limit = config.sharing.mps_config.default_pinned_device_memory_limit
    assert limit == number.decode()


def test_null_means_absent() -> None:
    config = decode_config(a_config_text(sharing={"strategy": "MPS", "mpsConfig": None}))
    assert config == GpuConfig(sharing=GpuSharing(strategy="MPS"))


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "cannot parse JSON: Expecting value at line 1 column 1"),
        (b"{", "cannot parse JSON: Expecting property name"),
        (b"null", "expected a JSON object, got null"),
        (b"[1]", "expected a JSON object, got array"),
        (b'"x"', "expected a JSON object, got string"),
        (b"3", "expected a JSON object, got number"),
        (b"\xff\xfe", "cannot parse JSON: not UTF-8 at byte 0"),
        (b'{"kind": NaN}', "cannot parse JSON: NaN is not a JSON number"),
        (b"[" * 100_000, "cannot parse JSON: objects are nested too deeply"),
        (b"9" * 5000, "cannot parse JSON:"),
        (b"{}", "kind: kind is missing"),
        (b'{"kind": 1, "apiVersion": ""}', "kind: expected a string, got number"),
    ],
)
def test_what_is_no_object_of_ours_is_refused(raw: bytes, problem: str) -> None:
    assert problem_texts(raw)[0].startswith(problem)


def test_missing_kind_and_version_are_both_named() -> None:
    assert [text.partition(";")[0] for text in problem_texts({})] == [
        "kind: kind is missing",
        "apiVersion: apiVersion is missing",
    ]


def test_a_misspelt_kind_gets_the_nearest_one_named() -> None:
    [problem] = problem_texts(a_config_text("GPUConfig"))
    assert problem == (
        'kind: no kind "GPUConfig" is registered for version "resource.nvidia.com/v1beta1"; '
        "did you mean GpuConfig?"
    )


def test_another_version_is_not_registered() -> None:
    [problem] = problem_texts({"kind": "GpuConfig", "apiVersion": "gpu.nvidia.com/v1alpha1"})
    assert problem.startswith(
        'apiVersion: no kind "GpuConfig" is registered for version "gpu.nvidia.com/v1alpha1"'
    )


def test_a_custom_resource_is_no_device_config() -> None:
    [problem] = problem_texts(a_config_text("ComputeDomain"))
    assert problem.startswith("kind: ComputeDomain is not a device config")


def test_lenient_decoding_drops_unknown_fields_and_takes_the_last_of_equal_keys() -> None:
    raw = a_config_text(new=1, sharing={"strategy": "MPS"}).replace(
        b'"strategy": "MPS"', b'"strategy": "MPS", "strategy": "TimeSlicing"'
    )
    config = decode_config(raw, strict=False)
    assert config == GpuConfig(sharing=GpuSharing(strategy="TimeSlicing"))


def test_lenient_decoding_still_refuses_wrong_types() -> None:
    assert problem_texts(a_config_text(sharing=3), strict=False) == [
        "sharing: expected an object, got number"
    ]


texts = st.text(st.characters(codec="utf-8"), max_size=20)
limits = st.integers(0, 10**6).map(lambda number: f"{number}Mi")
mps_configs = st.builds(
    MpsConfig,
    default_active_thread_percentage=st.none() | st.integers(-(2**63), 2**63 - 1),
    default_pinned_device_memory_limit=st.none() | limits,
    default_per_device_pinned_memory_limit=st.dictionaries(texts, limits, max_size=3),
    multi_user=st.booleans(),
)
intervals = st.builds(TimeSlicingConfig, interval=st.none() | texts)
configs: st.SearchStrategy[OpaqueConfig] = st.one_of(
    st.builds(
        GpuConfig,
        sharing=st.none()
        | st.builds(
            GpuSharing,
            strategy=texts,
            time_slicing_config=st.none() | intervals,
            mps_config=st.none() | mps_configs,
        ),
    ),
    st.builds(
        MigDeviceConfig,
        sharing=st.none()
        | st.builds(MigDeviceSharing, strategy=texts, mps_config=st.none() | mps_configs),
    ),
    st.builds(
        VfioDeviceConfig,
        iommu=st.none()
        | st.builds(IommuConfig, backend_policy=texts, enable_api_device=st.booleans()),
    ),
    st.builds(ComputeDomainChannelConfig, domain_id=texts, allocation_mode=texts),
    st.builds(ComputeDomainDaemonConfig, domain_id=texts),
)


@given(configs, st.booleans())
def test_every_config_survives_a_round_trip(config: OpaqueConfig, strict: bool) -> None:
    encoded = encode_config(config)
    assert decode_config(json.dumps(encoded), strict=strict) == config
    assert decode_config(encoded, strict=strict) == config


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(json_values, st.sampled_from(["sharing", "iommu", "domainID", "allocationMode", "x"]))
def test_any_json_is_decoded_or_refused_with_a_reason(value: object, field: str) -> None:
    for kind in CONFIG_TYPES:
        try:
            decode_config(a_config_text(kind, **{field: value}))
        except ConfigError as error:
            assert error.problems and str(error)
