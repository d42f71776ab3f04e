"""ComputeDomains in the Helm chart: classes, accounts, rights, the container of the plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nvdra_api import names
from nvdra_nodeagent.computedomain.devices import CHANNEL, DAEMON
from nvdra_nodeagent.computedomain.options import (
    DOMAIN_FLAGS,
    DomainOptions,
    parse_domain_options,
)
from nvdra_nodeagent.program.options import FLAGS, NO_EFFECT
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

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST_MANAGED = {
    "resources": {"computeDomains": {"imex": {"mode": "hostManaged"}}},
    "featureGates": {"HostManagedIMEXDaemon": True},
}
ELSEWHERE = {
    "controller": {
        "containers": {
            "computeDomain": {
                "env": [{"name": "ADDITIONAL_NAMESPACES", "value": f"old, older,,{NAMESPACE}"}]
            }
        }
    }
}
NO_EARLIER = {"resources": {"computeDomains": {"rightsForEarlierDaemons": False}}}
OPENSHIFT = ("--api-versions", "security.openshift.io/v1")
PLUGIN = "dra-driver-nvidia-gpu-service-account-kubeletplugin"
CONTROLLER = "dra-driver-nvidia-gpu-service-account-controller"
DAEMONS = names.COMPUTE_DOMAIN_DAEMON_SERVICE_ACCOUNT


def container(values: dict[str, Any] | None = None) -> Manifest:
    return the_container(plugin_pod(values), names.CONTAINER_COMPUTE_DOMAIN_PLUGIN)


def options(values: dict[str, Any] | None = None) -> DomainOptions:
    """What the program makes of the container's command and environment."""
    made = container(values)
    words = made["command"][-1].split("exec ")[-1].split()
    command = words if made["command"][0] == "sh" else made["command"]
    assert command[0] == "nvdra-compute-domain-plugin"
    return parse_domain_options(command[1:], environ=env_of(made), version="0")


def named(manifests: list[Manifest], kind: str, name: str) -> list[Manifest]:
    return [each for each in of_kind(manifests, kind) if each["metadata"]["name"] == name]


def rights(manifests: list[Manifest], account: str) -> dict[str, dict[str, str]]:
    """What an account may do: verbs by resource, by namespace ("" for all of them)."""
    found: dict[str, dict[str, str]] = {}
    for binding in [*of_kind(manifests, "RoleBinding"), *of_kind(manifests, "ClusterRoleBinding")]:
        where = binding["metadata"].get("namespace", "")
        if account in {subject["name"] for subject in binding["subjects"]}:
            for resource, verbs in granted(manifests, binding):
                at = found.setdefault(where, {})
                at[resource] = f"{at[resource]} {verbs}" if resource in at else verbs
    return found


def granted(manifests: list[Manifest], binding: Manifest) -> Iterator[tuple[str, str]]:
    kind, name = binding["roleRef"]["kind"], binding["roleRef"]["name"]
    where = binding["metadata"].get("namespace")
    for role in named(manifests, kind, name):
        if role["metadata"].get("namespace") in (None, where):
            for rule in role["rules"]:
                for resource in rule["resources"]:
                    yield resource, " ".join(rule["verbs"])


# The plugin's container


def test_every_variable_is_known_to_the_program() -> None:
    known = {name for flag in (*FLAGS, *DOMAIN_FLAGS) for name in flag.variables}
    known |= {name.replace("-", "_").upper() for name in NO_EFFECT}
    known |= {"LOG_VERBOSITY", "NVIDIA_VISIBLE_DEVICES"}
    for values in ({}, HOST_MANAGED, ELSEWHERE, {"simulation": {"enabled": True}}):
        assert env_of(container(values)).keys() <= known


def test_values_arrive_as_options() -> None:
    imex = {"mode": "hostManaged", "hostSocketPath": "/run/imex.sock"}
    got = options(
        {
            **ELSEWHERE,
            "logVerbosity": 6,
            "featureGates": {"HostManagedIMEXDaemon": True},
            "resources": {"computeDomains": {"imex": imex}},
            "kubeletPlugin": {
                "containers": {"computeDomains": {"gpuCliqueLabelEnabled": True}},
                "metrics": {"computeDomainHttpEndpoint": "0.0.0.0:9001"},
            },
        }
    )
    assert got.imex_mode == "hostManaged"
    assert str(got.imex_host_socket_path) == "/run/imex.sock"
    assert got.gpu_clique_label_enabled
    assert set(got.additional_namespaces) == {"old", "older"}
    assert got.common.feature_gates == "HostManagedIMEXDaemon=true"
    assert got.common.http_endpoint == "0.0.0.0:9001"
    assert got.common.verbosity == 6


