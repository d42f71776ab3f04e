"""Pods on the embedded kubelet, from their binding to their disappearance."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from nvdra_kube.errors import Conflict, NotFound, ServerError
from nvdra_kube.resources import EVENTS, NODES, PODS, RESOURCE_SLICES
from nvdra_sim.cluster.apiserver import ClusterStore, LocalApi
from nvdra_sim.cluster.kubelet import ImageStore, Kubelet, KubeletTimes
from nvdra_sim.cluster.kubelet.container import namespaces_available
from nvdra_sim.cluster.kubelet.plugins import RegistrationTimes
from nvdra_sim.cluster.kubelet.pod_worker import PodTimes
from nvdra_testing.dra_plugin import DRIVER, FakeDriver, a_device, serving
from nvdra_testing.node_pods import NAMESPACE, a_container, store_pod, store_pod_with_claims

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from nvdra_kube.api import Body

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.skipif(not namespaces_available(), reason="namespaces are not allowed here"),
]

TIMES = KubeletTimes(
    registration=RegistrationTimes(
        scan_s=0.01,
        info_limit_s=30.0,
        notify_limit_s=30.0,
        retry_first_s=0.01,
        connection_check_s=0.05,
    ),
    pods=PodTimes(prepare_retry_s=0.05, unprepare_retry_s=0.05, restart_first_s=0.01),
    wipe_delay_s=0.05,
    sweep_s=0.05,
)
SLEEP = "trap 'echo bye; exit 0' TERM; echo ready; sleep 9999 & wait"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    return ImageStore(tmp_path_factory.mktemp("images"))


@asynccontextmanager
async def running(kubelet: Kubelet) -> AsyncIterator[Kubelet]:
    task = asyncio.create_task(kubelet.run())
    try:
        yield kubelet
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def api() -> LocalApi:
    return LocalApi(ClusterStore())


@pytest.fixture
async def kubelet(api: LocalApi, images: ImageStore, tmp_path: Path) -> AsyncIterator[Kubelet]:
    async with running(Kubelet(api, node="n1", root=tmp_path, images=images, times=TIMES)) as it:
        yield it


@pytest.fixture
async def driver(kubelet: Kubelet, tmp_path: Path) -> AsyncIterator[FakeDriver]:
    """Its devices show as variables and nodes, through a CDI file as a real driver writes it."""
    devices = [
        {
            "name": name,
            "containerEdits": {
                "env": [f"GPU={name}"],
                "deviceNodes": [{"path": f"/dev/{name}", "type": "c", "major": 1}],
            },
        }
        for name in ("gpu-0", "gpu-1")
    ]
    document = {"cdiVersion": "0.5.0", "kind": "example.com/gpu", "devices": devices}
    (tmp_path / "cdi").mkdir(exist_ok=True)
    (tmp_path / "cdi/gpu.json").write_text(json.dumps(document))
    driver = FakeDriver(
        prepare=lambda claims: {
            claim.uid: {"devices": [a_device("gpu-0", "gpu")]} for claim in claims
        }
    )
    async with serving(driver, tmp_path):
        await kubelet.wait_registered(DRIVER)
        yield driver


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(45):
        while not condition():
            await asyncio.sleep(0.01)


async def wait_log(kubelet: Kubelet, text: str) -> None:
    await until(lambda: kubelet.logs(NAMESPACE, "pod", "c") == text)


async def wait_phase(api: LocalApi, phase: str, name: str = "pod") -> Body:
    async with asyncio.timeout(45):
        while True:
            pod = await api.get(PODS, name, namespace=NAMESPACE)
            if pod["status"].get("phase") == phase:
                return pod
            await asyncio.sleep(0.01)


async def wait_ready(api: LocalApi, kubelet: Kubelet) -> None:
    """Until its script has come so far, and the kubelet has noticed that it was started: a
    container is not told to end before that."""
    await wait_log(kubelet, "ready\n")
    await wait_phase(api, "Running")


async def wait_gone(api: LocalApi, name: str = "pod") -> None:
    async with asyncio.timeout(45):
        with contextlib.suppress(NotFound):
            while True:
                await api.get(PODS, name, namespace=NAMESPACE)
                await asyncio.sleep(0.01)


async def wait_event(api: LocalApi, reason: str) -> Body:
    async with asyncio.timeout(45):
        while True:
            for event in (await api.list(EVENTS))["items"]:
                if event["reason"] == reason:
                    found: Body = event
                    return found
            await asyncio.sleep(0.01)


def exit_code(pod: Body, index: int = 0) -> int:
    code: int = pod["status"]["containerStatuses"][index]["state"]["terminated"]["exitCode"]
    return code


async def test_a_pod_runs_to_success_and_its_log_is_kept(api: LocalApi, kubelet: Kubelet) -> None:
    await store_pod(api, a_container("echo hello; echo oops >&2"))
    pod = await wait_phase(api, "Succeeded")
    assert exit_code(pod) == 0
    assert kubelet.logs(NAMESPACE, "pod", "c") == "hello\noops\n"


async def test_a_failing_container_fails_its_pod(api: LocalApi, kubelet: Kubelet) -> None:
    await store_pod(api, a_container("exit 3"), a_container("true", name="d"))
    assert exit_code(await wait_phase(api, "Failed")) == 3


async def test_a_running_pod_is_ready(api: LocalApi, kubelet: Kubelet) -> None:
    await store_pod(api, a_container(SLEEP))
    pod = await wait_phase(api, "Running")
    conditions = {entry["type"]: entry["status"] for entry in pod["status"]["conditions"]}
    assert conditions["Ready"] == conditions["ContainersReady"] == "True"
    assert pod["status"]["startTime"]
    assert pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]


async def test_a_deleted_pod_ends_gracefully_and_disappears(
    api: LocalApi, kubelet: Kubelet
) -> None:
    await store_pod(api, a_container(SLEEP))
    await wait_ready(api, kubelet)
    await api.delete(PODS, "pod", namespace=NAMESPACE)
    await wait_gone(api)
    assert kubelet.logs(NAMESPACE, "pod", "c") == "ready\nbye\n"


async def test_a_stubborn_container_is_killed_after_the_grace_period(
    api: LocalApi, kubelet: Kubelet
) -> None:
    await store_pod(api, a_container("sleep 9999"), terminationGracePeriodSeconds=1)
    await wait_phase(api, "Running")
    await api.delete(PODS, "pod", namespace=NAMESPACE)
    await wait_gone(api)


async def test_a_force_deleted_pod_leaves_nothing_behind(
    api: LocalApi, kubelet: Kubelet, driver: FakeDriver, tmp_path: Path
) -> None:
    await a_gpu_pod(api, SLEEP)
    pod = await wait_phase(api, "Running")
    await api.delete(PODS, "pod", namespace=NAMESPACE, grace_period_s=0)
    await until(lambda: driver.calls[-1] == ("unprepare", ["gpu"]))
    directory = tmp_path / "pods" / pod["metadata"]["uid"]
    await until(lambda: [path.name for path in directory.iterdir()] == ["logs"])


async def test_init_containers_run_first_and_in_order(api: LocalApi, kubelet: Kubelet) -> None:
    volume: Body = {"volumes": [{"name": "v", "emptyDir": {}}]}
    mount: Body = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    init = [a_container(f"echo {name} >> /v/order", name=name, **mount) for name in ("a", "b")]
    await store_pod(api, a_container("cat /v/order", **mount), initContainers=init, **volume)
    await wait_phase(api, "Succeeded")
    assert kubelet.logs(NAMESPACE, "pod", "c") == "a\nb\n"


async def test_a_failing_init_container_keeps_the_others_from_starting(
    api: LocalApi, kubelet: Kubelet
) -> None:
    await store_pod(api, a_container("echo no"), initContainers=[a_container("false", name="i")])
    pod = await wait_phase(api, "Failed")
    assert pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 1
    assert kubelet.logs(NAMESPACE, "pod", "c") == ""


async def test_a_failed_container_is_restarted_as_the_policy_says(
    api: LocalApi, kubelet: Kubelet
) -> None:
    mount: Body = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    script = "echo x >> /v/runs; [ $(wc -l < /v/runs) -ge 3 ] && echo third"
    await store_pod(
        api,
        a_container(script, **mount),
        restartPolicy="OnFailure",
        volumes=[{"name": "v", "emptyDir": {}}],
    )
    pod = await wait_phase(api, "Succeeded")
    status = pod["status"]["containerStatuses"][0]
    assert status["restartCount"] == 2
    assert status["lastState"]["terminated"]["exitCode"] == 1
    assert kubelet.logs(NAMESPACE, "pod", "c") == "third\n"


async def test_restart_policy_always_starts_a_successful_container_again(
    api: LocalApi, kubelet: Kubelet
) -> None:
    await store_pod(api, a_container("true"), restartPolicy="Always")
    async with asyncio.timeout(45):
        while not restarts(await api.get(PODS, "pod", namespace=NAMESPACE)):
            await asyncio.sleep(0.01)


def restarts(pod: Body) -> int:
    statuses = pod["status"].get("containerStatuses") or [{"restartCount": 0}]
    count: int = statuses[0]["restartCount"]
    return count


async def test_a_command_that_does_not_exist_is_a_start_error(
    api: LocalApi, kubelet: Kubelet
) -> None:
    await store_pod(api, {**a_container(), "command": ["/no/such"]})
    pod = await wait_phase(api, "Failed")
    state = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (state["reason"], state["exitCode"]) == ("StartError", 128)
    assert "/no/such" in state["message"]
    assert "/no/such" in (await wait_event(api, "Failed"))["message"]


async def test_a_volume_that_is_not_simulated_is_said_to_be(
    api: LocalApi, kubelet: Kubelet
) -> None:
    container = a_container(volumeMounts=[{"name": "v", "mountPath": "/v"}])
    await store_pod(api, container, volumes=[{"name": "v", "secret": {"secretName": "s"}}])
    assert "volumes of kind secret" in (await wait_event(api, "Failed"))["message"]
    async with asyncio.timeout(45):
        while await waiting_reason(api) != "CreateContainerConfigError":
            await asyncio.sleep(0.01)


async def waiting_reason(api: LocalApi) -> str:
    """Why the pod's container waits; empty until the kubelet has told."""
    pod = await api.get(PODS, "pod", namespace=NAMESPACE)
    [container] = pod["status"].get("containerStatuses") or [{}]
    return str(container.get("state", {}).get("waiting", {}).get("reason", ""))


