"""Kubeconfig files through kubernetes-asyncio: logins, plug-ins, and what is said of bad files."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from nvdra_kube.errors import ConfigurationError, Unauthorized
from nvdra_kube.kubeconfig import default_paths
from nvdra_kube.resources import NODES
from nvdra_kube.session import KubeSession
from nvdra_testing.kube_http import HttpKube, a_status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture
async def server(authority: trustme.CA) -> AsyncIterator[HttpKube]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    async with HttpKube(tls=context) as server:
        server.on("/version", {"gitVersion": "v1.35.0"})
        yield server


def encoded(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


def a_kubeconfig(
    path: Path, server: HttpKube, authority: trustme.CA, user: dict[str, Any], **cluster: Any
) -> Path:
    """A kubeconfig with one context; JSON is YAML too."""
    cluster = {
        "server": server.url,
        "certificate-authority-data": encoded(authority.cert_pem.bytes()),
        **cluster,
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    file = path / "config"
    file.write_text(json.dumps(config))
    return file


def a_plugin(path: Path, *, lasting: bool) -> dict[str, Any]:
    """An exec plug-in that gives out token-1, token-2, ..."""
    expiry = "" if lasting else ', "expirationTimestamp": "2020-01-01T00:00:00Z"'
    script = path / "login"
    script.write_text(
        f"""#!/bin/sh
n=$(cat {path}/count 2>/dev/null || echo 0); n=$((n + 1)); echo $n > {path}/count
echo '{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
 "status": {{"token": "token-'$n'"{expiry}}}}}'
"""
    )
    script.chmod(stat.S_IRWXU)
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(script),
            "interactiveMode": "Never",
        }
    }


def tokens(server: HttpKube) -> list[str]:
    return [asked.headers.get("Authorization", "") for asked in server.asked]


async def test_a_token_of_a_kubeconfig_is_sent(
    server: HttpKube, authority: trustme.CA, tmp_path: Path
) -> None:
    path = a_kubeconfig(tmp_path, server, authority, {"token": "abc"})
    async with KubeSession.from_kubeconfig(path) as api:
        assert await api.server_version() == "v1.35.0"
    assert tokens(server) == ["Bearer abc"]


async def test_a_client_certificate_is_shown(
    server: HttpKube, authority: trustme.CA, tmp_path: Path
) -> None:
    seen: list[Any] = []

    async def whoami(request: Any) -> Any:
        seen.append(request.transport.get_extra_info("peercert"))
        return await a_status(200)(request)

    server.on("/version", whoami, whoami)
    leaf = authority.issue_cert("someone@example.org")
    user = {
        "client-certificate-data": encoded(leaf.cert_chain_pems[0].bytes()),
        "client-key-data": encoded(leaf.private_key_pem.bytes()),
    }
    path = a_kubeconfig(tmp_path, server, authority, user)
    async with KubeSession.from_kubeconfig(path) as api:
        await api.server_version()
        await api.server_version()
    assert seen
    assert seen[0]


async def test_a_plugin_logs_in_once_if_its_token_lasts(
    server: HttpKube, authority: trustme.CA, tmp_path: Path
) -> None:
    path = a_kubeconfig(tmp_path, server, authority, a_plugin(tmp_path, lasting=True))
    async with KubeSession.from_kubeconfig(path) as api:
        await api.server_version()
        await api.server_version()
    assert tokens(server) == ["Bearer token-1", "Bearer token-1"]


@pytest.mark.parametrize("lasting", [True, False])
async def test_a_plugin_is_asked_again_after_a_refusal(
    server: HttpKube, authority: trustme.CA, tmp_path: Path, lasting: bool
) -> None:
    server.on("/api/v1/nodes/n", a_status(401, "Unauthorized"), {"kind": "Node"})
    path = a_kubeconfig(tmp_path, server, authority, a_plugin(tmp_path, lasting=lasting))
    async with KubeSession.from_kubeconfig(path) as api:
        assert await api.get(NODES, "n") == {"kind": "Node"}
    assert tokens(server) == ["Bearer token-1", "Bearer token-2"]


async def test_a_plugin_that_fails_after_a_refusal_is_an_error(
    server: HttpKube, authority: trustme.CA, tmp_path: Path
) -> None:
    server.on("/version", a_status(401), a_status(401))
    user = a_plugin(tmp_path, lasting=True)
    path = a_kubeconfig(tmp_path, server, authority, user)
    async with KubeSession.from_kubeconfig(path) as api:
        await api.server_version()
        (tmp_path / "login").unlink()
        with pytest.raises(Unauthorized, match="log in again with the kubeconfig"):
            await api.server_version()


async def test_verification_can_be_switched_off(
    server: HttpKube, authority: trustme.CA, tmp_path: Path
) -> None:
    other = trustme.CA(key_type=trustme.KeyType.ECDSA)
    path = a_kubeconfig(tmp_path, server, other, {}, **{"insecure-skip-tls-verify": True})
    async with KubeSession.from_kubeconfig(path) as api:
        assert await api.server_version() == "v1.35.0"


async def test_the_certificate_may_have_another_name(
    server: HttpKube, authority: trustme.CA, tmp_path: Path
) -> None:
    server.url = server.url.replace("localhost", "127.0.0.1")
    path = a_kubeconfig(tmp_path, server, authority, {}, **{"tls-server-name": "localhost"})
    async with KubeSession.from_kubeconfig(path) as api:
        assert await api.server_version() == "v1.35.0"


def of_cluster(cluster: str) -> str:
    context = "{current-context: x, contexts: [{name: x, context: {cluster: c}}]"
    return f"{context}, clusters: [{{name: c, cluster: {cluster}}}]}}"


async def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"{tmp_path / 'none'}: no such file"):
        async with KubeSession.from_kubeconfig(tmp_path / "none"):
            pass


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "just text",
        "a: b: c",
        "current-context: x",
        "{current-context: x, contexts: [], clusters: []}",
        "{current-context: x, contexts: [{name: x}], clusters: [{}]}",
        "\x00",
        of_cluster("{server: 'no url'}"),
        of_cluster("{server: 'https://x', certificate-authority: /none}"),
        of_cluster("{server: 'https://x', certificate-authority-data: eA==}"),
    ],
)
async def test_a_bad_file_is_named_with_the_reason(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=f"kubeconfig {path}: ."):
        async with KubeSession.from_kubeconfig(path):
            pass


async def test_an_unknown_context_is_named(
    server: HttpKube, authority: trustme.CA, tmp_path: Path
) -> None:
    path = a_kubeconfig(tmp_path, server, authority, {})
    with pytest.raises(ConfigurationError, match="elsewhere"):
        async with KubeSession.from_kubeconfig(path, context="elsewhere"):
            pass


async def test_without_the_library_it_says_what_to_install(tmp_path: Path) -> None:
    program = """
import asyncio, sys
sys.modules["kubernetes_asyncio"] = None
from nvdra_kube.errors import ConfigurationError
from nvdra_kube.kubeconfig import load_access
try:
    asyncio.run(load_access("/none"))
except ConfigurationError as error:
    print(error)
"""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert "install nvdra[kubeconfig]" in done.stdout


def test_the_session_does_not_import_the_library() -> None:
    program = "import sys, nvdra_kube.session; print('kubernetes_asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_files_are_looked_for_where_kubectl_does() -> None:
    assert default_paths({"KUBECONFIG": "/a:/b"}) == "/a:/b"
    assert default_paths({}).endswith("/.kube/config")