def test_defaults_are_those_of_the_driver() -> None:
    got = options()
    assert (got.imex_mode, got.gpu_clique_label_enabled) == ("driverManaged", False)
    assert str(got.imex_host_socket_path) == "/etc/nvidia-imex/imex_ctrl.sock"
    assert got.common.http_endpoint == f":{names.COMPUTE_DOMAIN_METRICS_PORT}"
    assert got.common.healthcheck_port == 51515


def test_both_drivers_of_a_pod_have_the_same_mounts_and_privileges() -> None:
    for values in ({}, {"altProcDevices": "/x"}, {"simulation": {"enabled": True}}):
        one, other = container(values), the_container(plugin_pod(values), "gpus")
        for part in ("image", "volumeMounts", "securityContext"):
            assert one[part] == other[part]


def test_the_driver_is_process_one_also_with_masked_parameters() -> None:
    assert container()["command"] == ["nvdra-compute-domain-plugin"]
    masked = container({"maskNvidiaDriverParams": True})["command"]
    assert masked[-1].rstrip().endswith("\nexec nvdra-compute-domain-plugin")


def test_no_port_of_the_pod_is_used_twice() -> None:
    ports = [port for each in plugin_pod()["containers"] for port in each["ports"]]
    assert len({port["containerPort"] for port in ports}) == len(ports) == 2
    assert len({port["name"] for port in ports}) == 2


def test_probes_ask_the_ports_that_the_program_serves() -> None:
    made = container()
    (port,) = made["ports"]
    assert made["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": port["name"]}
    for probe in ("startupProbe", "livenessProbe"):
        assert made[probe]["grpc"] == {"port": 51515, "service": "liveness"}


@pytest.mark.parametrize(("off", "left"), [("gpus", "compute-domains"), ("computeDomains", "gpus")])
def test_each_driver_can_be_left_out(off: str, left: str) -> None:
    pod = plugin_pod({"resources": {off: {"enabled": False}}})
    assert [each["name"] for each in pod["containers"]] == [left]


def test_without_gpus_nobody_has_to_say_that_no_device_plugin_is_there() -> None:
    assert rendered({"resources": {"gpus": {"enabled": False}}}, override=False)


# Classes


def test_classes_choose_the_devices_that_the_plugin_publishes() -> None:
    classes = {c["metadata"]["name"]: c["spec"] for c in of_kind(rendered(), "DeviceClass")}
    of_driver = f"device.driver == '{names.COMPUTE_DOMAIN_DRIVER}'"
    attribute = f"device.attributes['{names.COMPUTE_DOMAIN_DRIVER}']"
    expected = {
        names.COMPUTE_DOMAIN_CHANNEL_CLASS: f"{of_driver} && {attribute}.type == '{CHANNEL.type}' "
        f"&& {attribute}.id == {CHANNEL.number}",
        names.COMPUTE_DOMAIN_DAEMON_CLASS: f"{of_driver} && {attribute}.type == '{DAEMON.type}'",
    }
    for name, expression in expected.items():
        assert classes[name] == {"selectors": [{"cel": {"expression": expression}}]}


def test_hosts_that_run_their_daemons_need_no_class_for_them() -> None:
    found = {c["metadata"]["name"] for c in of_kind(rendered(HOST_MANAGED), "DeviceClass")}
    assert names.COMPUTE_DOMAIN_CHANNEL_CLASS in found
    assert names.COMPUTE_DOMAIN_DAEMON_CLASS not in found


# Rights


def test_the_controller_may_do_what_it_does_and_no_more() -> None:
    assert rights(rendered(), CONTROLLER) == {
        "": {
            "computedomains": "get list watch patch",
            "computedomains/status": "patch",
            "resourceclaimtemplates": "get list watch create patch delete",
            "events": "create patch",
            "nodes": "get list watch patch",
        },
        NAMESPACE: {
            "daemonsets": "get list watch create patch delete",
            "computedomaincliques": "get list watch create update patch delete",
            "pods": "get list watch patch delete",
        },
    }


def test_replicas_may_write_their_lease_and_no_other() -> None:
    manifests = rendered({"controller": {"replicas": 2}})
    assert rights(manifests, CONTROLLER)[NAMESPACE]["leases"] == "create get update"
    (role,) = named(manifests, "Role", f"{names.CONTROLLER}-election")
    (limited,) = (rule for rule in role["rules"] if "update" in rule["verbs"])
    assert limited["resourceNames"] == [names.CONTROLLER]


def test_the_plugin_may_read_domains_and_write_nodes_where_they_are_on() -> None:
    found = rights(rendered(), PLUGIN)
    assert found[""]["computedomains"] == "get list watch"
    assert found[""]["nodes"] == "get patch"
    assert found[NAMESPACE] == {"computedomaincliques": "get list watch", "pods": "get"}


def test_the_plugin_answers_for_both_drivers() -> None:
    (role,) = named(rendered(), "ClusterRole", names.KUBELET_PLUGIN)
    (rule,) = (each for each in role["rules"] if each["resources"] == ["resourceclaims/driver"])
    assert set(rule["resourceNames"]) == {names.GPU_DRIVER, names.COMPUTE_DOMAIN_DRIVER}