async def a_gpu_pod(api: LocalApi, script: str, **spec: Any) -> Body:
    container = a_container(script, claims=("gpu",))
    return await store_pod_with_claims(api, container, claims={"gpu": (DRIVER,)}, **spec)


async def test_a_container_sees_its_device_and_only_that(
    api: LocalApi, kubelet: Kubelet, driver: FakeDriver
) -> None:
    await store_pod_with_claims(
        api,
        a_container("echo $GPU; cd /dev; echo gpu-*", claims=("gpu",)),
        a_container("echo $GPU; cd /dev; echo gpu-*", name="without"),
        claims={"gpu": (DRIVER,)},
    )
    await wait_phase(api, "Succeeded")
    assert kubelet.logs(NAMESPACE, "pod", "c") == "gpu-0\ngpu-0\n"
    assert kubelet.logs(NAMESPACE, "pod", "without") == "\ngpu-*\n"


async def test_a_device_node_taken_from_the_cdi_file_is_gone_from_the_log(
    api: LocalApi, kubelet: Kubelet, driver: FakeDriver, tmp_path: Path
) -> None:
    path = tmp_path / "cdi/gpu.json"
    document = json.loads(path.read_text())
    del document["devices"][0]["containerEdits"]["deviceNodes"]
    path.write_text(json.dumps(document))
    await a_gpu_pod(api, "echo $GPU; ls /dev | grep gpu || echo none")
    await wait_phase(api, "Succeeded")
    assert kubelet.logs(NAMESPACE, "pod", "c") == "gpu-0\nnone\n"


