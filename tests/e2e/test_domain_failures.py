"""ComputeDomains while daemons, nodes, workloads and controllers fail."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tests.e2e.injectors.plugin_process import process_of
from tests.e2e.product.controllers import leader, wait_for_controllers
from tests.e2e.product.domains import DRIVER, condition_of, index_of, label_of
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
    slots = [index_of(domain, name) for name in names]
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
    domain = domains.wait_for_nodes("job", names)
    assert [index_of(domain, name) for name in names] == slots
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
    slot = index_of(domain, lost.name)
    before = container_id(_user(domains, lost.name))
    _ready_since(lost, domain)  # this word outlives the power cut
    lost.power_off()
    started = time.monotonic()
    try:
        told = eventually(
            lambda: _blamed(domains, lost.name, not_for=stays.name),
            until=f"{lost.name}, and no other node, is told not to be ready",
            every_s=0.2,
        )
        say(f"told {time.monotonic() - started:.0f} s after the power cut: {told}")
    finally:
        lost.power_on()

    booted = time.monotonic()
    ready_since_s = _ready_since(lost, domain)
    domain = domains.wait_for_nodes("job", [stays.name, lost.name])
    say(f"the domain was whole {time.monotonic() - booted:.1f} s after the node's boot")
    domains.product.wait_until_ready(lost)
    assert index_of(domain, lost.name) == slot
    user = _running_again(domains, lost.name, before)
    # What the daemon had said before the power cut let nobody through.
    assert _started_at(user) >= int(ready_since_s)


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
    assert sorted(index_of(domain, name) for name in names) == [0, 1, 2, 3]
    wait_for_controllers(domains.product, 2)


def _has_a_node(domains: Domains, domain: Manifest) -> bool:
    return bool(domains.daemons(domain))


def _has_an_address(domains: Domains, domain: Manifest) -> bool:
    found = domains.kubectl.list("computedomaincliques", "--all-namespaces", label_of(domain))
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


def _blamed(domains: Domains, node: str, *, not_for: str) -> str:
    """The condition's message. Of daemons that are cut off the controller may hear before it hears
    of their node, and a word on another one is taken back."""
    told = condition_of(domains.get("job"), "Ready")
    message = str(told.get("message", ""))
    names_it = f"{node}: node is not ready" in message and not_for not in message
    if told.get("reason") == "NodeNotReady" and names_it:
        return message
    raise RingError(f"the domain has {told}")


def _ready_since(node: Node, domain: Manifest) -> float:
    """When the daemon wrote on its node's disk that it is ready, in this boot of the node; in
    seconds since the epoch. To be asked early: after a doubt it is written anew."""
    plugin = node.root / "var/lib/kubelet/plugins" / DRIVER
    path = plugin / "domains" / domain["metadata"]["uid"] / "ready.json"

    def look() -> float:
        try:
            with path.open() as file:
                said: dict[str, Any] = json.load(file)
                at_s = os.fstat(file.fileno()).st_mtime
        except OSError as error:
            raise RingError(str(error)) from error
        if said["bootID"] == node.boot_id and said["ready"]:
            return at_s
        raise RingError(f"it says {said}")

    return eventually(look, until=f"the daemon on {node.name} says that it is ready")


def _started_at(pod: Manifest) -> float:
    [status] = pod["status"]["containerStatuses"]
    return datetime.fromisoformat(status["state"]["running"]["startedAt"]).timestamp()
