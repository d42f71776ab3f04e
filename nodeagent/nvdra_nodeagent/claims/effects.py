"""Effects of GPUs that claims share: who holds each of them, and what to restore in the end.

`effects/<kind>.<GPU UUID>.json` holds the value found before, the value set and the claims that
hold a reference. It is durable before the hardware is touched and goes after it was restored, and
is changed under its GPU's lock only; so after a crash anywhere, repeating the call finishes it.

An effect from before a boot or a load of the driver is *unverified*: the hardware is looked at, and
what did not outlive it is forgotten. A lost or damaged file is rebuilt from the steps of records
and tombstones; if they do not tell of it either, an *unknown holder* keeps the GPU fenced until the
default is restored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import structlog

from nvdra_nodeagent.claims.effect import (
    Effect,
    gpu_of,
    is_unknown,
    name_of,
    rebuilt,
    unknown_holder,
)
from nvdra_nodeagent.claims.record import Fence
from nvdra_nodeagent.claims.seal import Damaged
from nvdra_nodeagent.claims.sealed import SealedFiles
from nvdra_nodeagent.errors import NodeFault, Retryable
from nvdra_nodeagent.hardware.errors import NotFound
from nvdra_nodeagent.steps.registry import kind_of
from nvdra_nodeagent.steps.shared import hardware_asked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from nvdra_nodeagent.claims.effect import Holding
    from nvdra_nodeagent.steps.registry import SharedStep
    from nvdra_nodeagent.steps.shared import GpuSetting, Value

log = structlog.get_logger(__name__)


class GpuEffects:
    """The effects of this node's GPUs: `SharedEffects` for the handlers of steps. Calls block."""

    def __init__(
        self,
        state_dir: Path,
        *,
        settings: Mapping[type[SharedStep], GpuSetting],
        holdings: Callable[[], Iterable[Holding]],
        boot_id: str,
        driver_load: Callable[[], str],
        on_quarantine: Callable[[str, str], None] = lambda name, reason: None,
    ) -> None:
        """`holdings` are all records and tombstones. `on_quarantine` is told name and reason of a
        damaged file, in the calling thread."""
        self._files = SealedFiles(
            state_dir / "effects", quarantine=state_dir / "quarantine", type_=Effect
        )
        self._settings = {kind_of(step): setting for step, setting in settings.items()}
        self._holdings = holdings
        self._boot_id = boot_id
        self._driver_load = driver_load
        self._on_quarantine = on_quarantine

    @property
    def directory(self) -> Path:
        return self._files.directory

    def take(self, step: SharedStep) -> Value:
        """:raises Retryable: `EffectConflict`, another claim holds the effect with another value.

        Otherwise as `SharedEffects`.
        """
        before = self._current(name_of(step))
        if before:
            _check_conflict(before, step)
        with hardware_asked(f"set {kind_of(type(step))} of GPU {step.gpu_uuid}"):
            return self._take(step, before)

    def _take(self, step: SharedStep, before: Effect | None) -> Value:
        setting = self._settings[kind_of(type(step))]
        if before is None:
            known = found = setting.look(step.gpu_uuid)
            holders: set[str] = set()
            _tell_of_strange(found, step)
        else:
            known, found = self._verified(before, setting)
            holders = {uid for uid in before.holders if not is_unknown(uid)}
        after = Effect(
            kind=kind_of(type(step)),
            gpu_uuid=step.gpu_uuid,
            found=found,
            value=step.value,
            holders=tuple(sorted(holders | {step.claim_uid})),
            boot_id=self._boot_id,
            driver_load=self._driver_load(),
        )
        intent = _unconfirmed(after, before)
        if intent != before:
            self._files.write(after.name, intent)
        setting.set(step.gpu_uuid, step.value, known=known)
        if intent != after:
            self._files.write(after.name, after)
        return found

    def drop(self, step: SharedStep) -> None:
        effect = self._current(name_of(step))
        if effect and step.claim_uid in effect.holders:
            self._drop(effect, step.claim_uid)

    def is_held(self, step: SharedStep, *, found: Value) -> bool:
        effect = self._current(name_of(step))
        return (
            effect is not None
            and step.claim_uid in effect.holders
            and (effect.value, effect.found) == (step.value, found)
            and not effect.leaving
            and self._is_verified(effect)
        )

    def drop_strays(self, uid: str) -> None:
        """As `drop`, for whatever the claim holds here: its own record does not tell any more."""
        for seen in self._readable():
            if uid in seen.holders:
                effect = self._current(seen.name)
                if effect and uid in effect.holders:
                    self._drop(effect, uid)

    def set_aside_damaged(self, gpu_uuids: Iterable[str]) -> None:
        """With the GPUs locked: what was left of the damaged files counts from now on."""
        for uuid in gpu_uuids:
            for kind in self._settings:
                self._current(f"{kind}.{uuid}")

    def gpus_held_by(self, uid: str) -> frozenset[str]:
        """The GPUs to lock for `drop_strays`."""
        return frozenset(effect.gpu_uuid for effect in self._readable() if uid in effect.holders)

    def holders(self) -> frozenset[str]:
        """All claims that hold an effect."""
        return frozenset(uid for effect in self._readable() for uid in effect.holders)

    def fences(self, gpu_uuids: Iterable[str], *, known: Iterable[str]) -> tuple[Fence, ...]:
        """For those of the GPUs that have effects of claims which are not among the known ones."""
        known = frozenset(known)
        names = [f"{kind}.{uuid}" for uuid in gpu_uuids for kind in self._settings]
        return tuple(
            Fence(
                uid=uid,
                reason=_why(effect, uid),
                gpu_uuids=(effect.gpu_uuid,),
            )
            for effect in self._readable(names)
            for uid in effect.holders
            if uid not in known
        )

    def _drop(self, effect: Effect, holder: str) -> None:
        rest = effect.without(holder)
        if rest.holders:
            self._files.write(rest.name, rest)
            return
        if is_unknown(holder):
            log.warning(
                "value found before is lost, default restored",
                kind=effect.kind,
                gpu=effect.gpu_uuid,
            )
        if not effect.leaving:
            effect = msgspec.structs.replace(effect, leaving=True)
            self._files.write(effect.name, effect)
        with hardware_asked(f"restore {effect.kind} of GPU {effect.gpu_uuid}"):
            self._restore(effect, self._settings[effect.kind])
        self._files.remove(effect.name)

    def _restore(self, effect: Effect, setting: GpuSetting) -> None:
        try:
            if not self._is_verified(effect) and not self._outlived(effect, setting):
                log.info("effect ended with the driver", kind=effect.kind, gpu=effect.gpu_uuid)
                return
            target = {part: effect.found.get(part, 0) for part in effect.value}
            setting.set(effect.gpu_uuid, target, known=_unchanged(effect))
        except NotFound as error:
            log.info("effect gone with its GPU", gpu=effect.gpu_uuid, cause=str(error))

    def _verified(self, effect: Effect, setting: GpuSetting) -> tuple[Value, Value]:
        """What the hardware is known to have now, and what was found before the effect."""
        if self._is_verified(effect):
            return {}, effect.found  # whoever made it may have died before the hardware knew
        looked = setting.look(effect.gpu_uuid)
        return looked, effect.found if self._is_there(effect, looked) else looked

    def _outlived(self, effect: Effect, setting: GpuSetting) -> bool:
        return self._is_there(effect, setting.look(effect.gpu_uuid))

    def _is_there(self, effect: Effect, looked: Value) -> bool:
        """Parts that the driver does not tell are not evidence; neither is that everything is as a
        driver begins with, when one has begun since."""
        told = [part for part in effect.value if part in looked]
        is_evidence = any(effect.value[part] for part in told) or not self._began_since(effect)
        return bool(told) and is_evidence and all(looked[p] == effect.value[p] for p in told)

    def _began_since(self, effect: Effect) -> bool:
        """Whether the driver was loaded anew since; what is not known is taken to be the same."""
        pairs = (effect.boot_id, self._boot_id), (effect.driver_load, self._driver_load())
        return any(before and now and before != now for before, now in pairs)

    def _is_verified(self, effect: Effect) -> bool:
        return (effect.boot_id, effect.driver_load) == (self._boot_id, self._driver_load())

    def _current(self, name: str) -> Effect | None:
        """With the GPU locked. :raises NodeFault: a later version of the agent wrote it."""
        try:
            effect = self._files.read(name)
        except Damaged as damage:
            if damage.newer:
                raise NodeFault(
                    "EffectTooNew",
                    f"the state of GPU {name.partition('.')[2]} was written by a later version of "
                    f"the agent: {name}: {damage.reason}",
                    hint="install that version again, at least until its pods have ended",
                ) from damage
            self._files.set_aside(name, damage.reason)
            self._on_quarantine(name, damage.reason)
            return self._lost(name)
        if effect is None and self._files.is_set_aside(name):
            return self._lost(name)
        return effect or rebuilt(name, self._holdings(), was_there=False)

    def _lost(self, name: str) -> Effect:
        """What is known of an effect whose file was damaged. Where no step tells what was found,
        the default is restored: anything else may be what a claim has set."""
        if effect := rebuilt(name, self._holdings(), was_there=True):
            return effect
        kind, _, gpu_uuid = name.partition(".")
        return Effect(
            kind=kind,
            gpu_uuid=gpu_uuid,
            found={},
            value=dict.fromkeys(self._settings[kind].parts, 0),
            holders=(unknown_holder(name),),
            boot_id=self._boot_id,
            driver_load=self._driver_load(),
        )

    def _readable(self, names: Iterable[str] | None = None) -> Iterator[Effect]:
        """Without locks: damaged files are left in place, what cannot be known is left out."""
        if names is None:
            names = sorted({*self._files.names(), *self._files.names_set_aside()})
        for name in names:
            if gpu_of(name, kinds=self._settings) and (effect := self._peek(name)):
                yield effect

    def _peek(self, name: str) -> Effect | None:
        try:
            effect = self._files.read(name)
        except Damaged as damage:
            return None if damage.newer else self._lost(name)
        return self._lost(name) if effect is None and self._files.is_set_aside(name) else effect


