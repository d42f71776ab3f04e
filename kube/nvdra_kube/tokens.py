"""Who the caller is: values for the `Authorization` header, which may change while we run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from nvdra_kube.errors import Unauthorized

if TYPE_CHECKING:
    from pathlib import Path

_log = structlog.get_logger(__name__)

# The kubelet rotates a projected token when 80 % of its life is over; each minute is often enough.
_REREAD_S: Final = 60.0


class Credentials(Protocol):
    """The source of the `Authorization` header."""

    async def authorization(self) -> str:
        """The value to send now; empty for none. Raises `Unauthorized` if there is none to get."""
        ...

    def refused(self) -> None:
        """The server did not accept the last value: get a fresh one before the next call."""
        ...


class FixedToken:
    """A token given once; empty for an anonymous caller or one with a client certificate."""

    def __init__(self, token: str = "") -> None:
        self._value = f"Bearer {token}" if token else ""

    async def authorization(self) -> str:
        return self._value

    def refused(self) -> None:
        pass


class TokenFile:
    """A token that somebody else keeps fresh in a file, as the kubelet does for pods."""

    def __init__(self, path: Path, *, reread_s: float = _REREAD_S) -> None:
        self._path = path
        self._reread_s = reread_s
        self._value = ""
        self._due_s = 0.0

    async def authorization(self) -> str:
        now_s = asyncio.get_running_loop().time()
        if not self._value or now_s >= self._due_s:
            self._value = await self._read()
            self._due_s = now_s + self._reread_s
        return self._value

    def refused(self) -> None:
        self._due_s = 0.0

    async def _read(self) -> str:
        try:
            token = (await asyncio.to_thread(self._path.read_text, "utf-8")).strip()
        except (OSError, UnicodeDecodeError) as error:
            return self._without(str(error), error)
        return f"Bearer {token}" if token else self._without("the file is empty", None)

    def _without(self, why: str, cause: Exception | None) -> str:
        """Go on with the last token, which may well be good for an hour."""
        if not self._value:
            raise Unauthorized(
                f"read the service account token {self._path}: {why}; "
                "mount a service account token there",
                status=401,
            ) from cause
        _log.warning("token not readable, keeping the last one", path=str(self._path), error=why)
        return self._value
