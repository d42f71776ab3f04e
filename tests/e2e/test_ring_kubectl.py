"""A call that a standing machine kept from being asked is made again; an answer is an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.e2e.ring.errors import CommandFailed
from tests.e2e.ring.kubectl import Kubectl

if TYPE_CHECKING:
    from pathlib import Path

_UNASKED = "Unable to connect to the server: net/http: TLS handshake timeout"


def _a_kubectl(folder: Path, *, fails: int, words: str) -> tuple[Kubectl, Path]:
    """A program that fails so often with these words, and the file with a line for each call."""
    program, calls = folder / "kubectl", folder / "calls"
    program.write_text(
        f"#!/bin/sh\necho call >> {calls}\n"
        f'[ "$(wc -l < {calls})" -gt {fails} ] || {{ echo "{words}" >&2; exit 1; }}\n'
        "exec cat\n"
    )
    program.chmod(0o755)
    return Kubectl(program, folder / "kubeconfig"), calls


def test_a_call_that_was_never_asked_is_made_again_with_its_input(tmp_path: Path) -> None:
    kubectl, _ = _a_kubectl(tmp_path, fails=2, words=_UNASKED)

    assert kubectl("create", stdin="an object") == "an object"


def test_a_refusal_is_told_at_once(tmp_path: Path) -> None:
    kubectl, calls = _a_kubectl(tmp_path, fails=9, words="Error from server (Forbidden)")

    with pytest.raises(CommandFailed, match="Forbidden"):
        kubectl("get", "nodes")

    assert len(calls.read_text().splitlines()) == 1


def test_a_server_that_is_never_reached_is_given_up(tmp_path: Path) -> None:
    kubectl, _ = _a_kubectl(tmp_path, fails=9, words=_UNASKED)

    with pytest.raises(CommandFailed, match="TLS handshake timeout"):
        kubectl("get", "nodes")
