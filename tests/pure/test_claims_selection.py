"""Which config a device gets: class before claim, later wins, named or for all, kind must fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_api import FeatureGates, GpuConfig, MigDeviceConfig
from nvdra_nodeagent.claims.allocation import ConfigEntry, DeviceResult
from nvdra_nodeagent.claims.selection import select_configs
from nvdra_nodeagent.errors import Permanent
from nvdra_testing.claims import DRIVER, a_config_entry, a_result
from nvdra_testing.configs import SHARING_ON, a_config, mps, time_slicing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvdra_api import OpaqueConfig
    from nvdra_kube.api import Body


def select(
    entries: Sequence[Body],
    *,
    request: str = "gpu",
    type_: str = "gpu",
    gates: FeatureGates = SHARING_ON,
) -> OpaqueConfig:
    result = msgspec.convert(a_result(request=request), DeviceResult)
    parsed = msgspec.convert(list(entries), list[ConfigEntry])
    return select_configs(parsed, [(result, type_)], driver=DRIVER, gates=gates)[0]


def slices(interval: str, **extra: Any) -> Body:
    """An entry recognisable by its interval."""
    return a_config_entry(a_config(sharing=time_slicing(interval=interval)), **extra)


def interval(config: OpaqueConfig) -> str | None:
    assert isinstance(config, GpuConfig)
    if config.sharing is None:
        return None
    assert config.sharing.time_slicing_config
    return config.sharing.time_slicing_config.interval


def refusal(entries: Sequence[Body], **kwargs: Any) -> Permanent:
    with pytest.raises(Permanent) as caught:
        select(entries, **kwargs)
    return caught.value


def test_without_configs_the_default_of_the_device_type_is_used() -> None:
    assert select([]) == GpuConfig()
    assert select([], type_="mig") == MigDeviceConfig()


def test_the_later_of_two_entries_wins() -> None:
    assert interval(select([slices("Short"), slices("Long")])) == "Long"


def test_the_claim_beats_the_class_whatever_the_order() -> None:
    entries = [slices("Long"), slices("Short", source="FromClass")]
    assert interval(select(entries)) == "Long"


def test_a_named_entry_beats_an_unnamed_one_only_by_position() -> None:
    named, unnamed = slices("Short", requests=["gpu"]), slices("Long")
    assert interval(select([named, unnamed])) == "Long"
    assert interval(select([unnamed, named])) == "Short"


def test_an_entry_for_another_request_is_passed_over() -> None:
    assert interval(select([slices("Short"), slices("Long", requests=["other"])])) == "Short"


@pytest.mark.parametrize("named", ["main", "main/sub"])
def test_an_entry_naming_the_main_request_matches_its_sub_requests(named: str) -> None:
    assert interval(select([slices("Long", requests=[named])], request="main/sub")) == "Long"


def test_an_entry_naming_one_sub_request_does_not_match_another() -> None:
    assert interval(select([slices("Long", requests=["main/a"])], request="main/b")) is None


def test_a_sub_request_is_not_a_name_of_the_main_request() -> None:
    assert interval(select([slices("Long", requests=["main/a"])], request="main")) is None


def test_configs_of_other_drivers_are_ignored_even_if_they_make_no_sense() -> None:
    assert select([a_config_entry({"no": "kind"}, driver="nic.example.com")]) == GpuConfig()


def test_an_unnamed_entry_of_another_kind_is_passed_over() -> None:
    entries = [slices("Short"), a_config_entry(a_config("MigDeviceConfig", sharing=mps()))]
    assert interval(select(entries)) == "Short"


def test_a_named_entry_of_another_kind_names_kind_device_type_and_request() -> None:
    error = refusal([a_config_entry(a_config("MigDeviceConfig"), requests=["gpu"])])
    assert error.reason == "ConfigMismatch"
    for part in ("MigDeviceConfig", "gpu-0", "type gpu", "request gpu"):
        assert part in str(error)


def test_a_channel_config_for_all_is_ignored_and_one_for_a_gpu_is_refused() -> None:
    channel = a_config("ComputeDomainChannelConfig", domainID="x")
    assert select([a_config_entry(channel)]) == GpuConfig()
    assert refusal([a_config_entry(channel, requests=["gpu"])]).reason == "ConfigMismatch"


def test_an_unused_config_has_to_be_right_too() -> None:
    wrong = a_config_entry(a_config(sharng={}), requests=["other"])
    assert 'unknown field "sharng"' in str(refusal([wrong, slices("Long")]))


def test_every_wrong_config_is_named_once() -> None:
    wrong = a_config_entry(a_config(one=1), requests=["a", "b"])
    text = str(refusal([wrong, wrong, a_config_entry(a_config(two=2), source="FromClass")]))
    assert text.count('unknown field "one"') == 1
    assert 'device class is invalid: strict decoding error: unknown field "two"' in text


def test_a_strategy_whose_gate_is_off_names_the_gate() -> None:
    assert '"TimeSlicingSettings"' in str(refusal([slices("Long")], gates=FeatureGates()))


@pytest.mark.parametrize("parameters", [None, "text", [], {}, {"kind": "GpuConfig"}])
def test_parameters_that_are_no_config_are_refused(parameters: Any) -> None:
    assert refusal([a_config_entry(parameters)]).reason == "InvalidConfig"


def test_an_entry_that_is_not_opaque_is_refused() -> None:
    assert "not opaque" in str(refusal([{"source": "FromClaim"}]))


def test_an_unknown_source_is_refused_only_for_this_driver() -> None:
    assert "FromMars" in str(refusal([slices("Long", source="FromMars")]))
    foreign = a_config_entry({}, source="FromMars", driver="nic.example.com")
    assert select([foreign]) == GpuConfig()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["FromClass", "FromClaim"]),
            st.sampled_from([[], ["main"], ["main/sub"], ["other"], ["main", "other"]]),
            st.sampled_from(["Default", "Short", "Medium", "Long"]),
        ),
        max_size=8,
    )
)
def test_selection_is_the_last_match_in_order_of_precedence(
    given_entries: list[tuple[str, list[str], str]],
) -> None:
    entries = [slices(value, source=s, requests=names) for s, names, value in given_entries]
    ranked = [e for e in given_entries if e[0] == "FromClass"]
    ranked += [e for e in given_entries if e[0] == "FromClaim"]
    matching = [value for _, names, value in ranked if not names or {"main", "main/sub"} & {*names}]
    expected = matching[-1] if matching else None
    assert interval(select(entries, request="main/sub")) == expected
