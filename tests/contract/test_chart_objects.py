"""The Helm chart's objects: names, labels and rights that scripts and upgrades rely on."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import yaml

from nvdra_api import names
from nvdra_kube.api import Resource
from nvdra_kube.resources import NAMESPACES
from nvdra_sim.cluster.apiserver import ClusterStore, LocalApi
from nvdra_sim.cluster.apiserver.catalog import BUILT_IN
from nvdra_testing.chart_values import MATRIX
from nvdra_testing.helm import CHART, NAMESPACE, Manifest, of_kind, rendered, run_helm, the

GPUS_ONLY = {"resources": {"computeDomains": {"enabled": False}}}
REPOSITORY = CHART.parents[2]
CLASSES = REPOSITORY / "sim/nvdra_sim/cluster/install/deviceclasses.yaml"
ACCOUNT = "dra-driver-nvidia-gpu-service-account-kubeletplugin"

matrix = pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)


@matrix
async def test_a_strict_api_server_takes_every_object(values: dict[str, Any]) -> None:
    api = LocalApi(ClusterStore(), field_validation="Strict")
    await api.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
    for manifest in rendered(values):
        if (resource := served(manifest)) is not None:
            namespace = manifest["metadata"].get("namespace")
            stored = await api.create(resource, manifest, namespace=namespace)
            assert stored["metadata"]["name"] == manifest["metadata"]["name"]


@pytest.mark.parametrize("name", ["defaults", "simulated MIG"])
def test_the_chart_passes_lint(name: str) -> None:
    values = {"gpuResourcesEnabledOverride": True, **MATRIX[name]}
    run_helm("lint", str(CHART), "--strict", "--namespace", NAMESPACE, values=values)


def test_names_do_not_come_from_the_release() -> None:
    one, other = (rendered(release=release) for release in ("one", "other"))
    assert [m["metadata"]["name"] for m in one] == [m["metadata"]["name"] for m in other]
    assert the(one, "DaemonSet")["metadata"]["name"] == "dra-driver-nvidia-gpu-kubelet-plugin"


def test_the_selector_is_the_component_alone() -> None:
    daemonset = the(rendered(), "DaemonSet")
    selector = {names.LABEL_COMPONENT: names.COMPONENT_KUBELET_PLUGIN}
    assert daemonset["spec"]["selector"] == {"matchLabels": selector}
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    assert labels.items() >= selector.items()
    assert labels[names.LABEL_APP_NAME] == "dra-driver-nvidia-gpu"


def test_overrides_change_names_and_selectors() -> None:
    named = the(rendered({"fullnameOverride": "mine"}), "DaemonSet")
    assert named["metadata"]["name"] == "mine-kubelet-plugin"
    selected = the(rendered({"selectorLabelsOverride": {"x": "y"}}), "DaemonSet")
    assert selected["spec"]["selector"]["matchLabels"] == {"x": "y"}
    assert selected["spec"]["template"]["metadata"]["labels"]["x"] == "y"


def test_an_overridden_selector_may_be_a_label_that_pods_have_anyway() -> None:
    override = {"app.kubernetes.io/name": "gpus"}
    # A key that is rendered twice is an error there.
    spec = the(rendered({"selectorLabelsOverride": override}), "DaemonSet")["spec"]
    assert spec["selector"]["matchLabels"] == override
    assert spec["template"]["metadata"]["labels"].items() >= override.items()


def test_every_object_in_a_namespace_is_in_the_overridden_one() -> None:
    for manifest in rendered({"namespaceOverride": "elsewhere"}):
        assert manifest["metadata"].get("namespace") in (None, "elsewhere")


def test_the_chart_has_the_version_of_the_product() -> None:
    product = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (product, product)


def test_device_classes_are_those_of_the_simulated_cluster() -> None:
    expected = {c["metadata"]["name"]: c for c in yaml.safe_load_all(CLASSES.read_text())}
    classes = {c["metadata"]["name"]: c for c in of_kind(rendered(), "DeviceClass")}
    assert classes.keys() >= expected.keys()
    for name in expected:
        found = classes[name]
        assert found["spec"] == expected[name]["spec"]
        assert found["apiVersion"] == expected[name]["apiVersion"]


@pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
def test_older_apis_get_no_extended_resource(version: str) -> None:
    classes = of_kind(rendered({"resourceApiVersion": f"resource.k8s.io/{version}"}), "DeviceClass")
    assert {c["apiVersion"] for c in classes} == {f"resource.k8s.io/{version}"}
    assert not any("extendedResourceName" in c["spec"] for c in classes)


def test_rights_are_what_the_programs_call_and_no_more() -> None:
    rules = the(rendered(GPUS_ONLY), "ClusterRole")["rules"]
    assert {(r["apiGroups"][0], r["resources"][0]): " ".join(r["verbs"]) for r in rules} == {
        ("resource.k8s.io", "resourceclaims"): "get list",
        ("resource.k8s.io", "resourceclaims/status"): "patch",
        ("resource.k8s.io", "resourceclaims/driver"): "associated-node:patch",
        ("", "events"): "create patch",
        ("resource.k8s.io", "resourceslices"): "get list watch create update delete",
        ("", "nodes"): "get",
    }


def test_the_pod_runs_as_the_account_that_has_the_rights() -> None:
    manifests = rendered(GPUS_ONLY)
    pod = the(manifests, "DaemonSet")["spec"]["template"]["spec"]
    (subject,) = the(manifests, "ClusterRoleBinding")["subjects"]
    assert pod["serviceAccountName"] == subject["name"] == ACCOUNT
    assert the(manifests, "ServiceAccount")["metadata"]["name"] == ACCOUNT


@pytest.mark.parametrize(
    ("values", "user"),
    [
        ({}, f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"),
        ({"serviceAccount": {"name": "x"}}, f"system:serviceaccount:{NAMESPACE}:x-kubeletplugin"),
        (
            {"serviceAccount": {"create": False, "name": "x"}, "namespaceOverride": "n"},
            "system:serviceaccount:n:x",
        ),
    ],
)
def test_the_slice_policy_is_about_the_account_of_the_pod(
    values: dict[str, Any], user: str
) -> None:
    manifests = rendered({**GPUS_ONLY, **values})
    policy = the(manifests, "ValidatingAdmissionPolicy")["spec"]
    (condition,) = policy["matchConditions"]
    assert condition["expression"] == f"request.userInfo.username == '{user}'"
    pod = the(manifests, "DaemonSet")["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == user.rpartition(":")[2]


def test_the_slice_policy_is_bound_and_denies() -> None:
    manifests = rendered(GPUS_ONLY)
    binding = the(manifests, "ValidatingAdmissionPolicyBinding")["spec"]
    policy = the(manifests, "ValidatingAdmissionPolicy")
    assert binding == {
        "policyName": policy["metadata"]["name"],
        "validationActions": ["Deny"],
    }
    assert policy["spec"]["failurePolicy"] == "Fail"


def test_a_brought_account_is_left_alone() -> None:
    manifests = rendered({**GPUS_ONLY, "serviceAccount": {"create": False, "name": "mine"}})
    assert not of_kind(manifests, "ServiceAccount")
    assert not of_kind(manifests, "ClusterRole")


def test_openshift_lets_the_plugin_be_privileged() -> None:
    manifests = rendered(GPUS_ONLY, "--api-versions", "security.openshift.io/v1")
    role = the(manifests, "RoleBinding")["roleRef"]["name"]
    assert role == "system:openshift:scc:privileged"
    assert not of_kind(rendered(GPUS_ONLY), "RoleBinding")


def test_without_any_driver_nothing_is_installed() -> None:
    off = {"gpus": {"enabled": False}, "computeDomains": {"enabled": False}}
    assert rendered({"resources": off}, override=False) == []


@pytest.mark.parametrize("path", sorted((REPOSITORY / "crds").glob("*.yaml")), ids=lambda p: p.name)
def test_the_chart_carries_the_definitions_as_they_are(path: Any) -> None:
    assert (CHART / "crds" / path.name).read_text() == path.read_text()


def served(manifest: Manifest) -> Resource | None:
    """The resource of a manifest, if the embedded API server has it."""
    group, _, version = manifest["apiVersion"].rpartition("/")
    for each in BUILT_IN:
        if (each.group, each.kind) == (group, manifest["kind"]):
            return Resource(group, version, each.plural, each.kind, namespaced=each.namespaced)
    return None
