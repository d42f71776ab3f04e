"""What the API server answers, and what it makes of slices."""

from __future__ import annotations

from typing import Final

from nvdra_api.reasons.model import Actor, Kind, Reason

REASONS: Final = (
    Reason(
        "ApiRefused",
        Kind.PERMANENT,
        Actor.CLUSTER,
        "The API server found the driver's question for the claim wrong.",
        "Compare the versions of cluster and driver.",
    ),
    Reason(
        "ApiUnavailable",
        Kind.RETRIED,
        Actor.CLUSTER,
        "The API server gave the driver no usable answer.",
        "Look at the API server, and at the network between it and the node.",
    ),
    Reason(
        "ApiThrottled",
        Kind.RETRIED,
        Actor.NOBODY,
        "The API server asks for patience.",
        "Wait; if it stays, look at the API server's load.",
    ),
    Reason(
        "ApiForbidden",
        Kind.RETRIED,
        Actor.CLUSTER,
        "The driver's account may not read claims.",
        "Grant it `get` on resourceclaims, as the chart does.",
    ),
    Reason(
        "ResourceSlicePublishFailed",
        Kind.SLICES,
        Actor.CLUSTER,
        "The API server refused a ResourceSlice or did not answer; what was published before "
        "stands.",
        "Look at the API server and at the account's rights; the write is repeated.",
    ),
    Reason(
        "ResourceSlicesNotServed",
        Kind.SLICES,
        Actor.CLUSTER,
        "The API server serves no version of resource.k8s.io that the driver knows.",
        "Enable Dynamic Resource Allocation in the cluster.",
    ),
    Reason(
        "ResourceSlicesRefused",
        Kind.SLICES,
        Actor.CLUSTER,
        "The API server finds the slices invalid.",
        "Switch the feature gate off here, or on in the cluster.",
    ),
    Reason(
        "ResourceSliceFieldsDropped",
        Kind.SLICES,
        Actor.CLUSTER,
        "The API server stored less than it was sent.",
        "Enable the feature gate of the cluster that the message names.",
    ),
)
