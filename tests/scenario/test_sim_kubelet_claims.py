"""When the kubelet calls a driver, with what, and what it makes of each answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from nvdra_kube.resources import RESOURCE_CLAIMS
from nvdra_sim.cluster.apiserver import ClusterStore, LocalApi
from nvdra_sim.cluster.kubelet.dra import PodResources, PrepareError, UnprepareError
from nvdra_sim.cluster.kubelet.plugins import PluginRegistry, RegistrationTimes
from nvdra_testing.dra_plugin import DRIVER, FakeDriver, a_device, serving
from nvdra_testing.node_pods import (
    NAMESPACE,
    a_container,
    an_allocated_claim,
    owned_by,
    reservation,
    store_claim,
    store_pod,
    store_pod_with_claims,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nvdra_kube.api import Body
    from nvdra_testing.dra_plugin import Script

TIMES = RegistrationTimes(
    scan_s=0.01, info_limit_s=30.0, notify_limit_s=30.0, connection_check_s=0.05
)


class Bench:
    """A store, a driver on real sockets, and the kubelet's claim handling between them."""

    def __init__(self, root: Path, *, call_limit_s: float = 45.0) -> None:
        self.api = LocalApi(ClusterStore())
        self.state = root / "dra_manager_state"
        self.plugins = PluginRegistry(
            root / "plugins_registry", times=TIMES, call_limit_s=call_limit_s
        )
        self.driver = FakeDriver()

    async def resources(self) -> PodResources:
        return await PodResources.open(self.api, client=self.plugins.client, path=self.state)

    async def pod(self, *claims: str, name: str = "pod", **spec: Any) -> Body:
        owned = dict.fromkeys(claims, (DRIVER,))
        return await store_pod_with_claims(self.api, claims=owned, name=name, **spec)

    async def share(self, claim: str, pod: Body) -> None:
        body = await self.api.get(RESOURCE_CLAIMS, claim, namespace=NAMESPACE)
        body["status"]["reservedFor"].append(reservation(pod))
        await self.api.update(RESOURCE_CLAIMS, body, subresource="status")

    def saved(self) -> list[str]:
        entries = json.loads(self.state.read_text())["claims"]
        return [entry["ref"]["name"] for entry in entries]


@asynccontextmanager
async def a_bench(root: Path, **options: Any) -> AsyncIterator[Bench]:
    bench = Bench(root, **options)
    registering = asyncio.create_task(bench.plugins.run())
    try:
        async with serving(bench.driver, root):
            await bench.plugins.wait_registered(DRIVER)
            yield bench
    finally:
        registering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await registering


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with a_bench(tmp_path) as bench:
        yield bench


def with_device(*names: str) -> Script:
    return lambda claims: {
        claim.uid: {"devices": [a_device(name, "gpu") for name in names]} for claim in claims
    }


async def test_all_claims_of_a_pod_go_to_their_driver_in_one_call(bench: Bench) -> None:
    pod = await bench.pod("one", "two")
    await (await bench.resources()).prepare(pod)
    assert bench.driver.calls == [("prepare", ["one", "two"])]
    assert bench.saved() == ["one", "two"]


async def test_a_prepared_claim_is_not_sent_again_for_another_pod(bench: Bench) -> None:
    resources = await bench.resources()
    await resources.prepare(await bench.pod("one"))
    second = await store_pod(bench.api, name="second", claims=("one",))
    await bench.share("one", second)
    await resources.prepare(second)
    assert len(bench.driver.calls) == 1


async def test_two_pods_at_once_prepare_their_shared_claim_once(bench: Bench) -> None:
    resources = await bench.resources()
    first = await bench.pod("one")
    second = await store_pod(bench.api, name="second", claims=("one",))
    await bench.share("one", second)
    await asyncio.gather(resources.prepare(first), resources.prepare(second))
    assert len(bench.driver.calls) == 1


async def test_a_claim_that_no_container_uses_is_left_alone(bench: Bench) -> None:
    pod = await store_pod_with_claims(bench.api, a_container(), claims={"one": (DRIVER,)})
    await (await bench.resources()).prepare(pod)
    assert bench.driver.calls == []


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (
            lambda claims: {claims[0].uid: {"error": "no"}},
            "^prepare dynamic resources: NodePrepareResources failed for claim default/one: no$",
        ),
        (lambda claims: {}, "NodePrepareResources skipped 1 ResourceClaims"),
        (lambda claims: {claims[0].uid: {}, "stranger": {}}, "unknown claim stranger"),
    ],
)
async def test_answers_that_are_refused(bench: Bench, answer: Script, complaint: str) -> None:
    bench.driver.prepare = answer
    pod = await bench.pod("one")
    with pytest.raises(PrepareError, match=complaint):
        await (await bench.resources()).prepare(pod)
    assert bench.saved() == ["one"]


