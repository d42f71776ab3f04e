"""Reading a ResourceClaim: what the scheduler gave this node's driver, checked once at the edge."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from nvdra_nodeagent.errors import Permanent

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_nodeagent.claims.model import ClaimRef


class DeviceResult(msgspec.Struct, frozen=True, rename="camel"):
    """`DeviceRequestAllocationResult`, as far as a driver needs it. `request` may be `main/sub`."""

    request: str
    driver: str
    pool: str
    device: str
    admin_access: bool | None = None
    share_id: str | None = msgspec.field(name="shareID", default=None)

    @property
    def main_request(self) -> str:
        """What the kubelet compares a container's request with."""
        return self.request.partition("/")[0]

    @property
    def admin(self) -> bool:
        return bool(self.admin_access)


class OpaqueParameters(msgspec.Struct, frozen=True):
    """`OpaqueDeviceConfiguration`; the parameters are for their driver to judge."""

    driver: str
    parameters: Any = None


class ConfigEntry(msgspec.Struct, frozen=True):
    """`DeviceAllocationConfiguration`. Without requests it is for all of them."""

    source: str = ""
    requests: tuple[str, ...] | None = None
    opaque: OpaqueParameters | None = None


class _Devices(msgspec.Struct):
    results: tuple[DeviceResult, ...] | None = None
    config: tuple[ConfigEntry, ...] | None = None


class _Allocation(msgspec.Struct):
    devices: _Devices = msgspec.field(default_factory=_Devices)


class Consumer(msgspec.Struct, frozen=True):
    """`ResourceClaimConsumerReference`: whom the claim is reserved for, in its namespace."""

    resource: str = ""
    name: str = ""
    uid: str = ""


class _Status(msgspec.Struct, rename="camel"):
    allocation: _Allocation | None = None
    reserved_for: tuple[Consumer, ...] | None = None


class _Metadata(msgspec.Struct):
    uid: str


class _Claim(msgspec.Struct):
    metadata: _Metadata
    status: _Status | None = None


# Decoders are built on import: two threads that build one at once crash the process.
msgspec.json.Decoder(_Claim)


@dataclass(frozen=True, slots=True)
class AllocatedClaim:
    """A claim with this driver's part of its allocation, in allocation order.

    `configs` are all entries, whosesoever: their order decides. `fingerprint` changes when the same
    claim is allocated anew with another outcome.
    """

    ref: ClaimRef
    results: tuple[DeviceResult, ...]
    configs: tuple[ConfigEntry, ...]
    fingerprint: str
    consumers: tuple[Consumer, ...] = ()


_NOT_ALLOCATED_HINT: Final = "the pod is prepared again once the scheduler has allocated the claim"


def parse_claim(body: Body, *, ref: ClaimRef, driver: str, pool: str) -> AllocatedClaim:
    """Any served version of resource.k8s.io: their claims' status is the same.

    :raises Permanent: the object is another claim, not allocated here, or no claim at all.
    """
    claim = _convert(body, ref)
    if claim.metadata.uid != ref.uid:
        raise Permanent(
            "ClaimReplaced",
            f"the ResourceClaim got replaced: its UID is now {claim.metadata.uid}",
            hint="delete the pod; it was made for the earlier claim",
        )
    allocation = claim.status.allocation if claim.status else None
    if allocation is None:
        raise Permanent(
            "NotAllocated", "the ResourceClaim is not allocated", hint=_NOT_ALLOCATED_HINT
        )
    devices = allocation.devices
    results = _own_results(devices.results or (), driver=driver, pool=pool)
    configs = devices.config or ()
    fingerprint = _fingerprint(results, configs, driver=driver)
    consumers = (claim.status.reserved_for if claim.status else None) or ()
    return AllocatedClaim(ref, results, configs, fingerprint, consumers)


def _convert(body: Body, ref: ClaimRef) -> _Claim:
    try:
        return msgspec.convert(body, _Claim)
    except msgspec.ValidationError as error:
        raise Permanent(
            "MalformedClaim",
            f"ResourceClaim {ref.namespace}/{ref.name} is not understood: {error}",
            hint="compare the object with resource.k8s.io/v1",
        ) from error


def _own_results(
    results: tuple[DeviceResult, ...], *, driver: str, pool: str
) -> tuple[DeviceResult, ...]:
    own = tuple(result for result in results if result.driver == driver)
    if not own:
        raise Permanent(
            "NotAllocated",
            f"no device of driver {driver} is allocated to the ResourceClaim",
            hint=_NOT_ALLOCATED_HINT,
        )
    for result in own:
        if result.pool != pool:
            raise Permanent(
                "WrongNode",
                f"device {result.device} of request {result.request} is allocated from pool "
                f"{result.pool}, this node serves pool {pool}",
                hint="the pod has to run on the node that its claim is allocated on",
            )
    return own


def _fingerprint(
    results: tuple[DeviceResult, ...], configs: tuple[ConfigEntry, ...], *, driver: str
) -> str:
    """Of this driver's part only, over plain values: records outlive versions of these types."""
    essentials = (
        [(r.request, r.pool, r.device, r.admin, r.share_id) for r in results],
        [
            (entry.source, entry.requests or (), entry.opaque.parameters)
            for entry in configs
            if entry.opaque and entry.opaque.driver == driver
        ],
    )
    text = msgspec.json.encode(essentials, order="deterministic")
    return hashlib.blake2b(text, digest_size=12).hexdigest()
