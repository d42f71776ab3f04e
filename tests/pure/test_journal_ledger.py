"""The ledger is the journal in memory: of every agent, with damage kept to single claims."""

from __future__ import annotations

import resource
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from traceback import walk_stack
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.claims.journal import Journal, encode
from nvdra_nodeagent.claims.ledger import Ledger
from nvdra_nodeagent.claims.plan import Holdings, make_plan
from nvdra_nodeagent.errors import Retryable
from nvdra_testing.claims import RULES, a_node_of, a_record, an_allocated, gpu_uuid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nvdra_nodeagent.claims.journal import Stamp
    from nvdra_nodeagent.claims.record import Record


def a_prepared(device: str = "gpu-0", *, name: str = "claim") -> Record:
    claim = an_allocated(device, name=name)
    plan = make_plan(claim, inventory=a_node_of(4), holdings=Holdings(), rules=RULES)
    return a_record(claim, plan)


ONE, TWO = a_prepared("gpu-0", name="one"), a_prepared("gpu-1", name="two")
UID = ONE.claim.uid
TOO_DEEP = pytest.param(
    b'{"version":1,"checksum":"00000000","record":' + 9999 * b"[", id="too deep"
)


class Artefacts:
    """Traces of claims: the devices that each shows."""

    def __init__(self, devices: dict[str, tuple[str, ...]]) -> None:
        self.devices = devices

    def claim_uids(self) -> list[str]:
        return list(self.devices)

    def device_names(self, claim_uid: str) -> tuple[str, ...]:
        return self.devices.get(claim_uid, ())


def a_ledger(root: Path, **traces: tuple[str, ...]) -> Ledger:
    ledger = Ledger(Journal(root), traces=Artefacts(traces))
    ledger.refresh()
    return ledger


@contextmanager
def no_file_descriptors_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path)
    journal.write(ONE)
    journal.write(TWO)
    return journal


def test_a_process_without_file_descriptors_calls_no_record_damaged(journal: Journal) -> None:
    with no_file_descriptors_left(), pytest.raises(Retryable, match=f"{UID}.*open files"):
        journal.read(UID)
    assert journal.read(UID) == ONE


def test_records_are_there_after_a_restart(journal: Journal, tmp_path: Path) -> None:
    ledger = a_ledger(tmp_path)
    assert ledger.record(UID) == ONE
    assert ledger.device_counts() == {"gpu": 2}


def test_what_another_agent_writes_and_removes_is_seen(tmp_path: Path) -> None:
    ours, theirs = a_ledger(tmp_path), a_ledger(tmp_path)
    theirs.commit(ONE)
    ours.refresh()
    assert ours.record(UID) == ONE
    changed = a_prepared("gpu-3", name="one")
    theirs.commit(changed)
    ours.refresh()
    assert ours.record(UID) == changed
    theirs.release(UID)
    ours.refresh()
    assert ours.records() == ()


def test_a_file_written_over_in_place_is_noticed(tmp_path: Path) -> None:
    ledger = a_ledger(tmp_path)
    ledger.commit(ONE)
    (tmp_path / "claims" / f"{UID}.json").write_bytes(b"#")
    ledger.refresh()
    assert ledger.records() == ()


def test_unchanged_files_are_not_read_again(journal: Journal, tmp_path: Path) -> None:
    ledger = a_ledger(tmp_path)
    record = ledger.record(UID)
    ledger.refresh()
    assert ledger.record(UID) is record


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", encode(ONE)[:-9], encode(TWO), TOO_DEEP]
)
def test_a_damaged_record_is_moved_aside_alone(
    content: bytes, journal: Journal, tmp_path: Path
) -> None:
    (journal.directory / f"{UID}.json").write_bytes(content)
    ledger = a_ledger(tmp_path)
    assert ledger.records() == (TWO,)
    assert [fence.uid for fence in ledger.fences()] == [UID]
    assert (journal.quarantine_directory / f"{UID}.json").read_bytes() == content
    assert (journal.quarantine_directory / f"{UID}.reason").read_text().strip()


def test_an_unreadable_record_is_moved_aside_alone(journal: Journal, tmp_path: Path) -> None:
    path = journal.directory / f"{UID}.json"
    path.unlink()
    path.mkdir()
    ledger = a_ledger(tmp_path)
    assert ledger.records() == (TWO,)
    assert "cannot be read" in ledger.fences()[0].reason


def test_a_fence_outlives_restarts_until_it_is_settled(journal: Journal, tmp_path: Path) -> None:
    (journal.directory / f"{UID}.json").write_bytes(encode(ONE)[:-9])
    a_ledger(tmp_path)
    ledger = a_ledger(tmp_path)
    fence = ledger.fence(UID)
    assert fence
    assert (fence.devices, fence.gpu_uuids) == (("gpu-0",), (gpu_uuid(0),))
    ledger.release(UID)
    assert a_ledger(tmp_path).fences() == ()
    assert list(journal.quarantine_directory.iterdir()) == []


def test_a_new_record_settles_the_fence(journal: Journal, tmp_path: Path) -> None:
    (journal.directory / f"{UID}.json").write_bytes(b"")
    ledger = a_ledger(tmp_path)
    ledger.commit(ONE)
    assert ledger.fences() == ()
    assert a_ledger(tmp_path).record(UID) == ONE


