"""When a signal comes, as the run of a command sees it."""

from __future__ import annotations

import asyncio
import signal

import pytest

from nvdra_cli.interruption import Interruption


def test_a_signal_cancels_the_run() -> None:
    with Interruption() as interruption:

        async def run() -> None:
            interruption.cancels_this_task()
            signal.raise_signal(signal.SIGTERM)
            await asyncio.Event().wait()

        with pytest.raises(asyncio.CancelledError):
            asyncio.run(run())
        assert interruption.status == 128 + signal.SIGTERM


def test_a_signal_before_the_run_cancels_it_too() -> None:
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)

        async def run() -> None:
            interruption.cancels_this_task()
            await asyncio.Event().wait()

        with pytest.raises(asyncio.CancelledError):
            asyncio.run(run())


def test_a_signal_after_the_run_only_waits_for_the_cleaning_up() -> None:
    """The loop is closed by then: asking it for anything would be an error."""
    with Interruption() as interruption:

        async def run() -> None:
            interruption.cancels_this_task()

        asyncio.run(run())
        signal.raise_signal(signal.SIGTERM)
        assert interruption.status == 128 + signal.SIGTERM
