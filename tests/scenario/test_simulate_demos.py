"""Every demo spec, run by the command that users run, gives what its comment promises."""

from __future__ import annotations

from nvdra_testing.simulation import DEMOS, ROOT, simulate

TESTED = {
    "admin-access.yaml",
    "all-gpus.yaml",
    "by-attribute.yaml",
    "by-request.yaml",
    "deployment.yaml",
    "first-available.yaml",
    "gpu-count.yaml",
    "mig-slices.yaml",
    "own-gpus.yaml",
    "same-numa.yaml",
    "shared-claim.yaml",
    "shared-gpu.yaml",
    "two-claims.yaml",
}


def test_every_demo_has_a_test() -> None:
    assert {path.name for path in DEMOS.iterdir()} == TESTED


def test_containers_of_one_pod_share_a_gpu() -> None:
    run = simulate(DEMOS / "shared-gpu.yaml")
    assert run.status == 0, run.errors
    assert len(run.allocated("pair")) == 1
    assert run.seen("pair", "left") == run.seen("pair", "right") == run.allocated("pair")


def test_pods_of_one_template_get_gpus_of_their_own() -> None:
    run = simulate(DEMOS / "own-gpus.yaml")
    assert run.status == 0, run.errors
    first, second = run.seen("first", "main"), run.seen("second", "main")
    assert (first, second) == (run.allocated("first"), run.allocated("second"))
    assert first != second


def test_pods_that_name_one_claim_share_its_gpu() -> None:
    run = simulate(DEMOS / "shared-claim.yaml")
    assert run.status == 0, run.errors
    assert run.seen("first", "main") == run.seen("second", "main") == run.allocated("first")


def test_each_container_sees_only_the_gpu_of_its_claim() -> None:
    run = simulate(DEMOS / "two-claims.yaml")
    assert run.status == 0, run.errors
    left, right = run.seen("pair", "left"), run.seen("pair", "right")
    assert [*left, *right] == run.allocated("pair")
    assert left != right


def test_one_claim_may_ask_for_two_gpus() -> None:
    run = simulate(DEMOS / "gpu-count.yaml")
    assert run.status == 0, run.errors
    assert len(set(run.seen("pod", "main"))) == 2
    assert sorted(run.seen("pod", "main")) == sorted(run.allocated("pod"))


def test_one_claim_may_ask_for_all_gpus() -> None:
    run = simulate(DEMOS / "all-gpus.yaml")
    assert run.status == 0, run.errors
    assert len(set(run.seen("pod", "main"))) == 8


def test_a_request_picks_the_gpu_of_a_container() -> None:
    run = simulate(DEMOS / "by-request.yaml")
    assert run.status == 0, run.errors
    by_request = {device["request"]: device["uuid"] for device in run.devices("pod")}
    assert run.seen("pod", "renderer") == [by_request["render"]]
    assert run.seen("pod", "trainer") == [by_request["train"]]


def test_a_gpu_is_chosen_by_its_attributes() -> None:
    run = simulate(DEMOS / "by-attribute.yaml")
    assert run.status == 0, run.errors
    assert run.seen("pod", "main") == run.allocated("pod")


def test_a_gpu_of_another_architecture_is_refused_with_the_reason() -> None:
    run = simulate("--profile", "a100-80gb", DEMOS / "by-attribute.yaml")
    assert run.status == 1
    assert run.pods["pod"]["phase"] == "Pending"
    assert 'architecture == "Hopper"' in run.pods["pod"]["reason"]


def test_a_wish_list_takes_the_first_that_is_there() -> None:
    hopper = simulate(DEMOS / "first-available.yaml")
    blackwell = simulate("--profile", "b200", DEMOS / "first-available.yaml")
    assert (hopper.status, blackwell.status) == (0, 0), hopper.errors + blackwell.errors
    assert [device["request"] for device in hopper.devices("pod")] == ["gpu/large"]
    assert [device["request"] for device in blackwell.devices("pod")] == ["gpu/blackwell"]


def test_two_gpus_may_be_asked_to_be_neighbours() -> None:
    run = simulate(DEMOS / "same-numa.yaml")
    assert run.status == 0, run.errors
    assert len(set(run.seen("pod", "main"))) == 2


def test_a_deployment_gets_a_gpu_for_each_replica() -> None:
    run = simulate(DEMOS / "deployment.yaml")
    assert run.status == 0, run.errors
    assert len(run.pods) == 4
    assert len({uuid for pod in run.pods for uuid in run.seen(pod, "main")}) == 4


def test_an_administrator_sees_gpus_that_are_in_use() -> None:
    run = simulate(DEMOS / "admin-access.yaml")
    assert run.status == 0, run.errors
    assert len(set(run.seen("monitor", "main"))) == 8
    assert run.seen("worker", "main")[0] in run.seen("monitor", "main")


def test_slices_of_a_mig_gpu_go_to_the_containers_that_name_them() -> None:
    layout = ROOT / "manifests" / "simulator" / "mig-layout.yaml"
    run = simulate("--mig-layout", layout, DEMOS / "mig-slices.yaml")
    assert run.status == 0, run.errors
    by_request = {device["request"]: device["uuid"] for device in run.devices("pod")}
    for request in ("small", "medium", "large"):
        assert by_request[request].startswith("MIG-")
        assert run.seen("pod", request) == [by_request[request]]
