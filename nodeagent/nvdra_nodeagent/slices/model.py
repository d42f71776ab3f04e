"""What a ResourceSlice says of devices, free of API versions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nvdra_kube.quantity import Quantity


@dataclass(frozen=True, slots=True)
class Version:
    """An attribute value of the version type: semver 2.0.0."""

    text: str


AttributeValue: TypeAlias = str | bool | int | Version | tuple[int, ...]
"""Python's type decides the attribute's type; a tuple is a list attribute (KEP-5491)."""


@dataclass(frozen=True, slots=True)
class Taint:
    """Keeps claims off a device (`DeviceTaint`); the server adds when it came to be."""

    key: str
    effect: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class SliceDevice:
    """One published device. Unqualified names belong to the driver's domain."""

    name: str
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    capacity: Mapping[str, Quantity] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()


@dataclass(frozen=True, slots=True)
class SliceContent:
    """What one slice of a pool carries; its place in the pool is its place in the list."""

    devices: tuple[SliceDevice, ...] = ()
