"""How a claim's devices are called in CDI. Running pods hold these names: they never change."""

from __future__ import annotations

import re
from typing import Final

from nvdra_api.names import CDI_CLAIM_CLASS, CDI_COMPUTE_DOMAIN_VENDOR, CDI_GPU_VENDOR

GPU_CLAIM_KIND: Final = f"{CDI_GPU_VENDOR}/{CDI_CLAIM_CLASS}"
DOMAIN_CLAIM_KIND: Final = f"{CDI_COMPUTE_DOMAIN_VENDOR}/{CDI_CLAIM_CLASS}"

_UID: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,126}[A-Za-z0-9])?")


def is_claim_uid(text: str) -> bool:
    """Whether `text` may become part of a file name and of a CDI device name."""
    return _UID.fullmatch(text) is not None


def cdi_device_name(claim_uid: str, device: str, share_id: str | None = None) -> str:
    """A claim's device within its CDI file; `share_id` tells two shares of one device apart."""
    name = f"{claim_uid}-{device}"
    return f"{name}-{share_id}" if share_id else name


def cdi_device_id(
    claim_uid: str, device: str, share_id: str | None = None, *, kind: str = GPU_CLAIM_KIND
) -> str:
    """The fully qualified CDI id that the kubelet hands to the container runtime."""
    return f"{kind}={cdi_device_name(claim_uid, device, share_id)}"


def devices_named_in(content: bytes, claim_uid: str) -> list[str]:
    """The devices of a claim that a CDI file has entries for, whoever wrote it: JSON or YAML.

    Looks at names only, so it also tells of files that are not whole.
    """
    entry = rb"""(?:^|[\s{,])"?name"?:\s*["']?%s-([a-z0-9][a-z0-9.-]*)"""
    found = re.findall(entry % re.escape(claim_uid).encode(), content, re.MULTILINE)
    return list(dict.fromkeys(name.decode() for name in found))


def claim_file_prefix(kind: str) -> str:
    """What the names of a kind's claim files start with, before the claim's UID."""
    return f"{kind.replace('/', '-')}_"
