"""Errors of the Kubernetes API, one class per decision a caller makes."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """The API server refused a call, or could not be asked.

    `status` is the HTTP code (0: no answer), `reason` the machine-readable reason of the Status
    object, `retry_after_s` the server's wish, `details` the Status' details.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        reason: str = "",
        retry_after_s: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.details = details or {}


class ConfigurationError(Exception):
    """How to reach the API server is not known or not usable; the message says what to set."""


class BadRequest(ApiError):
    """400 and its like: the call itself is malformed."""


class Unauthorized(ApiError):
    """401: the credentials are not accepted."""


class Forbidden(ApiError):
    """403: the credentials are known, the right is missing."""


class NotFound(ApiError):
    """404: no such object, or no such resource."""


class Conflict(ApiError):
    """409: somebody else wrote first."""


class AlreadyExists(Conflict):
    """409 on create: the name is taken."""


class Gone(ApiError):
    """410: the resource version is too old; list again."""


class Invalid(ApiError):
    """422: the object breaks a rule; retrying the same object is pointless."""


class TooManyRequests(ApiError):
    """429: try again after `retry_after_s`."""


class ServerError(ApiError):
    """5xx: the server is in trouble; try again later."""


class Unreachable(ApiError):
    """No answer: connection refused or reset, name not resolved, TLS failed, or time-out."""
