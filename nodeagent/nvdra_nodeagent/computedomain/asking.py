"""Asking the API server: within a time, errors as those of a claim; also from worker threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import TYPE_CHECKING, Any, Final, TypeVar

from nvdra_kube.errors import ApiError, Forbidden, TooManyRequests, Unauthorized
from nvdra_nodeagent.errors import AgentError, Retryable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

CALL_S: Final = 5.0
_WORK_S: Final = 15.0

T = TypeVar("T")


async def asked(tried: str, call: Awaitable[T]) -> T:
    """The answer to a call that a claim needs; `tried` says what was called on which object.

    :raises NotFound: left to the caller, who knows what it means.
    :raises Conflict: likewise.
    :raises Retryable: there was no usable answer.
    """
    try:
        async with asyncio.timeout(CALL_S):
            return await call
    except TimeoutError as error:
        raise Retryable("ApiUnavailable", f"{tried}: no answer within {CALL_S:g} s") from error
    except ApiError as error:
        if error.status in (404, 409):
            raise
        raise _translated(error, tried) from error


def _translated(error: ApiError, tried: str) -> AgentError:
    if isinstance(error, Unauthorized | Forbidden):
        hint = "compare the rights of the node agent's service account with the chart"
        return Retryable("ApiForbidden", f"{tried}: {error}", hint=hint)
    if isinstance(error, TooManyRequests):
        return Retryable("ApiThrottled", f"{tried}: {error}")
    return Retryable("ApiUnavailable", f"{tried}: {error}")


class LoopCaller:
    """Lets worker threads have something done in the loop that it was made in."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Blocks. :raises AgentError: as `work` does, or it took too long."""
        future = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            return future.result(_WORK_S)
        except concurrent.futures.TimeoutError as error:
            future.cancel()
            raise Retryable("ApiUnavailable", f"no end within {_WORK_S:g} s") from error
        except concurrent.futures.CancelledError as error:
            raise Retryable("ApiUnavailable", "broken off: the agent is ending") from error
