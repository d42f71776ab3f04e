"""The directory that a daemon shares: whatever the daemon puts there harms only itself."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Final

import pytest

from nvdra_nodeagent.computedomain.directories import DomainDirectories
from nvdra_testing.domain_steps import DOMAIN, a_domain_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

STEP: Final = a_domain_dir("claim-1", domain=DOMAIN)
FILES: Final = ("ready.json", "domain.json", "peers.json", "settings.json")


@pytest.fixture
def directories(tmp_path: Path) -> DomainDirectories:
    directories = DomainDirectories(tmp_path / "domains", node="node-1", boot_id="boot")
    directories.occupy(STEP)
    return directories


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"ready":' * 200_000,
        b'{"version":' + b"9" * 5000 + b"}",
    ],
    ids=["empty", "half", "list", "no text", "nested lists", "nested objects", "long number"],
)
def test_whatever_a_daemon_writes_it_is_not_ready_by_it(
    directories: DomainDirectories, said: bytes
) -> None:
    for name in ("ready.json", "domain.json"):
        (directories.path(DOMAIN) / name).write_bytes(said)
    words = directories.words(DOMAIN, claim_uid=STEP.claim_uid)
    assert (words.is_ready, words.domain_state, words.connected()) == (False, "UNKNOWN", (0, 0))
    assert words.obstacle


def put_directories(directories: DomainDirectories) -> None:
    for name in FILES:
        path = directories.path(DOMAIN) / name
        path.unlink(missing_ok=True)
        (path / "within").mkdir(parents=True)


def test_directories_in_place_of_files_are_cleared_for_the_next_daemon(
    directories: DomainDirectories,
) -> None:
    put_directories(directories)
    following = a_domain_dir("claim-2", domain=DOMAIN)
    directories.occupy(following)
    assert directories.is_occupied(following)
    assert [path.name for path in directories.path(DOMAIN).iterdir()] == ["settings.json"]


def test_directories_in_place_of_files_go_with_the_claim(directories: DomainDirectories) -> None:
    put_directories(directories)
    directories.vacate(STEP)
    assert not directories.path(DOMAIN).exists()


def test_a_directory_in_place_of_a_temporary_file_goes_with_the_claim(
    directories: DomainDirectories,
) -> None:
    (directories.path(DOMAIN) / ".ready.json.1.tmp" / "within").mkdir(parents=True)
    directories.vacate(STEP)
    assert not directories.path(DOMAIN).exists()


def test_a_directory_goes_also_while_a_list_of_peers_is_written(tmp_path: Path) -> None:
    attempts: list[Path] = []

    def disturbed_once(directory: Path) -> None:
        attempts.append(directory)
        if len(attempts) == 1:
            raise FileNotFoundError(directory / ".peers.json.1.tmp")
        shutil.rmtree(directory)

    directories = DomainDirectories(
        tmp_path, node="node-1", boot_id="boot", remove_tree=disturbed_once
    )
    directories.occupy(STEP)
    directories.vacate(STEP)
    assert not directories.path(DOMAIN).exists()


class Vacating(DomainDirectories):
    """The claim ends after it was looked whose the directory is, and before anything is written."""

    def _read(self, path: Path) -> Mapping[str, Any]:
        found = super()._read(path)
        if path.name == "settings.json" and found:
            shutil.rmtree(path.parent)
        return found


def test_a_list_of_peers_that_comes_too_late_makes_no_directory_anew(tmp_path: Path) -> None:
    directories = Vacating(tmp_path, node="node-1", boot_id="boot")
    directories.occupy(STEP)
    assert not directories.write_peers(STEP, {"peers": []})
    assert not directories.path(DOMAIN).exists()


def put_file(path: Path) -> None:
    path.write_text("somebody's")


def put_link(path: Path) -> None:
    path.symlink_to(path.parent)


@pytest.mark.parametrize("put", [put_file, put_link])
def test_what_is_no_directory_is_replaced_by_one_and_goes_with_the_claim(
    directories: DomainDirectories, put: Callable[[Path], None]
) -> None:
    path = directories.path(DOMAIN)
    directories.vacate(STEP)
    put(path)
    directories.occupy(STEP)
    assert directories.is_occupied(STEP)
    directories.vacate(STEP)
    put(path)
    directories.vacate(STEP)
    assert not path.is_symlink()
    assert not path.exists()