async def test_after_one_failed_claim_all_are_sent_again(bench: Bench) -> None:
    bench.driver.prepare = lambda claims: {
        claims[0].uid: {"devices": [a_device("gpu-0", "gpu")]},
        claims[1].uid: {"error": "not yet"},
    }
    resources, pod = await bench.resources(), await bench.pod("one", "two")
    with pytest.raises(PrepareError):
        await resources.prepare(pod)
    bench.driver.prepare = with_device("gpu-0")
    await resources.prepare(pod)
    assert bench.driver.calls == [("prepare", ["one", "two"])] * 2
    assert resources.cdi_ids(pod, pod["spec"]["containers"][0]) == ("example.com/gpu=gpu-0",)


async def test_a_driver_that_does_not_answer_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    async with a_bench(tmp_path, call_limit_s=0.05) as bench:
        bench.driver.go_on.clear()
        pod = await bench.pod("one")
        with pytest.raises(PrepareError, match="code = DeadlineExceeded"):
            await (await bench.resources()).prepare(pod)


async def test_a_driver_that_is_not_registered_is_named_and_nobody_is_called(
    bench: Bench,
) -> None:
    claims = {"one": (DRIVER,), "two": ("absent.example.com",)}
    pod = await store_pod_with_claims(bench.api, claims=claims)
    with pytest.raises(PrepareError, match=r"DRA driver absent\.example\.com is not registered"):
        await (await bench.resources()).prepare(pod)
    assert bench.driver.calls == []
    assert not bench.state.exists()


async def test_a_pod_without_reservation_is_not_allowed(bench: Bench) -> None:
    await bench.pod("one")
    stranger = await store_pod(bench.api, name="stranger", claims=("one",))
    with pytest.raises(PrepareError, match="is not allowed to use ResourceClaim one"):
        await (await bench.resources()).prepare(stranger)


async def test_a_claim_that_is_not_there_fails_the_attempt(bench: Bench) -> None:
    pod = await store_pod(bench.api, claims=("absent",))
    with pytest.raises(PrepareError, match="absent"):
        await (await bench.resources()).prepare(pod)


async def templated(api: LocalApi, *statuses: Body) -> Body:
    """A Pod with a claim `gpu` from a template, and what the claim controller says of it."""
    entries = [{"name": "gpu", "resourceClaimTemplateName": "t"}]
    pod = await store_pod(api, a_container(claims=("gpu",)), resourceClaims=entries)
    return {**pod, "status": {"resourceClaimStatuses": list(statuses)}}


MADE = {"name": "gpu", "resourceClaimName": "made"}


async def test_a_claim_from_a_template_must_belong_to_the_pod(bench: Bench) -> None:
    resources = await bench.resources()
    pod = await templated(bench.api, MADE)
    await store_claim(bench.api, an_allocated_claim("made", DRIVER, pod=pod))
    with pytest.raises(PrepareError, match="was not created for pod default/pod"):
        await resources.prepare(pod)


async def test_a_claim_from_a_template_is_found_through_the_status(bench: Bench) -> None:
    bench.driver.prepare = with_device("gpu-0")
    resources = await bench.resources()
    pod = await templated(bench.api, MADE)
    owners = owned_by(pod)
    await store_claim(
        bench.api, an_allocated_claim("made", DRIVER, pod=pod, ownerReferences=owners)
    )
    await resources.prepare(pod)
    assert resources.cdi_ids(pod, pod["spec"]["containers"][0]) == ("example.com/gpu=gpu-0",)


async def test_a_claim_that_the_controller_has_not_made_yet_is_waited_for(bench: Bench) -> None:
    pod = await templated(bench.api)
    with pytest.raises(PrepareError, match="ResourceClaim for gpu of pod default/pod was not"):
        await (await bench.resources()).prepare(pod)


async def test_a_template_that_needs_no_claim_is_nothing_to_prepare(bench: Bench) -> None:
    pod = await templated(bench.api, {"name": "gpu"})
    await (await bench.resources()).prepare(pod)
    assert bench.driver.calls == []


async def test_a_new_claim_of_an_old_name_waits_for_the_old_one(bench: Bench) -> None:
    resources = await bench.resources()
    pod = await bench.pod("one")
    await resources.prepare(pod)
    await bench.api.delete(RESOURCE_CLAIMS, "one", namespace=NAMESPACE)
    await force_away(bench.api, "one")
    await store_claim(bench.api, an_allocated_claim("one", DRIVER, pod=pod))
    with pytest.raises(PrepareError, match="different UID"):
        await resources.prepare(pod)