async def test_the_claim_is_given_back_before_the_phase_becomes_terminal(
    api: LocalApi, kubelet: Kubelet, driver: FakeDriver
) -> None:
    driver.unprepare = lambda claims: {claim.uid: {"error": "busy"} for claim in claims}
    await a_gpu_pod(api, "true")
    await until(lambda: driver.calls.count(("unprepare", ["gpu"])) >= 2)
    pod = await api.get(PODS, "pod", namespace=NAMESPACE)
    assert pod["status"]["phase"] == "Running"
    assert exit_code(pod) == 0
    driver.unprepare = lambda claims: {claim.uid: {} for claim in claims}
    await wait_phase(api, "Succeeded")


async def test_a_deleted_pod_stays_until_its_claim_is_given_back(
    api: LocalApi, kubelet: Kubelet, driver: FakeDriver
) -> None:
    driver.unprepare = lambda claims: {claim.uid: {"error": "busy"} for claim in claims}
    await a_gpu_pod(api, SLEEP)
    await wait_log(kubelet, "ready\n")
    await api.delete(PODS, "pod", namespace=NAMESPACE)
    event = await wait_event(api, "FailedUnprepareDynamicResources")
    assert "busy" in event["message"]
    assert await api.get(PODS, "pod", namespace=NAMESPACE)
    driver.unprepare = lambda claims: {claim.uid: {} for claim in claims}
    await wait_gone(api)


