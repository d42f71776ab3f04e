"""Own writes that the local copies do not show yet.

A plan made from copies that lag behind would do again what was just done; so none is made before.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from nvdra_kube.store import key_of
from nvdra_operator.domains.scene import is_dying

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_kube.api import Body, Resource
    from nvdra_kube.informer import Key

# A watch that lags longer is broken; it will list again and then show all there is.
_PATIENCE_S: Final = 5.0
# A process that was stopped for so long finds all time gone, and what it missed not read yet.
_GRACE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Expected:
    """A version at least as new, or (version 0) that this object is gone or going."""

    uid: str
    version: int
    until_s: float
    created: bool = False
    is_overdue: bool = False


@dataclass(slots=True)
class Expectations:
    """Of one domain. Times are the loop's clock."""

    _expected: dict[tuple[Resource, Key], _Expected] = field(default_factory=dict)

    def wrote(self, resource: Resource, body: Body, *, now_s: float, created: bool = False) -> None:
        """The server answered a write with this object."""
        meta = body["metadata"]
        expected = _Expected(
            meta.get("uid") or "",
            _number(meta.get("resourceVersion")),
            now_s + _PATIENCE_S,
            created,
        )
        self._expected[resource, key_of(body)] = expected

    def removed(self, resource: Resource, key: Key, *, uid: str, now_s: float) -> None:
        """The server took a deletion."""
        self._expected[resource, key] = _Expected(uid, 0, now_s + _PATIENCE_S)

    def settled(self, look: Callable[[Resource, Key], Body | None], *, now_s: float) -> bool:
        """Whether the copies show everything that was written, or should have by now.

        What is found overdue gets a last moment, and is given up when it is asked for after that.
        """
        for place, expected in tuple(self._expected.items()):
            is_due = now_s >= expected.until_s
            if _is_met(expected, look(*place)) or (is_due and expected.is_overdue):
                del self._expected[place]
            elif is_due:
                late = replace(expected, until_s=now_s + _GRACE_S, is_overdue=True)
                self._expected[place] = late
        return not self._expected

    def due_s(self) -> float:
        """When to look again at the latest."""
        return max((one.until_s for one in self._expected.values()), default=0.0)


def _is_met(expected: _Expected, found: Body | None) -> bool:
    if found is None:
        # Written and then gone, or out of what is watched (a node without its label).
        return not expected.created
    meta = found["metadata"]
    if meta.get("uid") != expected.uid:
        return True
    if not expected.version:
        return is_dying(found)
    return _number(meta.get("resourceVersion")) >= expected.version


def _number(version: object) -> int:
    """Versions of one server's objects grow; KEP-5504 lets clients rely on it."""
    text = str(version or "")
    return int(text) if text.isdecimal() else 0
