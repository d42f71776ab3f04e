"""Kubeconfig files and their login plug-ins, by way of kubernetes-asyncio.

The only module that imports it, and only when called: it costs 37 MiB, which no node shall pay.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from nvdra_kube.access import Access, tls_context
from nvdra_kube.errors import ConfigurationError, Unauthorized

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

_log = structlog.get_logger(__name__)

_REFRESH_S: Final = 60.0


def default_paths(environ: Mapping[str, str]) -> str:
    """The files kubectl would read: `$KUBECONFIG`, a list with colons, else `~/.kube/config`."""
    return environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())


def exists(paths: str) -> bool:
    """Whether at least one file of the list is there."""
    return any(Path(path).expanduser().is_file() for path in paths.split(":") if path)


async def load_access(paths: str, *, context: str = "") -> Access:
    """Read kubeconfig files (a list with colons) and log in. Raises `ConfigurationError`."""
    loader_of, configuration_type = _library()
    if not await asyncio.to_thread(exists, paths):
        raise ConfigurationError(
            f"kubeconfig {paths}: no such file; name one with --kubeconfig or KUBECONFIG"
        )
    configuration = configuration_type()
    try:
        loader = await loader_of(paths, context or None, configuration)
        tls = _tls(configuration)
    # On a bad file the library raises whatever it stumbles over: AttributeError, TypeError, ...
    except Exception as error:
        raise ConfigurationError(_explain(paths, error)) from error
    if not str(configuration.host).startswith(("https://", "http://")):
        raise ConfigurationError(f"kubeconfig {paths}: the cluster's server is not a URL")
    return Access(
        url=configuration.host,
        tls=tls,
        credentials=LoginCredentials(loader, configuration, tls),
        server_name=configuration.tls_server_name or None,
        proxy=configuration.proxy or None,
    )


class LoginCredentials:
    """Tokens and client certificates that exec plug-ins, OIDC or files provide, kept fresh."""

    def __init__(self, loader: Any, configuration: Any, tls: ssl.SSLContext | None) -> None:
        self._loader = loader
        self._configuration = configuration
        self._tls = tls
        self._certificate = (configuration.cert_file, configuration.key_file)
        self._refused = False
        self._due_s = asyncio.get_running_loop().time() + _REFRESH_S
        self._refreshing = asyncio.Lock()

    async def authorization(self) -> str:
        async with self._refreshing:
            if self._refused or self._is_due():
                await self._refresh()
        return str(self._configuration.api_key.get("BearerToken", ""))

    def refused(self) -> None:
        self._refused = True

    def _is_due(self) -> bool:
        # A plug-in that names no expiry is asked again only after a refusal, as kubectl does.
        user = self._loader._user
        lasting = (
            user is not None and "exec" in user and not hasattr(self._loader, "exec_plugin_expiry")
        )
        return not lasting and asyncio.get_running_loop().time() >= self._due_s

    async def _refresh(self) -> None:
        if self._refused and hasattr(self._loader, "exec_plugin_expiry"):
            del self._loader.exec_plugin_expiry
        try:
            await self._loader.load_and_set(self._configuration)
            self._renew_certificate()
        # As at the first load: the library and plug-ins raise anything.
        except Exception as error:
            if self._refused:
                raise Unauthorized(
                    f"log in again with the kubeconfig: {str(error) or type(error).__name__}",
                    status=401,
                ) from error
            _log.warning("login not refreshed, keeping the last one", error=str(error))
        self._refused = False
        self._due_s = asyncio.get_running_loop().time() + _REFRESH_S

    def _renew_certificate(self) -> None:
        files = (self._configuration.cert_file, self._configuration.key_file)
        if self._tls is not None and files != self._certificate and files[0]:
            # Takes effect with the next connection.
            self._tls.load_cert_chain(*files)
            self._certificate = files


def _library() -> tuple[Any, Any]:
    try:
        from kubernetes_asyncio.client import Configuration
        from kubernetes_asyncio.config import load_kube_config
    except ImportError as error:
        raise ConfigurationError(
            "reading a kubeconfig needs kubernetes-asyncio, which is not installed: "
            "install nvdra[kubeconfig], or run in a pod with a service account"
        ) from error
    return load_kube_config, Configuration


def _tls(configuration: Any) -> ssl.SSLContext | None:
    if not str(configuration.host).startswith("https://"):
        return None
    return tls_context(
        ca_file=configuration.ssl_ca_cert or "",
        cert_file=configuration.cert_file or "",
        key_file=configuration.key_file or "",
        verify=bool(configuration.verify_ssl),
    )


def _explain(paths: str, error: Exception) -> str:
    """What is wrong, in one line; YAML errors come as several."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, TypeError | AttributeError | KeyError | AssertionError):
        form = "a mapping with clusters, users, contexts and current-context, each context complete"
        reason = f"not in the form of a kubeconfig ({form}): {reason}"
    return f"kubeconfig {paths}: {reason}; check it with: kubectl --kubeconfig {paths} config view"
