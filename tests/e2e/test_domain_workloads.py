"""Workloads over several nodes in ComputeDomains: channels, peers, the public specs, refusals."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.e2e.product.controllers import controllers, refusals
from tests.e2e.product.domains import a_channel_user, a_domain, index_of, label_of
from tests.e2e.ring.errors import CommandFailed, RingError
from tests.e2e.ring.objects import a_pod
from tests.e2e.ring.patience import DEADLINE_S, eventually

from nvdra_testing.specs import PUBLIC_SPECS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.product.domains import Domains
    from tests.e2e.ring.kubectl import Kubectl, Manifest

_IMEX = PUBLIC_SPECS / "imex"
_specs = pytest.mark.skipif(not _IMEX.is_dir(), reason="the public specs are not there")


def test_a_workload_on_four_nodes_gets_channels_and_leaves_nothing(
    domains: Domains, say: Callable[[str], None]
) -> None:
    names = domains.node_names
    started = time.monotonic()
    domain = domains.form("job", *names)
    say(f"a domain of {len(names)} nodes was complete after {time.monotonic() - started:.1f} s")
    for name in names:
        assert domains.channels_of(f"job-on-{name}") == [0]
    assert sorted(index_of(domain, name) for name in names) == [0, 1, 2, 3]
    [clique] = domains.kubectl.list("computedomaincliques", "--all-namespaces", label_of(domain))
    assert sorted(entry["nodeName"] for entry in clique["daemons"]) == names
    for name in names:
        eventually(
            lambda name=name: _is_connected(domains, domain, name),  # type: ignore[misc]
            until=f"the daemon of {name} is connected to all others",
        )

    domains.kubectl("delete", "pods", "--all", f"--namespace={domains.namespace}")
    domains.wait_for_nodes("job", ())
    domains.delete("job")

    domains.wait_until_nothing_is_left(domain)
    plugins = domains.product.pods()
    assert refusals(domains.product, [*controllers(domains.product), *plugins]) == []


def _is_connected(domains: Domains, domain: Manifest, node: str) -> bool:
    pod = domains.daemon_on(domain, node)["metadata"]
    ask = "nvidia-imex-ctl", "-c", "/imexd/imexd.cfg", "-N", "-j"
    said = domains.kubectl("exec", pod["name"], f"--namespace={pod['namespace']}", "--", *ask)
    count = len(domains.node_names)
    tables = list(json.loads(said)["nodes"].values())[:count]
    seen = [[peer["status"] for peer in each["connections"].values()] for each in tables]
    if [states.count("CONNECTED") for states in seen] == [count] * count:
        return True
    raise RingError(f"{seen}")


def test_several_domains_form_at_once_on_nodes_of_their_own(domains: Domains) -> None:
    pairs = {"left": domains.node_names[:2], "right": domains.node_names[2:]}
    domains.kubectl.create(*(a_domain(name, namespace=domains.namespace) for name in pairs))
    for name, nodes in pairs.items():
        domains.start_users(name, *nodes)
    for name, nodes in pairs.items():
        domain = domains.wait_for_nodes(name, nodes)
        assert sorted(index_of(domain, node) for node in nodes) == [0, 1]


def test_a_node_is_free_for_another_domain_when_the_first_has_left_it(domains: Domains) -> None:
    node = domains.node_names[0]
    domains.form("first", node)
    domains.create("second")
    domains.start_users("second", node)
    eventually(
        lambda: _warning(domains, f"second-on-{node}", "cannot allocate all claims"),
        until="its pod is told why it waits",
    )

    domains.kubectl("delete", "pod", f"first-on-{node}", f"--namespace={domains.namespace}")

    domains.kubectl.wait_until_ready(f"second-on-{node}", namespace=domains.namespace)
    domains.wait_for_nodes("second", [node])


def _warning(domains: Domains, pod: str, words: str) -> str:
    """The pod may have other warnings besides, in any order."""
    warnings = domains.warnings(pod)
    for warning in warnings:
        if words in warning:
            return warning
    raise RingError(f"{pod} has the warnings {warnings}")


@_specs
@pytest.mark.parametrize(
    ("file", "channels"), [("channel-injection", 1), ("channel-injection-all", 2048)]
)
def test_a_public_spec_gets_its_channels(domains: Domains, file: str, channels: int) -> None:
    spec = _IMEX / f"{file}.yaml"
    domains.kubectl("apply", f"--filename={spec}", f"--namespace={domains.namespace}")

    pod = domains.kubectl.wait_until_ready(f"imex-{file}", namespace=domains.namespace)

    assert domains.channels_of(f"imex-{file}") == list(range(channels))
    domains.wait_for_nodes(f"imex-{file}", [pod["spec"]["nodeName"]])


@_specs
@pytest.mark.parametrize(
    "files",
    [("nvbandwidth-test-job",), ("nvbandwidth-test-job-1", "nvbandwidth-test-job-2")],
    ids=["alone", "together"],
)
def test_the_workers_of_public_jobs_get_channels_and_gpus(
    domains: Domains, files: tuple[str, ...]
) -> None:
    """MPIJobs are somebody else's: their workers run as plain pods. A node has one channel."""
    jobs = [_job(domains, file) for file in files]
    for domain, workers in jobs:
        domains.kubectl.create(domain, *workers)
    for domain, workers in jobs:
        names = [pod["metadata"]["name"] for pod in workers]
        pods = [domains.kubectl.wait_until_ready(name, namespace=domains.namespace)
                for name in names]  # fmt: skip
        nodes = {pod["spec"]["nodeName"] for pod in pods}
        assert len(nodes) == domain["spec"]["numNodes"]
        domains.wait_for_nodes(domain["metadata"]["name"], nodes)
        for name in names:
            assert domains.channels_of(name) == [0]


