"""`nvdra simulate`: a cluster with simulated GPUs, manifests, and what becomes of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from nvdra_api.gates import FeatureGates, GateError
from nvdra_cli.applying import Refused, apply_manifests
from nvdra_cli.demo import DEMO, DEMO_STORY, demo_path
from nvdra_cli.domains import needs_domains
from nvdra_cli.interruption import Interruption
from nvdra_cli.manifests import Manifest, ManifestError, load_manifests
from nvdra_cli.narration import Narrator
from nvdra_cli.report import Report, as_json, print_report
from nvdra_cli.watching import ClusterWatch
from nvdra_kube.logs import configure
from nvdra_sim.cluster.apiserver import LocalApi
from nvdra_sim.cluster.domains import DomainPlan
from nvdra_sim.cluster.embedded import (
    ClusterBroken,
    ClusterNotReady,
    ClusterPlan,
    EmbeddedCluster,
    embedded_cluster,
)
from nvdra_sim.cluster.node import MachineChoice
from nvdra_sim.hardware import (
    ProfileSummary,
    SimulationError,
    describe,
    profile_names,
    simulated_machine,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from nvdra_cli.pods import PodView

OK, NOT_RUNNING, REFUSED = 0, 1, 2

_START_S = 60.0
_LOG_GRACE_S = 5.0
_LOG_STEADY_S = 0.3
_LOG_POLL_S = 0.05
_LONGEST_TMPDIR = 36
_SHORT_TMPDIR = "/tmp"
_TABLE_WIDTH = 240


@dataclass(frozen=True, slots=True)
class Wish:
    """A checked command line."""

    plan: ClusterPlan
    manifests: Sequence[Manifest]
    timeout_s: float
    keep: bool
    json: bool
    is_demo: bool


def run_simulate(arguments: argparse.Namespace) -> int:
    """Run the command; returns its exit status."""
    if arguments.profile == "list":
        sys.stdout.writelines(_profile_line(describe(name)) for name in profile_names())
        return OK
    try:
        wish = _wish(arguments)
    except (ManifestError, SimulationError, GateError) as exc:
        return _refuse(str(exc))
    configure(verbosity=0, format="text")
    with Interruption() as interruption:
        try:
            return _run(wish, interruption)
        except asyncio.CancelledError:
            return interruption.status
        except OSError as exc:
            hint = "set TMPDIR to a writable directory with space"
            return _refuse(f"cannot run below {_directory()}: {exc}; {hint}", status=NOT_RUNNING)


def _run(wish: Wish, interruption: Interruption) -> int:
    root = Path(tempfile.mkdtemp(prefix="nvdra-", dir=_directory()))
    try:
        return asyncio.run(_simulate(wish, root, interruption))
    finally:
        # Only now has every thread ended that may still have been writing there.
        shutil.rmtree(root, ignore_errors=True)


def _directory() -> str:
    """Where the cluster's directory goes: paths of sockets are below it, and have to be short."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= _LONGEST_TMPDIR else _SHORT_TMPDIR


def _wish(arguments: argparse.Namespace) -> Wish:
    FeatureGates.parse(arguments.feature_gates)
    _check_machine(arguments.profile, mig_layout=arguments.mig_layout)
    is_demo = not arguments.files and arguments.nodes > 0 and not arguments.keep
    files = [demo_path(DEMO)] if is_demo else arguments.files
    manifests = load_manifests(files) if files else []
    # What is applied later to a cluster that stays may be a ComputeDomain.
    has_domains = arguments.keep or needs_domains(manifests)
    plan = ClusterPlan(
        nodes=arguments.nodes,
        machine=MachineChoice(profile=arguments.profile, mig_layout=arguments.mig_layout),
        feature_gates=arguments.feature_gates,
        compute_domains=DomainPlan() if has_domains else None,
    )
    return Wish(
        plan=plan,
        manifests=manifests,
        timeout_s=arguments.timeout,
        keep=arguments.keep or arguments.nodes == 0,
        json=arguments.json,
        is_demo=is_demo,
    )


def _check_machine(profile: str, *, mig_layout: Path | None) -> None:
    """Raises `SimulationError` now rather than in every agent's log."""
    describe(profile)
    if mig_layout:
        with tempfile.TemporaryDirectory(prefix="nvdra-") as directory:
            simulated_machine(profile, Path(directory), mig_layout=mig_layout)


def _profile_line(profile: ProfileSummary) -> str:
    memory_gib = profile.memory_bytes / 2**30
    mig = f", MIG {' '.join(profile.mig_profiles)}" if profile.mig_profiles else ""
    offer = f"{profile.gpus} x {profile.product}, {memory_gib:.0f} GiB"
    return f"{profile.name:12} {offer}, compute {profile.compute_capability}{mig}\n"


