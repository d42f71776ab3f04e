"""Addresses of Pods: each has a loopback address of its own, and shares the host's network.

Two Pods can so serve on the same port, and reach each other, without any privilege.
"""

from __future__ import annotations

import itertools
import os
from typing import Final

_FIRST: Final = 1 << 8
_HOSTS: Final = 1 << 16

_numbers = itertools.count(os.getpid() * 2_551_723)
"""Of all kubelets in this process; other processes begin far away, also those with the next ids."""


def next_address() -> str:
    """An address that no other Pod of this process has, from 127.64.0.0/10."""
    number = _FIRST + next(_numbers) % (63 * _HOSTS)
    return f"127.{64 + number // _HOSTS}.{number // 256 % 256}.{number % 256}"
