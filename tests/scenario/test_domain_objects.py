"""The controller makes, mends and removes what a ComputeDomain consists of."""

from __future__ import annotations

import asyncio

import pytest

from nvdra_api.names import (
    FINALIZER_COMPUTE_DOMAIN,
    LABEL_COMPUTE_DOMAIN,
    NAMESPACE,
    daemon_set_name,
)
from nvdra_kube.resources import NODES, RESOURCE_CLAIM_TEMPLATES
from nvdra_operator.resources import CLIQUES, COMPUTE_DOMAINS, DAEMON_SETS
from nvdra_sim.cluster.apiserver.faults import Fault
from nvdra_testing.compute_domains import a_cluster, some_settings

# A machine that stalls must not look like a watch that lags.
pytestmark = pytest.mark.looptime


async def test_a_new_domain_gets_its_objects_with_five_writes() -> None:
    async with a_cluster() as it, it.running():
        uid = (await it.domain())["metadata"]["uid"]
        await it.condition(reason="NoNodesYet")
        await it.quiet()
        assert sorted(it.writes) == sorted(
            [
                "patch computedomains job",
                f"create resourceclaimtemplates computedomain-daemon-{uid}",
                f"create daemonsets computedomain-daemon-{uid}",
                "create resourceclaimtemplates job-channels",
                "patch computedomains job",
            ]
        )
        assert (await it.look())["status"]["status"] == "Ready"
        assert (await it.look())["metadata"]["finalizers"] == [FINALIZER_COMPUTE_DOMAIN]


async def test_a_deleted_domain_goes_with_everything_and_four_writes() -> None:
    async with a_cluster() as it, it.running():
        uid = (await it.domain())["metadata"]["uid"]
        await it.condition(reason="NoNodesYet")
        await it.quiet()
        it.recorded.writes.clear()
        await it.delete()
        await it.gone(COMPUTE_DOMAINS, "job", namespace="default")
        assert len(it.writes) == 4
        await it.gone(DAEMON_SETS, daemon_set_name(uid), namespace=NAMESPACE)
        assert await it.everything(RESOURCE_CLAIM_TEMPLATES) == []


async def test_the_objects_come_back_when_somebody_deletes_them() -> None:
    async with a_cluster() as it, it.running():
        uid = (await it.domain())["metadata"]["uid"]
        await it.condition(reason="NoNodesYet")
        await it.quiet()
        old = await it.template()
        await it.api.delete(RESOURCE_CLAIM_TEMPLATES, "job-channels", namespace="default")
        await it.api.delete(DAEMON_SETS, daemon_set_name(uid), namespace=NAMESPACE)

        async def remade() -> bool:
            new = await it.template()
            await it.daemon_set(uid)
            return bool(new["metadata"]["uid"] != old["metadata"]["uid"])

        await it.until(remade)


async def test_an_object_that_hangs_on_our_finalizer_is_let_go_and_made_again() -> None:
    async with a_cluster() as it:
        uid = (await it.domain())["metadata"]["uid"]
        async with it.running():
            await it.condition(reason="NoNodesYet")
            await it.quiet()
        name = daemon_set_name(uid)
        finalizers = {"metadata": {"finalizers": [FINALIZER_COMPUTE_DOMAIN]}}
        made = await it.api.patch(DAEMON_SETS, name, finalizers, namespace=NAMESPACE)
        await it.api.delete(DAEMON_SETS, name, namespace=NAMESPACE)
        assert (await it.daemon_set(uid))["metadata"]["deletionTimestamp"]
        async with it.running():

            async def remade() -> bool:
                return bool(
                    (await it.daemon_set(uid))["metadata"]["uid"] != made["metadata"]["uid"]
                )

            await it.until(remade)


