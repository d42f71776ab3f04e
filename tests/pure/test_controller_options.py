"""The controller's command line."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from nvdra_operator import __version__
from nvdra_operator.options import FLAGS, NO_EFFECT, Options, duration_s, parse_options

NEEDED = {"POD_NAME": "p-0", "IMAGE_NAME": "nvdra:1", "LOG_VERBOSITY_CD_DAEMON": "6"}


def parse(*argv: str, **environ: str) -> Options:
    return parse_options(argv, environ={**NEEDED, **environ}, version="1.2.3")


def test_the_controller_has_the_version_of_its_distribution() -> None:
    assert __version__ == version("nvdra")


def test_what_is_needed_is_enough() -> None:
    options = parse()
    assert options.settings.namespace == "default"
    assert (options.settings.image, options.settings.daemon_verbosity) == ("nvdra:1", 6)
    assert options.settings.max_nodes == 18
    assert options.election is None
    assert options.lease_name == "nvidia-compute-domain-controller"


@pytest.mark.parametrize("name", NEEDED)
def test_what_is_needed_is_asked_for(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(**{name: ""})
    assert ended.value.code == 2
    assert f"{name}) is required" in capsys.readouterr().err


def test_every_flag_has_its_variable() -> None:
    options = parse(
        NAMESPACE="driver",
        CD_DAEMON_IMAGE_PULL_SECRET_NAMES="a,b",
        MAX_NODES_PER_IMEX_DOMAIN="4",
        ADDITIONAL_NAMESPACES="old, older",
        LEADER_ELECTION_ENABLED="true",
        LEADER_ELECTION_LEASE_LOCK_NAME="lease",
        LEADER_ELECTION_LEASE_LOCK_NAMESPACE="driver",
        LEADER_ELECTION_LEASE_DURATION="30s",
        LEADER_ELECTION_RENEW_DEADLINE="20s",
        LEADER_ELECTION_RETRY_PERIOD="500ms",
        FEATURE_GATES="ComputeDomainCliques=false,",
        LOG_VERBOSITY="2",
    )
    assert options.settings.pull_secrets == ("a", "b")
    assert options.settings.namespaces == ("driver", "old", "older")
    assert not options.settings.uses_cliques
    assert options.election is not None
    assert options.election.retry_period_s == 0.5
    assert (options.lease_name, options.lease_namespace) == ("lease", "driver")
    assert options.verbosity == 2


def test_a_flag_wins_over_its_variable() -> None:
    assert parse("--namespace", "flag", NAMESPACE="variable").settings.namespace == "flag"


@pytest.mark.parametrize("name", NO_EFFECT)
def test_flags_of_existing_manifests_are_accepted(name: str) -> None:
    assert parse(f"--{name}", "1").pod_name == "p-0"


def test_hosts_may_manage_their_daemons_only_behind_the_gate() -> None:
    gates = "HostManagedIMEXDaemon=true"
    assert parse(IMEX_MODE="hostManaged", FEATURE_GATES=gates).settings.host_managed


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"IMEX_MODE": "hostManaged"}, "needs the feature gate HostManagedIMEXDaemon"),
        ({"IMEX_MODE": "both"}, "'both' is none of driverManaged, hostManaged"),
        ({"IMEX_ISOLATION": "channel"}, "does not exist yet"),
        ({"LEADER_ELECTION_LEASE_DURATION": "15"}, "'15' is no duration"),
        ({"LEADER_ELECTION_RENEW_DEADLINE": "20s"}, "longer than the renew deadline"),
        ({"LEADER_ELECTION_ENABLED": "perhaps"}, "neither true nor false"),
        ({"MAX_NODES_PER_IMEX_DOMAIN": "0"}, "no number from 1"),
        ({"FEATURE_GATES": "Nonsense=true"}, "unknown feature gate"),
    ],
)
def test_bad_options_are_refused_with_a_reason(
    environ: dict[str, str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(**environ)
    assert ended.value.code == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"), [("15s", 15), ("1m30s", 90), ("1.5h", 5400), ("250ms", 0.25)]
)
def test_durations_are_read_as_other_kubernetes_programs_write_them(
    text: str, seconds: float
) -> None:
    assert duration_s(text) == pytest.approx(seconds)


def test_every_flag_says_what_it_is_for() -> None:
    assert all(flag.help.endswith(".") for flag in FLAGS)
