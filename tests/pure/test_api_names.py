"""Names that outlive the programs: a few that clusters hold on to, spelled out once more."""

from __future__ import annotations

from nvdra_api import names


def test_the_identity_of_the_drivers() -> None:
    assert names.API_VERSION == "resource.nvidia.com/v1beta1"
    assert names.GPU_DRIVER == "gpu.nvidia.com"
    assert names.COMPUTE_DOMAIN_DRIVER == "compute-domain.nvidia.com"
    assert f"{names.CDI_GPU_VENDOR}/{names.CDI_CLAIM_CLASS}" == "k8s.gpu.nvidia.com/claim"


def test_object_names_come_from_the_chart() -> None:
    assert names.KUBELET_PLUGIN == "dra-driver-nvidia-gpu-kubelet-plugin"
    assert names.CONTROLLER == "dra-driver-nvidia-gpu-controller"
    assert names.WEBHOOK == "dra-driver-nvidia-gpu-webhook"


def test_names_made_of_ids() -> None:
    assert names.registration_socket("gpu.nvidia.com") == "gpu.nvidia.com-reg.sock"
    assert names.daemon_set_name("u-1") == "computedomain-daemon-u-1"
    assert names.clique_name("u-1", "c.7") == "u-1.c.7"
    assert names.IMEX_DAEMON_HOSTNAME.format(index=7) == "compute-domain-daemon-0007"
