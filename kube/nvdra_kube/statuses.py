"""Answers of the API server that are no success, as typed errors. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from nvdra_kube.errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    ServerError,
    TooManyRequests,
    Unauthorized,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nvdra_kube.api import Body

_CLASSES: Final[dict[int, type[ApiError]]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: BadRequest,
    406: BadRequest,
    409: Conflict,
    410: Gone,
    413: BadRequest,
    415: BadRequest,
    422: Invalid,
    429: TooManyRequests,
}
_HINTS: Final = {
    401: "the credentials are missing, wrong or expired",
    403: "grant the right to the account that the program runs under",
}
_EXCERPT: Final = 300


def error_from_answer(
    code: int, headers: Mapping[str, str], content: bytes, *, call: str
) -> ApiError:
    """The error behind an HTTP answer. `call` says what was tried on which object."""
    status = _status_in(content)
    return error_from_status(
        {"message": _text(content), **status, "code": code},
        call=call,
        retry_after_s=_seconds(headers.get("Retry-After")),
    )


def error_from_status(status: Body, *, call: str, retry_after_s: float | None = None) -> ApiError:
    """The error behind a `Status` object, from an answer or from within a watch."""
    code = status.get("code")
    code = code if isinstance(code, int) else 500
    details = status.get("details")
    details = details if isinstance(details, dict) else {}
    reason = str(status.get("reason") or "")
    if retry_after_s is None:
        retry_after_s = _seconds(details.get("retryAfterSeconds"))
    said = str(status.get("message") or reason or "no reason given")
    if hint := _hint(code, details):
        said += f"; {hint}"
    return _class_for(code, reason)(
        f"{call}: {said} (HTTP {code})",
        status=code,
        reason=reason,
        retry_after_s=retry_after_s,
        details=details,
    )


def _hint(code: int, details: Mapping[str, Any]) -> str:
    """What to do about it. Making something in a namespace that ends is no question of rights."""
    causes = details.get("causes")
    for cause in causes if isinstance(causes, list) else ():
        if isinstance(cause, dict) and cause.get("reason") == "NamespaceTerminating":
            return "nothing to do: the namespace is being deleted"
    return _HINTS.get(code, "")


def _class_for(code: int, reason: str) -> type[ApiError]:
    if reason == "AlreadyExists":
        return AlreadyExists
    if code >= 500:
        return ServerError
    return _CLASSES.get(code, ApiError)


def _status_in(content: bytes) -> dict[str, Any]:
    """The `Status` object of an answer; proxies and load balancers send other things."""
    try:
        decoded = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return {}
    is_status = isinstance(decoded, dict) and decoded.get("kind") == "Status"
    return decoded if is_status else {}


def _text(content: bytes) -> str:
    return " ".join(content[:_EXCERPT].decode(errors="replace").split())


def _seconds(wish: object) -> float | None:
    try:
        seconds = float(str(wish))
    except ValueError:
        return None
    # Also false for NaN. Zero is how an absent wish is written in a Status' details.
    return seconds if 0 < seconds < float("inf") else None
