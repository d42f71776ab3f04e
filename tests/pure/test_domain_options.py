"""The flags that only the agent of ComputeDomains has."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvdra_nodeagent.computedomain.agent import ANSWER_WITHIN_S, PREPARE_BUDGET_S
from nvdra_nodeagent.computedomain.options import DomainOptions, parse_domain_options

KUBELET_WAITS_S = 45.0


def options(*flags: str, **environ: str) -> DomainOptions:
    return parse_domain_options(["--node-name=n", *flags], environ=environ, version="test")


def test_by_default_the_driver_runs_imex_and_leaves_the_nodes_labels_alone() -> None:
    found = options()
    assert (found.imex_mode, found.gpu_clique_label_enabled) == ("driverManaged", False)
    assert found.imex_host_socket_path == Path("/etc/nvidia-imex/imex_ctrl.sock")
    assert found.namespaces == {found.common.namespace}


def test_environment_variables_have_the_names_of_the_flags() -> None:
    found = options(
        NAMESPACE="driver",
        ADDITIONAL_NAMESPACES="one, two,,",
        IMEX_MODE="hostManaged",
        IMEX_ISOLATION="domain",
        IMEX_HOST_SOCKET_PATH="/run/imex.sock",
        GPU_CLIQUE_LABEL_ENABLED="true",
    )
    assert found.namespaces == {"driver", "one", "two"}
    assert (found.imex_mode, found.gpu_clique_label_enabled) == ("hostManaged", True)
    assert found.imex_host_socket_path == Path("/run/imex.sock")


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--imex-isolation=channel", "isolation by channel is not supported"),
        ("--imex-isolation=node", "'node' is not 'domain'"),
        ("--imex-mode=both", "neither 'driverManaged' nor 'hostManaged'"),
    ],
)
def test_what_is_not_supported_is_refused_at_the_start(
    flag: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        options(flag)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_an_empty_value_is_the_default() -> None:
    found = options("--imex-mode=", "--imex-isolation=")
    assert found.imex_mode == "driverManaged"


def test_the_last_cause_is_answered_before_the_kubelet_gives_up() -> None:
    assert PREPARE_BUDGET_S < ANSWER_WITHIN_S < KUBELET_WAITS_S
