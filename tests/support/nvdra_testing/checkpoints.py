"""Checkpoint and CDI files as `dra-driver-nvidia-gpu` 25.x writes them, made without our code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nvdra_testing.claims import BOOT, a_ref, a_result, cdi_id, gpu_uuid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nvdra_nodeagent.inventory.model import MigDevice

UID = a_ref().uid


def a_gpu_device(minor: int = 0, *, uid: str = UID, request: str = "gpu", **extra: Any) -> Any:
    device = _answered(f"gpu-{minor}", uid=uid, request=request, **extra)
    return {"gpu": {"info": {"uuid": gpu_uuid(minor)}, "device": device}, "mig": None}


def a_mig_device(mig: MigDevice, *, minor: int = 0, uid: str = UID, request: str = "gpu") -> Any:
    concrete = {
        "parentMinor": minor,
        "giId": mig.gi_id,
        "ciId": mig.ci_id,
        "migUUID": mig.uuid,
        "parentUUID": gpu_uuid(minor),
    }
    device = _answered(mig.name, uid=uid, request=request)
    return {"gpu": None, "mig": {"concrete": concrete, "device": device}}


def a_vfio_device(index: int = 0, *, uid: str = UID, request: str = "gpu") -> Any:
    info = {"uuid": gpu_uuid(index), "pciBusID": f"0000:{0x10 + index:02x}:00.0"}
    device = _answered(f"gpu-vfio-{index}", uid=uid, request=request)
    return {"gpu": None, "mig": None, "vfio": {"info": info, "device": device}}


def _answered(name: str, *, uid: str, request: str, **extra: Any) -> Any:
    return {
        "Requests": [request],
        "PoolName": "node-a",
        "DeviceName": name,
        "CDIDeviceIDs": [cdi_id(uid, name)],
        **extra,
    }


def a_group(*devices: Any, **state: Any) -> Any:
    return {"devices": list(devices), "configState": state}


def a_completed(
    *groups: Any, results: Sequence[Any] | None = None, config: Sequence[Any] = ()
) -> Any:
    """A claim whose allocation is, unless given, what its devices say."""
    if results is None:
        results = [_result(device) for group in groups for device in group["devices"]]
    return {
        "checkpointState": "PrepareCompleted",
        "status": a_status(results, config),
        "preparedDevices": list(groups),
    }


def a_started(*results: Any, name: str = "claim") -> Any:
    return {
        "checkpointState": "PrepareStarted",
        "status": a_status(results),
        "name": name,
        "namespace": "default",
    }


def a_status(results: Sequence[Any], config: Sequence[Any] = ()) -> Any:
    devices: dict[str, Any] = {"results": list(results)}
    if config:
        devices["config"] = list(config)
    pods = [{"resource": "pods", "name": "pod", "uid": "99999999-0000-0000-0000-000000000000"}]
    return {"allocation": {"devices": devices}, "reservedFor": pods}


def _result(device: Mapping[str, Any]) -> Any:
    (kind,) = (each for each in device.values() if each)
    answered = kind["device"]
    return a_result(answered["DeviceName"], request=answered["Requests"][0])


def a_checkpoint(
    claims: Mapping[str, Any], *, boot_id: str = BOOT, versions: Sequence[str] = ("v1", "v2")
) -> bytes:
    """The file. `v1` alone is what the oldest versions wrote."""
    claims = dict(sorted(claims.items()))
    old = {
        uid: {key: claim[key] for key in ("status", "preparedDevices") if key in claim}
        for uid, claim in claims.items()
        if claim["checkpointState"] == "PrepareCompleted"
    }
    document: dict[str, Any] = {"checksum": 0}
    if "v1" in versions:
        document["v1"] = {"preparedClaims": old} if old else {}
    document["checksum"] = checksum_of({**document, "checksum": 0})
    if "v2" in versions:
        v2: dict[str, Any] = {"checksum": 0}
        v2 |= {"preparedClaims": claims} if claims else {}
        v2 |= {"nodeBootID": boot_id} if boot_id else {}
        document["v2"] = {**v2, "checksum": checksum_of(v2)}
    return go_json(document)


def go_json(value: Any) -> bytes:
    """Structs in the order of their fields; the callers sort maps."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for special in "<>&\u2028\u2029":
        text = text.replace(special, f"\\u{ord(special):04x}")
    return text.encode()


def checksum_of(document: Any) -> int:
    text = "([]uint8)[" + " ".join(str(byte) for byte in go_json(document)) + "]"
    value = 0x811C9DC5
    for character in text.encode():
        value ^= character
        value = (value * 0x01000193) % 2**32
    return value


def a_cdi_yaml(uid: str, *names: str) -> str:
    """A CDI file of that driver; the MPS-like mount has the claim's UID in a path."""
    devices = "".join(
        f"- containerEdits:\n    deviceNodes:\n    - path: /dev/nvidia0\n  name: {uid}-{name}\n"
        for name in names
    )
    return (
        "---\ncdiVersion: 0.5.0\ncontainerEdits:\n  env:\n  - NVIDIA_VISIBLE_DEVICES=void\n"
        "  mounts:\n  - containerPath: /tmp/nvidia-mps\n"
        f"    hostPath: /plugins/mps/{uid}-0123a/pipe\n"
        f"devices:\n{devices}kind: k8s.gpu.nvidia.com/claim\n"
    )
