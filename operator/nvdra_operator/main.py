"""Entry point of the controller: options in, wiring, exit status out."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_kube.access import in_cluster_access
from nvdra_kube.endpoints import http_endpoint
from nvdra_kube.errors import ApiError, ConfigurationError
from nvdra_kube.kubeconfig import load_access
from nvdra_kube.logs import configure
from nvdra_kube.session import KubeSession
from nvdra_kube.stacks import dump_on_signal
from nvdra_operator import __version__
from nvdra_operator.lifecycle import MirrorLifecycle
from nvdra_operator.metrics import ControllerMetrics
from nvdra_operator.options import Options, parse_options
from nvdra_operator.program import Program

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from nvdra_kube.access import Access
    from nvdra_kube.transport import Exchange
    from nvdra_operator.program import LifecycleOf

log = structlog.get_logger(__name__)

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_USER_AGENT: Final = f"nvdra-controller/{__version__}"


def main() -> None:
    """`nvdra-controller`. Exit status 0 after a stop signal, 1 on failure, 2 on bad options."""
    options = parse_options(sys.argv[1:], environ=os.environ, version=__version__)
    configure(verbosity=options.verbosity, format=options.logging_format)
    try:
        asyncio.run(_run(options))
    except* Exception as group:
        for failure in _leaves(group):
            _failed(failure)
        raise SystemExit(1) from None


async def _run(options: Options) -> None:
    loop = asyncio.get_running_loop()
    dump_on_signal(loop)
    stop = asyncio.Event()
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    metrics = ControllerMetrics()

    access = _access_of(options)
    lease_s = options.election.request_timeout_s if options.election else 5.0
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(
            KubeSession(access, {"user_agent": _USER_AGENT, "observe": metrics.api_called})
        )
        lease_api = await stack.enter_async_context(
            KubeSession(
                access,
                {"user_agent": _USER_AGENT, "observe": metrics.api_called, "timeout_s": lease_s},
            )
        )
        program = Program(
            options,
            api=api,
            lease_api=lease_api,
            metrics=metrics,
            lifecycle=_lifecycle_of(options, access, metrics.api_called),
        )
        if options.http_endpoint:
            await stack.enter_async_context(_endpoint(options, program, metrics))
        await program.run(stop)
    log.info("stopped")


def _access_of(options: Options) -> Callable[[], Awaitable[Access]]:
    async def access() -> Access:
        if options.kubeconfig:
            return await load_access(str(options.kubeconfig))
        return await asyncio.to_thread(
            in_cluster_access,
            environ=os.environ,
            service_account_dir=options.service_account_dir,
        )

    return access


def _lifecycle_of(
    options: Options,
    access: Callable[[], Awaitable[Access]],
    count: Callable[[Exchange], None],
) -> LifecycleOf:
    if options.lifecycle == "mirror":
        return lambda mirror, domains, _: MirrorLifecycle(mirror, domains)
    # Here, not above: simulations do without it, and it takes 20 MiB.
    from nvdra_operator.kopf_lifecycle import KopfLifecycle

    return lambda _, domains, gate: KopfLifecycle(domains, access=access, gate=gate, observe=count)


def _endpoint(
    options: Options, program: Program, metrics: ControllerMetrics
) -> AbstractAsyncContextManager[int]:
    return http_endpoint(
        options.http_endpoint,
        metrics_path=options.metrics_path,
        registry=metrics.registry,
        healthy=program.unhealthy,
        ready=program.unready,
    )


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _failed(error: BaseException) -> None:
    """One line for what a user can mend; a traceback for what only we can."""
    expected = isinstance(error, ConfigurationError | ApiError | OSError)
    log.error("cannot run", cause=str(error) or repr(error), exc_info=None if expected else error)


if __name__ == "__main__":
    main()
