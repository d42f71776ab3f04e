"""What `nvdra simulate` says and returns when something is wrong with what it was given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nvdra_testing.simulation import DEMOS, simulate

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)

POD = """
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers:
  - name: c
    image: ubuntu:24.04
    command: [sh, -c, nvidia-smi -L]
    resources: {claims: [{name: g}]}
  resourceClaims: [{name: g, resourceClaimName: c}]
"""

CLAIM = """
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: c}
spec:
  devices:
    requests:
    - name: gpu
      exactly: {deviceClassName: gpu.nvidia.com, %s}
    config: [%s]
"""

CONFIG = """{opaque: {driver: gpu.nvidia.com, parameters: %s}}"""


def manifest(directory: Path, *documents: str) -> Path:
    path = directory / "m.yaml"
    path.write_text("---".join(documents))
    return path


def claim(*, request: str = "count: 1", config: str = "") -> str:
    return CLAIM % (request, CONFIG % config if config else "")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("a: [", "not valid YAML"),
        ("kind: Pod", "apiVersion is missing"),
        (POD.replace("kind: Pod", "kind: Pot"), "Pot p: no kind 'Pot' in 'v1'"),
        (
            POD.replace("v1\n", "v1beta1\n", 1),
            "no kind 'Pod' in 'v1beta1'; this server knows Pod in v1",
        ),
        (claim(request="cuont: 1"), 'unknown field "spec.devices.requests[0].exactly.cuont"'),
        (POD.replace("command:", "comand:"), 'unknown field "spec.containers[0].comand"'),
        (claim(request="count: -1"), "spec.devices.requests[0].exactly.count"),
        (POD.replace("namespace", "ns").replace("{name: p}", "{name: P_p}"), "P_p"),
        (
            POD.replace("{name: p}", "{name: p, namespace: nowhere}"),
            'namespaces "nowhere" not found',
        ),
    ],
)
def test_a_manifest_that_cannot_be_used_ends_with_2(
    tmp_path: Path, document: str, message: str
) -> None:
    run = simulate(manifest(tmp_path, document))
    assert run.status == 2
    assert message in run.errors
    assert str(tmp_path / "m.yaml") in run.errors


def test_a_missing_file_ends_with_2(tmp_path: Path) -> None:
    run = simulate(tmp_path / "nowhere.yaml")
    assert run.status == 2
    assert "nowhere.yaml: No such file" in run.errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "k80"], "no hardware profile is named 'k80'; choose one of a10,"),
        (["--feature-gates", "MPSSuport=true"], "did you mean MPSSupport?"),
        (["--nodes", "-1"], "-1 is not between 0 and 64"),
        (["--timeout", "0"], "0 is not a positive number of seconds"),
        (["--mig-layout", "/nowhere.yaml"], "/nowhere.yaml"),
    ],
)
def test_a_bad_option_ends_with_2(arguments: list[str], message: str) -> None:
    run = simulate(*arguments)
    assert run.status == 2
    assert message in run.errors


def test_a_selector_that_rejects_every_device_is_named_with_the_devices(tmp_path: Path) -> None:
    selector = """expression: 'device.attributes["gpu.nvidia.com"].brand == "Quadro"'"""
    request = f"selectors: [{{cel: {{{selector}}}}}]"
    run = simulate(manifest(tmp_path, claim(request=request), POD))
    assert run.status == 1
    reason = run.pods["p"]["reason"]
    assert 'brand == "Quadro"' in reason
    assert "gpu-7" in reason


def test_more_gpus_than_there_are_leave_the_pod_pending_with_the_count(tmp_path: Path) -> None:
    run = simulate(manifest(tmp_path, claim(request="count: 9"), POD))
    assert run.status == 1
    assert "9 wanted, 8" in run.pods["p"]["reason"]


def test_a_class_that_does_not_exist_is_named(tmp_path: Path) -> None:
    wrong = claim().replace("gpu.nvidia.com, ", "gpus.nvidia.com, ")
    run = simulate(manifest(tmp_path, wrong, POD))
    assert run.status == 1
    assert "gpus.nvidia.com" in run.pods["p"]["reason"]


CONFIG_OF = "{apiVersion: resource.nvidia.com/v1beta1, kind: GpuConfig, %s}"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (CONFIG_OF % "sharing: {strateggy: MPS}", 'unknown field "sharing.strateggy"'),
        (CONFIG_OF % "sharing: {strategy: Shared}", "Shared"),
        (CONFIG_OF % "sharing: {strategy: MPS}", "MPSSupport"),
        ("{kind: GpuConfig}", "apiVersion"),
        ("{apiVersion: resource.nvidia.com/v1beta1, kind: GpuConfigs}", "GpuConfigs"),
    ],
)
def test_a_bad_opaque_config_ends_with_1_and_says_what_is_wrong(
    tmp_path: Path, config: str, message: str
) -> None:
    run = simulate(manifest(tmp_path, claim(config=config), POD))
    assert run.status == 1
    reason = run.pods["p"]["reason"]
    assert "error preparing devices" in reason
    assert message in reason


def test_a_bad_pod_does_not_keep_a_good_one_from_running(tmp_path: Path) -> None:
    bad = claim(request="count: 9")
    run = simulate(DEMOS / "shared-gpu.yaml", manifest(tmp_path, bad, POD))
    assert run.status == 1
    assert run.pods["pair"]["phase"] in ("Running", "Succeeded")


def test_standard_input_is_read(tmp_path: Path) -> None:
    run = simulate("-", text="kind: x")
    assert run.status == 2
    assert "standard input:1: apiVersion is missing" in run.errors
