"""Which hardware a node shall seem to have: defaults, and what the node's labels say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nvdra_sim.hardware.errors import SimulationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Wish:
    """A profile's name, and a MIG layout as `file#config` or None."""

    profile: str
    mig_layout: Path | None = None


@dataclass(frozen=True, slots=True)
class LabelNames:
    """Node labels that choose; an empty name chooses nothing."""

    profile: str = ""
    mig_layout: str = ""


def wish_for(
    labels: Mapping[str, str],
    names: LabelNames,
    *,
    profile: str = "",
    layouts: Path | None = None,
    layout: str = "",
) -> Wish:
    """What the labels ask for, else `profile` and the config `layout` of the file `layouts`.

    :raises SimulationError: nothing says which profile, or a layout is asked for without a file.
    """
    profile = labels.get(names.profile, "") or profile
    layout = labels.get(names.mig_layout, "") or layout
    if not profile:
        label = f"label the node {names.profile}=NAME" if names.profile else "name a label"
        raise SimulationError(
            f"no hardware profile is set for this node; {label}, or set a default"
        )
    if layout and layouts is None:
        raise SimulationError(
            f"MIG layout {layout!r} is asked for, but there is no file of layouts"
        )
    chosen = layouts.with_name(f"{layouts.name}#{layout}") if layouts and layout else None
    return Wish(profile, chosen)
