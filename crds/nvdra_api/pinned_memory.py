"""Limits of pinned device memory for the clients of an MPS control daemon.

A limit may name its device by UUID, or by position in the sorted UUIDs of all devices that share
the daemon. Positions mean something only once the devices are known, hence two functions.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from nvdra_api.errors import ConfigError, Problem
from nvdra_api.quantity import parse_quantity, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nvdra_api.configs import MpsConfig

MIB: Final = 1024 * 1024
DEFAULT_FIELD: Final = "defaultPinnedDeviceMemoryLimit"
PER_DEVICE_FIELD: Final = "defaultPerDevicePinnedMemoryLimit"

_POSITION: Final = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)
_UUID_PREFIXES: Final = ("GPU-", "MIG-")


def judge_pinned_limits(mps: MpsConfig, path: str) -> list[Problem]:
    """What is wrong with the limits whatever the devices are; `path` is that of the MPS config."""
    problems = []
    if mps.default_pinned_device_memory_limit is not None:
        limit = mps.default_pinned_device_memory_limit
        problems += _judge_limit(limit, f"{path}.{DEFAULT_FIELD}")
    positions: dict[int, str] = {}
    for key, limit in mps.default_per_device_pinned_memory_limit.items():
        place = f"{path}.{PER_DEVICE_FIELD}.{key}"
        problems += _judge_key(key, place, positions)
        problems += _judge_limit(limit, place)
    return problems


def resolve_pinned_limits(
    mps: MpsConfig, uuids: Iterable[str], *, path: str = "sharing.mpsConfig"
) -> dict[str, int]:
    """The limit of each device in whole MiB, by UUID; devices without a limit are left out.

    :raises ConfigError: a limit below 1 MiB or not a quantity, a key that names no device of
        `uuids`, or two keys that name the same device.
    """
    devices = sorted(set(uuids))
    problems = judge_pinned_limits(mps, path)
    named: dict[str, str] = {}
    for key in mps.default_per_device_pinned_memory_limit:
        uuid = _device_of(key, devices)
        place = f"{path}.{PER_DEVICE_FIELD}.{key}"
        if uuid is None:
            problems.append(Problem(place, _no_device(devices)))
        elif uuid in named:
            problems.append(Problem(place, f"{uuid} has a limit already, under {named[uuid]}"))
        else:
            named[uuid] = key
    if problems:
        raise ConfigError(tuple(dict.fromkeys(problems)))
    return _limits(mps, devices, named)


def _limits(mps: MpsConfig, devices: list[str], named: dict[str, str]) -> dict[str, int]:
    default = mps.default_pinned_device_memory_limit
    texts = {} if default is None else dict.fromkeys(devices, default)
    for uuid, key in named.items():
        texts[uuid] = mps.default_per_device_pinned_memory_limit[key]
    return {uuid: parse_quantity(text) // MIB for uuid, text in texts.items()}


def _device_of(key: str, devices: list[str]) -> str | None:
    if key in devices:
        return key
    if not _POSITION.fullmatch(key) or not 0 <= int(key) < len(devices):
        return None
    return devices[int(key)]


def _no_device(devices: list[str]) -> str:
    if not devices:
        return "names a device, but no device shares this daemon"
    known = ", ".join(devices)
    return f"names no device of the claim; use 0 to {len(devices) - 1} or one of {known}"


def _judge_limit(limit: str, path: str) -> list[Problem]:
    try:
        too_small = parse_quantity(limit) < MIB
    except ValueError as error:
        return [Problem(path, str(error))]
    if too_small:
        return [Problem(path, f"limit {shown(limit)} is below 1Mi, the smallest that MPS can set")]
    return []


def _judge_key(key: str, path: str, positions: dict[int, str]) -> list[Problem]:
    if key.startswith(_UUID_PREFIXES):
        return []
    if not _POSITION.fullmatch(key):
        return [Problem(path, f"{shown(key)} is neither a device UUID nor the index of a device")]
    position = int(key)
    if position < 0:
        return [Problem(path, "a device index must not be negative")]
    if position in positions:
        return [
            Problem(path, f"device {position} has a limit already, under {positions[position]}")
        ]
    positions[position] = key
    return []