async def _simulate(wish: Wish, root: Path, interruption: Interruption) -> int:
    interruption.cancels_this_task()
    try:
        async with embedded_cluster(wish.plan, root=root) as cluster:
            return await _Simulation(wish, cluster).run()
    except (ClusterNotReady, ClusterBroken) as exc:
        return _refuse(str(exc), status=NOT_RUNNING)


class _Simulation:
    """One run on a cluster that is up."""

    def __init__(self, wish: Wish, cluster: EmbeddedCluster) -> None:
        self._wish = wish
        self._cluster = cluster
        self._started_s = time.monotonic()
        self._narrator = Narrator(Console(stderr=True, highlight=False), since_s=self._started_s)

    async def run(self) -> int:
        await self._cluster.wait_ready(timeout_s=max(self._wish.timeout_s, _START_S))
        self._narrator.cluster_ready(await self._cluster.inventory())
        status = await self._apply_and_watch() if self._wish.manifests else OK
        if self._wish.keep and status != REFUSED:
            await self._stay()
        return status

    async def _apply_and_watch(self) -> int:
        cluster, wish = self._cluster, self._wish
        narrator = self._narrator
        async with ClusterWatch(
            cluster.api, on_pod=narrator.pod_changed, on_domain=narrator.domain_changed
        ) as watch:
            applied_s = time.monotonic()
            try:
                # Strict as kubectl is: a misspelt field is an error, not a surprise.
                api = LocalApi(cluster.store, field_validation="Strict")
                await apply_manifests(api, wish.manifests, types=cluster.store.catalog)
            except Refused as exc:
                return self._refused(exc)
            await watch.until_settled(timeout_s=wish.timeout_s)
            await self._wait_for_logs(watch.pods())
            pods, missing, domains = watch.pods(), watch.missing_pods(), watch.domains()
            since = {key: at - applied_s for key, at in watch.running_since_s.items()}
        daemons = [daemon for domain in domains for daemon in domain.daemons]
        logs = {pod.key: self._logs(pod) for pod in (*pods, *daemons)}
        return self._show(Report(pods, logs, since, self._elapsed_s(), missing, domains))

    def _refused(self, exc: Refused) -> int:
        if self._wish.json:
            sys.stdout.write(as_json(Report((), {}, {}, self._elapsed_s(), 0)) + "\n")
        return _refuse(str(exc))

    async def _wait_for_logs(self, pods: Sequence[PodView]) -> None:
        """A container counts as running before it has printed anything, or all of it.

        On a busy machine even a short program takes its time, also from one line to the next.
        """
        since = time.monotonic()
        deadline = since + _LOG_GRACE_S
        # What has ended has written all that it ever will.
        expected = [pod for pod in pods if pod.runs and pod.claims and pod.phase == "Running"]
        before: list[int] = []
        while expected and (now := time.monotonic()) < deadline:
            sizes = [len(log) for pod in expected for log in self._logs(pod).values()]
            if sizes != before:
                before, since = sizes, now
            elif all(sizes) and now - since >= _LOG_STEADY_S:
                return
            await asyncio.sleep(_LOG_POLL_S)

    def _logs(self, pod: PodView) -> dict[str, str]:
        kubelet = next((n.kubelet for n in self._cluster.nodes if n.name == pod.node), None)
        if kubelet is None:
            return {}
        started = kubelet.containers(pod.namespace, pod.name)
        return {
            name: kubelet.logs(pod.namespace, pod.name, name)
            for name in pod.containers
            if name in started
        }

    def _show(self, report: Report) -> int:
        """Write the report; what cannot be written is a failure, unless the reader just left."""
        try:
            self._write(report)
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_output()
        except OSError as exc:
            _discard_output()
            return _refuse(f"cannot write to standard output: {exc}", status=NOT_RUNNING)
        return OK if report.succeeded else NOT_RUNNING

    def _write(self, report: Report) -> None:
        if self._wish.json:
            sys.stdout.write(as_json(report) + "\n")
            return
        # Wide enough for any row: a folded UUID cannot be copied.
        console = _Console(highlight=False, width=_TABLE_WIDTH)
        print_report(report, console)
        if self._wish.is_demo and report.succeeded:
            console.print(DEMO_STORY, soft_wrap=True)

    async def _stay(self) -> None:
        self._narrator.staying(self._cluster)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._started_s


def _refuse(text: str, *, status: int = REFUSED) -> int:
    sys.stderr.write(f"nvdra simulate: {text}\n")
    return status


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Left to the caller: by itself the console would end the program, with status 1."""
        raise BrokenPipeError


def _discard_output() -> None:
    """What standard output still holds would fail again, with a traceback, at the very end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
