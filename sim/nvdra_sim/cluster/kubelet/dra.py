"""Claims of this node's Pods: when drivers are called, with what, and what is made of the answer.

Follows the kubelet (1.34 to 1.36) to the letter, its weak spots included: after a failure all of a
Pod's claims that are not prepared are sent again, and nothing is rolled back.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import structlog

from nvdra_kube.errors import ApiError
from nvdra_kube.resources import RESOURCE_CLAIMS
from nvdra_nodeagent.errors import AgentError
from nvdra_sim.cluster.kubelet.claim_state import ClaimState, ClaimStates
from nvdra_sim.cluster.kubelet.dra_client import DraCallError
from nvdra_sim.cluster.kubelet.pod_claims import (
    ClaimNotUsable,
    check_claim,
    container_cdi_ids,
    known_claim_names,
    pod_claims,
    pod_uid,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
    from pathlib import Path

    from nvdra_kube.api import Body, KubeApi
    from nvdra_sim.cluster.kubelet.dra_client import DraClient, PrepareResult
    from nvdra_sim.cluster.kubelet.pod_claims import UsableClaim

log = structlog.get_logger(__name__)

_Key = tuple[str, str]


class PrepareError(Exception):
    """Not all claims of a Pod could be prepared; the text is what the event says."""


class UnprepareError(Exception):
    """Not all claims of a Pod could be unprepared: the Pod has to stay."""


class PodResources:
    """Prepares and unprepares the claims of Pods. `client` finds a registered driver by name."""

    def __init__(
        self, api: KubeApi, *, client: Callable[[str], DraClient | None], states: ClaimStates
    ) -> None:
        self._api = api
        self._client = client
        self._states = states
        # A lock lives as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[_Key, asyncio.Lock] = WeakValueDictionary()
        self._writing = asyncio.Lock()
        # True while the file is behind, so that a failed write is made up for.
        self._unsaved = False

    @classmethod
    async def open(
        cls, api: KubeApi, *, client: Callable[[str], DraClient | None], path: Path
    ) -> PodResources:
        """With what an earlier kubelet left at `path`."""
        states = await asyncio.to_thread(ClaimStates.load, path)
        return cls(api, client=client, states=states)

    async def prepare(self, pod: Body) -> None:
        """Make every claim of `pod` ready. Raises `PrepareError`; may be repeated."""
        try:
            usable = await self._usable_claims(pod)
            async with self._locked((claim.ref.namespace, claim.ref.name) for claim in usable):
                await self._prepare_locked(usable, pod_uid(pod))
        except (ClaimNotUsable, DraCallError, ApiError, AgentError) as exc:
            raise PrepareError(f"prepare dynamic resources: {exc}") from exc

    def cdi_ids(self, pod: Body, container: Body) -> tuple[str, ...]:
        """What the container gets; call after `prepare`."""
        namespace = pod["metadata"]["namespace"]
        devices = {
            name: state.devices
            for (where, name), state in self._states.claims.items()
            if where == namespace
        }
        return container_cdi_ids(pod, container, devices)

    async def unprepare(self, pod: Body) -> None:
        """Give back the claims whose last Pod this is. Raises `UnprepareError`; may be repeated."""
        namespace = pod["metadata"]["namespace"]
        keys = [(namespace, name) for name in known_claim_names(pod)]
        await self._release(keys, pod_uid(pod))

    async def sweep(self, live_pods: Collection[str]) -> None:
        """Give back what Pods hold that no longer exist. Failures are logged: it comes again."""
        for key, state in list(self._states.claims.items()):
            for uid in state.pods - set(live_pods):
                try:
                    await self._release([key], uid)
                except UnprepareError as exc:
                    log.warning("claim of a vanished pod not released", pod=uid, cause=str(exc))

    async def _usable_claims(self, pod: Body) -> list[UsableClaim]:
        """The pass without side effects: every check of every claim."""
        namespace = pod["metadata"]["namespace"]
        usable = []
        for claim in pod_claims(pod):
            body = await self._api.get(RESOURCE_CLAIMS, claim.name, namespace=namespace)
            checked = check_claim(pod, claim, body)
            # The kubelet leaves a claim alone that no container refers to.
            if claim.used:
                usable.append(checked)
        for checked in usable:
            self._check_drivers(checked)
        return usable

    def _check_drivers(self, claim: UsableClaim) -> None:
        for driver in claim.drivers:
            self._driver(driver)
        held = self._states.claims.get((claim.ref.namespace, claim.ref.name))
        if held is not None and held.ref.uid != claim.ref.uid:
            raise ClaimNotUsable(
                f"old ResourceClaim with same name {claim.ref.name} and different UID "
                f"{held.ref.uid} still exists (new UID {claim.ref.uid})"
            )

    async def _prepare_locked(self, claims: Sequence[UsableClaim], pod: str) -> None:
        batches: dict[str, list[ClaimState]] = {}
        for claim in claims:
            state = self._adopt(claim, pod)
            if not state.prepared:
                for driver in state.drivers:
                    batches.setdefault(driver, []).append(state)
        if claims:
            await self._save()
        for driver, states in batches.items():
            refs = [state.ref for state in states]
            results = await self._driver(driver).prepare(refs)
            _take_results(states, results)
        for claim in claims:
            self._states.claims[(claim.ref.namespace, claim.ref.name)].prepared = True
        if batches:
            await self._save()

    def _adopt(self, claim: UsableClaim, pod: str) -> ClaimState:
        key = (claim.ref.namespace, claim.ref.name)
        state = self._states.claims.setdefault(key, ClaimState(claim.ref, claim.drivers))
        state.pods.add(pod)
        return state

    async def _release(self, keys: Iterable[_Key], pod: str) -> None:
        async with self._locked(keys) as locked:
            held = [
                state
                for key in locked
                if (state := self._states.claims.get(key)) is not None and pod in state.pods
            ]
            last = [state for state in held if len(state.pods) == 1]
            await self._unprepare_all(last)
            for state in held:
                state.pods.discard(pod)
            for state in last:
                del self._states.claims[(state.ref.namespace, state.ref.name)]
            if held or self._unsaved:
                await self._save_release()

    async def _unprepare_all(self, states: Sequence[ClaimState]) -> None:
        batches: dict[str, list[ClaimState]] = {}
        for state in states:
            # From here on it is not safe to use, whatever the drivers answer.
            state.prepared = False
            for driver in state.drivers:
                batches.setdefault(driver, []).append(state)
        try:
            for driver, mine in batches.items():
                errors = await self._driver(driver).unprepare([state.ref for state in mine])
                _check_errors(mine, errors)
        except (ClaimNotUsable, DraCallError) as exc:
            raise UnprepareError(f"unprepare dynamic resources: {exc}") from exc

    def _driver(self, name: str) -> DraClient:
        client = self._client(name)
        if client is None:
            raise ClaimNotUsable(f"DRA driver {name} is not registered")
        return client

    async def _save(self) -> None:
        async with self._writing:
            self._unsaved = True
            await asyncio.to_thread(self._states.write, self._states.encode())
            self._unsaved = False

    async def _save_release(self) -> None:
        try:
            await self._save()
        except AgentError as exc:
            raise UnprepareError(f"unprepare dynamic resources: {exc}") from exc

    @asynccontextmanager
    async def _locked(self, keys: Iterable[_Key]) -> AsyncIterator[list[_Key]]:
        """One Pod at a time per claim, in an order that cannot dead-lock."""
        ordered = sorted(set(keys))
        async with AsyncExitStack() as stack:
            for key in ordered:
                await stack.enter_async_context(self._locks.setdefault(key, asyncio.Lock()))
            yield ordered


def _take_results(states: Sequence[ClaimState], results: dict[str, PrepareResult]) -> None:
    """Judge one driver's answer; devices of a repeated attempt are appended to the earlier ones."""
    by_uid = {state.ref.uid: state for state in states}
    for uid, result in results.items():
        state = by_uid.pop(uid, None)
        if state is None:
            raise ClaimNotUsable(f"NodePrepareResources returned result for unknown claim {uid}")
        if result.error:
            name = f"{state.ref.namespace}/{state.ref.name}"
            raise ClaimNotUsable(f"NodePrepareResources failed for claim {name}: {result.error}")
        state.devices.extend(result.devices)
    if by_uid:
        raise ClaimNotUsable(f"NodePrepareResources skipped {len(by_uid)} ResourceClaims")


def _check_errors(states: Sequence[ClaimState], errors: dict[str, str]) -> None:
    for state in states:
        name = f"{state.ref.namespace}/{state.ref.name}"
        if state.ref.uid not in errors:
            raise ClaimNotUsable(f"NodeUnprepareResources skipped claim {name}")
        if errors[state.ref.uid]:
            text = errors[state.ref.uid]
            raise ClaimNotUsable(f"NodeUnprepareResources failed for claim {name}: {text}")