async def force_away(api: LocalApi, claim: str) -> None:
    patch = {"metadata": {"finalizers": None}}
    with contextlib.suppress(Exception):
        await api.patch(RESOURCE_CLAIMS, claim, patch, namespace=NAMESPACE)


async def test_a_driver_of_v1beta1_is_called_in_its_version(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.driver.versions = ("v1beta1.DRAPlugin",)
    bench.driver.prepare = with_device("gpu-0")
    registering = asyncio.create_task(bench.plugins.run())
    async with serving(bench.driver, tmp_path):
        await bench.plugins.wait_registered(DRIVER)
        await (await bench.resources()).prepare(await bench.pod("one"))
    registering.cancel()
    await asyncio.wait([registering])
    assert bench.driver.calls == [("v1beta1", []), ("prepare", ["one"])]


async def test_unprepare_comes_with_the_last_pod(bench: Bench) -> None:
    resources = await bench.resources()
    first = await bench.pod("one")
    second = await store_pod(bench.api, name="second", claims=("one",))
    await bench.share("one", second)
    await resources.prepare(first)
    await resources.prepare(second)
    await resources.unprepare(first)
    assert [method for method, _ in bench.driver.calls] == ["prepare"]
    await resources.unprepare(second)
    assert bench.driver.calls[1:] == [("unprepare", ["one"])]
    assert bench.saved() == []


async def test_a_claim_whose_prepare_failed_is_unprepared_too(bench: Bench) -> None:
    bench.driver.prepare = lambda claims: {claims[0].uid: {"error": "no"}}
    resources, pod = await bench.resources(), await bench.pod("one")
    with pytest.raises(PrepareError):
        await resources.prepare(pod)
    await resources.unprepare(pod)
    assert bench.driver.calls[-1] == ("unprepare", ["one"])


async def test_a_claim_that_was_never_sent_is_not_unprepared(bench: Bench) -> None:
    await (await bench.resources()).unprepare(await bench.pod("one"))
    assert bench.driver.calls == []


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (lambda claims: {claims[0].uid: {"error": "busy"}}, "failed for claim default/one: busy"),
        (lambda claims: {}, "skipped claim default/one"),
    ],
)
async def test_an_unprepare_that_fails_keeps_the_claim_for_the_next_attempt(
    bench: Bench, answer: Script, complaint: str
) -> None:
    resources, pod = await bench.resources(), await bench.pod("one")
    await resources.prepare(pod)
    bench.driver.unprepare = answer
    with pytest.raises(UnprepareError, match=complaint):
        await resources.unprepare(pod)
    assert bench.saved() == ["one"]
    bench.driver.unprepare = lambda claims: {claims[0].uid: {}}
    await resources.unprepare(pod)
    assert bench.saved() == []


async def test_after_a_kubelet_restart_devices_are_known_but_claims_are_prepared_anew(
    bench: Bench,
) -> None:
    bench.driver.prepare = with_device("gpu-0")
    pod = await bench.pod("one")
    await (await bench.resources()).prepare(pod)
    restarted = await bench.resources()
    assert restarted.cdi_ids(pod, pod["spec"]["containers"][0]) == ("example.com/gpu=gpu-0",)
    await restarted.prepare(pod)
    assert bench.driver.calls == [("prepare", ["one"])] * 2


async def test_claims_of_pods_that_vanished_are_swept(bench: Bench) -> None:
    resources, pod = await bench.resources(), await bench.pod("one")
    await resources.prepare(pod)
    await resources.sweep({pod["metadata"]["uid"]})
    assert bench.saved() == ["one"]
    await resources.sweep(set())
    assert bench.driver.calls[-1] == ("unprepare", ["one"])
    assert bench.saved() == []


async def test_a_state_file_that_cannot_be_written_stops_both_ways_until_it_can(
    bench: Bench,
) -> None:
    resources, pod = await bench.resources(), await bench.pod("one")
    bench.state.mkdir()
    with pytest.raises(PrepareError, match="dra_manager_state"):
        await resources.prepare(pod)
    assert bench.driver.calls == []
    with pytest.raises(UnprepareError, match="dra_manager_state"):
        await resources.unprepare(pod)
    bench.state.rmdir()
    await resources.unprepare(pod)
    assert bench.saved() == []


async def test_a_damaged_state_file_is_put_aside(bench: Bench) -> None:
    bench.state.write_text("{")
    await (await bench.resources()).prepare(await bench.pod("one"))
    assert bench.state.with_name("dra_manager_state.damaged").read_text() == "{"
    assert bench.saved() == ["one"]
