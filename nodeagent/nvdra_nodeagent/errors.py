"""The agent's own errors: a machine-readable reason, what was tried on which object, what to do.

The same reason appears in the kubelet's answer, the log and the metrics. Callers decide by class.
"""

from __future__ import annotations


class AgentError(Exception):
    """Something the agent was asked for cannot be done.

    `reason` is CamelCase and constant, `message` says what was tried on which object, `hint` what
    the reader can do about it.
    """

    def __init__(self, reason: str, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.message}; {self.hint}" if self.hint else self.message
        return f"{text} [{self.reason}]"


class Permanent(AgentError):
    """The user's input is wrong: the same call can never succeed."""


class Retryable(AgentError):
    """The world is not ready: the same call may succeed later."""


class NotYet(Retryable):
    """What has been done for the claim stays done, and something else has to happen before the
    rest of it can: the claim is tried again as soon as that may have happened."""


class NodeFault(Retryable):
    """Something on this node has to be put right first, by a person or another program."""
