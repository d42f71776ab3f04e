"""One ComputeDomain, kept as it should be: wakes on changes, plans, acts, reports."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_kube.backoff import Backoff
from nvdra_kube.errors import ApiError, BadRequest, Conflict, Forbidden, Invalid, NotFound
from nvdra_operator.cliques.live import LiveSeats
from nvdra_operator.cliques.members import hindrances, members_of
from nvdra_operator.cliques.observed import observed_members
from nvdra_operator.cliques.plan import plan_members
from nvdra_operator.domains.actions import Delete, Plan
from nvdra_operator.domains.expectations import Expectations
from nvdra_operator.domains.plan import drop_finalizer, plan_objects, plan_teardown
from nvdra_operator.domains.reporter import Reporter
from nvdra_operator.domains.scene import has_finalizer, is_dying
from nvdra_operator.domains.status import assess
from nvdra_operator.gate import NotLeading
from nvdra_operator.resources import COMPUTE_DOMAINS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from nvdra_kube.api import KubeApi
    from nvdra_kube.events import EventRecorder
    from nvdra_operator.cliques.members import Member
    from nvdra_operator.cliques.membership import Membership, Seat
    from nvdra_operator.cliques.slots import Slot
    from nvdra_operator.domains.executor import Executor
    from nvdra_operator.domains.scene import Obstacle, Scene
    from nvdra_operator.mirror import Mirror
    from nvdra_operator.settings import DriverSettings

log = structlog.get_logger(__name__)

# Changes come in bursts, the larger the domain the longer: one turn for all of a burst.
_PAUSE_S: Final = 0.02
_PAUSE_PER_NODE_S: Final = 0.0002
_LOOK_AGAIN_S: Final = 300.0
_OBSTACLE_S: Final = 10.0
_APPEARS_WITHIN_S: Final = 60.0
# IMEX daemons get 30 s to end; what takes longer is stuck, and the domain's user waits no more.
TEARDOWN_PATIENCE_S: Final = 60.0


class Domain:
    """`run` belongs to a task; `wake` may be called at any time from the same loop."""

    def __init__(
        self,
        uid: str,
        *,
        api: KubeApi,
        mirror: Mirror,
        executor: Executor,
        recorder: EventRecorder,
        settings: DriverSettings,
        formed: Callable[[float], None],
        patience_s: float = TEARDOWN_PATIENCE_S,
        finalizer_grace_s: float = 0.0,
    ) -> None:
        """`formed` is told how long the domain took from its first node until it was ready.

        `finalizer_grace_s` is how long to wait for somebody else to put the finalizer on, so that
        it is not written twice.
        """
        self.uid = uid
        self._mirror = mirror
        self._executor = executor
        self._recorder = recorder
        self._settings = settings
        self._formed = formed
        self._patience_s = patience_s
        self._finalizer_grace_s = finalizer_grace_s
        self._live = LiveSeats(api, settings.namespaces)
        self._reporter = Reporter(api, recorder)
        self._expectations = Expectations()
        self._backoff = Backoff(first_s=0.05, limit_s=30.0)
        self._woken = asyncio.Event()
        self._obstacles: tuple[Obstacle, ...] = ()
        self._ask_again_s = 0.0
        self._slots: Mapping[str, Mapping[str, Slot]] = {}
        self._trouble = ""
        self._joined_s: float | None = None
        self._cleared_s: float | None = None
        self._since_s = _now_s()
        self._was_seen = False
        self._tears_down = True

    def __repr__(self) -> str:
        return f"<Domain {self.uid}{' woken' if self.is_woken else ''}>"

    @property
    def is_woken(self) -> bool:
        """Whether there is something to look at."""
        return self._woken.is_set()

    def wake(self) -> None:
        self._woken.set()

    async def run(self, *, tears_down: bool = True) -> None:
        """Keep the domain until cancelled; returns when it is gone, or torn down but for its
        finalizer; without `tears_down` as soon as somebody deletes it."""
        self._tears_down = tears_down
        self.wake()
        while True:
            try:
                look_again_s = await self._turn()
            except NotLeading:
                raise
            except Exception as error:
                await asyncio.sleep(self._failed(error))
                continue
            self._backoff.succeeded()
            if look_again_s is None:
                return
            await self._pause(look_again_s)

    async def release(self) -> None:
        """Take the finalizer off a domain that is torn down. Raises `ApiError`."""
        domain = self._mirror.domain(self.uid)
        if domain is not None and has_finalizer(domain):
            plan = Plan(stages=((drop_finalizer(COMPUTE_DOMAINS, domain),),))
            await self._carry_out(plan)

    async def _pause(self, limit_s: float) -> None:
        try:
            async with asyncio.timeout(limit_s):
                await self._woken.wait()
        except TimeoutError:
            pass
        nodes = len(self._mirror.scene(self.uid).nodes)
        await asyncio.sleep(_PAUSE_S + nodes * _PAUSE_PER_NODE_S)

    async def _turn(self) -> float | None:
        """Look once and act; returns after how long to look again at the latest, None for never."""
        self._woken.clear()
        if not self._expectations.settled(self._mirror.look, now_s=_now_s()):
            return max(0.05, self._expectations.due_s() - _now_s())
        domain = self._mirror.domain(self.uid)
        if domain is None:
            return await self._without_domain()
        self._was_seen = True
        if is_dying(domain):
            return await self._tear_down() if self._tears_down else None
        grace_s = self._since_s + self._finalizer_grace_s - _now_s()
        if grace_s > 0 and not has_finalizer(domain):
            return grace_s
        return await self._keep()

    async def _without_domain(self) -> float | None:
        """Gone for good, or not seen yet by us."""
        lost = self._was_seen or _now_s() - self._since_s > _APPEARS_WITHIN_S
        return None if lost else 1.0

    async def _tear_down(self) -> float | None:
        scene = self._mirror.scene(self.uid)
        patient = self._cleared_s is None or _now_s() - self._cleared_s < self._patience_s
        plan = plan_teardown(scene, patient=patient)
        if plan.finished:
            if scene.pods:
                await self._tell_of_leftovers(scene)
            log.info("domain torn down", domain=self.uid)
            return None
        if plan.stages:
            self._cleared_s = None
            await self._carry_out(plan)
            return _LOOK_AGAIN_S
        if scene.pods and self._cleared_s is None:
            self._cleared_s = _now_s()
        log.info("teardown waits", domain=self.uid, waiting_for=plan.waiting_for)
        return self._patience_s

    async def _keep(self) -> float:
        await self._keep_objects()
        scene = self._scene()
        if scene.domain["metadata"].get("name") is None:
            return 0.0  # gone meanwhile
        members = members_of(scene)
        membership = await self._keep_members(scene, members)
        scene = self._scene()
        assessment = assess(
            scene,
            self._settings,
            membership=membership,
            hindrances=hindrances(scene, members),
            trouble=self._trouble,
        )
        self._measure(scene, formed=assessment.is_formed)
        wait_s = await self._reporter.report(
            scene.domain,
            assessment,
            expectations=self._expectations,
            shared=scene.is_legacy,
        )
        hindered = bool(scene.obstacles or self._trouble)
        return min(_OBSTACLE_S if hindered else _LOOK_AGAIN_S, wait_s or _LOOK_AGAIN_S)

    def _scene(self) -> Scene:
        return self._mirror.scene(self.uid, obstacles=self._obstacles)

    async def _keep_objects(self) -> None:
        """Objects first; what is refused there is reported, and does not stop the rest.

        What stood in the way is asked again now and then: nothing tells when it goes.
        """
        hindered = bool(self._obstacles or self._trouble)
        if hindered and _now_s() < self._ask_again_s:
            return
        plan = plan_objects(self._mirror.scene(self.uid), self._settings)
        try:
            found = await self._carry_out(plan)
            if any(isinstance(action, Delete) for action in plan.actions):
                found += self._obstacles  # whether the next object fares better is not known yet
            else:
                self._trouble = ""
            self._obstacles = found
        except (Forbidden, Invalid, BadRequest) as error:
            self._trouble = f"{error.message}; the controller tries again"
            log.warning("domain's objects refused", domain=self.uid, cause=str(error))
        self._ask_again_s = _now_s() + _OBSTACLE_S

    async def _keep_members(self, scene: Scene, members: tuple[Member, ...]) -> Membership:
        def planned(gone: Collection[Seat] = ()) -> Membership:
            if scene.is_legacy:
                return observed_members(scene, members, gone=gone)
            return plan_members(scene, members, self._settings, gone=gone, remembered=self._slots)

        membership = planned()
        if membership.suspects:
            membership = planned(await self._live.gone(self.uid, membership.suspects))
        self._slots = membership.slots
        if membership.actions:
            found = await self._carry_out(Plan(stages=(membership.actions,)))
            self._obstacles += found
        return membership

    async def _carry_out(self, plan: Plan) -> tuple[Obstacle, ...]:
        return await self._executor.carry_out(plan, uid=self.uid, expectations=self._expectations)

    async def _tell_of_leftovers(self, scene: Scene) -> None:
        names = ", ".join(sorted(pod["metadata"]["name"] for pod in scene.pods)[:3])
        await self._recorder.event(
            scene.domain,
            type="Warning",
            reason="DaemonsLeft",
            note=f"{len(scene.pods)} IMEX daemons did not end in {self._patience_s:.0f} s: {names}",
        )

    def _measure(self, scene: Scene, *, formed: bool) -> None:
        if not scene.nodes:
            self._joined_s = None
        elif self._joined_s is None:
            # A domain that was complete when we first saw it tells nothing about forming.
            self._joined_s = float("inf") if formed else _now_s()
        elif formed and self._joined_s != float("inf"):
            self._formed(_now_s() - self._joined_s)
            self._joined_s = float("inf")

    def _failed(self, error: Exception) -> float:
        expected = isinstance(error, ApiError)
        wish_s = error.retry_after_s if isinstance(error, ApiError) else None
        delay_s = self._backoff.failed(at_least_s=wish_s or 0.0)
        report = log.info if isinstance(error, Conflict | NotFound) else log.warning
        report(
            "domain not done, will try again",
            domain=self.uid,
            cause=str(error) or type(error).__name__,
            retry_in_s=round(delay_s, 2),
            exc_info=None if expected else error,
        )
        return delay_s


def _now_s() -> float:
    return asyncio.get_running_loop().time()
