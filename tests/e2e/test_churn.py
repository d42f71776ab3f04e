"""Pods that come and go in numbers: all of them run, and nothing of them is left on their node."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any, Final

from tests.e2e.injectors.users import wait_until_clean
from tests.e2e.ring.errors import RingError
from tests.e2e.ring.objects import a_gpu_pod, a_pod, names
from tests.e2e.ring.patience import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.e2e.injectors.users import Users
    from tests.e2e.ring.kubectl import Kubectl, Manifest
    from tests.e2e.ring.node import Node

GPUS: Final = 8
SHARERS: Final = 20
ROUNDS: Final = 6
IN_A_ROW: Final = 100

_STATE: Final = "var/lib/kubelet/plugins/gpu.nvidia.com"
_OF_THE_AGENT: Final = {"locks", "role.holder"}


def test_twenty_pods_share_one_claim_and_leave_nothing(users: Users, node: Node) -> None:
    kubectl, namespace = users.kubectl, users.namespace
    kubectl.create(_a_claim("shared", namespace=namespace))
    pods = [_sharer(f"user-{number}", users) for number in range(SHARERS)]

    kubectl.create(*pods)
    wait_until_all_are("Running", pods, users)
    seen = {users.gpu(name) for name in names(pods)}
    first, rest = pods[0], pods[1:]
    kubectl.delete(first)
    assert len(seen) == 1
    assert {users.gpu(name) for name in names(rest[:3])} == seen

    kubectl.delete(*rest)
    kubectl("delete", "resourceclaim", "shared", f"--namespace={namespace}", "--wait")
    assert_nothing_is_left(users, node)


def test_pods_deleted_as_soon_as_they_are_created_leave_nothing(users: Users, node: Node) -> None:
    kubectl, namespace = users.kubectl, users.namespace
    grace = itertools.cycle(["--grace-period=1", "--now", "--force"])
    for turn in range(ROUNDS):
        pods = [_user(f"user-{turn}-{number}", users, "sleep", "600") for number in range(GPUS)]
        kubectl.create(*pods)
        # The first are met before they are scheduled, the last in the middle of a prepare.
        kubectl("delete", "pod", *names(pods), f"--namespace={namespace}", next(grace),
                "--wait=false")  # fmt: skip

    assert_nothing_is_left(users, node)
    users.run("after")
    users.delete("after")
    assert_nothing_is_left(users, node)


def test_a_hundred_pods_in_a_row_run_and_leave_nothing(users: Users, node: Node) -> None:
    numbers = iter(range(IN_A_ROW))
    while batch := [
        _user(f"user-{number}", users, "true") for number in itertools.islice(numbers, GPUS)
    ]:
        users.kubectl.create(*batch)
        wait_until_all_are("Succeeded", batch, users)
        users.kubectl("delete", "pod", *names(batch), f"--namespace={users.namespace}",
                      "--wait=false")  # fmt: skip

    assert_nothing_is_left(users, node)
    assert _complaints(users.kubectl, users.namespace) == []


def wait_until_all_are(phase: str, pods: Sequence[Manifest], users: Users) -> None:
    def look() -> bool:
        wanted = set(names(pods))
        found = users.kubectl.list("pods", f"--namespace={users.namespace}")
        others = {
            pod["metadata"]["name"]: pod["status"]
            for pod in found
            if pod["metadata"]["name"] in wanted and pod["status"].get("phase") != phase
        }
        if others or not wanted <= set(names(found)):
            raise RingError(f"not {phase}: {json.dumps(others)[:1500]}")
        return True

    eventually(look, until=f"{len(pods)} pods are {phase}", every_s=0.3)


def assert_nothing_is_left(users: Users, node: Node) -> None:
    """Neither pods nor claims, and on the node no file that tells of any."""

    def objects() -> bool:
        where = f"--namespace={users.namespace}"
        left = [*users.kubectl.list("pods", where), *users.claims()]
        if left:
            raise RingError(f"there are still {names(left)}")
        return True

    eventually(objects, until="pods and claims are gone")
    wait_until_clean(node)

    def files() -> bool:
        # Others than those of the claim may go a moment later.
        found = node.enter("find", f"/{_STATE}", "-type", "f", "-printf", "%P\n").split()
        if left := set(found) - _OF_THE_AGENT:
            raise RingError(f"{node.name} still has {sorted(left)}")
        return True

    eventually(files, until="no file tells of a claim")


def _user(name: str, users: Users, *command: str) -> Manifest:
    return a_gpu_pod(name, *command, namespace=users.namespace, node=users.node.name)


def _sharer(name: str, users: Users) -> Manifest:
    claims = [{"name": "gpu", "resourceClaimName": "shared"}]
    pod = a_pod(
        name,
        "sleep",
        "infinity",
        namespace=users.namespace,
        node=users.node.name,
        resourceClaims=claims,
    )
    pod["spec"]["containers"][0]["resources"] = {"claims": [{"name": "gpu"}]}
    return pod


def _a_claim(name: str, *, namespace: str) -> Manifest:
    request: dict[str, Any] = {"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com"}}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"devices": {"requests": [request]}},
    }


def _complaints(kubectl: Kubectl, namespace: str) -> list[str]:
    """Of the kubelet, about claims."""
    events = kubectl.list("events", f"--namespace={namespace}", "--field-selector=type=Warning")
    return [each["message"] for each in events if each["reason"].endswith("Resources")]
