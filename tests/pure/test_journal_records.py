"""A record is read exactly as it was written, or it is damaged; nothing in between."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_nodeagent.claims.journal import Journal, decode, encode, salvage
from nvdra_nodeagent.claims.plan import Holdings, make_plan
from nvdra_nodeagent.claims.seal import Damaged
from nvdra_nodeagent.errors import Retryable
from nvdra_testing.claims import RULES, a_node_of, a_record, a_result, an_allocated, gpu_uuid

if TYPE_CHECKING:
    from pathlib import Path

    from nvdra_nodeagent.claims.record import Record


def a_prepared(*devices: str, name: str = "claim") -> Record:
    claim = an_allocated(*(devices or ("gpu-0", "gpu-1")), name=name)
    plan = make_plan(claim, inventory=a_node_of(4), holdings=Holdings(), rules=RULES)
    return a_record(claim, plan)


RECORD = a_prepared()
UID = RECORD.claim.uid
DATA = encode(RECORD)


def damage(data: bytes) -> Damaged:
    with pytest.raises(Damaged) as caught:
        decode(data, uid=UID)
    return caught.value


def resealed(version: int, body: bytes) -> bytes:
    """A whole file around any body, as a writer of that version would make it."""
    checksum = f"{zlib.crc32(body, zlib.crc32(b'%d:' % version)):08x}"
    return b'{"version":%d,"checksum":"%s","record":%s}' % (version, checksum.encode(), body)


def body_of(data: bytes) -> bytes:
    return data[data.index(b'"record":') + len(b'"record":') : -1]


def test_a_record_comes_back_equal() -> None:
    assert decode(DATA, uid=UID) == RECORD


def test_shares_and_admin_access_come_back_too() -> None:
    claim = an_allocated(a_result(shareID="s"), a_result("gpu-1", adminAccess=True))
    plan = make_plan(claim, inventory=a_node_of(2), holdings=Holdings(), rules=RULES)
    record = a_record(claim, plan)
    assert decode(encode(record), uid=UID) == record


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_is_noticed(bit: int) -> None:
    for position in range(len(DATA)):
        flipped = bytearray(DATA)
        flipped[position] ^= 1 << bit
        assert not damage(bytes(flipped)).newer


def test_every_truncation_is_noticed() -> None:
    for length in range(len(DATA)):
        damage(DATA[:length])


@given(st.binary(max_size=200))
def test_foreign_content_is_noticed(data: bytes) -> None:
    damage(data)


def test_appended_bytes_are_noticed() -> None:
    damage(DATA + b"\n")


def test_the_record_of_another_claim_is_noticed() -> None:
    assert "is of claim" in damage(encode(a_prepared(name="other"))).reason


def test_a_later_version_is_told_apart_from_damage() -> None:
    newer = damage(resealed(2, b'{"new":"form"}'))
    assert newer.newer
    assert "version 2" in newer.reason


def test_a_kind_of_step_that_is_not_known_counts_as_newer() -> None:
    body = body_of(DATA).replace(b'"kind":"cdi"', b'"kind":"warp"')
    assert damage(resealed(1, body)).newer


def test_fields_that_a_later_version_added_are_ignored() -> None:
    body = json.loads(body_of(DATA))
    body["added_later"] = 1
    assert decode(resealed(1, json.dumps(body, separators=(",", ":")).encode()), uid=UID) == RECORD


def test_the_rest_of_a_damaged_file_still_names_claim_devices_and_gpus() -> None:
    fence = salvage(UID, damage(b"#" + DATA[1:-40]))
    assert fence.claim == RECORD.claim
    assert fence.devices == ("gpu-0", "gpu-1")
    assert fence.gpu_uuids == (gpu_uuid(0), gpu_uuid(1))


def test_nothing_is_salvaged_from_the_whole_record_of_another_claim() -> None:
    other = "11111111-2222-3333-4444-555555555555"
    fence = salvage(other, Damaged("of another claim", data=DATA))
    assert (fence.claim, fence.devices, fence.gpu_uuids) == (None, (), ())
    assert salvage(UID, Damaged("could not be read", data=DATA)).devices == ("gpu-0", "gpu-1")


def test_nothing_is_salvaged_from_nothing() -> None:
    fence = salvage(UID, damage(b""))
    assert (fence.claim, fence.devices, fence.gpu_uuids) == (None, (), ())


def test_what_was_written_is_read_and_what_was_removed_is_not(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    inode = journal.write(RECORD)
    assert journal.entries() == {UID: inode}
    assert journal.read(UID) == RECORD
    journal.remove(UID)
    assert journal.read(UID) is None
    assert journal.entries() == {}


def test_every_write_is_a_new_entry(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.write(RECORD) != journal.write(RECORD)


def test_files_that_are_no_records_are_not_looked_at(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(RECORD)
    for name in (".x.json.1234.tmp", "notes.txt", "..json", "a b.json"):
        (journal.directory / name).write_text("x")
    assert set(journal.entries()) == {UID}


@pytest.mark.parametrize("uid", ["", "../x", "a/b", ".", "a\0b", "x" * 200])
def test_a_uid_that_is_no_file_name_never_becomes_one(uid: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a claim UID"):
        Journal(tmp_path).read(uid)


def test_a_directory_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.directory.write_text("in the way")
    with pytest.raises(Retryable, match=str(journal.directory)):
        journal.entries()
