"""Kopf follows ComputeDomains: a daemon for each, and a finalizer that it puts on and takes off.

It runs in a thread and loop of its own, since it replaces signal handlers and cancels tasks of the
loop that it runs in. What it calls for a domain runs in the program's loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

import kopf
import structlog

from nvdra_api.names import API_GROUP, API_VERSION_NAME, FINALIZER_COMPUTE_DOMAIN
from nvdra_kube.errors import ApiError
from nvdra_operator.gate import NotLeading
from nvdra_operator.kopf_session import kopf_session
from nvdra_operator.kopf_storage import Forgetful, NoDiffBase
from nvdra_operator.resources import COMPUTE_DOMAINS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from nvdra_kube.access import Access
    from nvdra_kube.http_stack import aiohttp
    from nvdra_kube.transport import Exchange
    from nvdra_operator.domains.registry import Domains
    from nvdra_operator.gate import WriteGate

log = structlog.get_logger(__name__)
_T = TypeVar("_T")

_RESTART_S: Final = 2.0
_RETRY_S: Final = 1.0
# Kopf writes finalizers; after so long we do. Less would write them twice where it is only slow.
_PUT_ON_AFTER_S: Final = 15.0
_TAKE_OFF_AFTER_S: Final = 10.0
_KEEPER_ENDS_IN_S: Final = 60.0
_GOODBYE_S: Final = 0.05
_KEEP_ID: Final = "keep"
_TEAR_DOWN_ID: Final = "tear-down"


class KopfLifecycle:
    """`run` belongs to a task of the program's loop."""

    def __init__(
        self,
        domains: Domains,
        *,
        access: Callable[[], Awaitable[Access]],
        gate: WriteGate,
        observe: Callable[[Exchange], None] = lambda _: None,
    ) -> None:
        """`observe` is called, in Kopf's thread, after each of its HTTP requests."""
        self._domains = domains
        self._access = access
        self._gate = gate
        self._observe = observe
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keeping: set[asyncio.Task[Any]] = set()
        self._leaving: dict[str, asyncio.Task[None]] = {}
        domains.await_finalizers(for_s=_PUT_ON_AFTER_S)

    async def run(self) -> None:
        """Until cancelled. Kopf ends on errors that it does not know, and is started anew."""
        self._loop = asyncio.get_running_loop()
        while True:
            try:
                await self._run_thread()
            finally:
                await self._stop_keeping()
            log.error("kopf ended by itself, starting it again", retry_in_s=_RESTART_S)
            await asyncio.sleep(_RESTART_S)

    async def _run_thread(self) -> None:
        """One life of Kopf; returns when it ended. When cancelled, waits for its end."""
        assert self._loop
        loop, stop, ended = self._loop, threading.Event(), asyncio.Event()

        def live() -> None:
            try:
                asyncio.run(self._operate(stop))
            except Exception as error:
                log.error("kopf failed", exc_info=error)
            finally:
                loop.call_soon_threadsafe(ended.set)

        thread = threading.Thread(target=live, name="kopf", daemon=True)
        thread.start()
        try:
            await ended.wait()
        finally:
            stop.set()
            await _wait_through(ended)
            thread.join(timeout=1.0)

    async def _operate(self, stop: threading.Event) -> None:
        """In Kopf's thread."""
        # It warns that signals are not its own here, which is how it is meant to be.
        logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
        sessions: list[aiohttp.ClientSession] = []
        try:
            await kopf.operator(
                registry=self._registry(sessions),
                settings=_settings(),
                clusterwide=True,
                standalone=True,
                stop_flag=stop,
            )
        finally:
            for session in sessions:
                await session.close()
            # Closed connections go with a later turn of the loop, which is about to end.
            await asyncio.sleep(_GOODBYE_S)

    def _registry(self, sessions: list[aiohttp.ClientSession]) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        where = (API_GROUP, API_VERSION_NAME, COMPUTE_DOMAINS.plural)

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> Any:
            access = await self._access()
            sessions.append(kopf_session(access, self._gate, observe=self._observe))
            return kopf.AiohttpSession(server=access.url, aiohttp_session=sessions[-1])

        @kopf.daemon(*where, registry=registry, id=_KEEP_ID)
        async def keep(uid: str, stopped: Any, **_: Any) -> None:
            # Never returns before it is told to: Kopf would take the finalizer off.
            waiting = asyncio.ensure_future(stopped.wait())
            try:
                while not stopped:
                    await self._until_stopped(uid, waiting)
            finally:
                waiting.cancel()

        @kopf.on.delete(*where, registry=registry, id=_TEAR_DOWN_ID)
        async def tear_down(uid: str, **_: Any) -> None:
            # Never fails: Kopf remembers failures in the object, and we let it remember nothing.
            while True:
                if await self._in_program(self._keep(uid, tears_down=True)):
                    break
                await asyncio.sleep(_RETRY_S)
            await self._in_program(self._see_off(uid))

        return registry

    async def _until_stopped(self, uid: str, stopped: asyncio.Future[Any]) -> None:
        """In Kopf's loop: keep the domain; returns when told to stop, or a while after it ended."""
        # Kopf ends a daemon when its object is deleted: a teardown would be broken off halfway.
        keeping = self._in_program(self._keep(uid, tears_down=False))
        try:
            await asyncio.wait((keeping, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            keeping.cancel()
        if not stopped.done():
            await asyncio.wait((stopped,), timeout=_RETRY_S)

    def _in_program(self, work: Coroutine[Any, Any, _T]) -> asyncio.Future[_T]:
        """Run a coroutine in the program's loop; cancelling the future cancels it there."""
        assert self._loop
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _keep(self, uid: str, *, tears_down: bool) -> bool:
        """In the program's loop. Whether the domain is deleted, or torn down, or gone."""
        task = asyncio.current_task()
        assert task
        self._keeping.add(task)
        try:
            await self._domains.keep(uid, tears_down=tears_down)
        except NotLeading:
            return False
        except Exception as error:
            log.error("keeping a domain failed", domain=uid, exc_info=error)
            return False
        finally:
            self._keeping.discard(task)
        return True

    async def _see_off(self, uid: str) -> None:
        """In the program's loop. Kopf takes the finalizer off now. It tries that once: where it did
        not work, no event would make it try again."""
        if uid not in self._leaving:
            self._leaving[uid] = asyncio.create_task(self._let_go(uid), name=f"let go {uid}")

    async def _let_go(self, uid: str) -> None:
        try:
            while self._domains.knows(uid):
                await asyncio.sleep(_TAKE_OFF_AFTER_S)
                try:
                    await self._domains.release(uid)
                except ApiError as error:
                    log.info("finalizer not taken off", domain=uid, cause=str(error))
        except Exception as error:
            log.error("domain not let go", domain=uid, exc_info=error)
        finally:
            del self._leaving[uid]

    async def _stop_keeping(self) -> None:
        """Nothing that Kopf began goes on without it."""
        tasks = (*self._keeping, *self._leaving.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.persistence.finalizer = FINALIZER_COMPUTE_DOMAIN
    # Users' objects get no annotations of ours: all there is to remember is in the cluster.
    settings.persistence.progress_storage = Forgetful()
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.process.ultimate_exiting_timeout = None
    settings.queueing.exit_timeout = 0.1
    # Whatever takes longer, Kopf looks at again after writing into the object, and we let it write
    # nothing: so it waits for the task that keeps a domain, which ends when it is told to.
    settings.background.instant_exit_timeout = _KEEPER_ENDS_IN_S
    settings.networking.request_timeout = 30.0
    settings.networking.connect_timeout = 10.0
    settings.networking.error_backoffs = (0.1, 0.5, 1, 2, 5, 10)
    return settings


async def _wait_through(ended: asyncio.Event) -> None:
    """Wait however often the waiting is cancelled; raises the cancellation afterwards."""
    cancelled = False
    while not ended.is_set():
        try:
            await ended.wait()
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
