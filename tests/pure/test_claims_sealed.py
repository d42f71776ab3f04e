"""Small state files: whole, or known not to be."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from nvdra_nodeagent.claims.seal import Damaged, Seal
from nvdra_nodeagent.claims.sealed import SealedFiles
from nvdra_nodeagent.errors import NodeFault


class Note(msgspec.Struct, frozen=True):
    text: str
    numbers: dict[str, int]


NOTE = Note("hello", {"b": 2, "a": 1})
SEAL = Seal("content", version=1)
DATA = SEAL.close(NOTE, version=1)


@pytest.fixture
def files(tmp_path: Path) -> SealedFiles[Note]:
    return SealedFiles(tmp_path / "notes", quarantine=tmp_path / "quarantine", type_=Note)


def unsealed(data: bytes) -> Note:
    return SEAL.open(data, msgspec.json.Decoder(Note).decode)


def test_what_was_sealed_is_read_again() -> None:
    assert unsealed(DATA) == NOTE


@pytest.mark.parametrize("place", range(len(DATA)))
@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80])
def test_any_changed_byte_is_noticed(place: int, flip: int) -> None:
    data = bytearray(DATA)
    data[place] ^= flip
    with pytest.raises(Damaged) as caught:
        unsealed(bytes(data))
    assert not caught.value.newer


@pytest.mark.parametrize("length", range(len(DATA)))
def test_any_missing_end_is_noticed(length: int) -> None:
    with pytest.raises(Damaged):
        unsealed(DATA[:length])


def test_a_later_version_is_newer_and_not_damaged() -> None:
    with pytest.raises(Damaged, match="version 9, this agent reads up to") as caught:
        unsealed(SEAL.close(NOTE, version=9))
    assert caught.value.newer


def test_content_of_another_shape_was_written_on_purpose() -> None:
    class Other(msgspec.Struct):
        text: int

    with pytest.raises(Damaged) as caught:
        unsealed(SEAL.close(Other(1), version=1))
    assert caught.value.newer


def test_a_directory_that_is_not_there_has_no_files(files: SealedFiles[Note]) -> None:
    assert (files.names(), files.read("one")) == ([], None)
    files.remove("one")


def test_files_are_listed_without_those_in_the_making(files: SealedFiles[Note]) -> None:
    files.write("one", NOTE)
    (files.directory / ".one.json.12345678.tmp").touch()
    (files.directory / "readme").touch()
    assert files.names() == ["one"]


def test_a_damaged_file_is_set_aside_with_its_reason(
    files: SealedFiles[Note], tmp_path: Path
) -> None:
    files.write("one", NOTE)
    (files.directory / "one.json").write_bytes(b"x")
    with pytest.raises(Damaged):
        files.read("one")
    files.set_aside("one", "because")
    assert files.read("one") is None
    kept = sorted(path.name for path in (tmp_path / "quarantine").iterdir())
    assert kept == ["notes.one.json", "notes.one.reason"]
    files.remove("one")
    assert list((tmp_path / "quarantine").iterdir()) == []


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("/etc/passwd")])
def test_what_is_no_ordinary_file_is_damaged(files: SealedFiles[Note], make: object) -> None:
    files.write("other", NOTE)
    assert callable(make)
    make(files.directory / "one.json")
    with pytest.raises(Damaged, match="cannot be read"):
        files.read("one")


def test_what_is_set_aside_replaces_even_a_directory(
    files: SealedFiles[Note], tmp_path: Path
) -> None:
    (files.directory / "one.json" / "inside").mkdir(parents=True)
    files.set_aside("one", "a directory")
    (files.directory / "one.json").write_bytes(b"x")
    files.set_aside("one", "because")
    assert (tmp_path / "quarantine" / "notes.one.json").read_bytes() == b"x"


def test_a_directory_set_aside_goes_with_its_file(files: SealedFiles[Note], tmp_path: Path) -> None:
    (files.directory / "one.json" / "inside").mkdir(parents=True)
    files.set_aside("one", "a directory")
    files.remove("one")
    assert list((tmp_path / "quarantine").iterdir()) == []


def test_it_is_known_what_was_set_aside(files: SealedFiles[Note], tmp_path: Path) -> None:
    assert files.names_set_aside() == []
    files.write("one", NOTE)
    files.set_aside("one", "because")
    (tmp_path / "quarantine" / "other.one.json").touch()
    assert (files.names_set_aside(), files.names()) == (["one"], [])
    assert (files.is_set_aside("one"), files.is_set_aside("two")) == (True, False)


def test_a_quarantine_that_cannot_be_made_is_named(
    files: SealedFiles[Note], tmp_path: Path
) -> None:
    files.write("one", NOTE)
    (tmp_path / "quarantine").write_text("in the way")
    with pytest.raises(NodeFault, match=str(tmp_path / "quarantine")):
        files.set_aside("one", "because")
