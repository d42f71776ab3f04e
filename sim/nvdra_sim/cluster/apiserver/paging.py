"""Lists in pages: `limit` and `continue`."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from nvdra_sim.cluster.apiserver import refusals

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.history import Stored


def page_of(found: list[Stored], *, limit: int, after: tuple[str, str], meta: Body) -> list[Stored]:
    """One page of a list; where more follow, `meta` says how to go on.

    Pages are of the present, not of the moment when the first one was asked for.
    """
    rest = [stored for stored in found if _key(stored) > after]
    page = rest[: limit or None]
    if len(page) < len(rest):
        meta["continue"] = continue_token(*_key(page[-1]))
        meta["remainingItemCount"] = len(rest) - len(page)
    return page


def _key(stored: Stored) -> tuple[str, str]:
    meta = stored.body["metadata"]
    return meta.get("namespace", ""), meta["name"]


def continue_token(namespace: str, name: str) -> str:
    """Where the next page of a list begins; opaque to clients."""
    return base64.urlsafe_b64encode(f"{namespace}/{name}".encode()).decode()


def continued(token: str) -> tuple[str, str]:
    if not token:
        return ("", "")
    try:
        namespace, _, name = base64.urlsafe_b64decode(token).decode().partition("/")
    except (binascii.Error, UnicodeDecodeError) as exc:
        raise refusals.bad_request("continue key is not valid") from exc
    return namespace, name
