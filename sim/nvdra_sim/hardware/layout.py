"""MIG layout files: how the GPUs of a simulated machine are cut when it starts.

The form is that of NVIDIA's mig-parted: `version: v1` and `mig-configs`, each a list of groups with
`devices` (`all` or indices), `mig-enabled`, `mig-devices` (profile name to number) and, optionally,
`device-filter` (PCI ids). Where a file has several configs, `file.yaml#name` chooses one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from nvdra_sim.hardware import placement
from nvdra_sim.hardware.errors import BadLayout

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nvdra_sim.hardware.placement import Placed
    from nvdra_sim.hardware.profile import MigProfile, MigTable, Profile

_VENDOR = "10DE"


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """One entry of a config."""

    devices: Literal["all"] | tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    mig_enabled: bool
    mig_devices: dict[str, Annotated[int, msgspec.Meta(ge=0)]] = {}
    device_filter: str | tuple[str, ...] = ()


class LayoutFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """The whole file."""

    version: Literal["v1"]
    mig_configs: dict[str, tuple[Group, ...]]


# Decoders are built on import: two threads that build one at once crash the process.
msgspec.json.Decoder(LayoutFile)


@dataclass(frozen=True, slots=True)
class Cut:
    """What becomes of one GPU."""

    mig_enabled: bool
    placed: tuple[Placed, ...] = ()


def read_layout(file: Path, profile: Profile) -> tuple[str, Mapping[int, Cut]]:
    """The chosen config's identity and, by GPU index, what it does to this machine's GPUs.

    GPUs that no group names stay as they are; where two groups name one, the later wins.

    :raises BadLayout: unreadable, malformed, ambiguous, or impossible on this hardware.
    """
    path, name = _split(file)
    configs = _decode(path).mig_configs
    name = _choose(path, name, configs=tuple(configs))
    cuts: dict[int, Cut] = {}
    for position, group in enumerate(configs[name]):
        where = f"mig-configs.{name}[{position}]"
        for index in _indices(group, profile, file=path, where=where):
            cuts[index] = _cut(group, profile, file=path, where=where)
    return f"{path.name}#{name}", cuts


def _split(file: Path) -> tuple[Path, str]:
    if file.exists() or "#" not in file.name:
        return file, ""
    name, _, config = file.name.partition("#")
    return file.with_name(name), config


def _decode(file: Path) -> LayoutFile:
    try:
        return msgspec.convert(_parse(file), LayoutFile)
    except msgspec.ValidationError as error:
        raise BadLayout(file, "", str(error)) from error


def _parse(file: Path) -> object:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadLayout(file, "", f"cannot be read: {error}") from error
    try:
        import yaml  # only here: the agent starts faster without it
    except ImportError as error:
        raise BadLayout(file, "", "needs PyYAML; install nvdra[sim]") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadLayout(file, "", f"is no YAML: {error}") from error


def _choose(file: Path, name: str, *, configs: tuple[str, ...]) -> str:
    if name in configs:
        return name
    if not name and len(configs) == 1:
        return configs[0]
    problem = f"no config is named {name!r}" if name else "several configs"
    known = ", ".join(configs) or "none"
    raise BadLayout(file, "mig-configs", f"{problem}; choose with {file.name}#<name> from: {known}")


def _indices(group: Group, profile: Profile, *, file: Path, where: str) -> list[int]:
    if not _filter_matches(group.device_filter, profile):
        return []
    count = len(profile.gpus)
    if group.devices == "all":
        return list(range(count))
    for index in group.devices:
        if index >= count:
            problem = f"GPU {index} does not exist; {profile.name} has 0 to {count - 1}"
            raise BadLayout(file, f"{where}.devices", problem)
    return list(group.devices)


def _filter_matches(wanted: str | tuple[str, ...], profile: Profile) -> bool:
    ids = (wanted,) if isinstance(wanted, str) else wanted
    own = f"0x{profile.pci_device_id[2:].upper()}{_VENDOR}"
    return not ids or own in {f"0x{each.lower().removeprefix('0x').upper()}" for each in ids}


def _cut(group: Group, profile: Profile, *, file: Path, where: str) -> Cut:
    if not group.mig_enabled:
        if group.mig_devices:
            raise BadLayout(file, f"{where}.mig-devices", "needs mig-enabled: true")
        return Cut(mig_enabled=False)
    if profile.mig is None:
        problem = f"{profile.product} ({profile.name}) has no MIG"
        raise BadLayout(file, f"{where}.mig-enabled", problem)
    wanted = [
        found
        for name, count in group.mig_devices.items()
        for found in [_known(name, profile.mig, profile, file=file, where=where)] * count
    ]
    placed = placement.fit(profile.mig, wanted)
    if placed is None:
        asked = " + ".join(f"{count} x {name}" for name, count in group.mig_devices.items())
        problem = f"one {profile.product} has no room for {asked}"
        raise BadLayout(file, f"{where}.mig-devices", problem)
    return Cut(mig_enabled=True, placed=placed)


def _known(name: str, table: MigTable, profile: Profile, *, file: Path, where: str) -> MigProfile:
    found = table.named(name)
    if found is None:
        known = ", ".join(each.name for each in table.profiles)
        problem = f"{profile.product} has no MIG profile {name!r}; it has {known}"
        raise BadLayout(file, f"{where}.mig-devices", problem)
    return found
