"""What can be wrong with a simulated machine's description or its state directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_nodeagent.errors import Permanent

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class SimulationError(Permanent):
    """The simulated machine cannot be made or changed as asked; the message says what to do."""

    def __init__(self, message: str) -> None:
        super().__init__("SimulationImpossible", message)

    def __str__(self) -> str:
        return self.message


class UnknownProfile(SimulationError):
    """No hardware profile has this name."""

    def __init__(self, name: str, *, known: Iterable[str]) -> None:
        super().__init__(
            f"no hardware profile is named {name!r}; choose one of {', '.join(known)}, "
            "or give the path of a profile file ending in .json"
        )
        self.name = name


class BadProfile(SimulationError):
    """A hardware profile does not decode, or its numbers contradict each other."""

    def __init__(self, source: str, *, problems: Iterable[str]) -> None:
        super().__init__(f"hardware profile {source} is invalid: {'; '.join(problems)}")


class BadLayout(SimulationError):
    """A MIG layout file is malformed, or asks for what these GPUs cannot be cut into."""

    def __init__(self, file: Path, where: str, problem: str) -> None:
        super().__init__(
            f"MIG layout {file}: {where}: {problem}" if where else f"{file}: {problem}"
        )


class UnusableStateDir(SimulationError):
    """The directory cannot hold the simulated machine."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"cannot simulate hardware in {path}: {problem}")
        self.path = path


class UnknownCall(SimulationError):
    """A fault names a call that the ports do not have."""

    def __init__(self, call: str, *, known: Iterable[str]) -> None:
        super().__init__(
            f"no call is named {call!r}; choose one of {', '.join(sorted(known))}, or *"
        )