async def test_a_failed_prepare_is_told_once_and_tried_again(
    api: LocalApi, kubelet: Kubelet, driver: FakeDriver
) -> None:
    good = driver.prepare
    driver.prepare = lambda claims: {claim.uid: {"error": "no GPU"} for claim in claims}
    await a_gpu_pod(api, "true")
    await until(lambda: len(driver.calls) >= 3)
    event = await wait_event(api, "FailedPrepareDynamicResources")
    assert event["message"] == (
        "Failed to prepare dynamic resources: prepare dynamic resources: "
        "NodePrepareResources failed for claim default/gpu: no GPU"
    )
    assert len((await api.list(EVENTS))["items"]) == 1
    driver.prepare = good
    await wait_phase(api, "Succeeded")


async def test_a_device_without_cdi_file_keeps_the_container_waiting(
    api: LocalApi, kubelet: Kubelet, driver: FakeDriver, tmp_path: Path
) -> None:
    content = (tmp_path / "cdi/gpu.json").read_text()
    (tmp_path / "cdi/gpu.json").unlink()
    await a_gpu_pod(api, "true")
    assert "unresolvable CDI devices" in (await wait_event(api, "Failed"))["message"]
    (tmp_path / "cdi/gpu.json").write_text(content)
    await wait_phase(api, "Succeeded")


async def test_a_pod_deleted_during_prepare_gives_its_claim_back(
    api: LocalApi, kubelet: Kubelet, driver: FakeDriver
) -> None:
    driver.go_on.clear()
    await a_gpu_pod(api, "true")
    await until(lambda: driver.calls)
    await api.delete(PODS, "pod", namespace=NAMESPACE)
    driver.go_on.set()
    await wait_gone(api)
    assert driver.calls == [("prepare", ["gpu"]), ("unprepare", ["gpu"])]


async def test_the_node_registers_with_its_labels(
    api: LocalApi, images: ImageStore, tmp_path: Path
) -> None:
    kubelet = Kubelet(api, node="n1", root=tmp_path, images=images, labels={"pool": "gpu"})
    async with running(kubelet), asyncio.timeout(45):
        while not (await api.list(NODES))["items"]:
            await asyncio.sleep(0.01)
        await until(lambda: (tmp_path / "plugins_registry").is_dir())
    node = await api.get(NODES, "n1")
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "n1"
    assert node["metadata"]["labels"]["pool"] == "gpu"


