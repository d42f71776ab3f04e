"""What goes wrong with the real cluster itself: always one line that says what to do."""

from __future__ import annotations


class RingError(Exception):
    """The cluster cannot be brought up, or a part of it is not what it should be."""

    def __init__(self, problem: str, *, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}: {remedy}" if remedy else problem)


class Refused(RingError):
    """This machine, as it is, cannot run the cluster; ``problems`` has one line each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class Ended(RingError):
    """A program ended that should run; nobody starts it again, so nothing is worth waiting for."""


class GaveUp(RingError):
    """A condition did not come true before its (generous) deadline."""

    def __init__(self, condition: str, *, waited_s: float, last: str) -> None:
        super().__init__(f"gave up after {waited_s:.0f} s waiting until {condition}; last: {last}")


class CommandFailed(RingError):
    """A command that should have worked ended with an error."""

    def __init__(self, command: str, *, status: int, output: str) -> None:
        self.status = status
        self.output = output
        super().__init__(f"`{command}` ended with {status}: {output.strip() or 'no output'}")
