"""Claims of domains in an earlier driver's checkpoint: which are recorded, and which fenced."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvdra_api.gates import FeatureGates
from nvdra_nodeagent.cdi.names import DOMAIN_CLAIM_KIND, cdi_device_id
from nvdra_nodeagent.cdi.store import CdiStore
from nvdra_nodeagent.checkpoint.conversion import EarlierNode
from nvdra_nodeagent.checkpoint.migration import MIGRATED, Migration
from nvdra_nodeagent.claims.journal import Journal, decode
from nvdra_nodeagent.computedomain.earlier_claims import DaemonFiles, EarlierClaims
from nvdra_nodeagent.steps.domain_cdi import ChannelCdiStep
from nvdra_nodeagent.steps.registry import kind_of
from nvdra_testing.checkpoints import a_checkpoint
from nvdra_testing.domain_checkpoints import (
    a_daemon_yaml,
    a_domain_status,
    a_place,
    a_prepared,
)
from nvdra_testing.domain_claims import GB200_CLIQUE
from nvdra_testing.domain_nodes import BOOT
from nvdra_testing.domain_steps import DOMAIN

if TYPE_CHECKING:
    from nvdra_nodeagent.checkpoint.migration import MigrationReport

OTHER_DOMAIN = "0d9c6b7a-0000-4000-8000-000000000002"
SUPPORT = Path(__file__).parents[1] / "support"
UID = "11111111-0000-4000-8000-000000000001"


class Files:
    """State and CDI directory of a node, without an agent."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = CdiStore(root, kind=DOMAIN_CLAIM_KIND)

    def migrate(
        self,
        claims: Any,
        *,
        clique: str | None = GB200_CLIQUE,
        damage: tuple[bytes, bytes] = (b"", b""),
    ) -> MigrationReport:
        report = self.take_over(a_checkpoint(claims).replace(*damage), clique=clique)
        assert report
        return report

    def take_over(
        self, data: bytes, *, clique: str | None = GB200_CLIQUE
    ) -> MigrationReport | None:
        (self.root / "checkpoint.json").write_bytes(data)
        make = EarlierClaims(
            DaemonFiles(self.store),
            gates=FeatureGates.parse(""),
            home="driver",
            cdi_id=lambda uid, device: cdi_device_id(uid, device, kind=DOMAIN_CLAIM_KIND),
            clique=lambda: clique,
        )
        node = EarlierNode("compute-domain.nvidia.com", "node-1", BOOT)
        return Migration(self.root, Journal(self.root), node=node, make=make).run()

    def steps(self) -> list[Any]:
        content = (self.root / "claims" / f"{UID}.json").read_bytes()
        return [each.step for each in decode(content, uid=UID).steps]


def a_channel(*, status: Any = None, **changes: Any) -> Any:
    status = a_domain_status("channel-0", DOMAIN) if status is None else status
    return {UID: a_prepared(status, a_place("channel-0", DOMAIN, uid=UID, **changes))}


def a_daemon() -> Any:
    status = a_domain_status("daemon-0", DOMAIN)
    return {UID: a_prepared(status, a_place("daemon-0", DOMAIN, uid=UID))}


