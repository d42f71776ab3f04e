"""One run of `nvidia-imex-ctl` at a time, with an end to it, beside everything else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from nvdra_nodeagent.imex import processes
from nvdra_nodeagent.imex.status import NOT_FOUND, NOT_RUN, Answer

if TYPE_CHECKING:
    from nvdra_nodeagent.imex.reactor import Reactor

_MOST_OUTPUT: Final = 1 << 20


class Query:
    """`nvidia-imex-ctl` with some arguments; `ask` again only after `take` gave its answer."""

    def __init__(self, program: str, *, reactor: Reactor, with_errors: bool) -> None:
        self._program = program
        self._reactor = reactor
        self._with_errors = with_errors
        self._pid: int | None = None
        self._output: int | None = None
        self._heard = bytearray()
        self._deadline = 0.0
        self._answer: Answer | None = None

    @property
    def asking(self) -> bool:
        return self._pid is not None

    @property
    def deadline(self) -> float:
        return self._deadline

    def ask(self, *arguments: str, timeout_s: float) -> None:
        """Start it; what keeps it from starting is its answer."""
        self._answer, self._heard = None, bytearray()
        self._deadline = self._reactor.now() + timeout_s
        path = processes.find_program(self._program)
        if path is None:
            self._answer = Answer(NOT_FOUND, f"{self._program} is not on PATH".encode())
            return
        receiver, sender = os.pipe()
        os.set_blocking(receiver, False)
        try:
            errors = sender if self._with_errors else None
            self._pid = processes.spawn(path, *arguments, output=sender, errors=errors)
        except OSError as error:
            os.close(receiver)
            self._answer = Answer(NOT_RUN, str(error).encode())
        else:
            self._output = receiver
            self._reactor.watch(receiver, self._read)
        finally:
            os.close(sender)

    def ended(self, pid: int, status: int) -> bool:
        """Tell it of a child that ended; whether it was this one."""
        if pid != self._pid:
            return False
        self._read()
        self._finish(Answer(status, bytes(self._heard)))
        return True

    def expire(self, now: float) -> None:
        """Kill it when its time is over; the answer is that there was none."""
        if self._pid is not None and now >= self._deadline:
            self.abandon()
            self._answer = Answer(None, b"")

    def abandon(self) -> None:
        """Kill it and want no answer; whoever reaps children takes the rest."""
        if self._pid is not None:
            processes.kill_group(self._pid)
            self._finish(None)

    def take(self) -> Answer | None:
        """The answer, once."""
        answer, self._answer = self._answer, None
        return answer

    def _read(self) -> None:
        if self._output is None:
            return
        try:
            while data := os.read(self._output, 65536):
                if len(self._heard) < _MOST_OUTPUT:
                    self._heard += data
        except BlockingIOError:
            return
        self._close_output()

    def _finish(self, answer: Answer | None) -> None:
        self._pid = None
        self._answer = answer
        self._close_output()

    def _close_output(self) -> None:
        if self._output is not None:
            self._reactor.forget(self._output)
            os.close(self._output)
            self._output = None
