"""What Kopf remembers about objects between its turns: nothing.

Its usual storages write annotations into users' objects. Our handlers neither fail nor compare
with earlier states, so there is nothing to remember.
"""

from __future__ import annotations

from typing import Any

import kopf


class Forgetful(kopf.ProgressStorage):
    """No progress of handlers."""

    def fetch(self, *, key: Any, body: Any) -> None:
        return None

    def store(self, *, key: Any, record: Any, body: Any, patch: Any) -> None:
        return None

    def purge(self, *, key: Any, body: Any, patch: Any) -> None:
        return None

    def touch(self, *, body: Any, patch: Any, value: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence


class NoDiffBase(kopf.DiffBaseStorage):
    """No last-handled state."""

    def fetch(self, *, body: Any) -> None:
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        return None
