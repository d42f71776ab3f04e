"""Entry points of the node agent's programs: options in, wiring, exit status out."""

# ruff: noqa: E402 - imports make 50,000 objects that stay. Looking for garbage among them again and
# again takes a fifth of the start, and later 20 ms out of the middle of a call.
from __future__ import annotations

import gc

gc.disable()

import asyncio
import faulthandler
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import structlog

from nvdra_api.gates import FeatureGates, GateError
from nvdra_api.names import GPU_DRIVER
from nvdra_kube.errors import ApiError, ConfigurationError
from nvdra_kube.logs import configure
from nvdra_kube.session import KubeSession
from nvdra_kube.stacks import dump_on_signal
from nvdra_nodeagent import __version__
from nvdra_nodeagent.agent import GpuAgent
from nvdra_nodeagent.errors import AgentError
from nvdra_nodeagent.hardware.real import real_machine
from nvdra_nodeagent.kubelet.names import kubelet_takes_several
from nvdra_nodeagent.node_agent import stop_limit_s
from nvdra_nodeagent.program.metrics import DEVICE_TYPES, AgentMetrics
from nvdra_nodeagent.program.options import Options, parse_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_kube.api import KubeApi
    from nvdra_kube.transport import Exchange
    from nvdra_nodeagent.hardware.ports import Machine
    from nvdra_nodeagent.node_agent import NodeAgent

gc.freeze()
gc.enable()

log = structlog.get_logger(__name__)

_HOOK_IN_IMAGE = Path("/usr/bin/nvidia-cdi-hook")
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class Driver(NamedTuple):
    """Which of the programs this is."""

    name: str
    program: str
    device_types: tuple[str, ...]


class Node(TypedDict):
    """What every agent is given."""

    api: KubeApi
    machine: Machine
    gates: FeatureGates
    metrics: AgentMetrics
    boot_id: str
    beside_others: bool


def gpu_plugin() -> None:
    """`nvdra-gpu-plugin`. Exit status 0 after a stop signal, 1 on failure, 2 on bad options."""
    if sys.argv[1:2] == ["export-checkpoint"]:
        from nvdra_nodeagent.checkpoint.command import main as export

        sys.exit(export(sys.argv[2:], environ=os.environ, boot_id=this_boot()))
    options = parse_options(sys.argv[1:], environ=os.environ, version=__version__)
    driver = Driver(GPU_DRIVER, "nvdra-gpu-plugin", DEVICE_TYPES)
    run_program(options, driver, lambda node: GpuAgent(options, **node))


def run_program(options: Options, driver: Driver, make: Callable[[Node], NodeAgent]) -> None:
    """Run the agent that `make` makes until a stop signal; exits as `gpu_plugin` says."""
    configure(verbosity=options.verbosity, format=options.logging_format)
    try:
        gates = FeatureGates.parse(options.feature_gates)
    except GateError as exc:
        log.error("bad feature gates", cause=str(exc))
        sys.exit(2)
    try:
        asyncio.run(_run(options, gates, driver, make))
    except* Exception as group:
        for failure in _leaves(group):
            _failed(failure)
        raise SystemExit(1) from None


async def _run(
    options: Options, gates: FeatureGates, driver: Driver, make: Callable[[Node], NodeAgent]
) -> None:
    loop = asyncio.get_running_loop()
    dump_on_signal(loop)
    stop = asyncio.Event()
    _stop_on_signals(loop, stop, limit_s=stop_limit_s(beside_others=options.rolling_update))
    metrics = AgentMetrics(
        driver=driver.name, node=options.node_name, device_types=driver.device_types
    )

    def count(exchange: Exchange) -> None:
        metrics.api_called(exchange.verb, exchange.resource, exchange.status)

    async with _session(options, driver, count) as api:
        node = Node(
            api=api,
            machine=_machine(options, driver),
            gates=gates,
            metrics=metrics,
            boot_id=this_boot(),
            beside_others=options.rolling_update
            and await kubelet_takes_several(api, options.node_name),
        )
        agent = make(node)
        dump_on_signal(loop, state=agent.describe)
        _stop_on_signals(loop, stop, limit_s=agent.stop_limit_s)
        gc.freeze()
        await agent.run(stop)
    log.info("stopped")


def _stop_on_signals(
    loop: asyncio.AbstractEventLoop, stop: asyncio.Event, *, limit_s: float
) -> None:
    """Have signals set `stop`, in the place of earlier handlers.

    A thread may hang in the driver or a disk for ever, and would be waited for: after `limit_s` the
    process ends all the same, with status 1 and the stacks of all threads on standard error.
    """

    def ask() -> None:
        if not stop.is_set():
            stop.set()
            faulthandler.dump_traceback_later(limit_s, exit=True)

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, ask)


def this_boot() -> str:
    """The kernel's id of the machine's present boot (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _session(options: Options, driver: Driver, observe: Callable[[Exchange], None]) -> KubeSession:
    agent_name = f"{driver.program}/{__version__}"
    if options.kubeconfig:
        return KubeSession.from_kubeconfig(
            options.kubeconfig, user_agent=agent_name, observe=observe
        )
    return KubeSession.in_cluster(
        service_account_dir=options.service_account_dir, user_agent=agent_name, observe=observe
    )


def _machine(options: Options, driver: Driver) -> Machine:
    if options.simulate and options.simulate_state:
        # The simulator is an extra that production images leave out.
        from nvdra_sim.hardware import simulated_machine

        return simulated_machine(
            options.simulate,
            options.simulate_state,
            node=options.node_name,
            mig_layout=options.simulate_mig_layout,
        )
    return real_machine(
        driver_root=options.container_driver_root,
        host_driver_root=options.nvidia_driver_root,
        sysfs=Path("/sys"),
        procfs=Path("/proc"),
        plugin_dir=options.kubelet_plugins_directory_path / driver.name,
        hook_source=_HOOK_IN_IMAGE,
        hook_path=options.nvidia_cdi_hook_path,
        proc_devices=options.alt_proc_devices_path,
    )


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for exc in group.exceptions:
        found += _leaves(exc) if isinstance(exc, BaseExceptionGroup) else [exc]
    return found


def _failed(exc: BaseException) -> None:
    """One line for what a user can mend; a traceback for what only we can."""
    expected = isinstance(exc, AgentError | ConfigurationError | ApiError | OSError)
    log.error("cannot run", cause=str(exc) or repr(exc), exc_info=None if expected else exc)


if __name__ == "__main__":
    gpu_plugin()