def test_hosts_that_run_their_daemons_need_fewer_rights() -> None:
    manifests = rendered(HOST_MANAGED)
    controller = rights(manifests, CONTROLLER)
    assert controller.keys() == {""}
    assert "nodes" not in controller[""]
    assert rights(manifests, PLUGIN)[""]["nodes"] == "get"
    assert rights(manifests, DAEMONS) == {}
    assert not named(manifests, "ServiceAccount", DAEMONS)


def test_the_label_of_the_clique_needs_the_right_to_write_nodes() -> None:
    label = {"containers": {"computeDomains": {"gpuCliqueLabelEnabled": True}}}
    manifests = rendered({**HOST_MANAGED, "kubeletPlugin": label})
    assert rights(manifests, PLUGIN)[""]["nodes"] == "get patch"


def test_namespaces_of_earlier_installations_are_covered() -> None:
    manifests = rendered(ELSEWHERE)
    everywhere = {NAMESPACE, "old", "older"}
    for account in (CONTROLLER, PLUGIN):
        assert rights(manifests, account).keys() == {"", *everywhere}
    accounts = named(manifests, "ServiceAccount", DAEMONS)
    assert {each["metadata"]["namespace"] for each in accounts} == everywhere
    (binding,) = named(manifests, "ClusterRoleBinding", "compute-domain-daemon-role-binding")
    assert {each["namespace"] for each in binding["subjects"]} == everywhere


def test_namespaces_from_a_config_map_are_not_guessed() -> None:
    source = {"configMapKeyRef": {"name": "c", "key": "k"}}
    env = [{"name": "ADDITIONAL_NAMESPACES", "valueFrom": source}]
    manifests = rendered({"controller": {"containers": {"computeDomain": {"env": env}}}})
    assert rights(manifests, CONTROLLER).keys() == {"", NAMESPACE}


def test_daemons_of_the_earlier_driver_keep_what_they_need() -> None:
    manifests = rendered()
    assert rights(manifests, DAEMONS) == {
        "": {
            "computedomains": "get list watch update patch",
            "computedomains/status": "get list watch update patch",
        },
        NAMESPACE: {
            "computedomaincliques": "get list watch create update patch",
            "pods": "get list watch patch",
        },
    }
    (account,) = named(manifests, "ServiceAccount", DAEMONS)
    assert account.get("automountServiceAccountToken", True)


def test_our_daemons_have_no_rights_and_no_token() -> None:
    manifests = rendered(NO_EARLIER)
    (account,) = named(manifests, "ServiceAccount", DAEMONS)
    assert account["automountServiceAccountToken"] is False
    assert rights(manifests, DAEMONS) == {}


@pytest.mark.parametrize("values", [{}, NO_EARLIER])
def test_openshift_lets_daemons_be_root(values: dict[str, Any]) -> None:
    bindings = of_kind(rendered(values, *OPENSHIFT), "RoleBinding")
    (binding,) = (b for b in bindings if b["roleRef"]["name"].endswith(":anyuid"))
    assert [subject["name"] for subject in binding["subjects"]] == [DAEMONS]


def test_accounts_of_the_users_own_are_used_for_both_pods() -> None:
    manifests = rendered({"serviceAccount": {"create": False, "name": "mine"}})
    for kind in ("DaemonSet", "Deployment"):
        assert the(manifests, kind)["spec"]["template"]["spec"]["serviceAccountName"] == "mine"
    assert [a["metadata"]["name"] for a in of_kind(manifests, "ServiceAccount")] == [DAEMONS]
    assert rights(manifests, "mine") == {}


# Policies


def test_a_plugin_may_only_write_its_own_node() -> None:
    manifests = rendered()
    (policy,) = named(manifests, "ValidatingAdmissionPolicy", f"nodes-policy-{names.CHART}")
    (condition,) = policy["spec"]["matchConditions"]
    user = f"system:serviceaccount:{NAMESPACE}:{PLUGIN}"
    assert condition["expression"] == f"request.userInfo.username == '{user}'"
    (binding,) = named(manifests, "ValidatingAdmissionPolicyBinding", policy["metadata"]["name"])
    assert binding["spec"]["validationActions"] == ["Deny"]


@pytest.mark.parametrize(
    "values",
    [
        HOST_MANAGED,
        {"resources": {"computeDomains": {"enabled": False}}},
        # The controller, which writes all nodes, goes by the same name then.
        {"serviceAccount": {"create": False, "name": "mine"}},
    ],
)
def test_the_policy_for_nodes_is_there_only_where_it_can_be_told_who_writes(
    values: dict[str, Any],
) -> None:
    policies = of_kind(rendered(values), "ValidatingAdmissionPolicy")
    assert [p["metadata"]["name"] for p in policies] == [f"resourceslices-policy-{names.CHART}"]
