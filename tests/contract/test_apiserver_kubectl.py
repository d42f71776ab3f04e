"""The embedded API server through the eyes of the real kubectl, where there is one."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nvdra_sim.cluster.apiserver import ApiServer, ClusterStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Kubectl = Callable[..., Awaitable[str]]

KUBECTL = shutil.which("kubectl")
CRDS = Path(__file__).parents[2] / "crds"

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not on PATH")

MANIFEST = """
apiVersion: v1
kind: Namespace
metadata: {name: demo}
---
apiVersion: resource.k8s.io/v1beta1
kind: ResourceClaimTemplate
metadata: {name: single-gpu, namespace: demo}
spec:
  spec:
    devices:
      requests: [{name: gpu, deviceClassName: gpu.nvidia.com}]
---
apiVersion: v1
kind: Pod
metadata: {name: pod, namespace: demo, labels: {app: pod}}
spec:
  containers:
  - name: ctr
    image: ubuntu:22.04
    resources: {claims: [{name: gpu}]}
  resourceClaims: [{name: gpu, resourceClaimTemplateName: single-gpu}]
  tolerations: [{key: nvidia.com/gpu, operator: Exists}]
"""


class KubectlFailed(AssertionError):
    """kubectl ended with an error; the text is what it said."""


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    """Run kubectl against a fresh cluster; standard output comes back."""
    assert KUBECTL
    async with ApiServer(ClusterStore()) as server:
        config = tmp_path / "kubeconfig"
        config.write_text(server.kubeconfig())
        environment = {**os.environ, "KUBECONFIG": str(config), "HOME": str(tmp_path)}

        async def run(*arguments: str, stdin: str = "") -> str:
            process = await asyncio.create_subprocess_exec(
                KUBECTL,
                *arguments,
                env=environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            out, err = await process.communicate(stdin.encode())
            if process.returncode:
                raise KubectlFailed(err.decode())
            return out.decode()

        yield run


async def test_apply_creates_and_then_finds_nothing_to_do(kubectl: Kubectl) -> None:
    first = await kubectl("apply", "-f", "-", stdin=MANIFEST)
    assert first.splitlines() == [
        "namespace/demo created",
        "resourceclaimtemplate.resource.k8s.io/single-gpu created",
        "pod/pod created",
    ]
    second = await kubectl("apply", "-f", "-", stdin=MANIFEST)
    assert "namespace/demo unchanged" in second


async def test_server_side_apply_works(kubectl: Kubectl) -> None:
    for _ in range(2):
        said = await kubectl("apply", "--server-side", "-f", "-", stdin=MANIFEST)
        assert "pod/pod serverside-applied" in said


async def test_get_prints_tables(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=MANIFEST)
    head, row = (await kubectl("get", "pods", "-n", "demo")).splitlines()
    assert head.split() == ["NAME", "READY", "STATUS", "RESTARTS", "NODE", "AGE"]
    assert row.split()[:3] == ["pod", "0/1", "Pending"]


async def test_get_returns_the_newest_version(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=MANIFEST)
    text = await kubectl("get", "resourceclaimtemplates", "-n", "demo", "-o", "json")
    [template] = json.loads(text)["items"]
    assert template["apiVersion"] == "resource.k8s.io/v1"
    assert "exactly" in template["spec"]["spec"]["devices"]["requests"][0]


async def test_describe_label_and_annotate(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=MANIFEST)
    await kubectl("label", "pod", "pod", "-n", "demo", "tier=front")
    await kubectl("annotate", "pod", "pod", "-n", "demo", "note=hello")
    said = await kubectl("describe", "pod", "pod", "-n", "demo")
    assert "tier=front" in said
    assert "note: hello" in said


async def test_unknown_fields_are_refused(kubectl: Kubectl) -> None:
    with pytest.raises(KubectlFailed, match=r'unknown field "spec\.nodeSelektor"'):
        await kubectl("apply", "-f", "-", stdin=MANIFEST.replace("tolerations:", "nodeSelektor:"))


async def test_what_the_api_refuses_is_shown(kubectl: Kubectl) -> None:
    bad = MANIFEST.replace("name: gpu, deviceClassName", "name: GPU, deviceClassName")
    with pytest.raises(KubectlFailed, match=r"requests\[0\]\.name: Invalid value"):
        await kubectl("apply", "-f", "-", stdin=bad)


async def test_kinds_that_nobody_serves_are_named(kubectl: Kubectl) -> None:
    stranger = "apiVersion: example.com/v1\nkind: Stranger\nmetadata: {name: x}\n"
    with pytest.raises(KubectlFailed, match='no matches for kind "Stranger"'):
        await kubectl("apply", "-f", "-", stdin=stranger)


async def test_patches_of_each_type_work(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=MANIFEST)
    for kind, patch in (
        ("merge", '{"metadata":{"labels":{"a":"1"}}}'),
        ("strategic", '{"metadata":{"labels":{"b":"2"}}}'),
        ("json", '[{"op":"add","path":"/metadata/labels/c","value":"3"}]'),
    ):
        await kubectl("patch", "pod", "pod", "-n", "demo", "--type", kind, "-p", patch)
    labels = await kubectl("get", "pod", "pod", "-n", "demo", "-o", "jsonpath={.metadata.labels}")
    assert json.loads(labels) == {"app": "pod", "a": "1", "b": "2", "c": "3"}


async def test_deployments_can_be_scaled(kubectl: Kubectl) -> None:
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template},
    }
    await kubectl("apply", "-f", "-", stdin=json.dumps(deployment))
    await kubectl("scale", "deployment", "web", "--replicas=3")
    assert await kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "3"


async def test_wait_sees_the_end(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=MANIFEST)
    await kubectl("delete", "pod", "pod", "-n", "demo", "--timeout=30s")
    assert not await kubectl("get", "pods", "-n", "demo", "-o", "name")


async def test_custom_resources_are_found_after_their_definition(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", str(CRDS))
    domain = {
        "apiVersion": "resource.nvidia.com/v1beta1",
        "kind": "ComputeDomain",
        "metadata": {"name": "cd", "namespace": "default"},
        "spec": {"numNodes": 1, "channel": {"resourceClaimTemplate": {"name": "t"}}},
    }
    for _ in range(2):
        await kubectl("apply", "-f", "-", stdin=json.dumps(domain))
    mode = "jsonpath={.spec.channel.allocationMode}"
    assert await kubectl("get", "computedomains", "cd", "-o", mode) == "Single"


async def test_api_resources_lists_what_is_served(kubectl: Kubectl) -> None:
    said = await kubectl("api-resources", "--api-group=resource.k8s.io", "-o", "name")
    assert "resourceslices.resource.k8s.io" in said.split()