async def test_a_starting_kubelet_wipes_slices_and_an_absent_driver_loses_its_own(
    api: LocalApi, kubelet: Kubelet, tmp_path: Path
) -> None:
    async with serving(FakeDriver(), tmp_path):
        await kubelet.wait_registered(DRIVER)
        pool = {"name": "n1", "generation": 1, "resourceSliceCount": 1}
        spec = {"driver": DRIVER, "nodeName": "n1", "pool": pool, "devices": []}
        await api.create(RESOURCE_SLICES, {"metadata": {"name": "s"}, "spec": spec})
    async with asyncio.timeout(45):
        while (await api.list(RESOURCE_SLICES))["items"]:
            await asyncio.sleep(0.01)


async def test_a_stopped_kubelet_leaves_no_container_and_no_pod_files(
    api: LocalApi, images: ImageStore, tmp_path: Path
) -> None:
    async with running(Kubelet(api, node="n1", root=tmp_path, images=images, times=TIMES)) as it:
        await store_pod(api, a_container(SLEEP))
        await wait_log(it, "ready\n")
    assert not (tmp_path / "pods").exists()


async def test_a_restarted_kubelet_starts_the_pods_of_its_node_again(
    api: LocalApi, images: ImageStore, tmp_path: Path
) -> None:
    for _ in range(2):
        kubelet = Kubelet(api, node="n1", root=tmp_path, images=images, times=TIMES)
        async with running(kubelet) as it:
            if not (await api.list(PODS))["items"]:
                await store_pod(api, a_container(SLEEP))
            await wait_log(it, "ready\n")


async def test_a_status_that_cannot_be_written_is_written_later(
    images: ImageStore, tmp_path: Path
) -> None:
    class Flaky(LocalApi):
        failures = 3

        async def patch(self, *args: Any, **kwargs: Any) -> Body:
            if args[0] is PODS and self.failures:
                self.failures -= 1
                raise ServerError("not now", status=503)
            return await super().patch(*args, **kwargs)

    api = Flaky(ClusterStore())
    async with running(Kubelet(api, node="n1", root=tmp_path, images=images, times=TIMES)):
        await store_pod(api, a_container("true"))
        await wait_phase(api, "Succeeded")
    assert api.failures == 0


async def test_the_last_words_of_a_crashing_container_stay_readable_while_it_starts_again(
    kubelet: Kubelet, api: LocalApi
) -> None:
    await store_pod(api, a_container("echo boom; exit 1"), restartPolicy="Always")
    async with asyncio.timeout(45):
        while not kubelet.logs(NAMESPACE, "pod", "c"):
            await asyncio.sleep(0.005)
        while restarts(await api.get(PODS, "pod", namespace=NAMESPACE)) < 3:
            assert kubelet.logs(NAMESPACE, "pod", "c") == "boom\n"
            await asyncio.sleep(0.005)


async def test_a_conflict_is_no_proof_that_another_pod_has_the_name(
    images: ImageStore, tmp_path: Path
) -> None:
    class Colliding(LocalApi):
        """The first write of each phase of a Pod fails, and the first removal."""

        failed: ClassVar[set[str]] = set()

        async def patch(self, *args: Any, **kwargs: Any) -> Body:
            if args[0] is PODS:
                self._collide(args[2]["status"]["phase"])
            return await super().patch(*args, **kwargs)

        async def delete(self, *args: Any, **kwargs: Any) -> None:
            self._collide("removed")
            await super().delete(*args, **kwargs)

        def _collide(self, what: str) -> None:
            if what not in self.failed:
                self.failed.add(what)
                raise Conflict("try again", status=409)

    store = ClusterStore()
    people = LocalApi(store)
    kubelet = Kubelet(Colliding(store), node="n1", root=tmp_path, images=images, times=TIMES)
    async with running(kubelet):
        await store_pod(people, a_container(SLEEP))
        await wait_ready(people, kubelet)
        await people.delete(PODS, "pod", namespace=NAMESPACE)
        await wait_gone(people)
    assert {"Succeeded", "removed"} <= Colliding.failed
