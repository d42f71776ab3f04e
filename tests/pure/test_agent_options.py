"""The node agent's command line."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from nvdra_nodeagent import __version__
from nvdra_nodeagent.program.options import (
    FLAGS,
    NO_EFFECT,
    Options,
    option_variables,
    parse_options,
)


def parse(*argv: str, **environ: str) -> Options:
    return parse_options(argv, environ=environ, version="1.2.3")


def test_the_agent_has_the_version_of_its_distribution() -> None:
    assert __version__ == version("nvdra")


def test_every_flag_may_come_from_its_environment_variable() -> None:
    options = parse(NODE_NAME="n1", CDI_ROOT="/var/run/cdi", DRIVER_ROOT_CTR_PATH="/d")
    assert options.node_name == "n1"
    assert options.cdi_root == Path("/var/run/cdi")
    assert options.container_driver_root == Path("/d")


def test_a_flag_wins_over_its_variable() -> None:
    assert parse("--node-name", "flag", NODE_NAME="variable").node_name == "flag"


def test_the_old_spelling_of_the_driver_root_still_works() -> None:
    options = parse("--host_driver-root=/run/nvidia/driver", NODE_NAME="n")
    assert options.nvidia_driver_root == Path("/run/nvidia/driver")
    assert parse(NODE_NAME="n", HOST_DRIVER_ROOT="/x").nvidia_driver_root == Path("/x")


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert parse(NODE_NAME="n", METRICS_PATH="").metrics_path == "/metrics"


@pytest.mark.parametrize("name", NO_EFFECT)
def test_flags_of_existing_manifests_are_accepted(name: str) -> None:
    assert parse(f"--{name}", "1", NODE_NAME="n").node_name == "n"


@pytest.mark.parametrize(
    ("argv", "environ", "message"),
    [
        ((), {}, "--node-name (or NODE_NAME) is required"),
        (("--simulate", "h100"), {"NODE_NAME": "n"}, "--simulate needs --simulate-state"),
        (("-v", "11"), {"NODE_NAME": "n"}, "not between 0 and 10"),
        ((), {"NODE_NAME": "n", "HEALTHCHECK_PORT": "many"}, "invalid int value: 'many'"),
        (("--logging-format", "xml"), {"NODE_NAME": "n"}, "neither 'text' nor 'json'"),
        ((), {"NODE_NAME": "n", "CONSUMABLE_SHARES": "4"}, "not supported yet"),
        (("extra",), {"NODE_NAME": "n"}, "unrecognized arguments: extra"),
    ],
)
def test_bad_options_are_refused_with_a_reason(
    argv: tuple[str, ...],
    environ: dict[str, str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(*argv, **environ)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_help_names_every_flag_and_its_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    text = "".join(capsys.readouterr().out.split())
    for flag in FLAGS:
        assert f"--{flag.name}" in text
        assert flag.variables[0] in text


@pytest.mark.parametrize("name", ["NODE_NAME", "KUBECONFIG", "LOG_VERBOSITY", "FEATURE_GATES"])
def test_it_is_known_which_variables_set_options(name: str) -> None:
    assert name in option_variables()
    assert "PATH" not in option_variables()