def test_a_fence_is_settled_by_whoever_sees_the_new_record_first(
    journal: Journal, tmp_path: Path
) -> None:
    (tmp_path / "claims" / f"{UID}.json").write_bytes(b"{}")
    ledger = a_ledger(tmp_path)
    journal.write(ONE)  # by a thread that has not told the ledger yet, or by another agent
    ledger.refresh()
    assert ledger.fences() == ()
    assert not journal.is_quarantined(UID)


class HangingJournal(Journal):
    """Listing it takes until `go_on`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.listing, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.listed = 0

    def entries(self) -> dict[str, Stamp]:
        self.listed += 1
        self.listing.set()
        self.go_on.wait()
        return super().entries()


def test_a_glance_does_not_wait_for_a_disk_that_hangs(journal: Journal, tmp_path: Path) -> None:
    hanging = HangingJournal(tmp_path)
    ledger = Ledger(hanging, traces=Artefacts({}))
    ledger.refresh()
    hanging.listing.clear()
    hanging.go_on.clear()
    thread = threading.Thread(target=ledger.refresh)
    thread.start()
    hanging.listing.wait()
    assert ledger.glance_at(UID) == ONE
    assert set(ledger.glance_at_records()) == {ONE, TWO}
    assert ledger.device_counts() == {"gpu": 2}
    hanging.go_on.set()
    thread.join()


def threads_in(function: Callable[..., object]) -> int:
    """How many are in this function at the moment, waiting for locks included."""
    frames = [frame for top in sys._current_frames().values() for frame, _ in walk_stack(top)]
    return sum(frame.f_code is function.__code__ for frame in frames)


def test_threads_that_ask_during_a_listing_share_the_next_one(
    journal: Journal, tmp_path: Path
) -> None:
    hanging = HangingJournal(tmp_path)
    ledger = Ledger(hanging, traces=Artefacts({}))
    hanging.go_on.clear()
    with ThreadPoolExecutor(9) as threads:
        futures = [threads.submit(ledger.refresh)]
        hanging.listing.wait()
        futures += [threads.submit(ledger.refresh) for _ in range(8)]
        while threads_in(Ledger.refresh) < 9:
            time.sleep(0.001)
        journal.remove(UID)
        hanging.go_on.set()
        for future in futures:
            future.result()
    assert hanging.listed < 9
    ledger.refresh()
    assert ledger.record(UID) is None


def test_a_listing_that_failed_serves_nobody(journal: Journal, tmp_path: Path) -> None:
    ledger = a_ledger(tmp_path)
    with no_file_descriptors_left(), pytest.raises(Retryable):
        ledger.refresh()
    journal.remove(UID)
    ledger.refresh()
    assert ledger.record(UID) is None


def test_a_good_record_outranks_a_quarantined_one(journal: Journal, tmp_path: Path) -> None:
    journal.set_aside(UID, "damaged")
    journal.write(ONE)  # and died before settling
    ledger = a_ledger(tmp_path)
    assert (ledger.record(UID), ledger.fences()) == (ONE, ())
    assert not journal.is_quarantined(UID)


def test_artefacts_add_to_what_a_damaged_record_tells(journal: Journal, tmp_path: Path) -> None:
    (journal.directory / f"{UID}.json").write_bytes(b"")
    (fence,) = a_ledger(tmp_path, **{UID: ("gpu-0",)}).fences()
    assert fence.devices == ("gpu-0",)


def test_artefacts_without_a_record_fence_their_devices(tmp_path: Path) -> None:
    (fence,) = a_ledger(tmp_path, **{UID: ("gpu-2",)}).fences()
    assert (fence.uid, fence.devices, fence.reason) == (UID, ("gpu-2",), "record missing")


def test_what_another_agent_moved_aside_stays_fenced(journal: Journal, tmp_path: Path) -> None:
    ours = a_ledger(tmp_path)
    journal.set_aside(UID, "damaged")
    ours.refresh()
    (fence,) = ours.fences()
    assert (fence.devices, fence.claim) == (("gpu-0",), ONE.claim)


def test_what_was_known_of_a_record_outlives_its_damage(journal: Journal, tmp_path: Path) -> None:
    ledger = a_ledger(tmp_path)
    path = journal.directory / f"{UID}.json"
    path.unlink()
    path.write_bytes(b"")
    ledger.refresh()
    (fence,) = ledger.fences()
    assert (fence.devices, fence.claim) == (("gpu-0",), ONE.claim)


def test_a_record_that_vanished_under_living_artefacts_is_fenced(
    journal: Journal, tmp_path: Path
) -> None:
    ledger = a_ledger(tmp_path, **{UID: ("gpu-0",)})
    (journal.directory / f"{UID}.json").unlink()
    ledger.refresh()
    assert [(fence.uid, fence.reason) for fence in ledger.fences()] == [(UID, "record missing")]


def test_a_newer_record_is_fenced_and_left_where_it_is(journal: Journal, tmp_path: Path) -> None:
    path = journal.directory / f"{UID}.json"
    later = encode(ONE).replace(b'"version":1', b'"version":9')
    path.write_bytes(later)
    assert not a_ledger(tmp_path).fences()[0].newer  # a version alone is damage

    path.unlink(missing_ok=True)
    journal.settle(UID)
    path.write_bytes(_sealed_as(9, later))
    assert a_ledger(tmp_path).fences()[0].newer
    assert path.exists()


def _sealed_as(version: int, data: bytes) -> bytes:
    body = data[data.index(b'"record":') + len(b'"record":') : -1]
    checksum = f"{zlib.crc32(body, zlib.crc32(b'%d:' % version)):08x}".encode()
    return b'{"version":%d,"checksum":"%s","record":%s}' % (version, checksum, body)
