"""Every demo spec, run by the command that users run, gives what its comment promises."""

from __future__ import annotations

import pytest

from nvdra_testing.simulation import Simulated, simulate
from nvdra_testing.specs import (
    DEMO_SPECS,
    DEMOS,
    DOMAIN_SPECS,
    GATED_SPECS,
    MIG_LAYOUT,
    Spec,
    outcome_of,
)

pytestmark = pytest.mark.timeout(240)  # a dozen programs start, on a machine that may be busy


def run(spec: Spec) -> Simulated:
    cut = ("--mig-layout", MIG_LAYOUT) if spec.is_cut else ()
    gates = ("--feature-gates", spec.gates) if spec.gates else ()
    nodes = ("--nodes", str(spec.nodes))
    return simulate("--profile", spec.profile, *nodes, *cut, *gates, spec.file)


SPECS = [
    spec for spec in (*DEMO_SPECS, *GATED_SPECS, *DOMAIN_SPECS) if spec.file.is_relative_to(DEMOS)
]


def test_every_demo_has_a_promise() -> None:
    assert set(DEMOS.iterdir()) == {spec.file for spec in SPECS}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_demo_keeps_its_promise(spec: Spec) -> None:
    done = run(spec)
    assert done.status == (0 if spec.runs else 1), done.errors
    spec.verify(outcome_of(done))


def test_the_reason_for_not_taking_a_gpu_names_the_selector() -> None:
    done = simulate("--profile", "a100-80gb", DEMOS / "by-attribute.yaml")
    assert 'architecture == "Hopper"' in done.pods["pod"]["reason"]


def test_the_cluster_that_the_users_kubeconfig_names_is_left_alone() -> None:
    """Agents would take it for theirs, and publish simulated GPUs there."""
    done = simulate(DEMOS / "own-gpus.yaml", KUBECONFIG="/nowhere/kubeconfig")
    assert done.status == 0, done.errors


def test_variables_of_the_users_shell_set_no_options_of_agents() -> None:
    """Some of them are commonplace: charts set them in pods, from which people run things too."""
    done = simulate(
        DEMOS / "own-gpus.yaml",
        ROLLING_UPDATE="true",
        POD_UID="/",
        HTTP_ENDPOINT="nowhere",
        FEATURE_GATES="NoSuchGate=true",
        LOG_VERBOSITY="loud",
        CONSUMABLE_SHARES="4",
    )
    assert done.status == 0, done.errors
