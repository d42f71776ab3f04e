"""Sockets that killed instances left behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.kubelet.leftovers import keep_swept, remove_dead_sockets
from nvdra_nodeagent.kubelet.names import is_service_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def a_dead_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


@pytest.fixture
def alive(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "dra-alive.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(0)
        yield path


def test_a_socket_that_nobody_listens_on_is_removed(tmp_path: Path, alive: Path) -> None:
    a_dead_socket(tmp_path / "dra-dead.sock")
    assert remove_dead_sockets(tmp_path, is_ours=is_service_name) == ["dra-dead.sock"]
    assert list(tmp_path.iterdir()) == [alive]


def test_a_socket_whose_queue_is_full_is_alive(tmp_path: Path, alive: Path) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(str(alive))
        assert remove_dead_sockets(tmp_path, is_ours=is_service_name) == []


def test_sockets_of_others_and_plain_files_are_left_alone(tmp_path: Path) -> None:
    a_dead_socket(tmp_path / "other.sock")
    (tmp_path / "dra.sock").write_text("mine")
    assert remove_dead_sockets(tmp_path, is_ours=is_service_name) == []


def test_a_directory_that_is_not_there_holds_no_sockets(tmp_path: Path) -> None:
    assert remove_dead_sockets(tmp_path / "none", is_ours=is_service_name) == []


async def test_both_directories_are_swept_and_other_drivers_are_not(tmp_path: Path) -> None:
    plugin_dir, registrar_dir = tmp_path / "p", tmp_path / "r"
    kept = {"other.example.com-reg.sock", "dra-hash-reg.sock"}
    for directory, names in (
        (plugin_dir, {"dra.sock", "dra-u1.sock"}),
        (registrar_dir, {"a.example.com-reg.sock", "a.example.com-u1-reg.sock", *kept}),
    ):
        directory.mkdir()
        for name in names:
            a_dead_socket(directory / name)
    work = keep_swept("a.example.com", plugin_dir=plugin_dir, registrar_dir=registrar_dir)
    task = asyncio.create_task(work)
    async with asyncio.timeout(30):
        while any(plugin_dir.iterdir()):
            await asyncio.sleep(0.01)
    task.cancel()
    assert {path.name for path in registrar_dir.iterdir()} == kept
