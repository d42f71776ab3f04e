"""ComputeDomains while daemons, nodes, workloads and controllers fail."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tests.e2e.injectors.plugin_process import process_of
from tests.e2e.product.controllers import controllers, leader
from tests.e2e.product.domains import DRIVER
from tests.e2e.ring.errors import RingError
from tests.e2e.ring.kubectl import is_ready
from tests.e2e.ring.objects import container_id
from tests.e2e.ring.patience import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.product.domains import Domains
    from tests.e2e.ring.kubectl import Manifest
    from tests.e2e.ring.node import Node


def test_a_daemon_that_is_killed_or_deleted_comes_back_in_its_slot_under_its_workload(
    domains: Domains,
) -> None:
    names = domains.node_names[:2]
    domain = domains.form("job", *names)
    slots = [domains.index_of(domain, name) for name in names]
    users = [container_id(_user(domains, name)) for name in names]
    killed, deleted = (domains.daemon_on(domain, name) for name in names)
    assert process_of(container_id(killed)).kill()
    gone = deleted["metadata"]
    domains.kubectl("delete", "pod", gone["name"], f"--namespace={gone['namespace']}")

    for name, old in zip(names, (killed, deleted), strict=True):
        eventually(
            lambda name=name, old=old: _is_another(domains.daemon_on(domain, name), old),  # type: ignore[misc]
            until=f"{name} has another daemon",
            every_s=0.3,
        )
    domains.wait_for_nodes("job", names)
    assert [domains.index_of(domain, name) for name in names] == slots
    assert [container_id(_user(domains, name)) for name in names] == users


def _is_another(pod: Manifest, old: Manifest) -> bool:
    return container_id(pod) != container_id(old)


def test_a_workload_deleted_by_force_and_made_again_gets_its_channel(domains: Domains) -> None:
    names = domains.node_names[:2]
    domains.form("job", *names)
    force = ("--force", "--grace-period=0", "--wait=false")
    domains.kubectl(
        "delete", "pods", *(f"job-on-{name}" for name in names),
        f"--namespace={domains.namespace}", *force,
    )  # fmt: skip

    domains.start_users("job", *names)

    for name in names:
        domains.kubectl.wait_until_ready(f"job-on-{name}", namespace=domains.namespace)
        assert domains.channels_of(f"job-on-{name}") == [0]
    domains.wait_for_nodes("job", names)


def test_a_lost_node_is_named_with_the_reason_and_the_domain_recovers_with_it(
    domains: Domains, say: Callable[[str], None]
) -> None:
    stays, lost = domains.product.cluster.nodes[-2:]
    domain = domains.form("job", stays.name, lost.name)
    slot = domains.index_of(domain, lost.name)
    before = container_id(_user(domains, lost.name))
    earlier = _said_ready(lost, domain)
    lost.power_off()
    started = time.monotonic()
    try:
        told = domains.wait_for_reason("job", "NodeNotReady")
        say(f"told {time.monotonic() - started:.0f} s after the power cut: {told['message']}")
        assert f"{lost.name}: node is not ready" in told["message"]
        assert stays.name not in told["message"]
    finally:
        lost.power_on()

    booted = time.monotonic()
    domain = domains.wait_for_nodes("job", [stays.name, lost.name])
    say(f"the domain was whole {time.monotonic() - booted:.1f} s after the node's boot")
    domains.product.wait_until_ready(lost)
    assert domains.index_of(domain, lost.name) == slot
    user = _running_again(domains, lost.name, before)
    # What the daemon had said before the power cut let nobody through.
    said = _said_ready(lost, domain)
    assert said.boot_id == lost.boot_id != earlier.boot_id
    assert _started_at(user) >= int(said.at_s)


def test_a_controller_killed_while_a_domain_forms_is_replaced_and_finishes(
    domains: Domains, say: Callable[[str], None]
) -> None:
    names = domains.node_names
    domain = domains.create("job")
    domains.start_users("job", *names)
    for is_time in (_has_a_node, _has_an_address):
        eventually(lambda is_time=is_time: is_time(domains, domain), until="it is time to kill")  # type: ignore[misc]
        first = leader(domains.product)
        first.kill()
        started = time.monotonic()
        leader(domains.product, other_than=first.identity)
        say(f"another controller led {time.monotonic() - started:.1f} s after a SIGKILL")
    domain = domains.wait_for_nodes("job", names)
    assert sorted(domains.index_of(domain, name) for name in names) == [0, 1, 2, 3]
    eventually(
        lambda: [is_ready(pod) for pod in controllers(domains.product)] == [True, True],
        until="both controllers are back",
    )


def _has_a_node(domains: Domains, domain: Manifest) -> bool:
    return bool(domains.daemons(domain))


def _has_an_address(domains: Domains, domain: Manifest) -> bool:
    found = domains.kubectl.list("computedomaincliques", "--all-namespaces")
    return any(entry["ipAddress"] for clique in found for entry in clique.get("daemons", []))


def _user(domains: Domains, node: str) -> Manifest:
    return domains.kubectl.get("pod", f"job-on-{node}", namespace=domains.namespace)


def _running_again(domains: Domains, node: str, before: str) -> Manifest:
    def look() -> Manifest:
        user = _user(domains, node)
        if is_ready(user) and container_id(user) != before:
            return user
        raise RingError(f"the workload has {json.dumps(user['status'])[-1500:]}")

    return eventually(look, until=f"the workload on {node} runs again", every_s=0.3)


@dataclass(frozen=True, slots=True)
class _Word:
    """What a daemon says of itself on its node's disk; `at_s`: seconds since the epoch."""

    boot_id: str
    at_s: float


def _said_ready(node: Node, domain: Manifest) -> _Word:
    plugin = node.root / "var/lib/kubelet/plugins" / DRIVER
    path = plugin / "domains" / domain["metadata"]["uid"] / "ready.json"

    def look() -> _Word:
        try:
            said: dict[str, Any] = json.loads(path.read_text())
            at_s = path.stat().st_mtime
        except OSError as error:
            raise RingError(str(error)) from error
        if not said["ready"]:
            raise RingError(f"it says {said}")
        return _Word(said["bootID"], at_s)

    return eventually(look, until=f"the daemon on {node.name} says that it is ready")


def _started_at(pod: Manifest) -> float:
    [status] = pod["status"]["containerStatuses"]
    return datetime.fromisoformat(status["state"]["running"]["startedAt"]).timestamp()
