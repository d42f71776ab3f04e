"""What is known about one domain at a moment: the domain and everything that bears its UID."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from nvdra_api.gates import FeatureGates, GateError
from nvdra_api.names import (
    ANNOTATION_PROTOCOL,
    COMPUTE_DOMAIN_OBJECT_PREFIX,
    FINALIZER_COMPUTE_DOMAIN,
    LABEL_CLAIM_TEMPLATE_TARGET,
    LABEL_COMPUTE_DOMAIN,
    TARGET_WORKLOAD,
)
from nvdra_operator.resources import CLIQUES

if TYPE_CHECKING:
    from nvdra_kube.api import Body

LIMIT_VARIABLE: Final = "MAX_NODES_PER_IMEX_DOMAIN"
GATES_VARIABLE: Final = "FEATURE_GATES"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """An object of somebody else's that has a name which the domain needs; or (`altered`) one of
    ours that the server stored otherwise than we wrote it."""

    kind: str
    namespace: str
    name: str
    whose: str
    altered: bool = False

    def __str__(self) -> str:
        if self.altered:
            return (
                f"{self.kind} {self.namespace}/{self.name} was stored otherwise than it was "
                "written; look for an admission webhook or policy that alters it"
            )
        ours = self.name.startswith(COMPUTE_DOMAIN_OBJECT_PREFIX) or self.kind == CLIQUES.kind
        other = "" if ours else ", or create the ComputeDomain with another name for its template"
        return (
            f"{self.kind} {self.namespace}/{self.name} exists already and belongs to {self.whose}; "
            f"delete it{other}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Objects are shared with the informers: nobody edits them."""

    domain: Body
    daemon_sets: tuple[Body, ...] = ()
    templates: tuple[Body, ...] = ()
    nodes: tuple[Body, ...] = ()
    pods: tuple[Body, ...] = ()
    cliques: tuple[Body, ...] = ()
    obstacles: tuple[Obstacle, ...] = ()

    @property
    def uid(self) -> str:
        return str(self.domain["metadata"]["uid"])

    @property
    def is_legacy(self) -> bool:
        """Whether daemons of the earlier driver write the members themselves."""
        return bool(self.daemon_sets) and not any(
            ANNOTATION_PROTOCOL in annotations_of(body) for body in self.daemon_sets
        )

    @property
    def is_idle(self) -> bool:
        """Whether no node takes part, so that nobody would notice new daemons."""
        return not self.nodes and not self.pods

    @property
    def workload_templates(self) -> tuple[Body, ...]:
        return tuple(body for body in self.templates if target_of(body) == TARGET_WORKLOAD)

    @property
    def daemon_templates(self) -> tuple[Body, ...]:
        return tuple(body for body in self.templates if target_of(body) != TARGET_WORKLOAD)

    def is_blocked(self, wanted: Body) -> bool:
        """Whether somebody else's object is known to have the name of this one."""
        meta = wanted["metadata"]
        place = (wanted["kind"], meta["namespace"], meta["name"])
        return any((one.kind, one.namespace, one.name) == place for one in self.obstacles)

    def limit(self, default: int) -> int:
        """How many daemons a clique may have; fixed for running daemons by their environment."""
        return _positive(self._told(LIMIT_VARIABLE), default)

    def uses_cliques(self, default: bool) -> bool:
        """Whether members are recorded in cliques; fixed for running daemons in the same way, since
        agents look where their daemons were told to."""
        return _cliques_gate(self._told(GATES_VARIABLE), default)

    def _told(self, variable: str) -> str:
        """What the daemons find in their environment."""
        for body in self.daemon_sets:
            for container in body["spec"]["template"]["spec"].get("containers") or ():
                for one in container.get("env") or ():
                    if one.get("name") == variable:
                        return str(one.get("value") or "")
        return ""


def labels_of(body: Body) -> dict[str, str]:
    return body["metadata"].get("labels") or {}


def annotations_of(body: Body) -> dict[str, str]:
    return body["metadata"].get("annotations") or {}


def domain_of(body: Body) -> str:
    """UID of the domain that an object belongs to; empty for none."""
    return labels_of(body).get(LABEL_COMPUTE_DOMAIN, "")


def node_of(pod: Body) -> str:
    """The node that a pod is bound to; empty for none."""
    return str((pod.get("spec") or {}).get("nodeName") or "")


def target_of(body: Body) -> str:
    return labels_of(body).get(LABEL_CLAIM_TEMPLATE_TARGET, "")


def is_dying(body: Body) -> bool:
    return bool(body["metadata"].get("deletionTimestamp"))


def has_finalizer(body: Body) -> bool:
    return FINALIZER_COMPUTE_DOMAIN in (body["metadata"].get("finalizers") or ())


def condition(body: Body, kind: str) -> dict[str, Any]:
    """The condition of this type; empty where there is none."""
    conditions = (body.get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one.get("type") == kind), {})


def is_ready(body: Body) -> bool:
    """Whether a pod or a node says so."""
    return bool(condition(body, "Ready").get("status") == "True")


@lru_cache(maxsize=32)
def _cliques_gate(text: str, default: bool) -> bool:
    if not text:
        return default
    try:
        return FeatureGates.parse(text)["ComputeDomainCliques"]
    except GateError:
        return default


def _positive(text: str, default: int) -> int:
    try:
        value = int(text)
    except ValueError:
        return default
    return value if value > 0 else default
