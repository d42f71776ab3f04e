"""The controller's pods as the Helm chart makes them."""

from __future__ import annotations

from typing import Any

import pytest

from nvdra_api import names
from nvdra_operator.options import FLAGS, NO_EFFECT, Options, parse_options
from nvdra_testing.helm import (
    NAMESPACE,
    Manifest,
    env_of,
    of_kind,
    plugin_pod,
    rendered,
    the,
    the_container,
)

FOR_THE_RUNTIME = {"NVIDIA_VISIBLE_DEVICES"}
SHORT = {"leaseDuration": "6s", "renewDeadline": "4s", "retryPeriod": "500ms"}


def deployment(values: dict[str, Any] | None = None) -> Manifest:
    return the(rendered(values), "Deployment")


def container(values: dict[str, Any] | None = None) -> Manifest:
    pod = deployment(values)["spec"]["template"]["spec"]
    return the_container(pod, names.CONTAINER_CONTROLLER)


def options(values: dict[str, Any] | None = None) -> Options:
    """What the program makes of the container's command and environment."""
    made = container(values)
    assert made["command"][0] == "nvdra-controller"
    return parse_options(made["command"][1:], environ=env_of(made), version="0")


def test_names_are_those_that_scripts_and_upgrades_rely_on() -> None:
    made = deployment()
    assert made["metadata"]["name"] == names.CONTROLLER
    selector = {names.LABEL_COMPONENT: names.COMPONENT_CONTROLLER}
    assert made["spec"]["selector"] == {"matchLabels": selector}
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert labels.items() >= {**selector, names.LABEL_APP_NAME: names.CHART}.items()


def test_replicas_prefer_different_nodes() -> None:
    affinity = deployment()["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"]
    (term,) = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    selector = deployment()["spec"]["selector"]
    assert term["podAffinityTerm"]["labelSelector"] == selector


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"imagePullSecrets": [{"name": "s"}], "featureGates": {"ComputeDomainCliques": True}},
        {"controller": {"replicas": 2, "leaderElection": SHORT}},
        {"resources": {"computeDomains": {"imex": {"maxNodesPerIMEXDomain": 9}}}},
    ],
)
def test_every_variable_is_known_to_the_program(values: dict[str, Any]) -> None:
    known = {flag.variable for flag in FLAGS} | {"LOG_VERBOSITY"}
    known |= {name.replace("-", "_").upper() for name in NO_EFFECT}
    assert env_of(container(values)).keys() <= known | FOR_THE_RUNTIME


def test_values_arrive_as_options() -> None:
    extra = {"name": "ADDITIONAL_NAMESPACES", "value": "a,b"}
    got = options(
        {
            "logVerbosity": 2,
            "logVerbosityCDDaemon": 6,
            "image": {"repository": "r/x", "tag": "dev"},
            "imagePullSecrets": [{"name": "s"}, {"name": "t"}],
            "resources": {"computeDomains": {"imex": {"maxNodesPerIMEXDomain": 9}}},
            "featureGates": {"ComputeDomainCliques": False},
            "controller": {
                "metrics": {"httpEndpoint": "0.0.0.0:9000", "metricsPath": "/m"},
                "containers": {"computeDomain": {"env": [extra]}},
            },
        }
    )
    settings = got.settings
    assert (got.verbosity, settings.daemon_verbosity) == (2, 6)
    assert (settings.image, settings.pull_secrets) == ("r/x:dev", ("s", "t"))
    assert (settings.max_nodes, settings.uses_cliques) == (9, False)
    assert (got.http_endpoint, got.metrics_path) == ("0.0.0.0:9000", "/m")
    assert settings.additional_namespaces == ("a", "b")


def test_daemons_are_as_talkative_as_the_rest_unless_told() -> None:
    assert options({"logVerbosity": 0}).settings.daemon_verbosity == 0
    assert options({"logVerbosity": 6, "logVerbosityCDDaemon": 0}).settings.daemon_verbosity == 0
    assert options({"logVerbosity": None}).settings.daemon_verbosity == 4


def test_daemons_run_the_image_of_the_plugin() -> None:
    for image in ({}, {"repository": "r/x", "tag": "sha256:12"}):
        values = {"image": image}
        gpus = the_container(plugin_pod(values), "gpus")
        assert options(values).settings.image == gpus["image"] == container(values)["image"]


