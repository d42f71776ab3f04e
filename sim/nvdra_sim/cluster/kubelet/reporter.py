"""The port through which the kubelet tells users about their Pods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from nvdra_kube.api import Body


class Reporter(Protocol):
    """Writes Kubernetes Events; repeated ones are counted, failures never reach the caller."""

    async def event(
        self, regarding: Body, *, type: Literal["Normal", "Warning"], reason: str, note: str
    ) -> None: ...
