"""Manifests that people use today run byte for byte, to the result that their names promise."""

from __future__ import annotations

import pytest

from nvdra_testing.simulation import PUBLIC_SPECS, Simulated, simulate

pytestmark = pytest.mark.skipif(
    not PUBLIC_SPECS.is_dir(), reason="the public specs are not beside this checkout"
)

FLAVOURS = ("quickstart/v1", "quickstart/v1beta1")


def run(name: str) -> Simulated:
    done = simulate(PUBLIC_SPECS / name)
    assert done.status == 0, done.errors
    return done


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_two_pods_get_two_gpus(flavour: str) -> None:
    done = run(f"{flavour}/gpu-test1.yaml")
    first, second = done.seen("pod1", "ctr"), done.seen("pod2", "ctr")
    assert first == done.allocated("pod1")
    assert second == done.allocated("pod2")
    assert len({*first, *second}) == 2


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_two_containers_share_one_gpu(flavour: str) -> None:
    done = run(f"{flavour}/gpu-test2.yaml")
    assert done.seen("pod", "ctr0") == done.seen("pod", "ctr1") == done.allocated("pod")
    assert len(done.allocated("pod")) == 1


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_two_pods_share_one_claim(flavour: str) -> None:
    done = run(f"{flavour}/gpu-test3.yaml")
    assert done.seen("pod1", "ctr") == done.seen("pod2", "ctr") == done.allocated("pod1")
    assert len(done.allocated("pod1")) == 1


def test_two_containers_get_a_gpu_each() -> None:
    done = run("quickstart/gpu-test7.yaml")
    left, right = done.seen("gpu-pod", "ctr0"), done.seen("gpu-pod", "ctr1")
    assert [*left, *right] == done.allocated("gpu-pod")
    assert len({*left, *right}) == 2


def test_one_container_gets_two_gpus() -> None:
    done = run("quickstart/gpu-test8.yaml")
    assert len(set(done.allocated("gpu-pod"))) == 2
    log = done.pods["gpu-pod"]["logs"]["ctr0"]
    assert "NVIDIA-SMI" in log
    assert log.count("H100") == 2