def test_hosts_that_run_their_daemons_are_known_to_the_controller() -> None:
    values = {
        "resources": {"computeDomains": {"imex": {"mode": "hostManaged"}}},
        "featureGates": {"HostManagedIMEXDaemon": True},
    }
    assert options(values).settings.host_managed
    assert not options().settings.host_managed


@pytest.mark.parametrize(
    ("controller", "elects"),
    [
        ({}, False),
        ({"replicas": 0}, False),
        ({"replicas": 2}, True),
        ({"replicas": 2, "leaderElection": None}, True),
        ({"leaderElection": {"enabled": True}}, True),
        ({"leaderElection": {"enabled": "true"}}, True),
        ({"leaderElection": {"enabled": False}}, False),
    ],
)
def test_replicas_elect_a_leader_and_one_alone_is_replaced(
    controller: dict[str, Any], elects: bool
) -> None:
    values = {"controller": controller}
    assert (options(values).election is not None) == elects
    kind = "RollingUpdate" if elects else "Recreate"
    assert deployment(values)["spec"]["strategy"]["type"] == kind


def test_the_lease_has_the_name_that_scripts_know() -> None:
    values = {"controller": {"replicas": 2, "leaderElection": SHORT}}
    got = options(values)
    assert (got.lease_namespace, got.lease_name) == (NAMESPACE, names.CONTROLLER)
    assert got.election is not None
    assert got.election.lease_duration_s == 6.0
    assert got.election.renew_deadline_s == 4.0
    assert got.election.retry_period_s == 0.5


def test_probes_ask_the_port_that_the_program_serves() -> None:
    made = container()
    (port,) = made["ports"]
    assert options().http_endpoint == f":{port['containerPort']}" == f":{names.GPU_METRICS_PORT}"
    for probe, path in (("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        assert made[probe]["httpGet"] == {"path": path, "port": port["name"]}


def test_without_metrics_the_controller_is_still_probed() -> None:
    values = {"controller": {"metrics": {"enabled": False}}}
    assert options(values).metrics_path == ""
    assert {"readinessProbe", "livenessProbe"} <= container(values).keys()


def test_without_an_endpoint_there_are_no_probes() -> None:
    values = {"controller": {"metrics": {"httpEndpoint": ""}}}
    assert options(values).http_endpoint == ""
    assert not {"readinessProbe", "livenessProbe", "ports"} & container(values).keys()


def test_the_controller_has_no_privileges_and_writes_only_below_tmp() -> None:
    context = container()["securityContext"]
    assert context["runAsNonRoot"] is context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    (mount,) = container()["volumeMounts"]
    (volume,) = deployment()["spec"]["template"]["spec"]["volumes"]
    assert (mount["mountPath"], volume["name"]) == ("/tmp", mount["name"])
    assert "emptyDir" in volume


def test_a_security_context_of_ones_own_is_added() -> None:
    own = {"runAsUser": 1000, "readOnlyRootFilesystem": False}
    values = {"controller": {"containers": {"computeDomain": {"securityContext": own}}}}
    context = container(values)["securityContext"]
    assert context.items() >= own.items()
    assert context["runAsNonRoot"] is True


def test_variables_of_the_user_come_last() -> None:
    extra = {"name": "LOGGING_FORMAT", "value": "json"}
    values = {"controller": {"containers": {"computeDomain": {"env": [extra]}}}}
    assert container(values)["env"][-1] == extra
    assert options(values).logging_format == "json"


def test_without_compute_domains_there_is_no_controller() -> None:
    off = {"resources": {"computeDomains": {"enabled": False}}}
    assert not of_kind(rendered(off), "Deployment")


@pytest.mark.parametrize("component", ["controller", "kubeletPlugin"])
def test_a_network_policy_lets_pods_reach_the_api_server_only(component: str) -> None:
    manifests = rendered({component: {"networkPolicy": {"enabled": True}}})
    policy = the(manifests, "NetworkPolicy")
    workload = "Deployment" if component == "controller" else "DaemonSet"
    assert policy["spec"]["podSelector"] == the(manifests, workload)["spec"]["selector"]
    (egress,) = policy["spec"]["egress"]
    assert {port["port"] for port in egress["ports"]} == {443, 6443}
    assert not of_kind(rendered(), "NetworkPolicy")
