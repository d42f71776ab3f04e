"""Checkpoints are read as they were written, claim by claim, and written so that they are read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_nodeagent.checkpoint.checksum import checksum, fnv1a
from nvdra_nodeagent.checkpoint.document import (
    ClaimEntry,
    ConfigState,
    GpuInfo,
    Group,
    KubeletDevice,
    PreparedEntry,
    PreparedGpu,
    decode_checkpoint,
    encode_checkpoint,
)
from nvdra_testing.checkpoints import (
    UID,
    a_checkpoint,
    a_completed,
    a_gpu_device,
    a_group,
    a_mig_device,
    a_started,
    a_vfio_device,
    checksum_of,
    go_json,
)
from nvdra_testing.claims import BOOT, a_config_entry, a_mig, a_ref, a_result, gpu_uuid

OTHER = a_ref("other").uid
CLAIMS = {
    UID: a_completed(a_group(a_gpu_device(0), timeSliceApplied=True)),
    OTHER: a_started(a_result("gpu-1"), name="other"),
}


@pytest.mark.parametrize(
    ("text", "expected"), [(b"", 0x811C9DC5), (b"a", 0xE40C292C), (b"foobar", 0xBF9CF968)]
)
def test_the_hash_is_that_of_its_published_examples(text: bytes, expected: int) -> None:
    assert fnv1a(text) == expected


def test_the_checksum_is_over_the_bytes_as_text() -> None:
    assert checksum(b"{}") == fnv1a(b"([]uint8)[123 125]")


def test_both_sections_of_a_file_are_verified() -> None:
    checkpoint = decode_checkpoint(a_checkpoint(CLAIMS))
    assert checkpoint.sealed
    assert (checkpoint.boot_id, set(checkpoint.claims)) == (BOOT, {UID, OTHER})
    assert checkpoint.claims[OTHER].state == "PrepareStarted"


def test_a_file_with_the_first_section_only_has_completed_claims() -> None:
    checkpoint = decode_checkpoint(a_checkpoint(CLAIMS, versions=("v1",)))
    assert checkpoint.sealed
    assert {uid: claim.state for uid, claim in checkpoint.claims.items()} == {
        UID: "PrepareCompleted"
    }
    assert checkpoint.boot_id == ""


def test_a_file_of_no_claims_is_read() -> None:
    checkpoint = decode_checkpoint(a_checkpoint({}))
    assert (checkpoint.claims, checkpoint.sealed) == ({}, True)


def test_text_that_is_special_in_html_is_verified_too() -> None:
    parameters = {"note": "a<b && c>d \u2028"}
    claim = a_completed(a_group(a_gpu_device()), config=[a_config_entry(parameters)])
    checkpoint = decode_checkpoint(a_checkpoint({UID: claim}))
    assert checkpoint.sealed
    (entry,) = checkpoint.claims[UID].status["allocation"]["devices"]["config"]
    assert entry["opaque"]["parameters"] == parameters


@pytest.mark.parametrize("where", [("checksum",), ("v2", "checksum")])
def test_a_wrong_checksum_is_noticed_and_the_claims_are_read(where: tuple[str, ...]) -> None:
    document = json.loads(a_checkpoint(CLAIMS))
    section = document
    for key in where[:-1]:
        section = section[key]
    section[where[-1]] += 1
    checkpoint = decode_checkpoint(go_json(document))
    assert not checkpoint.sealed
    assert set(checkpoint.claims) == {UID, OTHER}


@given(at=st.integers(0), bits=st.integers(1, 255))
def test_a_changed_byte_is_never_taken_for_a_sealed_file(at: int, bits: int) -> None:
    data = a_checkpoint(CLAIMS)
    at %= len(data)
    changed = data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]
    try:
        checkpoint = decode_checkpoint(changed)
    except ValueError:
        return
    same = decode_checkpoint(data)
    assert not checkpoint.sealed or checkpoint == same


def test_a_field_that_only_later_versions_know_breaks_nothing() -> None:
    document = json.loads(a_checkpoint(CLAIMS))
    v2 = {**document["v2"], "checksum": 0, "later": {"a": 1}}
    document["v2"] = {**v2, "checksum": checksum_of(v2)}
    checkpoint = decode_checkpoint(go_json(document))
    assert checkpoint.sealed
    assert set(checkpoint.claims) == {UID, OTHER}


def test_white_space_does_not_break_the_seal() -> None:
    document = json.loads(a_checkpoint(CLAIMS))
    assert decode_checkpoint(json.dumps(document, indent=2).encode()).sealed


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"checksum":1,"v9":{"preparedClaims":{}}}', b'{"v1":3}'],
)
def test_what_is_no_version_of_the_format_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="checkpoint"):
        decode_checkpoint(data)


@pytest.mark.parametrize(
    "puzzle",
    [
        {"checkpointState": "PrepareForgotten", "status": {}},
        {"checkpointState": "PrepareCompleted", "status": {}, "preparedDevices": [{"devices": 3}]},
        {"status": {}},
        a_completed(a_group(a_gpu_device(), laterApplied=True)),
    ],
)
def test_a_claim_that_is_not_understood_is_a_puzzle_and_the_others_are_read(puzzle: object) -> None:
    claims = json.loads(a_checkpoint(CLAIMS))["v2"]["preparedClaims"]
    v2 = {"checksum": 0, "preparedClaims": {**claims, "puzzle": puzzle}, "nodeBootID": BOOT}
    v2["checksum"] = checksum_of(v2)
    checkpoint = decode_checkpoint(go_json({"checksum": 0, "v2": v2}))
    assert set(checkpoint.puzzles) == {"puzzle"}
    assert set(checkpoint.claims) == {UID, OTHER}


@pytest.mark.parametrize("sealed", [True, False])
def test_an_aborted_claim_counts_only_where_its_state_may_be_damaged(sealed: bool) -> None:
    aborted = {"checkpointState": "PrepareAborted", "status": {}}
    data = a_checkpoint({UID: aborted}, boot_id=BOOT)
    checkpoint = decode_checkpoint(data if sealed else data.replace(b"{}", b'{"a":1}'))
    assert checkpoint.sealed is sealed
    assert (UID in checkpoint.claims) is not sealed


def test_every_kind_of_device_is_told_apart() -> None:
    mig = a_mig()
    groups = [a_group(a_gpu_device()), a_group(a_mig_device(mig)), a_group(a_vfio_device())]
    entry = decode_checkpoint(a_checkpoint({UID: a_completed(*groups)})).claims[UID]
    devices = [each.device() for group in entry.groups or () for each in group.devices or ()]
    names = [device.device.name for device in devices if device]
    assert names == ["gpu-0", mig.name, "gpu-vfio-0"]


def an_exported() -> dict[str, ClaimEntry]:
    device = KubeletDevice(requests=("gpu",), pool="node-a", name="gpu-0", cdi_ids=("a=b<c",))
    group = Group(
        (PreparedEntry(gpu=PreparedGpu(GpuInfo(gpu_uuid(0)), device)),),
        ConfigState(time_slice_applied=True),
    )
    return {UID: ClaimEntry(state="PrepareCompleted", status={}, groups=(group,))}


def test_what_is_written_has_the_checksums_that_its_readers_compute() -> None:
    document = json.loads(encode_checkpoint(an_exported(), boot_id=BOOT))
    v2 = document.pop("v2")
    assert document["checksum"] == checksum_of({**document, "checksum": 0})
    assert v2["checksum"] == checksum_of({**v2, "checksum": 0})


def test_what_is_written_is_read_again() -> None:
    written = decode_checkpoint(encode_checkpoint(an_exported(), boot_id=BOOT))
    assert (written.sealed, written.claims) == (True, an_exported())


def test_absent_devices_are_null_and_the_rest_is_left_out() -> None:
    document = json.loads(encode_checkpoint(an_exported(), boot_id=BOOT))
    (device,) = document["v1"]["preparedClaims"][UID]["preparedDevices"][0]["devices"]
    assert set(device) == {"gpu", "mig"}
    assert device["mig"] is None
    assert set(device["gpu"]["device"]) == {"Requests", "PoolName", "DeviceName", "CDIDeviceIDs"}
