"""kubectl, typed as far as tests need it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from .errors import CommandFailed, RingError
from .patience import DEADLINE_S, eventually
from .processes import run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Manifest: TypeAlias = "dict[str, Any]"

# What clients say when the machine stood still for 10 s while they shook hands: nothing was asked.
_NOT_ASKED = "TLS handshake timeout"
_TRIES = 3


class Kubectl:
    """Runs kubectl with one kubeconfig.

    Every method raises ``CommandFailed`` with kubectl's own words when it fails.
    """

    def __init__(self, program: Path, kubeconfig: Path) -> None:
        self._program = program
        self._kubeconfig = kubeconfig

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Run any kubectl command and return what it prints."""
        for _ in range(_TRIES - 1):
            try:
                return self._run(arguments, stdin)
            except CommandFailed as error:
                if _NOT_ASKED not in error.output:
                    raise
        return self._run(arguments, stdin)

    def _run(self, arguments: Sequence[str], stdin: str | None) -> str:
        cache = self._kubeconfig.with_name("kubectl-cache")
        env = {"KUBECONFIG": str(self._kubeconfig), "KUBECACHEDIR": str(cache)}
        return run([self._program, *arguments], stdin=stdin, env={**os.environ, **env})

    def apply(self, *manifests: Manifest) -> None:
        self("apply", "--filename=-", stdin=_as_list(manifests))

    def create(self, *manifests: Manifest) -> None:
        self("create", "--filename=-", stdin=_as_list(manifests))

    def delete(self, *manifests: Manifest) -> None:
        """Delete and wait until they are gone; what is not there counts as deleted."""
        self(
            "delete", "--ignore-not-found", "--wait", "--filename=-", stdin=_as_list(manifests)
        )  # fmt: skip

    def create_namespace(self, name: str) -> None:
        """Make a namespace in which pods can be made: its ServiceAccount is there on return."""
        self("create", "namespace", name)
        eventually(
            lambda: self.get("serviceaccount", "default", namespace=name),
            until=f"namespace {name} has its ServiceAccount",
        )

    def get(self, kind: str, name: str, *, namespace: str = "default") -> Manifest:
        answer = self("get", kind, name, f"--namespace={namespace}", "--output=json")
        return cast("Manifest", json.loads(answer))

    def list(self, kind: str, *arguments: str) -> Sequence[Manifest]:
        answer = json.loads(self("get", kind, *arguments, "--output=json"))
        return cast("list[Manifest]", answer["items"])

    def logs(self, pod: str, *, namespace: str = "default", container: str = "") -> str:
        chosen = [f"--container={container}"] if container else []
        return self("logs", pod, f"--namespace={namespace}", *chosen)

    def wait_for_phase(
        self, phase: str, pod: str, *, namespace: str = "default", deadline_s: float = DEADLINE_S
    ) -> Manifest:
        """Wait until the pod is in this phase and return it."""

        def look() -> Manifest:
            seen = self.get("pod", pod, namespace=namespace)
            if seen["status"].get("phase") != phase:
                raise RingError(f"{pod} has status {json.dumps(seen['status'])[-1500:]}")
            return seen

        return eventually(
            look, until=f"pod {namespace}/{pod} is {phase}", deadline_s=deadline_s, every_s=0.2
        )

    def wait_until_ready(self, pod: str, *, namespace: str = "default") -> Manifest:
        def look() -> Manifest:
            seen = self.get("pod", pod, namespace=namespace)
            if not is_ready(seen):
                raise RingError(f"{pod} has status {json.dumps(seen['status'])[-1500:]}")
            return seen

        return eventually(look, until=f"pod {namespace}/{pod} is Ready", every_s=0.2)


def is_ready(manifest: Manifest) -> bool:
    """True for a pod or node with the condition Ready."""
    conditions = manifest.get("status", {}).get("conditions", [])
    return any(seen["type"] == "Ready" and seen["status"] == "True" for seen in conditions)


def is_ending(manifest: Manifest) -> bool:
    """True for what was deleted and is still there."""
    return "deletionTimestamp" in manifest["metadata"]


def _as_list(manifests: Sequence[Manifest]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
