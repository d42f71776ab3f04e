"""The programs of the driver themselves: how they start, what they do wrong."""

from __future__ import annotations

from typing import Final

from nvdra_api.reasons.model import Actor, Kind, Reason

REASONS: Final = (
    Reason(
        "GateMissing",
        Kind.PERMANENT,
        Actor.CLUSTER,
        "The program was given a setting that a feature gate has to allow.",
        "Set the gate that the message names.",
    ),
    Reason(
        "InternalError",
        Kind.RETRIED,
        Actor.PROJECT,
        "A defect of the driver.",
        "Report it, with the traceback in the agent's log.",
    ),
    Reason(
        "DirectoryUnusable",
        Kind.START,
        Actor.NODE,
        "The plugin or CDI directory cannot be made.",
        "Look at its parent and its owner.",
    ),
    Reason(
        "SocketUnusable",
        Kind.START,
        Actor.NODE,
        "A socket cannot be had at its path.",
        "Move away what is there; look at the directory.",
    ),
    Reason(
        "SocketPathTooLong",
        Kind.START,
        Actor.NODE,
        "The path of a socket is longer than 107 bytes.",
        "Choose shorter directories.",
    ),
    Reason(
        "HealthPortUnusable",
        Kind.START,
        Actor.NODE,
        "The port of the liveness service is taken.",
        "Give `--healthcheck-port` another one.",
    ),
)
