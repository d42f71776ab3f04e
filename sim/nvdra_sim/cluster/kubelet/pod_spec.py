"""From a container of a Pod to what the runtime is told: command, variables, volumes. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nvdra_sim.cluster.kubelet.cdi_spec import Mount
from nvdra_sim.cluster.kubelet.images import PATH

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nvdra_kube.api import Body

_REFERENCE = re.compile(r"\$\$|\$\(([-._A-Za-z0-9]+)\)")
_DEFAULT_COMMAND = ("/bin/bash",)


class ContainerConfigError(Exception):
    """The container asks for something that the embedded kubelet does not have."""


def environment(pod: Body, container: Body) -> dict[str, str]:
    """The container's variables. Raises `ContainerConfigError`."""
    env = {"PATH": PATH, "HOME": "/root", "HOSTNAME": host_name(pod)}
    for entry in container.get("env") or []:
        if entry.get("valueFrom"):
            env[entry["name"]] = _value_from(pod, container["name"], entry)
        else:
            env[entry["name"]] = expand(entry.get("value") or "", env)
    return env


def command(container: Body, env: Mapping[str, str]) -> tuple[str, ...]:
    """`command` and `args`. The stand-in image has a shell as command and no entry point."""
    words = [*(container.get("command") or []), *(container.get("args") or [])]
    return tuple(expand(word, env) for word in words) or _DEFAULT_COMMAND


def expand(text: str, env: Mapping[str, str]) -> str:
    """`$(NAME)` as the kubelet expands it: unknown names stay, `$$` is a dollar sign."""

    def replace(match: re.Match[str]) -> str:
        name: str | None = match.group(1)
        if name is None:
            return "$"
        return env.get(name, match.group(0))

    return _REFERENCE.sub(replace, text)


def host_name(pod: Body) -> str:
    name: str = pod["spec"].get("hostname") or pod["metadata"]["name"]
    return name[:63].rstrip("-.")


def volume_mounts(pod: Body, container: Body, directory: Path) -> tuple[Mount, ...]:
    """Mounts of emptyDir volumes (below `directory`) and hostPath volumes.

    Raises `ContainerConfigError` for volumes of other kinds.
    """
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
    return tuple(_mount(volumes, entry, directory) for entry in container.get("volumeMounts") or [])


def empty_dirs(pod: Body) -> tuple[str, ...]:
    return tuple(
        volume["name"] for volume in pod["spec"].get("volumes") or [] if "emptyDir" in volume
    )


def _mount(volumes: Mapping[str, Body], entry: Body, directory: Path) -> Mount:
    name = entry["name"]
    volume = volumes.get(name)
    if volume is None:
        raise ContainerConfigError(f"volumeMounts: there is no volume {name!r} in the pod")
    if "emptyDir" in volume:
        source = str(directory / name)
    elif "hostPath" in volume:
        source = volume["hostPath"]["path"]
    else:
        kind = next((key for key in volume if key != "name"), "none")
        raise ContainerConfigError(
            f"volume {name!r}: volumes of kind {kind} are not simulated; use emptyDir or hostPath"
        )
    if entry.get("subPath"):
        source = f"{source}/{entry['subPath']}"
    options = ["rbind", "ro"] if entry.get("readOnly") else ["rbind"]
    return Mount(host_path=source, container_path=entry["mountPath"], options=options)


def _value_from(pod: Body, container: str, entry: Body) -> str:
    path = (entry["valueFrom"].get("fieldRef") or {}).get("fieldPath", "")
    metadata = pod["metadata"]
    known = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": pod["spec"].get("nodeName", ""),
        "status.podIP": (pod.get("status") or {}).get("podIP", ""),
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", ""),
    }
    if path in known:
        return str(known[path])
    source = path or ", ".join(entry["valueFrom"])
    raise ContainerConfigError(
        f"container {container}: env {entry['name']} from {source} is not simulated; "
        f"use a value or one of {', '.join(known)}"
    )
