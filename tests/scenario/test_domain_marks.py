"""How a node joins and leaves a domain: in one write, and over nobody else's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import pytest

from nvdra_api.names import ANNOTATION_NODE_CLIQUE, LABEL_COMPUTE_DOMAIN
from nvdra_kube.resources import NODES
from nvdra_nodeagent.computedomain.asking import LoopCaller
from nvdra_nodeagent.computedomain.marks import NodeObject
from nvdra_nodeagent.errors import Retryable
from nvdra_testing.compute_domains import CLIQUE, DomainCluster, a_cluster
from nvdra_testing.recorded_api import RecordedApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nvdra_kube.api import Body

NODE: Final = "node-1"
OURS: Final = "0d9c6b7a-0000-4000-8000-000000000001"
THEIRS: Final = "0d9c6b7a-0000-4000-8000-000000000002"


class BusyApi(RecordedApi):
    """Somebody else writes the node after each of the next `times` that it was read."""

    times = 0
    patch_of_others: Body

    async def get(self, *args: Any, **kwargs: Any) -> Body:
        found = await super().get(*args, **kwargs)
        if self.times:
            self.times -= 1
            patch = {"metadata": {"annotations": {"turn": str(self.times)}}}
            await self._api.patch(NODES, NODE, self.patch_of_others or patch)
        return found


@pytest.fixture
async def it() -> AsyncIterator[DomainCluster]:
    async with a_cluster() as cluster:
        await cluster.node(NODE)
        yield cluster


@pytest.fixture
async def api(it: DomainCluster) -> BusyApi:
    busy = BusyApi(it.api)
    busy.patch_of_others = {}
    return busy


@pytest.fixture
async def marks(it: DomainCluster, api: BusyApi) -> NodeObject:
    return NodeObject(api, node=NODE, loop=LoopCaller())


async def marked(it: DomainCluster) -> tuple[str | None, str | None]:
    meta = (await it.api.get(NODES, NODE))["metadata"]
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    return labels.get(LABEL_COMPUTE_DOMAIN), annotations.get(ANNOTATION_NODE_CLIQUE)


@pytest.mark.parametrize("clique", [CLIQUE, ""])
async def test_a_node_joins_and_leaves_with_one_write_each(
    it: DomainCluster, api: BusyApi, marks: NodeObject, clique: str
) -> None:
    await asyncio.to_thread(marks.put, OURS, clique)
    assert await marked(it) == (OURS, clique)
    await asyncio.to_thread(marks.put, OURS, clique)
    assert [str(write) for write in api.writes] == [f"patch nodes {NODE}"]
    await asyncio.to_thread(marks.remove, OURS)
    assert await marked(it) == (None, None)
    await asyncio.to_thread(marks.remove, OURS)
    assert len(api.writes) == 2


async def test_what_others_write_meanwhile_stays(
    it: DomainCluster, api: BusyApi, marks: NodeObject
) -> None:
    api.times = 2
    await asyncio.to_thread(marks.put, OURS, CLIQUE)
    assert await marked(it) == (OURS, CLIQUE)
    assert (await it.api.get(NODES, NODE))["metadata"]["annotations"]["turn"] == "0"
    assert len(api.writes) == 3


async def test_a_node_that_another_domain_gets_meanwhile_is_left_to_it(
    it: DomainCluster, api: BusyApi, marks: NodeObject
) -> None:
    api.times = 1
    api.patch_of_others = {"metadata": {"labels": {LABEL_COMPUTE_DOMAIN: THEIRS}}}
    with pytest.raises(Retryable, match=THEIRS) as refused:
        await asyncio.to_thread(marks.put, OURS, CLIQUE)
    assert refused.value.reason == "NodeInOtherDomain"
    assert await marked(it) == (THEIRS, None)


async def test_a_node_that_is_in_another_domain_by_now_stays_there(
    it: DomainCluster, api: BusyApi, marks: NodeObject
) -> None:
    await asyncio.to_thread(marks.put, OURS, CLIQUE)
    api.times = 1
    api.patch_of_others = {"metadata": {"labels": {LABEL_COMPUTE_DOMAIN: THEIRS}}}
    await asyncio.to_thread(marks.remove, OURS)
    assert (await marked(it))[0] == THEIRS


async def test_a_node_that_is_written_all_the_time_is_tried_later(
    it: DomainCluster, api: BusyApi, marks: NodeObject
) -> None:
    api.times = 1000
    with pytest.raises(Retryable, match="others write it all the time"):
        await asyncio.to_thread(marks.put, OURS, CLIQUE)
    assert await marked(it) == (None, None)


async def test_a_node_that_is_gone_has_left(it: DomainCluster, marks: NodeObject) -> None:
    await it.api.delete(NODES, NODE)
    await asyncio.to_thread(marks.remove, OURS)
    await asyncio.to_thread(marks.remove_unless, {OURS})
    with pytest.raises(Retryable, match="the kubelet registers it"):
        await asyncio.to_thread(marks.put, OURS, CLIQUE)
