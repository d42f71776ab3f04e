"""What an installation decides about all of its ComputeDomains."""

from __future__ import annotations

from dataclasses import dataclass, field

from nvdra_api.gates import FeatureGates
from nvdra_api.names import MAX_NODES_PER_IMEX_DOMAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverSettings:
    """`namespace` is where daemons and cliques live; in `additional_namespaces` DaemonSets of
    earlier installations may still do. `image` is what the daemons run."""

    namespace: str
    image: str
    pull_secrets: tuple[str, ...] = ()
    additional_namespaces: tuple[str, ...] = ()
    daemon_verbosity: int = 4
    max_nodes: int = MAX_NODES_PER_IMEX_DOMAIN
    host_managed: bool = False
    gates: FeatureGates = field(default_factory=FeatureGates)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Where objects of domains are looked for, the driver's own namespace first."""
        return tuple(dict.fromkeys((self.namespace, *self.additional_namespaces)))

    @property
    def uses_cliques(self) -> bool:
        """Whether members are recorded in ComputeDomainCliques rather than in `status.nodes`."""
        return self.gates["ComputeDomainCliques"]
