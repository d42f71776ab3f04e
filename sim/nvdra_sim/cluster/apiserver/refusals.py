"""The refusals of an API server: typed errors, and the Status objects they become on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nvdra_kube import errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.catalog import ResourceType


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule of an object: `reason` is a cause type such as `FieldValueInvalid`."""

    field: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def not_found(kind: ResourceType, name: str) -> errors.NotFound:
    return errors.NotFound(
        f'{kind.qualified} "{name}" not found',
        status=404,
        reason="NotFound",
        details=_details(kind, name),
    )


def no_such_resource() -> errors.NotFound:
    return errors.NotFound(
        "the server could not find the requested resource", status=404, reason="NotFound"
    )


def already_exists(kind: ResourceType, name: str) -> errors.AlreadyExists:
    return errors.AlreadyExists(
        f'{kind.qualified} "{name}" already exists',
        status=409,
        reason="AlreadyExists",
        details=_details(kind, name),
    )


STALE = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


def conflict(kind: ResourceType, name: str, why: str = STALE) -> errors.Conflict:
    return errors.Conflict(
        f'Operation cannot be fulfilled on {kind.qualified} "{name}": {why}',
        status=409,
        reason="Conflict",
        details=_details(kind, name),
    )


def forbidden(
    kind: ResourceType, name: str, why: str, causes: Sequence[Body] = ()
) -> errors.Forbidden:
    details = _details(kind, name)
    if causes:
        details["causes"] = list(causes)
    return errors.Forbidden(
        f'{kind.qualified} "{name}" is forbidden: {why}',
        status=403,
        reason="Forbidden",
        details=details,
    )


def terminating(kind: ResourceType, name: str, namespace: str) -> errors.Forbidden:
    why = f"unable to create new content in namespace {namespace} because it is being terminated"
    cause = {
        "reason": "NamespaceTerminating",
        "message": f"namespace {namespace} is being terminated",
        "field": "metadata.namespace",
    }
    return forbidden(kind, name, why, [cause])


def invalid(kind: ResourceType, name: str, problems: Sequence[Problem]) -> errors.Invalid:
    shown = [str(problem) for problem in problems]
    text = shown[0] if len(shown) == 1 else f"[{', '.join(shown)}]"
    details: Body = {"name": name, "group": kind.group, "kind": kind.kind}
    details["causes"] = [
        {"reason": problem.reason, "message": problem.message, "field": problem.field}
        for problem in problems
    ]
    title = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    return errors.Invalid(
        f'{title} "{name}" is invalid: {text}', status=422, reason="Invalid", details=details
    )


def bad_request(message: str) -> errors.BadRequest:
    return errors.BadRequest(message, status=400, reason="BadRequest")


def gone(message: str) -> errors.Gone:
    return errors.Gone(message, status=410, reason="Expired")


def method_not_allowed(why: str) -> errors.ApiError:
    return errors.ApiError(why, status=405, reason="MethodNotAllowed")


def unsupported_media_type(media_type: str, accepted: str) -> errors.ApiError:
    return errors.ApiError(
        f"the body of the request was in an unknown format - accepted media types include:"
        f" {accepted} (got {media_type!r})",
        status=415,
        reason="UnsupportedMediaType",
    )


def status_of(error: errors.ApiError) -> Body:
    """The Status object that carries this error to a client."""
    details = dict(error.details)
    if error.retry_after_s is not None:
        details["retryAfterSeconds"] = max(1, round(error.retry_after_s))
    status: Body = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": error.message,
        "reason": error.reason or "InternalError",
        "code": error.status or 500,
    }
    if details:
        status["details"] = details
    return status


_CLASSES: dict[int, type[errors.ApiError]] = {
    400: errors.BadRequest,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    410: errors.Gone,
    422: errors.Invalid,
    429: errors.TooManyRequests,
}
_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


def for_status(status: int, message: str, *, retry_after_s: float | None = None) -> errors.ApiError:
    """The error that a client raises for an answer of this code."""
    fallback = errors.ServerError if status >= 500 else errors.ApiError
    return _CLASSES.get(status, fallback)(
        message,
        status=status,
        reason=_REASONS.get(status, "InternalError" if status >= 500 else ""),
        retry_after_s=retry_after_s,
    )


def _details(kind: ResourceType, name: str) -> Body:
    details: Body = {"name": name, "kind": kind.plural}
    if kind.group:
        details["group"] = kind.group
    return details