async def test_what_a_person_altered_is_mended() -> None:
    async with a_cluster() as it, it.running():
        uid = (await it.domain())["metadata"]["uid"]
        await it.condition(reason="NoNodesYet")
        wrong = {"spec": {"template": {"spec": {"priorityClassName": "low"}}}}
        await it.api.patch(DAEMON_SETS, daemon_set_name(uid), wrong, namespace=NAMESPACE)

        async def mended() -> bool:
            spec = (await it.daemon_set(uid))["spec"]["template"]["spec"]
            return bool(spec["priorityClassName"] == "system-node-critical")

        await it.until(mended)


async def test_a_label_that_a_person_took_off_comes_back() -> None:
    async with a_cluster() as it, it.running():
        uid = (await it.domain())["metadata"]["uid"]
        await it.condition(reason="NoNodesYet")
        await it.quiet()
        old = await it.template()
        bare = {"metadata": {"labels": {LABEL_COMPUTE_DOMAIN: None}}}
        await it.api.patch(RESOURCE_CLAIM_TEMPLATES, "job-channels", bare, namespace="default")

        async def mended() -> bool:
            meta = (await it.template())["metadata"]
            assert meta["uid"] == old["metadata"]["uid"]
            return bool((meta.get("labels") or {}).get(LABEL_COMPUTE_DOMAIN) == uid)

        await it.until(mended)


async def test_a_foreign_template_of_the_name_is_reported_and_left_alone() -> None:
    async with a_cluster() as it:
        foreign = await it.api.create(
            RESOURCE_CLAIM_TEMPLATES,
            {
                "metadata": {"name": "job-channels", "namespace": "default"},
                "spec": {"spec": {"devices": {}}},
            },
            namespace="default",
        )
        async with it.running():
            await it.domain()
            found = await it.condition("Accepted", reason="ClaimTemplateConflict")
            await it.quiet()
            assert "default/job-channels" in found["message"]
            assert (await it.look())["status"]["status"] == "NotReady"
            assert "ClaimTemplateConflict" in await it.events()
            await it.delete()
            await it.gone(COMPUTE_DOMAINS, "job", namespace="default")
            assert await it.template() == foreign


async def test_a_foreign_daemon_set_of_the_name_is_reported_and_left_alone() -> None:
    async with a_cluster() as it:
        uid = (await it.domain())["metadata"]["uid"]
        labels = {"app": "theirs"}
        body = {
            "metadata": {"name": daemon_set_name(uid), "namespace": NAMESPACE},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "c", "image": "theirs"}]},
                },
            },
        }
        foreign = await it.api.create(DAEMON_SETS, body, namespace=NAMESPACE)
        async with it.running():
            found = await it.condition("Accepted", reason="NameConflict")
            assert f"DaemonSet {NAMESPACE}/{daemon_set_name(uid)}" in found["message"]
            await it.quiet()
            assert "NameConflict" in await it.events()
            # What stands in nobody's way is made all the same.
            assert (await it.template())["metadata"]["labels"][LABEL_COMPUTE_DOMAIN] == uid
            await it.delete()
            await it.gone(COMPUTE_DOMAINS, "job", namespace="default")
        assert await it.daemon_set(uid) == foreign


async def test_of_two_domains_with_one_template_name_the_second_waits_for_the_first() -> None:
    async with a_cluster() as it, it.running():
        first = await it.domain("first")
        await it.condition(reason="NoNodesYet", name="first")
        await it.domain("second")
        found = await it.condition("Accepted", reason="ClaimTemplateConflict", name="second")
        assert "ComputeDomain first" in found["message"]
        assert (
            first["metadata"]["uid"]
            == (await it.template())["metadata"]["labels"][LABEL_COMPUTE_DOMAIN]
        )


