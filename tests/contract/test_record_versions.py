"""Records that earlier versions wrote are read; those of later ones are refused and left alone."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from nvdra_nodeagent.claims.journal import VERSION, decode, encode
from nvdra_nodeagent.errors import Permanent, Retryable
from nvdra_testing.claims import ClaimNode, a_node_of, a_ref

SAMPLES = sorted((Path(__file__).parent / "records").glob("v*.json"))
UID = a_ref().uid
RIVAL = a_ref("rival")


def sealed(body: bytes, *, version: int) -> bytes:
    """A whole file as a writer of that version makes it."""
    checksum = f"{zlib.crc32(body, zlib.crc32(b'%d:' % version)):08x}"
    return b'{"version":%d,"checksum":"%s","record":%s}' % (version, checksum.encode(), body)


def test_there_are_samples_of_every_version() -> None:
    versions = {int(path.name[1:].partition("-")[0]) for path in SAMPLES}
    assert versions == set(range(1, VERSION + 1))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_a_record_of_each_version_is_read(sample: Path) -> None:
    record = decode(sample.read_bytes(), uid=UID)
    stored = json.loads(sample.read_bytes())["record"]
    assert record.claim.name == stored["claim"]["name"]
    assert [held.device for held in record.devices] == [d["device"] for d in stored["devices"]]
    assert [held.uuid for held in record.devices] == [d["uuid"] for d in stored["devices"]]
    assert [held.admin for held in record.devices] == [
        d.get("admin", False) for d in stored["devices"]
    ]
    assert len(record.steps) == len(stored["steps"])


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_what_was_read_is_written_in_the_present_form_and_read_again(sample: Path) -> None:
    record = decode(sample.read_bytes(), uid=UID)
    assert decode(encode(record), uid=UID) == record


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
async def test_a_claim_of_each_version_is_unprepared_without_a_rest(
    sample: Path, tmp_path: Path
) -> None:
    node = ClaimNode(tmp_path)
    node.record_path(a_ref()).parent.mkdir(parents=True)
    node.record_path(a_ref()).write_bytes(sample.read_bytes())
    node.cdi.root.mkdir()
    node.cdi.path(UID).write_text("gpu-0\n")
    assert await node.agent().unprepare([a_ref()]) == {UID: None}
    assert node.files() == []
    await node.close()


NEWER = {
    "a later version": sealed(
        b'{"claim":{"namespace":"d","name":"c"},"device":"gpu-0"}', version=9
    ),
    "another kind of step": sealed(
        b'{"claim":{"namespace":"d","name":"c","uid":"%s"},"boot_id":"b","allocation":"a",'
        b'"devices":[{"request":"r","pool":"p","device":"gpu-0","type":"gpu","uuid":"GPU-0",'
        b'"extent":{"gpu_uuid":"GPU-0"},"cdi_ids":[]}],"steps":[{"step":{"kind":"warp"}}]}'
        % UID.encode(),
        version=1,
    ),
}


@pytest.mark.parametrize("content", NEWER.values(), ids=NEWER)
async def test_what_a_later_version_wrote_is_refused_politely(
    content: bytes, tmp_path: Path
) -> None:
    node = ClaimNode(tmp_path, inventory=a_node_of(2))
    path = node.record_path(a_ref())
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    agent = node.agent()
    answer = (await agent.prepare([node.api.add(a_ref())]))[UID]
    assert isinstance(answer, Permanent)
    assert answer.reason == "RecordTooNew"
    assert "install that version" in answer.hint
    await agent.sweep()
    assert path.read_bytes() == content
    await node.close()


@pytest.mark.parametrize("content", NEWER.values(), ids=NEWER)
async def test_what_a_later_version_granted_is_granted_to_nobody_else(
    content: bytes, tmp_path: Path
) -> None:
    node = ClaimNode(tmp_path, inventory=a_node_of(2))
    path = node.record_path(a_ref())
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    agent = node.agent()
    other = node.api.add(a_ref("other"), "gpu-1")
    answers = await agent.prepare([node.api.add(RIVAL, "gpu-0"), other])
    refused = answers[RIVAL.uid]
    assert isinstance(refused, Retryable)
    assert refused.reason == "DeviceFenced"
    assert isinstance(answers[other.uid], tuple)
    await node.close()
