"""ComputeDomains: channels, daemons, the fabric between nodes."""

from __future__ import annotations

from typing import Final

from nvdra_api.reasons.model import Actor, Kind, Reason

REASONS: Final = (
    Reason(
        "DomainNotFound",
        Kind.PERMANENT,
        Actor.USER,
        "The ComputeDomain that the claim names does not exist in the claim's namespace.",
        "Use the claim template that the ComputeDomain names, in the domain's own namespace.",
    ),
    Reason(
        "DomainTerminating",
        Kind.PERMANENT,
        Actor.USER,
        "The ComputeDomain that the claim names is being deleted.",
        "Delete the pod; create the domain anew once it is gone.",
    ),
    Reason(
        "WrongNamespace",
        Kind.PERMANENT,
        Actor.USER,
        "A claim for a `daemon` device is not in a namespace of the driver.",
        "Nothing: such devices are for the driver's own pods.",
    ),
    Reason(
        "HostManaged",
        Kind.PERMANENT,
        Actor.CLUSTER,
        "A claim for a `daemon` device, though the hosts run `nvidia-imex` themselves.",
        "Delete the claim; with `imex.mode=hostManaged` nothing should make one.",
    ),
    Reason(
        "NoDaemon",
        Kind.PERMANENT,
        Actor.USER,
        "A claim for a `daemon` device is for a pod that is no daemon of the ComputeDomain that it "
        "names.",
        "Nothing: such devices are for the driver's own pods.",
    ),
    Reason(
        "DomainNotReady",
        Kind.RETRIED,
        Actor.NOBODY,
        "The workload waits for the IMEX daemon of its ComputeDomain on this node.",
        "Wait; if it stays, look at the domain's conditions and at the daemon's pod on the node: "
        "`kubectl -n dra-driver-nvidia-gpu get pods -o wide`.",
    ),
    Reason(
        "NodeInOtherDomain",
        Kind.RETRIED,
        Actor.USER,
        "The node is in another ComputeDomain, and can be in one only.",
        "Wait until the pods of the other domain have ended on the node.",
    ),
    Reason(
        "FabricNotReady",
        Kind.RETRIED,
        Actor.NODE,
        "The GPUs do not tell which NVLink clique they are in: they are not registered with the "
        "fabric yet, or that failed.",
        "Look at the fabric manager of the node or of its rack, and at `nvidia-smi -q`, section "
        "Fabric.",
    ),
    Reason(
        "DriverTooOld",
        Kind.NODE,
        Actor.NODE,
        "The NVIDIA driver of a node in an NVLink fabric is older than 570.158.01, and its "
        "`nvidia-imex` cannot find other nodes by name.",
        "Update the driver, or set `featureGates.IMEXDaemonsWithDNSNames=false`.",
    ),
    Reason(
        "HostImexMissing",
        Kind.NODE,
        Actor.NODE,
        "`nvidia-imex-ctl` cannot be run, so nobody knows whether the host's `nvidia-imex` is "
        "ready.",
        "Install `nvidia-imex` on the host, or use `imex.mode=driverManaged`.",
    ),
    Reason(
        "NodeNotFound",
        Kind.NODE,
        Actor.CLUSTER,
        "The node's own object is not in the API.",
        "Check `--node-name`; the kubelet registers the node.",
    ),
)
