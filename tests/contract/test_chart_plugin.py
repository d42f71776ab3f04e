"""The kubelet plugin's pod as the Helm chart makes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from nvdra_nodeagent.claims.service import DEFAULT_LIMITS
from nvdra_nodeagent.computedomain.agent import ANSWER_WITHIN_S
from nvdra_nodeagent.kubelet.plugin import DRAIN_BESIDE_ANOTHER_S
from nvdra_nodeagent.node_agent import stop_limit_s
from nvdra_nodeagent.program.driver_wait import check_from
from nvdra_nodeagent.program.options import FLAGS, NO_EFFECT, Options, parse_options
from nvdra_sim.node.program import Settings
from nvdra_testing.helm import Manifest, env_of, plugin_pod, rendered, the, the_container

SIMULATED = {"simulation": {"enabled": True}}
LAYOUTS = {"version": "v1", "mig-configs": {"a": []}}
# Read by the container runtime, not by the program.
FOR_THE_RUNTIME = {"NVIDIA_VISIBLE_DEVICES"}


def gpus(values: dict[str, Any] | None = None) -> Manifest:
    return the_container(plugin_pod(values), "gpus")


def options(values: dict[str, Any] | None = None) -> Options:
    """What the program makes of the container's command and environment."""
    container = gpus(values)
    words = container["command"][-1].split("exec ")[-1].split()
    command = words if container["command"][0] == "sh" else container["command"]
    assert command[0] == "nvdra-gpu-plugin"
    return parse_options(command[1:], environ=env_of(container), version="0")


@pytest.mark.parametrize(
    "values",
    [
        {},
        SIMULATED,
        {"altProcDevices": "/x", "nvidiaCDIHookPath": "/h", "consumableShares": "disabled"},
        {"featureGates": {"DynamicMIG": True}},
    ],
)
def test_every_variable_is_known_to_the_program(values: dict[str, Any]) -> None:
    known = {name for flag in FLAGS for name in flag.variables}
    known |= {name.replace("-", "_").upper() for name in NO_EFFECT}
    known |= {"LOG_VERBOSITY", "CONSUMABLE_SHARES"}
    assert env_of(gpus(values)).keys() <= known | FOR_THE_RUNTIME


def test_values_arrive_as_options() -> None:
    got = options(
        {
            "logVerbosity": 6,
            "featureGates": {"DynamicMIG": False, "TimeSlicingSettings": True},
            "nvidiaDriverRoot": "/run/nvidia/driver",
            "nvidiaCDIHookPath": "/usr/bin/nvidia-cdi-hook",
            "kubeletPlugin": {"metrics": {"gpuHttpEndpoint": "0.0.0.0:9000", "metricsPath": "/m"}},
        }
    )
    assert got.verbosity == 6
    assert got.feature_gates == "DynamicMIG=false,TimeSlicingSettings=true"
    assert str(got.nvidia_driver_root) == "/run/nvidia/driver"
    assert got.nvidia_cdi_hook_path == "/usr/bin/nvidia-cdi-hook"
    assert (got.http_endpoint, got.metrics_path) == ("0.0.0.0:9000", "/m")
    assert got.healthcheck_port == 51516
    assert str(got.cdi_root) == "/var/run/cdi"


def test_the_older_name_of_the_hook_is_understood() -> None:
    assert options({"nvidiaCtkPath": "/usr/bin/nvidia-ctk"}).nvidia_cdi_hook_path.endswith("-ctk")


@pytest.mark.parametrize("value", [4, "4", 0, "0"])
def test_verbosity_may_be_a_number_or_text(value: object) -> None:
    assert options({"logVerbosity": value}).verbosity == int(str(value))


def test_variables_of_the_user_come_last() -> None:
    extra = {"name": "LOGGING_FORMAT", "value": "json"}
    container = gpus({"kubeletPlugin": {"containers": {"gpus": {"env": [extra]}}}})
    assert container["env"][-1] == extra


def test_the_driver_is_process_one() -> None:
    assert gpus()["command"] == ["nvdra-gpu-plugin"]
    masked = gpus({"maskNvidiaDriverParams": True})["command"]
    assert masked[0] == "sh"
    assert masked[-1].rstrip().endswith("\nexec nvdra-gpu-plugin")


def test_sockets_state_and_cdi_files_have_the_same_path_inside_and_outside() -> None:
    pod = plugin_pod({"kubeletPlugin": {"kubeletPluginsDirectoryPath": "/var/k0s/plugins"}})
    host = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"]}
    mounts = {m["name"]: m["mountPath"] for m in the_container(pod, "gpus")["volumeMounts"]}
    for name in ("plugins", "plugins-registry", "cdi"):
        assert mounts[name] == host[name]
    assert mounts["plugins"] == "/var/k0s/plugins"


