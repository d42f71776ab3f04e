"""The checksum of checkpoint files, as the kubelet has it: FNV-1a over the bytes as text."""

from __future__ import annotations

from typing import Final

_OFFSET: Final = 2166136261
_PRIME: Final = 16777619


def checksum(document: bytes) -> int:
    """Of a document whose own checksum field is 0; 32 bits."""
    return fnv1a(b"([]uint8)[" + b" ".join(b"%d" % byte for byte in document) + b"]")


def fnv1a(data: bytes) -> int:
    """The 32 bit variant."""
    value = _OFFSET
    for byte in data:
        value = ((value ^ byte) * _PRIME) & 0xFFFFFFFF
    return value
