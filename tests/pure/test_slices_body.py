"""ResourceSlice bodies: one meaning in each version of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nvdra_kube.quantity import Quantity
from nvdra_nodeagent.slices.body import (
    API_VERSIONS,
    comparable,
    device_body,
    missing_fields,
    slice_spec,
)
from nvdra_nodeagent.slices.model import SliceContent, SliceDevice

if TYPE_CHECKING:
    from nvdra_kube.api import Body

DEVICE = SliceDevice(
    "gpu-0", {"type": "gpu", "id": 3, "on": True}, {"memory": Quantity.binary(40 * 1024**3)}
)


def spec_of(*devices: SliceDevice, version: str = "v1", generation: int = 1) -> Body:
    return slice_spec(
        SliceContent(devices),
        version=version,
        driver="gpu.nvidia.com",
        node="node-1",
        pool="node-1",
        generation=generation,
        slice_count=1,
    )


def test_a_spec_names_driver_node_and_pool() -> None:
    assert spec_of(generation=4) == {
        "driver": "gpu.nvidia.com",
        "nodeName": "node-1",
        "pool": {"name": "node-1", "generation": 4, "resourceSliceCount": 1},
    }


def test_each_kind_of_value_has_its_own_field() -> None:
    body = device_body(DEVICE, version="v1")
    assert body["attributes"] == {"id": {"int": 3}, "on": {"bool": True}, "type": {"string": "gpu"}}


def test_the_oldest_version_wraps_what_a_device_has() -> None:
    plain, wrapped = (device_body(DEVICE, version=version) for version in ("v1beta2", "v1beta1"))
    assert wrapped == {"name": "gpu-0", "basic": {k: v for k, v in plain.items() if k != "name"}}


@pytest.mark.parametrize("version", API_VERSIONS)
def test_every_version_means_the_same(version: str) -> None:
    assert comparable(spec_of(DEVICE, version=version)) == comparable(spec_of(DEVICE))


def test_the_generation_is_no_part_of_the_meaning() -> None:
    assert comparable(spec_of(DEVICE, generation=1)) == comparable(spec_of(DEVICE, generation=2))


@pytest.mark.parametrize("text", ["40960Mi", "42949672960"])
def test_a_quantity_means_its_amount(text: str) -> None:
    other = spec_of(DEVICE)
    other["devices"][0]["capacity"]["memory"]["value"] = text
    assert comparable(other) == comparable(spec_of(DEVICE))


def test_empty_fields_are_as_good_as_absent_ones() -> None:
    other = spec_of(DEVICE) | {"sharedCounters": [], "nodeSelector": None}
    other["devices"][0]["taints"] = []
    assert comparable(other) == comparable(spec_of(DEVICE))


def test_another_attribute_is_another_meaning() -> None:
    other = spec_of(DEVICE)
    other["devices"][0]["attributes"]["id"] = {"int": 4}
    assert comparable(other) != comparable(spec_of(DEVICE))


def test_a_broken_quantity_is_compared_as_it_stands() -> None:
    other = spec_of(DEVICE)
    other["devices"][0]["capacity"]["memory"] = {"value": "lots"}
    assert comparable(other) != comparable(spec_of(DEVICE))


def test_a_dropped_field_is_named_with_its_device() -> None:
    sent, stored = spec_of(DEVICE), spec_of(DEVICE)
    sent["devices"][0]["taints"] = [{"key": "bad", "effect": "NoSchedule"}]
    missing = missing_fields(comparable(sent), comparable(stored))
    assert missing == ["devices[gpu-0].taints"]


def test_what_a_server_adds_is_not_missing() -> None:
    stored = spec_of(DEVICE)
    stored["devices"][0]["added"] = "by the server"
    assert missing_fields(comparable(spec_of(DEVICE)), comparable(stored)) == []
