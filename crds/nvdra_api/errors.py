"""What can be wrong with an object that a user wrote: every problem, each with its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nvdra_api.quantity import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST_PATH: Final = 200  # ours have up to 60


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `path` is the place inside the object (`sharing.strategy`)."""

    path: str
    message: str
    strict: bool = False
    """Found only because decoding was strict: an unknown or a repeated field."""

    def __str__(self) -> str:
        return self.message if self.strict or not self.path else f"{self.path}: {self.message}"


def unknown_field(path: str) -> Problem:
    """A field that the kind does not have. Scripts look for exactly this text."""
    return Problem(path, f"unknown field {shown(path, limit=_LONGEST_PATH)}", strict=True)


def duplicate_field(path: str) -> Problem:
    """A key that its object holds twice. Scripts look for exactly this text."""
    return Problem(path, f"duplicate field {shown(path, limit=_LONGEST_PATH)}", strict=True)


class ConfigError(ValueError):
    """An object cannot be used; `problems` holds all that is wrong with it, in document order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(_text(self.problems))


def _text(problems: tuple[Problem, ...]) -> str:
    strict = [str(problem) for problem in problems if problem.strict]
    others = [str(problem) for problem in problems if not problem.strict]
    if strict:
        others.insert(0, "strict decoding error: " + ", ".join(strict))
    return "; ".join(others)
