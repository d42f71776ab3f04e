"""Running `nvdra simulate` as a user does, and reading its JSON document."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
DEMOS = ROOT / "manifests" / "demo"
PUBLIC_SPECS = ROOT.parent / "shared" / "inputs" / "public-specs"

ENDLESS = """
apiVersion: v1
kind: Pod
metadata: {name: waits}
spec:
  schedulerName: nobody
  containers: [{name: c, image: "ubuntu:24.04"}]
"""
"""A pod about which nobody says anything: with it a run lasts until its timeout."""

_UUID = re.compile(r"\b(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a run gave: exit status, the document's pods and ComputeDomains by name, and standard
    error."""

    status: int
    pods: dict[str, dict[str, Any]]
    errors: str
    domains: dict[str, dict[str, Any]] = field(default_factory=dict)

    def devices(self, pod: str) -> list[dict[str, str]]:
        """All devices of a pod's claims, in claim and allocation order."""
        return [device for claim in self.pods[pod]["claims"] for device in claim["devices"]]

    def allocated(self, pod: str) -> list[str]:
        """UUIDs that the ResourceSlices give for the pod's devices."""
        return [device["uuid"] for device in self.devices(pod)]

    def seen(self, pod: str, container: str) -> list[str]:
        """UUIDs that a container printed, MIG devices without the GPUs they are part of."""
        found: list[str] = _UUID.findall(self.pods[pod]["logs"][container])
        migs = [uuid for uuid in found if uuid.startswith("MIG-")]
        return migs or found


def simulate(
    *arguments: str | Path, text: str | None = None, timeout_s: float = 200, **variables: str
) -> Simulated:
    """Run `nvdra simulate --json ARGUMENTS`; `text` is its standard input.

    It is as patient as a busy machine needs it to be, unless the arguments say otherwise.
    """
    program = [sys.executable, "-m", "nvdra_cli.main", "simulate", "--json", "--timeout", "150"]
    command = [*program, *map(str, arguments)]
    done = subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**os.environ, **variables},
    )
    document = json.loads(done.stdout) if done.stdout else {"pods": [], "computeDomains": []}
    pods = {pod["name"]: pod for pod in document["pods"]}
    domains = {domain["name"]: domain for domain in document["computeDomains"]}
    return Simulated(done.returncode, pods, done.stderr, domains)
