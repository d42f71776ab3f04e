"""What is said of a reason: what the agent does about it, who can help, and how."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What the agent does about it."""

    PERMANENT = "permanent"
    """The same call can never succeed: answered at once."""
    RETRIED = "retried"
    """May pass: tried again within the kubelet's call, then answered with the last cause."""
    NODE = "node"
    """Somebody has to put the node right: tried again briefly, so that the cause is seen."""
    SLICES = "slices"
    """Publishing devices; tried again for ever, claims go on."""
    START = "start"
    """The program ends with it."""
    NOTICE = "notice"
    """An Event that reports, not an error."""


class Actor(StrEnum):
    """Who can do something about it."""

    USER = "whoever wrote the pod or the claim"
    NOBODY = "nobody: wait"
    NODE = "whoever runs the node"
    CLUSTER = "whoever runs the cluster"
    PROJECT = "the authors of the driver"


@dataclass(frozen=True, slots=True)
class Reason:
    """`meaning` says what is the case, `next_step` what the actor does; both plain sentences."""

    name: str
    kind: Kind
    actor: Actor
    meaning: str
    next_step: str
