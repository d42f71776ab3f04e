"""CDI documents: the text, the version, the rules."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_nodeagent.cdi.document import (
    NO_EDITS,
    CdiSpec,
    ContainerEdits,
    DeviceEntry,
    DeviceNodeEdit,
    HookEdit,
    MountEdit,
    decode_spec,
    encode_spec,
    smallest_version,
)
from nvdra_nodeagent.cdi.names import GPU_CLAIM_KIND, cdi_device_id, cdi_device_name
from nvdra_nodeagent.cdi.validation import problems_of
from nvdra_sim.cluster.kubelet.cdi_spec import parse_document

ENV = ContainerEdits(env=("A=b",))


def a_spec(**fields: Any) -> CdiSpec:
    fields.setdefault("devices", (DeviceEntry(name="u-gpu-0", container_edits=ENV),))
    return CdiSpec(**{"cdi_version": "0.3.0", "kind": GPU_CLAIM_KIND} | fields)


def with_edits(**fields: Any) -> CdiSpec:
    return a_spec(devices=(DeviceEntry(name="u-gpu-0", container_edits=ContainerEdits(**fields)),))


def test_ids_are_those_that_running_pods_hold() -> None:
    assert cdi_device_id("uid", "gpu-0") == "k8s.gpu.nvidia.com/claim=uid-gpu-0"
    assert cdi_device_name("uid", "gpu-0", "share") == "uid-gpu-0-share"


def test_the_text_is_yaml_with_a_document_start() -> None:
    text = encode_spec(a_spec()).decode()
    assert text.startswith('---\n{\n  "cdiVersion": "0.3.0",\n  "kind": "k8s.gpu.nvidia.com/claim"')
    assert text.endswith("}\n")


def test_a_zero_is_written_and_an_absent_field_is_not() -> None:
    node = DeviceNodeEdit(path="/dev/nvidia0", minor=0)
    text = encode_spec(with_edits(device_nodes=(node,)))
    assert b'"minor": 0' in text
    assert b"major" not in text
    assert b"hostPath" not in text


@pytest.mark.parametrize(
    ("edits", "name", "version"),
    [
        (ENV, "u-gpu-0", "0.3.0"),
        (
            ContainerEdits(mounts=(MountEdit(host_path="/a", container_path="/a", type="tmpfs"),)),
            "u-gpu-0",
            "0.4.0",
        ),
        (ENV, "0-gpu-0", "0.5.0"),
        (
            ContainerEdits(device_nodes=(DeviceNodeEdit(path="/dev/a", host_path="/b"),)),
            "u-gpu-0",
            "0.5.0",
        ),
        (ContainerEdits(additional_gids=(44,)), "u-gpu-0", "0.7.0"),
    ],
)
def test_the_version_is_the_smallest_that_knows_everything(
    edits: ContainerEdits, name: str, version: str
) -> None:
    devices = (DeviceEntry(name=name, container_edits=edits),)
    assert smallest_version(NO_EDITS, devices, GPU_CLAIM_KIND) == version
    document = parse_document(encode_spec(a_spec(cdi_version=version, devices=devices)))
    assert document.cdi_version == version


def test_a_dot_in_the_class_needs_a_newer_version() -> None:
    assert smallest_version(ENV, (), "vendor.com/class.x") == "0.6.0"


def test_common_edits_count_for_the_version() -> None:
    assert smallest_version(ContainerEdits(additional_gids=(1,)), (), GPU_CLAIM_KIND) == "0.7.0"


def test_adding_edits_keeps_each_once() -> None:
    assert ENV + ENV == ENV
    assert not NO_EDITS
    both = ENV + ContainerEdits(env=("C=d", "A=b"))
    assert both.env == ("A=b", "C=d")


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (a_spec(kind="claim"), "kind 'claim'"),
        (a_spec(kind="1vendor/claim"), "kind '1vendor/claim'"),
        (a_spec(devices=()), "no devices"),
        (a_spec(devices=(DeviceEntry(name="-x", container_edits=ENV),)), "not a CDI device name"),
        (a_spec(devices=(DeviceEntry(name="x", container_edits=NO_EDITS),)), "no edits"),
        (a_spec(devices=(DeviceEntry(name="x", container_edits=ENV),) * 2), "named twice"),
        (a_spec(container_edits=ContainerEdits(env=("=b",))), "containerEdits: env '=b'"),
        (with_edits(env=("novalue",)), "env 'novalue' is not NAME=value"),
        (with_edits(device_nodes=(DeviceNodeEdit(path=""),)), "device node ''"),
        (with_edits(device_nodes=(DeviceNodeEdit(path="/dev/a", type="x"),)), "device node"),
        (with_edits(device_nodes=(DeviceNodeEdit(path="/dev/a", permissions="rx"),)), "device n"),
        (with_edits(mounts=(MountEdit(host_path="", container_path="/a"),)), "mount '' at '/a'"),
        (with_edits(hooks=(HookEdit(hook_name="later", path="/a"),)), "hook 'later' '/a'"),
        (with_edits(hooks=(HookEdit(hook_name="prestart", path=""),)), "hook 'prestart' ''"),
    ],
)
def test_what_libraries_refuse_is_found(spec: CdiSpec, problem: str) -> None:
    assert any(problem in found for found in problems_of(spec))


def test_a_good_document_has_no_problems() -> None:
    assert problems_of(a_spec()) == []


def test_unknown_fields_of_newer_programs_are_dropped() -> None:
    text = encode_spec(a_spec()).replace(b'"kind"', b'"new": {}, "kind"')
    assert decode_spec(text) == a_spec()


TOO_DEEP = pytest.param(b'{"devices":' + 9999 * b"[", id="too deep")


@pytest.mark.parametrize(
    "content", [b"", b"---\n", b"---\ncdiVersion: 0.5.0\n", b"[]", b"{}", TOO_DEEP]
)
def test_other_content_is_no_document(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_spec(content)


words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
tuples = st.lists(words, max_size=3).map(tuple)
numbers = st.none() | st.integers(0, 2**20)
edits = st.builds(
    ContainerEdits,
    env=tuples,
    device_nodes=st.lists(
        st.builds(
            DeviceNodeEdit, path=words, host_path=words, major=numbers, minor=numbers, gid=numbers
        ),
        max_size=2,
    ).map(tuple),
    mounts=st.lists(
        st.builds(MountEdit, host_path=words, container_path=words, options=tuples), max_size=2
    ).map(tuple),
    hooks=st.lists(st.builds(HookEdit, hook_name=words, path=words, args=tuples), max_size=2).map(
        tuple
    ),
    additional_gids=st.lists(st.integers(0, 2**31), max_size=3).map(tuple),
)


@given(edits, st.lists(st.builds(DeviceEntry, name=words, container_edits=edits), max_size=3))
def test_a_document_is_read_back_as_written(
    common: ContainerEdits, devices: list[DeviceEntry]
) -> None:
    spec = a_spec(container_edits=common, devices=tuple(devices))
    assert decode_spec(encode_spec(spec)) == spec
