"""Manifests that people use today run byte for byte, to the result that their names promise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from nvdra_testing.simulation import Simulated, simulate
from nvdra_testing.specs import (
    DOMAIN_SPECS,
    FABRIC_PROFILE,
    GATED_SPECS,
    PUBLIC_SPECS,
    QUICKSTART_SPECS,
    Spec,
    outcome_of,
    pods_of_a_domain_get_a_channel_each,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(
        not PUBLIC_SPECS.is_dir(), reason="the public specs are not beside this checkout"
    ),
    pytest.mark.timeout(240),  # a dozen programs start, on a machine that may be busy
]


SPECS = [
    spec
    for spec in (*QUICKSTART_SPECS, *GATED_SPECS, *DOMAIN_SPECS)
    if spec.file.is_relative_to(PUBLIC_SPECS)
]
SHOW_CHANNELS = "ls /dev/nvidia-caps-imex-channels; trap 'exit 0' TERM; sleep 9999 & wait"


def run(spec: Spec) -> Simulated:
    gates = ("--feature-gates", spec.gates) if spec.gates else ()
    return simulate("--profile", spec.profile, "--nodes", str(spec.nodes), *gates, spec.file)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_public_spec_keeps_its_promise(spec: Spec) -> None:
    done = run(spec)
    assert done.status == (0 if spec.runs else 1), done.errors
    spec.verify(outcome_of(done))


def test_the_workers_of_a_public_job_form_a_domain_of_four_nodes() -> None:
    done = run_jobs("nvbandwidth-test-job")
    pods_of_a_domain_get_a_channel_each(outcome_of(done))
    [domain] = done.domains.values()
    assert [node["index"] for node in sorted(domain["nodes"], key=_index)] == [0, 1, 2, 3]


def test_two_public_jobs_form_domains_of_their_own_at_the_same_time() -> None:
    done = run_jobs("nvbandwidth-test-job-1", "nvbandwidth-test-job-2")
    first, second = ({node["name"] for node in domain["nodes"]} for domain in done.domains.values())
    assert len(first) == len(second) == 2
    assert not first & second
    assert {domain["status"] for domain in done.domains.values()} == {"Ready"}


def run_jobs(*names: str) -> Simulated:
    """MPIJobs are somebody else's kind: here their workers are plain pods with the same claims."""
    documents = [document for name in names for document in _with_plain_workers(name)]
    text = yaml.safe_dump_all(documents)
    done = simulate("--profile", FABRIC_PROFILE, "--nodes", "4", "-", text=text)
    assert done.status == 0, done.errors
    return done


def _with_plain_workers(name: str) -> Iterator[dict[str, Any]]:
    for document in yaml.safe_load_all((PUBLIC_SPECS / "imex" / f"{name}.yaml").read_text()):
        if document["kind"] != "MPIJob":
            yield document
            continue
        workers = document["spec"]["mpiReplicaSpecs"]["Worker"]
        for number in range(workers["replicas"]):
            spec = workers["template"]["spec"]
            [container] = spec["containers"]
            claims = {"claims": container["resources"]["claims"]}
            plain = {
                "name": container["name"],
                "image": container["image"],
                "command": ["bash", "-c", SHOW_CHANNELS],
                "resources": claims,
            }
            yield {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"{document['metadata']['name']}-{number}"},
                "spec": {**spec, "containers": [plain]},
            }


def _index(node: dict[str, Any]) -> int:
    return int(node["index"])
