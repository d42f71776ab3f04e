"""Where the API server is and how it is trusted: TLS, credentials, and the in-cluster case."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nvdra_kube.errors import ConfigurationError
from nvdra_kube.tokens import Credentials, FixedToken, TokenFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Access:
    """All that a session needs to know about one API server. `url` may hold a path prefix."""

    url: str
    tls: ssl.SSLContext | None = None
    credentials: Credentials = field(default_factory=FixedToken)
    server_name: str | None = None
    proxy: str | None = None


def tls_context(
    *,
    ca_file: str = "",
    ca_pem: str = "",
    cert_file: str = "",
    key_file: str = "",
    verify: bool = True,
) -> ssl.SSLContext:
    """A client context that trusts the given CA, or the system's ones if none is given.

    Raises `OSError` (of which `ssl.SSLError` is one) where files or PEM texts are not usable.
    """
    context = ssl.create_default_context(cafile=ca_file or None, cadata=ca_pem or None)
    # Python 3.13 switched this on; CAs of old clusters lack the extensions that it asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if cert_file:
        context.load_cert_chain(cert_file, key_file or None)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def in_cluster_access(*, environ: Mapping[str, str], service_account_dir: Path) -> Access:
    """What the kubelet tells every pod. Reads files; raises `ConfigurationError`."""
    host = environ.get("KUBERNETES_SERVICE_HOST", "")
    port = environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        raise ConfigurationError(
            "not running in a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not "
            "set; set both, or pass a kubeconfig"
        )
    ca_file = service_account_dir / "ca.crt"
    try:
        tls = tls_context(ca_file=str(ca_file))
    except OSError as error:
        raise ConfigurationError(
            f"cannot use the API server's CA {ca_file}: {error}; "
            "mount the service account there, or pass a kubeconfig"
        ) from error
    authority = f"[{host}]" if ":" in host else host
    return Access(
        url=f"https://{authority}:{port}",
        tls=tls,
        credentials=TokenFile(service_account_dir / "token"),
    )


def direct_access(url: str, *, ca_pem: str = "", token: str = "") -> Access:
    """A server named by hand. Raises `ConfigurationError` for a CA that is no PEM."""
    if not url.startswith(("https://", "http://")):
        raise ConfigurationError(f"{url!r} is no URL of an API server; write https://host:port")
    try:
        tls = tls_context(ca_pem=ca_pem) if url.startswith("https://") else None
    except OSError as error:
        raise ConfigurationError(f"cannot use the CA given for {url}: {error}") from error
    return Access(url=url, tls=tls, credentials=FixedToken(token))
