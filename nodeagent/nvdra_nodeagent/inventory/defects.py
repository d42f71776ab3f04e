"""Collects what could not be read, so that a survey goes on where a question got no answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from nvdra_nodeagent.hardware.errors import HardwareError, NotSupported, SessionLost
from nvdra_nodeagent.inventory.model import Defect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_T = TypeVar("_T")


class DefectLog:
    """Defects in the order they were met."""

    def __init__(self) -> None:
        self._defects: list[Defect] = []
        self.session_lost: SessionLost | None = None

    @property
    def defects(self) -> tuple[Defect, ...]:
        return tuple(self._defects)

    def note(self, device: str, attribute: str, cause: object) -> None:
        self._defects.append(Defect(device, attribute, str(cause)))
        if isinstance(cause, SessionLost):
            self.session_lost = self.session_lost or cause

    def optional(self, device: str, attribute: str, ask: Callable[[], _T]) -> _T | None:
        """The answer; None where there is none. What is merely not supported is no defect."""
        try:
            return ask()
        except NotSupported:
            return None
        except HardwareError as error:
            self.note(device, attribute, error)
            return None

    def parsed(self, device: str, attribute: str, read: Callable[[], str]) -> str:
        """The text; "" where it cannot be read or makes no sense (`ValueError`)."""
        try:
            return read()
        except (HardwareError, ValueError) as error:
            self.note(device, attribute, error)
            return ""

    def word(
        self,
        device: str,
        attribute: str,
        number: int | None,
        words: Mapping[int, str],
        *,
        default: str,
    ) -> str:
        """The word for a number, else `default`; a number newer than the table is a defect."""
        if number is not None and number not in words:
            self.note(device, attribute, f"{attribute} number {number} is not known here")
        return default if number is None else words.get(number, default)
