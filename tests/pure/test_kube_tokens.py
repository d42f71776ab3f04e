"""Tokens in files, in fake time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from nvdra_kube.access import in_cluster_access
from nvdra_kube.errors import Unauthorized
from nvdra_kube.tokens import FixedToken, TokenFile

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.looptime


async def test_the_file_is_read_again_each_minute(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one\n")
    token = TokenFile(path)
    assert await token.authorization() == "Bearer one"
    path.write_text("two\n")
    assert await token.authorization() == "Bearer one"
    await asyncio.sleep(61)
    assert await token.authorization() == "Bearer two"


async def test_a_refusal_makes_it_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one")
    token = TokenFile(path)
    await token.authorization()
    path.write_text("two")
    token.refused()
    assert await token.authorization() == "Bearer two"


@pytest.mark.parametrize("damage", ["missing", "empty", "binary"])
async def test_the_last_token_is_kept_while_the_file_is_bad(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "token"
    path.write_text("one")
    token = TokenFile(path)
    await token.authorization()
    path.write_bytes(b"\xff\xfe" if damage == "binary" else b"")
    if damage == "missing":
        path.unlink()
    token.refused()
    assert await token.authorization() == "Bearer one"


async def test_without_any_token_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unauthorized, match=f"{tmp_path}.*mount a service account token"):
        await TokenFile(tmp_path / "token").authorization()


async def test_no_token_is_no_header() -> None:
    assert await FixedToken().authorization() == ""


async def test_an_ipv6_service_host_gets_brackets(tmp_path: Path) -> None:
    import trustme

    trustme.CA(key_type=trustme.KeyType.ECDSA).cert_pem.write_to_path(tmp_path / "ca.crt")
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    access = in_cluster_access(environ=environ, service_account_dir=tmp_path)
    assert access.url == "https://[fd00::1]:443"