def test_all_channels_are_recorded_where_all_were_given(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.migrate(a_channel(status=a_domain_status("channel-0", DOMAIN, allocationMode="All")))
    (step,) = (each for each in files.steps() if isinstance(each, ChannelCdiStep))
    assert (step.first, step.count) == (0, 2048)


def test_a_claim_without_a_channel_on_a_node_without_fabric_holds_the_label_only(
    tmp_path: Path,
) -> None:
    files = Files(tmp_path)
    files.migrate(a_channel(cdi_ids=[]), clique=None)
    assert [kind_of(type(step)) for step in files.steps()] == ["node_label"]


def test_the_clique_is_that_of_the_daemon_before_that_of_the_gpus(tmp_path: Path) -> None:
    files = Files(tmp_path)
    text = a_daemon_yaml("other", DOMAIN, clique="its.7", directory="/d")
    files.store.path("other").write_text(text)
    files.migrate(a_channel())
    assert files.steps()[0].clique == "its.7"


STARTED = {UID: a_prepared(a_domain_status("channel-0", DOMAIN), state="PrepareStarted")}
TWO = {
    UID: a_prepared(
        a_domain_status("channel-0", DOMAIN),
        a_place("channel-0", DOMAIN, uid=UID),
        a_place("daemon-0", DOMAIN, uid=UID),
    )
}


@pytest.mark.parametrize(
    ("claims", "clique", "cause"),
    [
        (STARTED, GB200_CLIQUE, "not finished"),
        (a_channel(), None, "clique of the node is not known"),
        (a_channel(), "", "clique of the node is not known"),
        (a_channel(cdi_ids=["x/y=z"]), GB200_CLIQUE, "other devices"),
        (a_channel(ComputeDomain=OTHER_DOMAIN), GB200_CLIQUE, "another domain"),
        (a_channel(status=a_domain_status("channel-3", DOMAIN)), GB200_CLIQUE, "not the one"),
        (a_channel(status=a_domain_status("channel-0", "../x")), GB200_CLIQUE, "not the UID"),
        (a_channel(status=a_domain_status("channel-0", DOMAIN, new=1)), GB200_CLIQUE, "new"),
        (a_channel(status=a_domain_status("channel-0", DOMAIN, pool="b")), GB200_CLIQUE, "pool b"),
        (a_channel(status={}), GB200_CLIQUE, "not allocated"),
        (a_channel(later=True), GB200_CLIQUE, "later"),
        (a_daemon(), GB200_CLIQUE, "which domain"),
        (TWO, GB200_CLIQUE, "other devices"),
    ],
)
def test_what_is_not_understood_is_fenced_with_the_cause(
    tmp_path: Path, claims: Any, clique: str | None, cause: str
) -> None:
    report = Files(tmp_path).migrate(claims, clique=clique)
    assert not report.recorded
    assert cause in report.fenced[UID]


def test_a_wrong_checksum_is_a_reason_not_to_believe_any_domain(tmp_path: Path) -> None:
    other = (DOMAIN.encode(), OTHER_DOMAIN.encode())
    report = Files(tmp_path).migrate(a_channel(), damage=other)
    assert not report.recorded
    assert "wrong checksum" in report.fenced[UID]


@settings(max_examples=80, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), channel=st.booleans())
def test_whatever_byte_is_damaged_no_claim_is_believed_that_was_not_written(
    tmp_path_factory: pytest.TempPathFactory, place: float, byte: int, channel: bool
) -> None:
    files = Files(tmp_path_factory.mktemp("node"))
    text = a_daemon_yaml(UID, DOMAIN, clique=GB200_CLIQUE, directory="/d")
    files.store.path(UID).write_text(text)
    files.migrate(a_channel() if channel else a_daemon())
    undamaged = files.steps()
    data = bytearray((files.root / MIGRATED).read_bytes())
    data[int(place * len(data))] = byte
    (files.root / "claims" / f"{UID}.json").unlink()
    report = files.take_over(bytes(data))
    for uid in report.recorded if report else ():
        assert uid == UID
        assert files.steps() == undamaged


def test_a_claim_whose_prepare_was_aborted_is_gone(tmp_path: Path) -> None:
    status = a_domain_status("channel-0", DOMAIN)
    aborted = a_prepared(status, state="PrepareAborted", abortedAt="2025-01-01T00:00:00Z")
    report = Files(tmp_path).migrate({UID: aborted})
    assert not (report.recorded or report.fenced)


@pytest.mark.timeout(300)
def test_a_take_over_that_is_killed_anywhere_is_finished_by_the_next(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nvdra_testing.checkpoint_crashes", str(tmp_path), "domains"],
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
        env={"PYTHONPATH": str(SUPPORT), "PATH": "/usr/bin:/bin"},
    )
    runs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    undisturbed, *crashes = runs
    assert len(undisturbed["files"]) > 4
    assert len(crashes) > 10
    assert all(crash["killed"] for crash in crashes)
    for crash in crashes:
        assert crash["files"] == undisturbed["files"]
