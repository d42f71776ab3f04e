"""What every ring shares."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# Asking the policy for a loop before any test made one would create a loop that nobody closes:
# pytest-asyncio asks, and the warning about it would fail the run.
asyncio.set_event_loop(None)

# Who runs the tests in the background has these ignored, and programs inherit that: tests of what
# an interrupted program does would wait for ever.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# No test judges by the clock: hypothesis would blame the example that a busy machine met.
# The same examples for the same code where changes are judged; new ones wherever people work.
settings.register_profile(
    "patient",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("patient")

# What runs while the kubelet waits; opening the lock file at start may block.
SERVING = [
    "nvdra_kube",
    "nvdra_nodeagent.cdi",
    "nvdra_nodeagent.claims",
    "nvdra_nodeagent.inventory",
    "nvdra_nodeagent.slices",
    "nvdra_operator",
]
# Locks are held for microseconds; looking at a file's status is start-up's business.
TOLERATED = ("threading.Lock.acquire", "os.getcwd", "os.path.abspath", "os.stat")
# Only for people and tests, before anything is served; the library behind it blocks.
KUBECONFIG_LOGIN = {"load_access", "exists", "_library"}


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory with a short path: Unix sockets below it have 107 bytes for theirs."""
    path = Path(tempfile.mkdtemp(prefix="nvdra-test-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """A call of the agent or the Kubernetes client that blocks the event loop fails the test."""
    with blockbuster_ctx(SERVING) as guard:
        for name in TOLERATED:
            guard.functions[name].deactivate()
        guard.functions["os.mkdir"].can_block_in("claims/locks.py", "__init__")
        for function in guard.functions.values():
            function.can_block_in("nvdra_kube/kubeconfig.py", KUBECONFIG_LOGIN)
            function.can_block_in("nvdra_kube/stacks.py", "write_stacks")  # on somebody's demand
        yield
