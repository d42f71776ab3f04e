"""How the cluster's programs reach its API server, and what they inherit of the user's shell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nvdra_nodeagent.computedomain.options import DOMAIN_FLAGS
from nvdra_nodeagent.program.options import option_variables
from nvdra_operator.options import FLAGS as CONTROLLER_FLAGS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiAccess:
    """As a pod has it: by environment and token file."""

    host: str
    port: int
    service_account_dir: Path

    def environ(self) -> dict[str, str]:
        """Without the kubeconfig of whoever runs the simulator: it is of another cluster."""
        return {
            "KUBECONFIG": "",
            "KUBERNETES_SERVICE_HOST": self.host,
            "KUBERNETES_SERVICE_PORT": str(self.port),
        }

    def environ_in(self, shell: Mapping[str, str]) -> dict[str, str]:
        """For a program started from there; variables that set its options are left out."""
        options = _all_variables()
        kept = {name: value for name, value in shell.items() if name not in options}
        return {**kept, **self.environ()}


def _all_variables() -> frozenset[str]:
    of_domains = (name for flag in DOMAIN_FLAGS for name in flag.variables)
    return option_variables().union(of_domains, (flag.variable for flag in CONTROLLER_FLAGS))
