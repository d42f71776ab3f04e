"""Who the session is and whom it trusts: TLS, service accounts, rotated tokens."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from nvdra_kube import errors
from nvdra_kube.errors import ConfigurationError
from nvdra_kube.resources import NODES
from nvdra_kube.session import KubeSession
from nvdra_testing.kube_http import HttpKube, a_status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture
async def secure(authority: trustme.CA) -> AsyncIterator[HttpKube]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    async with HttpKube(tls=context) as server:
        server.on("/version", {"gitVersion": "v1.35.0"})
        yield server


def pem(authority: trustme.CA) -> str:
    return authority.cert_pem.bytes().decode()


async def test_a_given_ca_is_trusted(secure: HttpKube, authority: trustme.CA) -> None:
    async with KubeSession.connect(secure.url, ca_pem=pem(authority), token="t0k") as api:
        assert await api.server_version() == "v1.35.0"
    assert secure.asked[0].headers["Authorization"] == "Bearer t0k"


async def test_another_ca_is_not_trusted(secure: HttpKube) -> None:
    other = pem(trustme.CA(key_type=trustme.KeyType.ECDSA))
    async with KubeSession.connect(secure.url, ca_pem=other) as api:
        with pytest.raises(errors.Unreachable, match="certificate"):
            await api.server_version()
    assert secure.asked == []


async def test_a_ca_that_is_no_pem_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="cannot use the CA given for https://x"):
        async with KubeSession.connect("https://x", ca_pem="nonsense"):
            pass


async def test_a_url_without_a_scheme_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="https://host:port"):
        async with KubeSession.connect("localhost:6443"):
            pass


def a_pod(path: Path, authority: trustme.CA, server: HttpKube) -> dict[str, Any]:
    """What the kubelet gives to a pod."""
    (path / "ca.crt").write_text(pem(authority))
    (path / "token").write_text("first\n")
    environ = {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(server.port),
    }
    return {"environ": environ, "service_account_dir": path}


async def test_a_pod_uses_its_service_account(
    secure: HttpKube, authority: trustme.CA, tmp_path: Path
) -> None:
    async with KubeSession.in_cluster(**a_pod(tmp_path, authority, secure)) as api:
        await api.server_version()
    assert secure.asked[0].headers["Authorization"] == "Bearer first"


async def test_a_refused_token_is_read_again(
    secure: HttpKube, authority: trustme.CA, tmp_path: Path
) -> None:
    server = secure
    server.on("/api/v1/nodes/n", {}, a_status(401, "Unauthorized"), {"kind": "Node"})
    async with KubeSession.in_cluster(**a_pod(tmp_path, authority, server)) as api:
        await api.get(NODES, "n")
        (tmp_path / "token").write_text("second\n")
        assert await api.get(NODES, "n") == {"kind": "Node"}
    tokens = [asked.headers["Authorization"] for asked in server.asked]
    assert tokens == ["Bearer first", "Bearer first", "Bearer second"]


async def test_a_token_that_stays_refused_is_an_error(
    secure: HttpKube, authority: trustme.CA, tmp_path: Path
) -> None:
    secure.on("/api/v1/nodes/n", a_status(401, "Unauthorized", "who are you"))
    async with KubeSession.in_cluster(**a_pod(tmp_path, authority, secure)) as api:
        with pytest.raises(errors.Unauthorized, match="get nodes n: who are you"):
            await api.get(NODES, "n")
    assert len(secure.asked) == 1


async def test_outside_a_pod_it_says_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match=r"KUBERNETES_SERVICE_HOST .*kubeconfig"):
        async with KubeSession.in_cluster(environ={}):
            pass


async def test_a_pod_without_a_service_account_is_told_which_file(tmp_path: Path) -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "::1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(ConfigurationError, match=str(tmp_path / "ca.crt")):
        async with KubeSession.in_cluster(environ=environ, service_account_dir=tmp_path):
            pass


async def test_a_missing_token_is_told_with_its_path(
    secure: HttpKube, authority: trustme.CA, tmp_path: Path
) -> None:
    pod = a_pod(tmp_path, authority, secure)
    (tmp_path / "token").unlink()
    async with KubeSession.in_cluster(**pod) as api:
        with pytest.raises(errors.Unauthorized, match=str(tmp_path / "token")):
            await api.server_version()


async def test_without_any_way_in_it_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"KUBERNETES_SERVICE_HOST.*--kubeconfig"):
        KubeSession.discover(environ={"KUBECONFIG": str(tmp_path / "none")})


async def test_in_a_pod_the_service_account_is_the_way_in(
    secure: HttpKube, authority: trustme.CA, tmp_path: Path
) -> None:
    environ = a_pod(tmp_path, authority, secure)["environ"]
    with pytest.raises(ConfigurationError, match="serviceaccount/ca"):
        async with KubeSession.discover(environ=environ):
            pass