def test_every_mount_has_its_volume() -> None:
    for values in ({}, SIMULATED, {"altProcDevices": "/x"}):
        pod = plugin_pod(values)
        volumes = {volume["name"] for volume in pod["volumes"]}
        containers = [*pod["initContainers"], *pod["containers"]]
        assert {m["name"] for c in containers for m in c["volumeMounts"]} == volumes


def test_readiness_asks_whether_the_kubelet_has_registered_the_driver() -> None:
    container = gpus()
    probe = container["readinessProbe"]["httpGet"]
    (port,) = (p for p in container["ports"] if p["name"] == probe["port"])
    assert probe["path"] == "/readyz"
    assert options().http_endpoint.endswith(f":{port['containerPort']}")


def test_liveness_asks_the_port_that_the_program_serves() -> None:
    container = gpus()
    for probe in ("startupProbe", "livenessProbe"):
        grpc = {"port": options().healthcheck_port, "service": "liveness"}
        assert container[probe]["grpc"] == grpc


@pytest.mark.parametrize("port", [0, -1, None])
def test_liveness_can_be_switched_off(port: int | None) -> None:
    values = {"kubeletPlugin": {"containers": {"gpus": {"healthcheckPort": port}}}}
    assert not {"startupProbe", "livenessProbe"} & gpus(values).keys()
    assert options(values).healthcheck_port == -1


def test_without_metrics_the_pod_can_still_become_ready() -> None:
    values = {"kubeletPlugin": {"metrics": {"enabled": False}}}
    assert options(values).metrics_path == ""
    assert options(values).http_endpoint == ":8080"
    assert "readinessProbe" in gpus(values)


@pytest.mark.parametrize("answer_within_s", [DEFAULT_LIMITS.answer_within_s, ANSWER_WITHIN_S])
def test_a_prepare_in_progress_has_time_to_end(answer_within_s: float) -> None:
    assert answer_within_s < DRAIN_BESIDE_ANOTHER_S


@pytest.mark.parametrize(("beside_others", "reserve_s"), [(True, 1), (False, 30)])
def test_an_agent_ends_by_itself_before_it_is_killed(beside_others: bool, reserve_s: int) -> None:
    grace_s = plugin_pod()["terminationGracePeriodSeconds"]
    assert stop_limit_s(beside_others=beside_others) + reserve_s <= grace_s


def update_strategy(values: dict[str, Any], version: str) -> Any:
    manifests = rendered(values, "--kube-version", version)
    return the(manifests, "DaemonSet")["spec"]["updateStrategy"]


def rolls(values: dict[str, Any], version: str) -> tuple[bool, bool]:
    """Whether the pod that surges comes first, and whether the plugin has sockets of its own."""
    environ = env_of(the_container(plugin_pod(values, "--kube-version", version), "gpus"))
    got = parse_options([], environ=environ, version="0")
    surge = update_strategy(values, version)["rollingUpdate"].get("maxSurge", 0)
    return surge == 1, got.rolling_update and bool(got.pod_uid)


@pytest.mark.parametrize(
    ("wish", "version", "rolling"),
    [
        ("auto", "1.32.9", False),
        ("auto", "1.33.0", True),
        ("auto", "v1.33.1-eks-1234567", True),
        ("auto", "1.36.3", True),
        ("", "1.36.3", True),
        (None, "1.36.3", True),
        (False, "1.36.3", False),
        ("false", "1.36.3", False),
        (True, "1.32.9", True),
    ],
)
def test_updates_roll_where_kubelets_keep_two_instances(
    wish: object, version: str, rolling: bool
) -> None:
    assert rolls({"kubeletPlugin": {"rollingUpdate": wish}}, version) == (rolling, rolling)


def test_where_updates_do_not_roll_all_nodes_go_at_once() -> None:
    strategy = update_strategy({}, "1.32.0")
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}}


def test_where_updates_roll_no_node_is_without_the_plugin() -> None:
    rolling = {"maxSurge": 1, "maxUnavailable": 0}
    assert update_strategy({}, "1.36.0") == {"type": "RollingUpdate", "rollingUpdate": rolling}


def test_a_strategy_of_ones_own_is_taken_as_it_is() -> None:
    own = {"type": "OnDelete"}
    assert update_strategy({"kubeletPlugin": {"updateStrategy": own}}, "1.36.0") == own


