"""Many node agents against one real API server: real programs, simulated hardware, no kubelets.

The agents run in the control plane's namespaces, where every port is free and nothing between
them and the API server can be the bottleneck.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.parser import text_string_to_metric_families
from tests.e2e.ring.machine import Daemon
from tests.e2e.ring.network import API_PORT, CONTROL_PLANE_IP
from tests.e2e.ring.patience import eventually

from nvdra_testing.helm import rendered, the

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tests.e2e.ring.cluster import RealCluster
    from tests.e2e.ring.kubectl import Kubectl, Manifest

DRIVER: Final = "gpu.nvidia.com"
LABEL: Final = "e2e.nvdra/pool"
GPUS: Final = 8
REFUSALS: Final = frozenset({"401", "403", "429"})
NO_ANSWER: Final = "0"
READS: Final = frozenset({"get", "list", "watch"})
_ACCOUNT: Final = "gpu-agents"
_FIRST_PORT: Final = 9000
_START_S: Final = 900.0
"""Patience with dozens of programs that start at once: each needs seconds of a processor."""

# One process for all of them: entering the namespaces costs more than asking.
_SCRAPE: Final = """
import json, sys, urllib.request
said = {}
for port in sys.argv[1:]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        said[port] = answer.read().decode()
json.dump(said, sys.stdout)
"""


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls of the API by all agents so far, by verb and resource.

    `lost`: writes without an answer, which have to be made again.
    """

    made: Counter[tuple[str, str]]
    refused: int
    lost: int

    @property
    def total(self) -> int:
        return self.made.total()

    @property
    def writes(self) -> int:
        return sum(count for (verb, _), count in self.made.items() if verb not in READS)

    def __sub__(self, earlier: Calls) -> Calls:
        made = Counter({key: count - earlier.made[key] for key, count in self.made.items()})
        return Calls(+made, self.refused - earlier.refused, self.lost - earlier.lost)

    def by_verb(self) -> dict[str, int]:
        return {f"{verb} {kind}": count for (verb, kind), count in sorted(self.made.items())}


@dataclass(slots=True)
class AgentPool:
    """Agents that have been started, each with a Node object of its own."""

    cluster: RealCluster
    python: Path
    size: int
    folder: Path
    agents: list[Daemon] = field(default_factory=list)

    @property
    def kubectl(self) -> Kubectl:
        return self.cluster.kubectl

    @property
    def nodes(self) -> list[str]:
        return [f"pool-{number:02}" for number in range(self.size)]

    def start(self) -> None:
        """The storm: all programs at once."""
        self.agents = self.agents or [self._agent(number) for number in range(self.size)]
        for agent in self.agents:
            agent.start()

    def stop(self) -> None:
        for agent in self.agents:
            agent.stop()

    def slices(self) -> list[Manifest]:
        """ResourceSlices of the pool's nodes."""
        nodes = set(self.nodes)
        found = self.kubectl.list("resourceslices")
        return [each for each in found if each["spec"].get("nodeName") in nodes]

    def wait_published(self) -> None:
        """Wait until every node of the pool has all its GPUs in the API."""
        eventually(
            self._all_published,
            until="all agents have published",
            deadline_s=_START_S,
            every_s=0.5,
        )

    def _all_published(self) -> bool:
        for agent in self.agents:
            agent.check()
        devices: Counter[str] = Counter()
        for each in self.slices():
            devices[each["spec"]["nodeName"]] += len(each["spec"].get("devices", []))
        return devices == dict.fromkeys(self.nodes, GPUS)

    def wait_answering(self) -> None:
        """Wait until every agent serves its metrics, which is the end of its start."""
        eventually(
            lambda: len(self._scraped()) == self.size,
            until="all agents serve metrics",
            deadline_s=_START_S,
        )

    def calls(self, agents: Iterable[int] | None = None) -> Calls:
        """By all agents, or those of these numbers, each since it was started last."""
        made: Counter[tuple[str, str]] = Counter()
        refused = lost = 0
        for text in self._scraped(agents).values():
            for sample in _samples(text, "nvidia_dra_kube_api_requests_total"):
                labels = sample.labels
                made[labels["verb"].lower(), labels["resource"]] += int(sample.value)
                refused += int(sample.value) if labels["code"] in REFUSALS else 0
                is_lost = labels["code"] == NO_ANSWER and labels["verb"].lower() not in READS
                lost += int(sample.value) if is_lost else 0
        return Calls(made, refused, lost)

    def memory_mib(self) -> list[dict[str, float]]:
        """Of each agent: resident, proportional (shared pages divided) and anonymous memory."""
        return [_memory_mib(agent.pid_mark().pid) for agent in self.agents]

    def _scraped(self, agents: Iterable[int] | None = None) -> dict[str, str]:
        chosen = range(self.size) if agents is None else agents
        ports = [str(_FIRST_PORT + number) for number in chosen]
        machine = self.cluster.control_plane.machine
        answers: dict[str, str] = json.loads(
            machine.enter(self.python, "-I", "-S", "-c", _SCRAPE, *ports)
        )
        return answers

    def _agent(self, number: int) -> Daemon:
        name = self.nodes[number]
        home = self.folder / name
        return Daemon(
            lambda: self.cluster.control_plane.machine,
            [
                *(self.python, "-m", "nvdra_nodeagent.main", f"--node-name={name}"),
                f"--service-account-dir={self.folder / 'account'}",
                f"--cdi-root={home / 'cdi'}",
                f"--kubelet-plugins-directory-path={home / 'plugins'}",
                f"--kubelet-registrar-directory-path={home / 'registry'}",
                f"--http-endpoint=127.0.0.1:{_FIRST_PORT + number}",
                *("--simulate=h100", f"--simulate-state={home / 'simulated'}"),
            ],
            log=self.cluster.folder / "control-plane/logs" / f"{name}.log",
            env={
                "KUBERNETES_SERVICE_HOST": CONTROL_PLANE_IP,
                "KUBERNETES_SERVICE_PORT": str(API_PORT),
            },
        )


