"""Cutting a byte stream into lines of any length; watch events may be megabytes long."""

from __future__ import annotations


class LineSplitter:
    """Feed chunks, get whole lines without their ends. Each byte is looked at once."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []

    @property
    def pending(self) -> bool:
        """Whether the stream stands in the middle of a line."""
        return bool(self._rest)

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes; empty ones are left out."""
        first, *others = chunk.split(b"\n")
        if not others:
            self._rest += [first] if first else []
            return []
        lines = [b"".join((*self._rest, first)), *others[:-1]]
        self._rest = [others[-1]] if others[-1] else []
        return [line for line in lines if line.strip()]