async def test_settings_of_the_driver_reach_idle_domains_only() -> None:
    async with a_cluster() as it:
        idle, busy = await it.domain("idle", template="a"), await it.domain("busy", template="b")
        async with it.running():
            await it.condition(reason="NoNodesYet", name="idle")
            await it.condition(reason="NoNodesYet", name="busy")
        await it.join("node-1", busy["metadata"]["uid"])
        async with it.running(some_settings(image="nvdra:next")):

            async def image(domain: dict[str, object]) -> str:
                daemon_set = await it.daemon_set(domain["metadata"]["uid"])  # type: ignore[index]
                return str(daemon_set["spec"]["template"]["spec"]["containers"][0]["image"])

            async def rolled() -> bool:
                return await image(idle) == "nvdra:next"

            await it.until(rolled)
            await it.quiet()
            assert await image(busy) == "nvdra:test"
            await it.leave("node-1")

            async def rolled_too() -> bool:
                return await image(busy) == "nvdra:next"

            await it.until(rolled_too)


async def test_a_deleted_domain_takes_its_label_off_the_nodes() -> None:
    async with a_cluster() as it, it.running():
        uid = (await it.domain())["metadata"]["uid"]
        await it.condition(reason="NoNodesYet")
        await asyncio.gather(*(it.join(f"node-{n}", uid) for n in range(40)))
        await it.join("elsewhere", "another-uid")
        await it.delete()
        await it.gone(COMPUTE_DOMAINS, "job", namespace="default")
        labelled = [
            node["metadata"]["name"]
            for node in await it.everything(NODES)
            if (node["metadata"].get("labels") or {}).get(LABEL_COMPUTE_DOMAIN) == uid
        ]
        assert labelled == []


async def test_a_domain_waits_for_its_daemons_before_it_goes() -> None:
    async with a_cluster() as it, it.running(patience_s=30):
        uid = (await it.domain())["metadata"]["uid"]
        await it.condition(reason="NoNodesYet")
        await it.join("node-1", uid)
        pod = await it.daemon("node-1", uid, ip="10.0.0.1", ready=True)
        await it.condition(reason="NodesReady")
        await it.delete()
        await it.gone(DAEMON_SETS, daemon_set_name(uid), namespace=NAMESPACE)
        await it.quiet()
        assert (await it.look())["metadata"]["deletionTimestamp"]
        await it.remove(pod)
        await it.gone(COMPUTE_DOMAINS, "job", namespace="default")
        assert await it.cliques() == []


async def test_daemons_that_never_end_hold_a_domain_only_so_long() -> None:
    async with a_cluster() as it, it.running(patience_s=0.2):
        uid = (await it.domain())["metadata"]["uid"]
        await it.condition(reason="NoNodesYet")
        await it.join("node-1", uid)
        await it.daemon("node-1", uid, ip="10.0.0.1", ready=True)
        await it.condition(reason="NodesReady")
        await it.delete()
        await it.gone(COMPUTE_DOMAINS, "job", namespace="default")

        async def told() -> bool:
            return "DaemonsLeft" in await it.events()

        await it.until(told)


async def test_a_domain_whose_daemon_set_was_never_made_can_go() -> None:
    async with a_cluster() as it:
        uid = (await it.domain())["metadata"]["uid"]
        async with it.running():
            await it.condition(reason="NoNodesYet")
        await it.api.delete(DAEMON_SETS, daemon_set_name(uid), namespace=NAMESPACE)
        await it.delete()
        async with it.running():
            await it.gone(COMPUTE_DOMAINS, "job", namespace="default")
        assert await it.everything(RESOURCE_CLAIM_TEMPLATES) == []


async def test_leftovers_of_a_domain_that_does_not_exist_are_swept() -> None:
    async with a_cluster() as it:
        uid = (await it.domain())["metadata"]["uid"]
        async with it.running():
            await it.condition(reason="NoNodesYet")
            await it.join("node-1", uid)
            await it.daemon("node-1", uid, ip="10.0.0.1", ready=True)
            await it.condition(reason="NodesReady")
        bare = {"metadata": {"finalizers": None}}
        await it.api.patch(COMPUTE_DOMAINS, "job", bare, namespace="default")
        await it.delete()
        async with it.running():
            await it.gone(DAEMON_SETS, daemon_set_name(uid), namespace=NAMESPACE)
            await it.gone(RESOURCE_CLAIM_TEMPLATES, "job-channels", namespace="default")

            async def clean() -> bool:
                labels = (await it.node("node-1"))["metadata"].get("labels") or {}
                return not await it.everything(CLIQUES) and LABEL_COMPUTE_DOMAIN not in labels

            await it.until(clean)


