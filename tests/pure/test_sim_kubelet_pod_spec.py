"""From the container of a Pod to command, variables, volumes and CDI ids."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_nodeagent.claims.model import PreparedDevice
from nvdra_sim.cluster.kubelet.pod_claims import container_cdi_ids, known_claim_names
from nvdra_sim.cluster.kubelet.pod_spec import (
    ContainerConfigError,
    command,
    environment,
    expand,
    host_name,
    volume_mounts,
)

if TYPE_CHECKING:
    from nvdra_kube.api import Body


def a_pod(*containers: Body, status: Body | None = None, **spec: Any) -> Body:
    metadata = {"name": "pod", "namespace": "ns", "uid": "u1"}
    spec = {"nodeName": "n1", "containers": list(containers), **spec}
    return {"metadata": metadata, "spec": spec, "status": status or {}}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(A)", "x1y1"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$$(A)", "$(A)"),
        ("$A ${A} $", "$A ${A} $"),
        ("trap 'exit 0' TERM; sleep 9999 & wait", "trap 'exit 0' TERM; sleep 9999 & wait"),
    ],
)
def test_references_are_expanded_as_the_kubelet_does(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1"}) == expanded


@given(st.text(alphabet=st.characters(exclude_characters="$")))
def test_text_without_dollar_signs_is_never_changed(text: str) -> None:
    assert expand(text, {}) == text


def test_command_and_args_are_joined_and_an_image_without_both_runs_its_shell() -> None:
    container = {"command": ["bash", "-c"], "args": ["echo $(A)"]}
    assert command(container, {"A": "1"}) == ("bash", "-c", "echo 1")
    assert command({"args": ["env"]}, {}) == ("env",)
    assert command({}, {}) == ("/bin/bash",)


def test_variables_may_use_earlier_ones_and_fields_of_the_pod() -> None:
    fields = ("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName")
    env: list[Body] = [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"}, {"name": "C"}]
    env += [{"name": f, "valueFrom": {"fieldRef": {"fieldPath": f}}} for f in fields]
    found = environment(a_pod(), {"name": "c", "env": env})
    assert (found["A"], found["B"], found["C"]) == ("1", "12", "")
    assert [found[field] for field in fields] == ["pod", "ns", "u1", "n1"]
    assert found["HOSTNAME"] == "pod"


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ({"fieldRef": {"fieldPath": "status.hostIP"}}, r"status\.hostIP"),
        ({"secretKeyRef": {"name": "s", "key": "k"}}, "secretKeyRef"),
    ],
)
def test_a_variable_from_elsewhere_is_refused_by_name(source: Body, named: str) -> None:
    container = {"name": "c", "env": [{"name": "SECRET", "valueFrom": source}]}
    with pytest.raises(ContainerConfigError, match=f"env SECRET from {named}"):
        environment(a_pod(), container)


def test_a_host_name_is_cut_to_what_a_host_name_may_be() -> None:
    pod = a_pod()
    pod["metadata"]["name"] = "a" * 62 + "-b"
    assert host_name(pod) == "a" * 62


def test_volumes_are_mounted_from_their_places() -> None:
    volumes = [{"name": "e", "emptyDir": {}}, {"name": "h", "hostPath": {"path": "/host"}}]
    mounts = [
        {"name": "e", "mountPath": "/e"},
        {"name": "h", "mountPath": "/h", "readOnly": True, "subPath": "sub"},
    ]
    found = volume_mounts(a_pod(volumes=volumes), {"volumeMounts": mounts}, Path("/pods"))
    assert [(mount.host_path, mount.container_path, mount.options) for mount in found] == [
        ("/pods/e", "/e", ["rbind"]),
        ("/host/sub", "/h", ["rbind", "ro"]),
    ]


@pytest.mark.parametrize(
    ("volumes", "complaint"),
    [
        ([{"name": "v", "configMap": {}}], "kind configMap are not simulated"),
        ([], "there is no volume 'v'"),
    ],
)
def test_a_volume_that_cannot_be_mounted_is_named(volumes: list[Body], complaint: str) -> None:
    container = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    with pytest.raises(ContainerConfigError, match=complaint):
        volume_mounts(a_pod(volumes=volumes), container, Path("/pods"))


def a_device(name: str, *requests: str) -> PreparedDevice:
    return PreparedDevice(requests, "pool", name, (f"v/c={name}",))


CLAIMS: Body = {"resourceClaims": [{"name": "gpus", "resourceClaimName": "claim"}]}
DEVICES = {"claim": (a_device("one", "first"), a_device("two", "second"), a_device("all"))}


@pytest.mark.parametrize(
    ("entries", "ids"),
    [
        ([{"name": "gpus"}], ("v/c=one", "v/c=two", "v/c=all")),
        ([{"name": "gpus", "request": "second"}], ("v/c=two", "v/c=all")),
        (
            [{"name": "gpus", "request": "second"}, {"name": "gpus", "request": "first"}],
            ("v/c=two", "v/c=all", "v/c=one"),
        ),
        ([], ()),
    ],
)
def test_a_container_gets_the_devices_of_its_requests_each_once(
    entries: list[Body], ids: tuple[str, ...]
) -> None:
    container = {"name": "c", "resources": {"claims": entries}}
    assert container_cdi_ids(a_pod(container, **CLAIMS), container, DEVICES) == ids


def test_an_extended_resource_maps_requests_to_containers() -> None:
    mappings = [{"containerName": "c", "resourceName": "nvidia.com/gpu", "requestName": "first"}]
    status = {"extendedResourceClaimStatus": {
        "resourceClaimName": "claim", "requestMappings": mappings}}  # fmt: skip
    pod = a_pod({"name": "c"}, {"name": "d"}, status=status)
    assert container_cdi_ids(pod, {"name": "c"}, DEVICES) == ("v/c=one", "v/c=all")
    assert container_cdi_ids(pod, {"name": "d"}, DEVICES) == ()
    assert known_claim_names(pod) == ("claim",)


def test_on_the_way_back_claims_that_were_never_made_do_not_matter() -> None:
    entries = [{"name": "a", "resourceClaimTemplateName": "t"}, *CLAIMS["resourceClaims"]]
    assert known_claim_names(a_pod({"name": "c"}, resourceClaims=entries)) == ("claim",)