def _why(effect: Effect, holder: str) -> str:
    if is_unknown(holder):
        return f"who has set its {effect.kind} is lost, and the default is not restored yet"
    return f"its {effect.kind} setting is not undone yet"


def _check_conflict(effect: Effect, step: SharedStep) -> None:
    others = [uid for uid in effect.holders if uid != step.claim_uid and not is_unknown(uid)]
    if others and effect.value != step.value:
        raise Retryable(
            "EffectConflict",
            f"{effect.kind} of GPU {step.gpu_uuid} cannot be set to {_shown(step.value)}: "
            f"claim {others[0]} has it set to {_shown(effect.value)}",
            hint="use the same sharing settings for all claims that share a GPU",
        )


def _tell_of_strange(found: Value, step: SharedStep) -> None:
    """It is restored in the end; if the state of an earlier claim was deleted, that is wrong."""
    if any(found.values()):
        log.warning(
            "GPU found with a setting that no claim is known to have made",
            claim=step.claim_uid,
            kind=kind_of(type(step)),
            gpu=step.gpu_uuid,
            found=_shown(found),
        )


def _unconfirmed(after: Effect, before: Effect | None) -> Effect:
    """What is durable before the hardware is touched. An effect that is not known to be there must
    not look as if it were: a claim that was prepared earlier would take it as done after a crash.
    One that is new cannot be taken so, for no record has a result of it yet."""
    if before is None:
        return after
    return msgspec.structs.replace(
        after, boot_id=before.boot_id, driver_load=before.driver_load, leaving=before.leaving
    )


def _unchanged(effect: Effect) -> Value:
    """Parts that were found as they were wanted: nothing was set, nothing is to be restored."""
    return {part: value for part, value in effect.value.items() if effect.found.get(part) == value}


def _shown(value: Value) -> str:
    return ", ".join(f"{part} {number}" for part, number in sorted(value.items()))
