"""Claims of ComputeDomains that are wrong: refused at once, for good, and nothing is done."""

from __future__ import annotations

from typing import Any

import pytest

from nvdra_api.names import NAMESPACE
from nvdra_kube.resources import NAMESPACES, PODS
from nvdra_testing.domain_claims import a_made_domain, permanent
from nvdra_testing.domain_nodes import BOOT, DomainNode, a_domain_config


@pytest.mark.parametrize(
    ("domain", "config", "said"),
    [
        (None, {"hello": 1}, 'unknown field "hello"'),
        (None, {"allocationMode": "Some"}, "neither Single nor All"),
        ("../../etc", {}, "is not the UID"),
        (BOOT.upper(), {}, "is not the UID"),
        (f"{BOOT}/..", {}, "is not the UID"),
        ("", {}, "domainID"),
        (BOOT, {}, "there is no ComputeDomain"),
    ],
)
async def test_a_wrong_channel_claim_is_refused_by_what_is_wrong(
    node: DomainNode, domain: str | None, config: dict[str, Any], said: str
) -> None:
    uid = await a_made_domain(node.it) if domain is None else domain
    async with node.running() as agent:
        ref = await node.channel(uid, config=a_domain_config("Channel", uid, **config))
        text = await permanent(agent, ref)
        assert await node.label() is None
        assert agent.claims.records() == ()
    assert said in text
    assert text.startswith("error preparing devices")


async def test_a_domain_of_another_namespace_is_refused(node: DomainNode) -> None:
    await node.it.api.create(NAMESPACES, {"metadata": {"name": "elsewhere"}})
    far = await node.it.domain("far", namespace="elsewhere")
    async with node.running() as agent:
        text = await permanent(agent, await node.channel(str(far["metadata"]["uid"])))
    assert "there is no ComputeDomain" in text


async def test_a_domain_id_that_is_no_uid_makes_no_directory(node: DomainNode) -> None:
    async with node.running() as agent:
        assert "is not the UID" in await permanent(agent, await node.daemon("../../../escaped"))
        assert list((node.state_dir / "domains").glob("*")) == []
    assert not (node.root / "escaped").exists()


async def test_a_daemon_claim_outside_of_the_drivers_namespaces_is_refused(
    node: DomainNode,
) -> None:
    uid = await a_made_domain(node.it)
    async with node.running("--additional-namespaces=before, earlier") as agent:
        foreign = await node.daemon(uid, namespace="default")
        text = await permanent(agent, foreign)
        assert not node.directory(uid).exists()
    assert "belong into before, dra-driver-nvidia-gpu, earlier, not into" in text


async def test_a_daemon_claim_of_a_pod_that_is_no_daemon_is_refused(node: DomainNode) -> None:
    uid = await a_made_domain(node.it)
    body = {
        "metadata": {"name": "intruder", "namespace": NAMESPACE},
        "spec": {"containers": [{"name": "a", "image": "b"}]},
    }
    pod = await node.it.api.create(PODS, body, namespace=NAMESPACE)
    async with node.running() as agent:
        ref = await node.daemon(uid, pod=pod, name="intruder")
        assert "is no daemon" in await permanent(agent, ref)
        assert not node.directory(uid).exists()
