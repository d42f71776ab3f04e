"""Checkpoint and CDI files of ComputeDomains as `dra-driver-nvidia-gpu` 25.x writes them."""

from __future__ import annotations

from typing import Any

KIND = "k8s.compute-domain.nvidia.com/claim"
ALL = "k8s.compute-domain.nvidia.com/device=all"
BASE_FILE = "k8s.compute-domain.nvidia.com-device_base.yaml"


def a_domain_status(
    device: str, domain: str, *, pool: str = "node-1", request: str = "it", **fields: Any
) -> Any:
    """Of a claim for `channel-0` or `daemon-0`, as the scheduler leaves it."""
    driver = "compute-domain.nvidia.com"
    kind = "Daemon" if device.startswith("daemon") else "Channel"
    parameters = {
        "apiVersion": "resource.nvidia.com/v1beta1",
        "kind": f"ComputeDomain{kind}Config",
        "domainID": domain,
        **fields,
    }
    result = {"request": request, "driver": driver, "pool": pool, "device": device}
    opaque = {"driver": driver, "parameters": parameters}
    config = {"source": "FromClaim", "requests": [request], "opaque": opaque}
    return {"allocation": {"devices": {"results": [result], "config": [config]}}}


def a_place(
    device: str, domain: str, *, uid: str, cdi_ids: list[str] | None = None, **changes: Any
) -> Any:
    """A group of the one device of a claim."""
    kind, _, number = device.partition("-")
    if cdi_ids is None:
        cdi_ids = [ALL] if kind == "daemon" else []
        cdi_ids.append(f"{KIND}={uid}-{device}")
    answered = {
        "Requests": ["it"],
        "PoolName": "node-1",
        "DeviceName": device,
        "CDIDeviceIDs": cdi_ids or None,
    }
    prepared = {"channel": None, "daemon": None}
    prepared[kind] = {"info": {"id": int(number)}, "device": answered}  # type: ignore[assignment]
    config = "ComputeDomainDaemonConfig" if kind == "daemon" else "ComputeDomainChannelConfig"
    state = {"Type": config, "ComputeDomain": domain, **changes}
    return {"devices": [prepared], "configState": state}


def a_prepared(status: Any, *groups: Any, state: str = "PrepareCompleted", **more: Any) -> Any:
    """A claim of the checkpoint. Field order is that of the file."""
    claim = {"checkpointState": state, "status": status}
    return claim | ({"preparedDevices": list(groups)} if groups else {}) | more


def a_channel_yaml(uid: str) -> str:
    node = "    - path: /dev/nvidia-caps-imex-channels/channel0\n      type: c\n"
    node += "      major: 240\n      fileMode: 438\n      permissions: rwm\n"
    return _yaml(uid, "channel-0", f"    deviceNodes:\n{node}")


def a_daemon_yaml(uid: str, domain: str, *, clique: str, directory: str) -> str:
    variables = {
        "CLIQUE_ID": clique,
        "COMPUTE_DOMAIN_UUID": domain,
        "COMPUTE_DOMAIN_NAME": "job",
        "COMPUTE_DOMAIN_NAMESPACE": "default",
    }
    lines = "".join(f"    - {name}={value}\n" for name, value in variables.items())
    mount = f"    - hostPath: {directory}\n      containerPath: /imexd\n      options: [rw, bind]\n"
    return _yaml(uid, "daemon-0", f"    env:\n{lines}    mounts:\n{mount}")


def _yaml(uid: str, device: str, edits: str) -> str:
    return (
        f"---\ncdiVersion: 0.5.0\nkind: {KIND}\ncontainerEdits: {{}}\n"
        f"devices:\n- name: {uid}-{device}\n  containerEdits:\n{edits}"
    )


BASE_YAML = (
    "---\ncdiVersion: 0.5.0\nkind: k8s.compute-domain.nvidia.com/device\n"
    "containerEdits:\n  env:\n  - NVIDIA_VISIBLE_DEVICES=void\n"
    "devices:\n- name: all\n  containerEdits:\n    deviceNodes:\n    - path: /dev/nvidiactl\n"
)