def test_privileges_may_be_narrowed() -> None:
    assert gpus()["securityContext"]["privileged"] is True
    narrow = {"privileged": False, "capabilities": {"add": ["SYS_ADMIN"]}}
    values = {"kubeletPlugin": {"containers": {"gpus": {"securityContext": narrow}}}}
    context = gpus(values)["securityContext"]
    assert context == {**narrow, "runAsUser": 0, "runAsGroup": 0}


def test_settings_of_the_init_container_are_used() -> None:
    init = {"resources": {"limits": {"memory": "1Gi"}}, "securityContext": {"privileged": False}}
    (container,) = plugin_pod({"kubeletPlugin": {"containers": {"init": init}}})["initContainers"]
    assert container["resources"] == init["resources"]
    assert container["securityContext"]["privileged"] is False


@pytest.mark.parametrize(
    ("root", "parent", "propagation"),
    [
        ("/", "/", None),
        ("/run/nvidia/driver", "/run/nvidia", "HostToContainer"),
        ("/opt", "/", "HostToContainer"),
        ("/home/kubernetes/bin/nvidia/", "/home/kubernetes/bin", "HostToContainer"),
    ],
)
def test_the_wait_sees_the_driver_root_come(
    root: str, parent: str, propagation: str | None
) -> None:
    pod = plugin_pod({"nvidiaDriverRoot": root})
    container = the_container(pod, "wait-for-driver")
    (mount,) = container["volumeMounts"]
    (volume,) = (v for v in pod["volumes"] if v["name"] == mount["name"])
    assert volume["hostPath"]["path"] == parent
    assert mount.get("mountPropagation") == propagation
    check = check_from(env_of(container))
    assert check.here == Path(mount["mountPath"], *Path(root).parts[1:][-1:])


def test_the_image_follows_the_version_unless_named() -> None:
    assert re.fullmatch(r"localhost/dra-driver-nvidia-gpu:v\d+\.\d+\.\d+", gpus()["image"])
    assert gpus({"image": {"repository": "r/x", "tag": "dev"}})["image"] == "r/x:dev"
    assert gpus({"image": {"repository": "r/x", "tag": "sha256:12"}})["image"] == "r/x@sha256:12"


def test_pods_go_to_nodes_with_hardware_or_anywhere_when_simulated() -> None:
    terms = plugin_pod()["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]["nodeSelectorTerms"]
    assert {t["matchExpressions"][0]["key"] for t in terms} == {
        "feature.node.kubernetes.io/pci-10de.present",
        "feature.node.kubernetes.io/pci-0302_10de.present",
        "feature.node.kubernetes.io/pci-0300_10de.present",
        "feature.node.kubernetes.io/cpu-model.vendor_id",
        "nvidia.com/gpu.present",
    }
    assert "affinity" not in plugin_pod(SIMULATED)


def test_simulated_hardware_is_where_the_setup_puts_it() -> None:
    pod = plugin_pod(SIMULATED)
    settings = Settings.read(env_of(the_container(pod, "simulate-node")))
    got = options(SIMULATED)
    assert got.simulate == f"{settings.directory}/profile.json"
    assert got.simulate_state == settings.directory / "machine"
    assert settings.profile == "h100"
    for name in ("simulate-node", "gpus"):
        mounts = the_container(pod, name)["volumeMounts"]
        assert {m["mountPath"] for m in mounts} >= {str(settings.directory)}


def test_labels_of_nodes_choose_hardware_and_layout() -> None:
    values = {"simulation": {"enabled": True, "migLayouts": LAYOUTS, "migLayout": "a"}}
    container = the_container(plugin_pod(values), "simulate-node")
    settings = Settings.read(env_of(container))
    assert settings.labels.profile == "resource.nvidia.com/simulated-profile"
    assert settings.labels.mig_layout == "resource.nvidia.com/simulated-mig-layout"
    assert settings.layout == "a"
    assert settings.layouts is not None
    assert str(settings.layouts.parent) in {m["mountPath"] for m in container["volumeMounts"]}


def test_other_layouts_make_new_pods() -> None:
    other = {"version": "v1", "mig-configs": {"a": [], "b": []}}
    assert pod_annotations(LAYOUTS) == pod_annotations(LAYOUTS)
    assert pod_annotations(LAYOUTS) != pod_annotations(other)


def pod_annotations(layouts: dict[str, Any]) -> dict[str, str]:
    manifests = rendered({"simulation": {"enabled": True, "migLayouts": layouts}})
    found: dict[str, str] = the(manifests, "DaemonSet")["spec"]["template"]["metadata"][
        "annotations"
    ]
    return found
