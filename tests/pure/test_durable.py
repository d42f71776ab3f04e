"""Files of the agent's state are whole or absent, and errors say what to do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.durable import (
    is_temporary,
    remove_durably,
    remove_with_temporaries,
    sweep_temporaries,
    write_durably,
)
from nvdra_nodeagent.errors import Retryable

if TYPE_CHECKING:
    from pathlib import Path


def test_content_and_mode_arrive_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_durably(tmp_path / "record.json", b"{}", mode=0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "record.json").read_bytes() == b"{}"
    assert (tmp_path / "record.json").stat().st_mode & 0o777 == 0o644


def test_a_missing_directory_is_created(tmp_path: Path) -> None:
    write_durably(tmp_path / "a" / "b" / "record.json", b"x")
    assert (tmp_path / "a" / "b" / "record.json").read_bytes() == b"x"


def test_a_second_write_replaces_the_first_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_durably(tmp_path / "record.json", b"long old content")
    write_durably(tmp_path / "record.json", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
    assert (tmp_path / "record.json").read_bytes() == b"new"


def test_a_failed_rename_leaves_no_temporary_and_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "record.json").mkdir()
    with pytest.raises(Retryable, match=r"cannot write .*record\.json") as failure:
        write_durably(tmp_path / "record.json", b"x")
    assert failure.value.reason == "StorageUnwritable"
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_a_file_in_the_place_of_the_directory_is_named_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "cdi").write_text("in the way")
    with pytest.raises(Retryable) as failure:
        write_durably(tmp_path / "cdi" / "spec.yaml", b"x")
    assert "Not a directory" in failure.value.message
    assert "move the file away" in failure.value.hint


def test_a_name_too_long_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(Retryable, match="name too long"):
        write_durably(tmp_path / ("x" * 300), b"x")


def test_removing_says_whether_the_file_was_there(tmp_path: Path) -> None:
    write_durably(tmp_path / "record.json", b"x")
    assert remove_durably(tmp_path / "record.json")
    assert not remove_durably(tmp_path / "record.json")
    assert not remove_durably(tmp_path / "no directory" / "record.json")


def test_what_cannot_be_removed_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "record.json").mkdir()
    with pytest.raises(Retryable, match="cannot remove"):
        remove_durably(tmp_path / "record.json")


def test_what_died_writing_a_file_goes_with_it_and_that_of_other_files_stays(
    tmp_path: Path,
) -> None:
    for name in ("a.json", ".a.json.0123.tmp", ".ab.json.0123.tmp", ".b.json.0123.tmp"):
        (tmp_path / name).write_bytes(b"x")
    assert remove_with_temporaries(tmp_path / "a.json")
    assert {path.name for path in tmp_path.iterdir()} == {".ab.json.0123.tmp", ".b.json.0123.tmp"}


def test_the_sweep_takes_temporaries_only(tmp_path: Path) -> None:
    (tmp_path / ".record.json.abcd.tmp").write_bytes(b"half")
    (tmp_path / "record.json").write_bytes(b"whole")
    swept = sweep_temporaries(tmp_path, older_than_s=0)
    assert [path.name for path in swept] == [".record.json.abcd.tmp"]
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
    assert sweep_temporaries(tmp_path / "nowhere", older_than_s=0) == []


def test_the_sweep_spares_young_files_and_those_of_others(tmp_path: Path) -> None:
    for name in (".record.json.abcd.tmp", ".other.json.abcd.tmp"):
        (tmp_path / name).write_bytes(b"half")
    assert sweep_temporaries(tmp_path, older_than_s=60) == []
    os.utime(tmp_path / ".record.json.abcd.tmp", (1, 1))
    os.utime(tmp_path / ".other.json.abcd.tmp", (1, 1))
    swept = sweep_temporaries(tmp_path, older_than_s=60, of_files="record")
    assert [path.name for path in swept] == [".record.json.abcd.tmp"]


def test_temporaries_are_told_by_their_name() -> None:
    assert is_temporary(".record.json.abcd.tmp")
    assert not is_temporary("record.json")
