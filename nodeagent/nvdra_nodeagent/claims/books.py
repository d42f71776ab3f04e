"""All that this node has written down of its claims, and what works on it: put together once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from nvdra_nodeagent.claims.effects import GpuEffects
from nvdra_nodeagent.claims.executor import Executor
from nvdra_nodeagent.claims.journal import Journal
from nvdra_nodeagent.claims.ledger import Ledger
from nvdra_nodeagent.claims.observer import Damage
from nvdra_nodeagent.claims.tombstones import Tombstones
from nvdra_nodeagent.steps.cdi import CdiHandler, CdiStep
from nvdra_nodeagent.steps.registry import StepHandlers
from nvdra_nodeagent.steps.time_slice import TimeSliceHandler, TimeSliceStep

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from nvdra_nodeagent.claims.observer import StateKind
    from nvdra_nodeagent.claims.plan import Planner
    from nvdra_nodeagent.claims.record import Record
    from nvdra_nodeagent.inventory.model import Inventory
    from nvdra_nodeagent.steps.cdi import CdiFiles
    from nvdra_nodeagent.steps.registry import AnyStep, SharedStep, StepHandler, Timing
    from nvdra_nodeagent.steps.shared import GpuSetting


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What does not change while the agent runs. `boot_id` is that of the kernel's random(4)."""

    pool: str
    planner: Planner
    boot_id: str
    inventory: Callable[[], Inventory]


class OwnSteps(Protocol):
    """Makes the handlers of steps that only one driver has. `records` are those of all claims."""

    def __call__(
        self, records: Callable[[], tuple[Record, ...]]
    ) -> Mapping[type[AnyStep], StepHandler[Any]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """`directories` are those in which writers that died may have left temporary files."""

    ledger: Ledger
    executor: Executor
    state_dir: Path
    directories: tuple[Path, ...]


def open_books(
    state_dir: Path,
    *,
    node: NodeFacts,
    cdi: CdiFiles,
    settings: Mapping[type[SharedStep], GpuSetting],
    timing: Timing,
    on_damage: Callable[[Damage], None],
    own_steps: OwnSteps = lambda records: {},
) -> Books:
    """Touches no file yet. `on_damage` may be called in any thread."""
    journal = Journal(state_dir)
    ledger = Ledger(
        journal,
        traces=cdi,
        on_quarantine=lambda fence: on_damage(
            Damage(kind="record", uid=fence.uid, reason=fence.reason, ref=fence.claim)
        ),
    )
    tombstones = Tombstones(state_dir, on_quarantine=_told_as("tombstone", on_damage))
    effects = GpuEffects(
        state_dir,
        settings=settings,
        holdings=lambda: (*ledger.records(), *tombstones.all()),
        boot_id=node.boot_id,
        driver_load=lambda: node.inventory().driver_load,
        on_quarantine=_told_as("effect", on_damage),
    )
    executor = Executor(
        ledger,
        _handlers(node, cdi=cdi, effects=effects, own=own_steps(ledger.records), timing=timing),
        effects=effects,
        tombstones=tombstones,
        boot_id=node.boot_id,
        inventory=node.inventory,
    )
    directories = (journal.directory, journal.quarantine_directory)
    return Books(
        ledger=ledger,
        executor=executor,
        state_dir=state_dir,
        directories=(*directories, effects.directory, tombstones.directory),
    )


def _told_as(kind: StateKind, on_damage: Callable[[Damage], None]) -> Callable[[str, str], None]:
    return lambda uid, reason: on_damage(Damage(kind=kind, uid=uid, reason=reason))


def _handlers(
    node: NodeFacts,
    *,
    cdi: CdiFiles,
    effects: GpuEffects,
    own: Mapping[type[AnyStep], StepHandler[Any]],
    timing: Timing,
) -> StepHandlers:
    return StepHandlers(
        {
            CdiStep: CdiHandler(cdi, inventory=node.inventory),
            TimeSliceStep: TimeSliceHandler(effects),
            **own,
        },
        timing=timing,
    )