@contextmanager
def a_pool(cluster: RealCluster, *, python: Path, size: int) -> Iterator[AgentPool]:
    """Nodes and rights for a pool whose agents are not started yet; all of it is gone after."""
    kubectl = cluster.kubectl
    folder = Path(tempfile.mkdtemp(prefix="pool-"))  # short: sockets below it
    pool = AgentPool(cluster, python, size, folder)
    made = [*_account(), *(_node(name) for name in pool.nodes)]
    try:
        for name in pool.nodes:
            (folder / name / "registry").mkdir(parents=True)
        kubectl.apply(*made)
        _write_account(cluster, folder / "account")
        yield pool
    finally:
        pool.stop()
        kubectl.delete(*made)
        # The nodes own them.
        eventually(lambda: not pool.slices(), until="the pool's slices are collected")
        shutil.rmtree(folder)


def _write_account(cluster: RealCluster, folder: Path) -> None:
    folder.mkdir()
    token = cluster.kubectl("create", "token", _ACCOUNT, "--namespace=default", "--duration=3h")
    (folder / "token").write_text(token)
    shutil.copyfile(cluster.control_plane.credentials.ca, folder / "ca.crt")


def _account() -> Sequence[Manifest]:
    """The rights that the chart gives a plugin."""
    gpus_only = {"resources": {"computeDomains": {"enabled": False}}}
    rules = the(rendered(gpus_only), "ClusterRole")["rules"]
    role = {"kind": "ClusterRole", "name": _ACCOUNT, "apiGroup": "rbac.authorization.k8s.io"}
    subject = {"kind": "ServiceAccount", "name": _ACCOUNT, "namespace": "default"}
    return [
        _object("v1", "ServiceAccount", _ACCOUNT, namespace="default"),
        _object("rbac.authorization.k8s.io/v1", "ClusterRole", _ACCOUNT, rules=rules),
        _object(
            "rbac.authorization.k8s.io/v1",
            "ClusterRoleBinding",
            _ACCOUNT,
            roleRef=role,
            subjects=[subject],
        ),
    ]


def _object(version: str, kind: str, name: str, *, namespace: str = "", **rest: Any) -> Manifest:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}


def _node(name: str) -> Manifest:
    """A node without a kubelet: the taint keeps DaemonSets away."""
    node = _object("v1", "Node", name)
    node["metadata"]["labels"] = {LABEL: "", "kubernetes.io/hostname": name}
    node["spec"] = {"taints": [{"key": LABEL, "effect": "NoSchedule"}]}
    return node


def _samples(text: str, name: str) -> list[Any]:
    families = text_string_to_metric_families(text)
    return [sample for family in families for sample in family.samples if sample.name == name]


def _memory_mib(pid: int) -> dict[str, float]:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines()[1:])
    wanted = {"resident": "Rss", "proportional": "Pss", "anonymous": "Anonymous"}
    return {name: int(fields[key].split()[0]) / 1024 for name, key in wanted.items()}