async def test_a_domain_without_a_spec_is_left_alone() -> None:
    async with a_cluster() as it, it.running():
        body = {"metadata": {"name": "empty", "namespace": "default"}}
        await it.api.create(COMPUTE_DOMAINS, body, namespace="default")
        await it.domain()
        await it.condition(reason="NoNodesYet")
        await it.quiet()
        assert not (await it.look("empty"))["metadata"].get("finalizers")


async def test_a_host_managed_domain_is_a_claim_template_and_nothing_else() -> None:
    async with a_cluster() as it, it.running(some_settings(host_managed=True)):
        await it.domain(allocationMode="All")
        await it.condition(reason="HostManaged")
        await it.quiet()
        spec = (await it.template())["spec"]["spec"]["devices"]
        assert spec["config"][0]["opaque"]["parameters"]["allocationMode"] == "Single"
        assert await it.everything(DAEMON_SETS) == []
        await it.delete()
        await it.gone(COMPUTE_DOMAINS, "job", namespace="default")


async def test_a_domain_that_only_somebody_elses_finalizer_holds_is_not_neglected() -> None:
    async with a_cluster() as it, it.running() as controller:
        uid = (await it.domain())["metadata"]["uid"]
        await it.condition(reason="NoNodesYet")
        meta = (await it.look())["metadata"]
        held = {"metadata": {"finalizers": [*meta["finalizers"], "theirs.example.com/hold"]}}
        await it.api.patch(COMPUTE_DOMAINS, "job", held, namespace="default")
        await it.delete()

        async def released() -> bool:
            return bool((await it.look())["metadata"]["finalizers"] == ["theirs.example.com/hold"])

        await it.until(released)
        await it.quiet()
        assert controller.domains.neglected(for_s=-1.0) == ""
        freed = {"metadata": {"finalizers": None}}
        await it.api.patch(COMPUTE_DOMAINS, "job", freed, namespace="default")

        async def forgotten() -> bool:
            return not controller.domains.knows(uid)

        await it.until(forgotten)
        assert controller.domains._places == {}


async def test_a_template_that_the_server_alters_is_reported_and_not_made_again_and_again() -> None:
    async with a_cluster() as it, it.running():
        fault = Fault(resource="resourceclaimtemplates", drop_fields=("spec.spec.devices.config",))
        it.store.faults.add(fault)
        await it.domain()
        found = await it.condition("Accepted", reason="ClaimTemplateConflict")
        assert "was stored otherwise than it was written" in found["message"]
        await it.quiet()
        assert await it.template()
        assert len(it.writes) < 10


async def test_objects_that_a_person_gave_the_label_of_another_domain_come_back() -> None:
    async with a_cluster() as it, it.running():
        mine = (await it.domain("mine", template="mine"))["metadata"]["uid"]
        other = (await it.domain("other", template="other"))["metadata"]["uid"]
        await it.condition(reason="NoNodesYet", name="mine")
        await it.condition(reason="NoNodesYet", name="other")
        await it.quiet()
        wrong = {"metadata": {"labels": {LABEL_COMPUTE_DOMAIN: other}}}
        await it.api.patch(DAEMON_SETS, daemon_set_name(mine), wrong, namespace=NAMESPACE)

        async def mended() -> bool:
            labels = (await it.daemon_set(mine))["metadata"]["labels"]
            return bool(labels[LABEL_COMPUTE_DOMAIN] == mine)

        await it.until(mended)
        assert (await it.daemon_set(other))["metadata"]["labels"] == {LABEL_COMPUTE_DOMAIN: other}
