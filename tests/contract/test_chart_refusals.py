"""What the Helm chart refuses before anything is installed, and what it puts up with."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from nvdra_testing.helm import (
    CHART,
    HelmFailed,
    of_kind,
    plugin_pod,
    rendered,
    run_helm,
    the,
    the_container,
)

DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
WEBHOOK = {"enabled": True}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"namespace": "x"}, "value 'namespace' is not supported"),
        ({"resourceApiVersion": "v1"}, 'resourceApiVersion "v1" is unknown'),
        ({"nvidiaCtkPath": "/a", "nvidiaCDIHookPath": "/b"}, "nvidiaCtkPath is the older name"),
        ({"nvidiaDriverRoot": "opt/driver"}, "/nvidiaDriverRoot"),
        ({"logVerbosity": 11}, "/logVerbosity"),
        ({"logVerbosity": "loud"}, "/logVerbosity"),
        ({"featureGates": {"DynamicMIG": "maybe"}}, "/featureGates/DynamicMIG"),
        ({"featureGates": "DynamicMIG=true"}, "/featureGates"),
        ({"kubeletPlugin": {"metrics": {"gpuHttpEndpoint": "8080"}}}, "/gpuHttpEndpoint"),
        (
            {"kubeletPlugin": {"containers": {"gpus": {"healthcheckPort": 70000}}}},
            "healthcheckPort",
        ),
        ({"kubeletPlugin": {"terminationGracePeriodSeconds": 0}}, "terminationGracePeriod"),
        ({"simulation": {"enabled": True, "stateDirectory": "x"}}, "/simulation/stateDirectory"),
        (
            {"simulation": {"enabled": True, "profile": "", "profileLabel": ""}},
            "simulation.enabled needs simulation.profile",
        ),
        (
            {"simulation": {"enabled": True, "migLayout": "a"}},
            'simulation.migLayout "a" is not among',
        ),
        (
            {"resources": {"computeDomains": {"imex": {"mode": "hostManaged"}}}},
            "requires featureGates.HostManagedIMEXDaemon=true",
        ),
        (
            {
                "resources": {"computeDomains": {"imex": {"mode": "hostManaged"}}},
                "featureGates": {"HostManagedIMEXDaemon": "false"},
            },
            "requires featureGates.HostManagedIMEXDaemon=true",
        ),
        ({"resources": {"computeDomains": {"imex": {"mode": "x"}}}}, 'imex.mode "x"'),
        ({"resources": {"computeDomains": {"imex": {"isolation": "channel"}}}}, "not supported"),
        ({"resources": {"computeDomains": {"imex": {"isolation": "x"}}}}, 'imex.isolation "x"'),
        (
            {"resources": {"computeDomains": {"imex": {"maxNodesPerIMEXDomain": 0}}}},
            "/maxNodesPerIMEXDomain",
        ),
        ({"logVerbosityCDDaemon": "loud"}, "/logVerbosityCDDaemon"),
        (
            {"controller": {"replicas": 2, "leaderElection": {"enabled": False}}},
            "controller.replicas=2 needs controller.leaderElection.enabled=true",
        ),
        ({"controller": {"replicas": -1}}, "/controller/replicas"),
        ({"controller": {"leaderElection": {"enabled": "maybe"}}}, "/leaderElection/enabled"),
        ({"controller": {"leaderElection": {"leaseDuration": 15}}}, "/leaseDuration"),
        ({"controller": {"leaderElection": {"retryPeriod": "2 s"}}}, "/retryPeriod"),
        ({"controller": {"metrics": {"httpEndpoint": "8080"}}}, "/httpEndpoint"),
        (
            {"kubeletPlugin": {"metrics": {"computeDomainHttpEndpoint": ":8080"}}},
            "port 8080 of kubeletPlugin is used for both gpus and computeDomains",
        ),
        (
            {"kubeletPlugin": {"containers": {"computeDomains": {"healthcheckPort": 51516}}}},
            "port 51516 of kubeletPlugin is used for both",
        ),
        ({"webhook": {**WEBHOOK, "tls": None}}, "webhook.enabled needs webhook.tls"),
        ({"webhook": {**WEBHOOK, "tls": {"mode": None}}}, "webhook.tls.mode is required"),
        ({"webhook": {**WEBHOOK, "tls": {"mode": "x"}}}, 'unknown webhook.tls.mode "x"'),
        ({"webhook": {**WEBHOOK, "tls": {"certManager": None}}}, "certManager.issuerType"),
        (
            {"webhook": {**WEBHOOK, "tls": {"certManager": {"issuerType": "x"}}}},
            'issuerType "x"',
        ),
        (
            {"webhook": {**WEBHOOK, "tls": {"certManager": {"issuerType": "issuer"}}}},
            "needs webhook.tls.certManager.issuerName",
        ),
        ({"webhook": {**WEBHOOK, "tls": {"mode": "secret"}}}, "needs webhook.tls.secret"),
        (
            {"webhook": {**WEBHOOK, "tls": {"mode": "secret", "secret": {"x": 1}}}},
            "needs webhook.tls.secret.name",
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_refusals_name_the_value(values: dict[str, Any], said: str) -> None:
    with pytest.raises(HelmFailed) as failure:
        rendered(values)
    assert said in str(failure.value)


def test_gpus_are_not_taken_from_a_device_plugin_unasked() -> None:
    with pytest.raises(HelmFailed, match="gpuResourcesEnabledOverride=true"):
        rendered(override=False)


def test_the_default_namespace_has_to_be_wanted() -> None:
    with pytest.raises(HelmFailed, match="refusing to install into namespace 'default'"):
        rendered(namespace="default")
    assert rendered({"allowDefaultNamespace": True}, namespace="default")
    assert rendered({"namespaceOverride": "other"}, namespace="default")


def test_clusters_before_dynamic_resource_allocation_are_refused() -> None:
    with pytest.raises(HelmFailed, match=r"1\.32"):
        rendered({}, "--kube-version", "1.31.0")


@pytest.mark.parametrize("name", [key for key in DEFAULTS if key != "gpuResourcesEnabledOverride"])
def test_a_value_may_be_null(name: str) -> None:
    rendered({name: None})


@pytest.mark.parametrize("name", DEFAULTS["kubeletPlugin"])
def test_a_value_of_the_plugin_may_be_null(name: str) -> None:
    plugin_pod({"kubeletPlugin": {name: None}})


@pytest.mark.parametrize("name", DEFAULTS["kubeletPlugin"]["containers"])
def test_a_container_may_be_null(name: str) -> None:
    plugin_pod({"kubeletPlugin": {"containers": {name: None}}})


@pytest.mark.parametrize("name", [key for key in DEFAULTS["simulation"] if key != "enabled"])
def test_a_value_of_the_simulation_may_be_null(name: str) -> None:
    plugin_pod({"simulation": {"enabled": True, name: None}})


@pytest.mark.parametrize("name", DEFAULTS["controller"])
def test_a_value_of_the_controller_may_be_null(name: str) -> None:
    assert of_kind(rendered({"controller": {name: None}}), "Deployment")


@pytest.mark.parametrize(
    "values",
    [
        {"controller": {"replicas": 3, "affinity": None, "leaderElection": {"enabled": True}}},
        {"controller": {"containers": {"computeDomain": {"env": [{"name": "A", "value": "b"}]}}}},
    ],
)
def test_values_of_the_controller_leave_the_plugin_alone(values: dict[str, Any]) -> None:
    assert the(rendered(values), "DaemonSet") == the(rendered(), "DaemonSet")


@pytest.mark.parametrize(
    "values",
    [
        {"webhook": {"enabled": True}},
        {"webhook": {"enabled": True, "tls": {"mode": "secret", "secret": {"name": "s"}}}},
        {"consumableShares": "disabled", "somethingOfANewerRelease": {"a": 1}},
    ],
)
def test_values_of_parts_that_are_not_there_yet_change_nothing(values: dict[str, Any]) -> None:
    changed, plain = (the(rendered(each), "DaemonSet") for each in (values, {}))
    for daemonset in (changed, plain):
        container = the_container(daemonset["spec"]["template"]["spec"], "gpus")
        container["env"] = [each for each in container["env"] if "SHARES" not in each["name"]]
    assert changed == plain


def notes(**values: Any) -> str:
    """What Helm says after an installation."""
    return run_helm(
        "install", "x", str(CHART), "--dry-run=client", "--namespace", "n",
        values={"gpuResourcesEnabledOverride": True, **values},
    )  # fmt: skip


def test_the_notes_tell_of_the_older_name() -> None:
    assert "DEPRECATED: value nvidiaCtkPath" in notes(nvidiaCtkPath="/usr/bin/nvidia-ctk")


def test_the_notes_tell_what_to_delete_before_the_chart_is_uninstalled() -> None:
    command = "kubectl delete computedomains --all --all-namespaces"
    assert command in notes()
    assert command not in notes(resources={"computeDomains": {"enabled": False}})