def _job(domains: Domains, file: str) -> tuple[Manifest, list[Manifest]]:
    """The ComputeDomain of the file as it is there, and the workers of its job."""
    domain, job = yaml.safe_load_all((_IMEX / f"{file}.yaml").read_text(encoding="utf-8"))
    domain["metadata"]["namespace"] = domains.namespace
    worker = job["spec"]["mpiReplicaSpecs"]["Worker"]
    names = [f"{file}-{number}" for number in range(worker["replicas"])]
    return domain, [_worker(worker, name, domains.namespace) for name in names]


def _worker(replica: Manifest, name: str, namespace: str) -> Manifest:
    """A worker as its job says, with another program: its image is not here."""
    spec: dict[str, Any] = replica["template"]["spec"]
    [container] = spec["containers"]
    pod = a_pod(name, "sleep", "infinity", namespace=namespace)
    [own] = pod["spec"]["containers"]
    own["resources"] = container["resources"]
    pod["spec"]["resourceClaims"] = spec["resourceClaims"]
    return pod


def test_a_domain_that_is_deleted_under_its_pods_lets_them_end(domains: Domains) -> None:
    names = domains.node_names[:2]
    domain = domains.form("job", *names)
    domains.start_users("job", *domains.node_names[2:])  # these are still coming

    domains.delete("job")

    domains.wait_until_nothing_is_left(domain)
    where = f"--namespace={domains.namespace}"
    domains.kubectl("delete", "pods", "--all", where, f"--timeout={DEADLINE_S:.0f}s")
    eventually(
        lambda: not domains.kubectl.list("resourceclaims", where), until="no claims are left"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"numNodes": -1}, "spec.numNodes.*greater than or equal to 0"),
        ({"channel": None}, "ComputeDomain.spec.: missing required field .channel"),
        ({"channel": {"resourceClaimTemplate": {}}}, "Template.: missing required field .name"),
        (
            {"channel": {"resourceClaimTemplate": {"name": "x"}, "allocationMode": "Some"}},
            'Unsupported value: "Some"',
        ),
    ],
    ids=["numNodes", "channel", "template", "mode"],
)
def test_an_invalid_domain_is_refused_with_the_field(
    with_domains: object, kubectl: Kubectl, namespace: str, change: dict[str, Any], said: str
) -> None:
    domain = a_domain("wrong", namespace=namespace)
    domain["spec"] |= change
    with pytest.raises(CommandFailed, match=said):
        kubectl.create(domain)


def test_a_claim_template_of_somebody_else_is_told_and_left_alone(domains: Domains) -> None:
    foreign = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": "job-channel", "namespace": domains.namespace},
        "spec": {"spec": {}},
    }
    domains.kubectl.create(foreign, a_domain("job", namespace=domains.namespace))

    told = domains.wait_for_reason("job", "ClaimTemplateConflict")
    domains.delete("job")

    assert f"{domains.namespace}/job-channel" in told["message"]
    domains.kubectl.get("resourceclaimtemplate", "job-channel", namespace=domains.namespace)


def test_what_the_api_server_refuses_is_told_with_its_words(domains: Domains) -> None:
    domain = a_domain("job", namespace=domains.namespace)
    domain["spec"]["channel"]["resourceClaimTemplate"]["name"] = "Not_A_Name"
    domains.kubectl.create(domain)

    told = domains.wait_for_reason("job", "ObjectsNotWritten")

    assert "Not_A_Name" in told["message"]
    assert "RFC 1123" in told["message"]


def test_the_spec_of_a_domain_cannot_be_changed(domains: Domains, kubectl: Kubectl) -> None:
    domains.create("job")
    with pytest.raises(CommandFailed, match="spec is immutable"):
        kubectl(
            "patch", "computedomain", "job", f"--namespace={domains.namespace}", "--type=merge",
            '--patch={"spec": {"numNodes": 7}}',
        )  # fmt: skip


def test_an_unknown_field_of_a_claim_is_told_to_its_pod_within_seconds(
    domains: Domains, kubectl: Kubectl, say: Callable[[str], None]
) -> None:
    domains.create("job")
    template = kubectl.get("resourceclaimtemplate", "job-channel", namespace=domains.namespace)
    [config] = template["spec"]["spec"]["devices"]["config"]
    config["opaque"]["parameters"]["unexpected"] = True
    template["metadata"] = {"name": "odd-channel", "namespace": domains.namespace}
    user = a_channel_user("user", namespace=domains.namespace, domain="odd")
    started = time.monotonic()
    kubectl.create(template, user)

    said = eventually(
        lambda: _warning(domains, "user", "unexpected"),
        until="the pod has an event about it",
        every_s=0.2,
    )
    say(f"told after {time.monotonic() - started:.1f} s: {said}")
    assert "correct the config in the ResourceClaim, its template" in said
