"""aiohttp for programs that run on every node: two of its foundations' defaults cost too much.

Import it from here. At import it loads all CAs of the system for a default context, 50 ms and
2 MiB for nothing: a session here brings a context of its own (`access.tls_context`). Contexts made
later by others find the system's CAs as ever.
"""

from __future__ import annotations

import asyncio.sslproto
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["aiohttp"]

# A TLS record holds 16 KiB. asyncio's 256 KiB are resident for each connection, and asked of the
# allocator anew for each read.
_TLS_BUFFER: Final = 2**16


@contextmanager
def _no_system_cas() -> Iterator[None]:
    """OpenSSL reads the bundle that SSL_CERT_FILE names, and hashed directories only on demand."""
    name = "SSL_CERT_FILE"
    kept = os.environ.get(name)
    os.environ[name] = os.devnull
    try:
        yield
    finally:
        if kept is None:
            del os.environ[name]
        else:
            os.environ[name] = kept


asyncio.sslproto.SSLProtocol.max_size = _TLS_BUFFER
with _no_system_cas():
    import aiohttp
