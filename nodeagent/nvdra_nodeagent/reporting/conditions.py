"""The condition `Ready` of a claim's devices, as `status.devices` of the claim carries it.

Entries are applied on the server's side, under a name of our own: those of other drivers, and what
else stands in ours (`networkData`, `data`, other conditions), are not touched. The server drops
entries by itself when the claim is deallocated.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_kube.errors import (
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from nvdra_nodeagent.reporting.target import READY, target_of

if TYPE_CHECKING:
    from nvdra_kube.api import Body, KubeApi
    from nvdra_nodeagent.reporting.target import DeviceKey, Target

log = structlog.get_logger(__name__)

_MAX_MESSAGE: Final = 4096
_REFUSED_FOR_S: Final = 600.0

Transient = (Unreachable, ServerError, TooManyRequests)
"""Errors after which the same write may succeed."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the devices of a claim are prepared; `reason` is CamelCase, as that of errors."""

    ready: bool
    reason: str
    message: str

    def condition(self, before: Body | None, *, now: str) -> Body:
        """The time changes only with the status."""
        status = "True" if self.ready else "False"
        same = before is not None and before.get("status") == status
        return {
            "type": READY,
            "status": status,
            "reason": self.reason,
            "message": self.message[:_MAX_MESSAGE],
            "lastTransitionTime": before["lastTransitionTime"] if before and same else now,
        }


class ConditionWriter:
    """Writes conditions. A server that refuses them on principle is left alone for a while."""

    def __init__(self, api: KubeApi, *, driver: str) -> None:
        self._api = api
        self._driver = driver
        self._quiet_until_s = 0.0

    async def write(self, target: Target, readiness: Readiness, *, now_s: float) -> bool:
        """Whether the claim says it now. `now_s` is monotonic.

        :raises ApiError: one of `Transient`; whatever else the server says is told in the log.
        """
        wanted = _conditions(target, readiness)
        if not wanted or wanted == (target.ready or {}):
            return True
        if now_s < self._quiet_until_s:
            return False
        try:
            stored = await self._apply(target, wanted)
        except Transient:
            raise
        except (NotFound, Conflict, Invalid) as error:  # deleted, replaced or deallocated
            log.debug("claim changed meanwhile", claim=_uid(target), cause=str(error))
            return False
        except ApiError as error:
            self._be_quiet(target, error, now_s=now_s)
            return False
        found = target_of(stored, driver=self._driver, pool=next(iter(wanted)).pool)
        if not found.ready and found.devices:
            self._be_quiet(target, None, now_s=now_s)
            return False
        return True

    async def _apply(self, target: Target, wanted: dict[DeviceKey, Body]) -> Body:
        meta = target.claim["metadata"]
        return await self._api.patch(
            target.resource,
            meta["name"],
            {
                **target.claim,  # with the UID: a claim that has its name later is not meant
                "status": {
                    "devices": [
                        {
                            "driver": self._driver,
                            "pool": key.pool,
                            "device": key.device,
                            **({"shareID": key.share_id} if key.share_id else {}),
                            "conditions": [condition],
                        }
                        for key, condition in wanted.items()
                    ]
                },
            },
            namespace=meta["namespace"],
            subresource="status",
            patch_type="application/apply-patch+yaml",
            field_manager=self._driver,
            force=True,
        )

    def _be_quiet(self, target: Target, error: ApiError | None, *, now_s: float) -> None:
        self._quiet_until_s = now_s + _REFUSED_FOR_S
        if isinstance(error, Forbidden | Unauthorized):
            hint = (
                "grant patch on resourceclaims/status and, from Kubernetes 1.36 on, "
                f"associated-node:patch on resourceclaims/driver named {self._driver}"
            )
        elif error is None or isinstance(error, BadRequest):
            hint = "the cluster's feature gate DRAResourceClaimDeviceStatus may be off"
        else:
            hint = "claims say nothing of their devices; Events do"
        log.warning(
            "conditions of devices not taken by the API server",
            claim=_uid(target),
            cause=str(error or "the server stores no status.devices"),
            hint=hint,
            again_in_s=_REFUSED_FOR_S,
        )


def _conditions(target: Target, readiness: Readiness) -> dict[DeviceKey, Body]:
    before, now = target.ready or {}, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {key: readiness.condition(before.get(key), now=now) for key in target.devices}


def _uid(target: Target) -> str:
    return str(target.claim["metadata"]["uid"])
