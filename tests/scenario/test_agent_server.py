"""What an agent does while its API server is away, or says strange things."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import pytest

from nvdra_kube.errors import ApiError, Forbidden, ServerError, Unreachable
from nvdra_sim.cluster.apiserver import LocalApi
from nvdra_testing.agent import a_node, until
from nvdra_testing.claims import a_ref

if TYPE_CHECKING:
    from pathlib import Path

    from nvdra_kube.api import Body, Resource
    from nvdra_sim.cluster.apiserver import ClusterStore


class EvasiveApi(LocalApi):
    """Answers the first questions for its version with `answers`, the later ones truly."""

    def __init__(self, store: ClusterStore, *answers: str | ApiError) -> None:
        super().__init__(store)
        self.answers = deque(answers)

    async def server_version(self) -> str:
        answer = self.answers.popleft() if self.answers else await super().server_version()
        if isinstance(answer, ApiError):
            raise answer
        return answer


class ClaimlessApi(LocalApi):
    """Has lost sight of claims."""

    refusals = 0

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Body:
        if resource.plural == "resourceclaims":
            self.refusals += 1
            raise ServerError("etcd is away", status=500)
        return await super().get(resource, name, namespace=namespace)


@pytest.mark.parametrize("error", [Unreachable("refused"), ServerError("starting", status=503)])
async def test_an_agent_that_is_up_before_the_api_server_waits_for_it(
    tmp_path: Path, error: ApiError
) -> None:
    node = await a_node(tmp_path)
    node.api = EvasiveApi(node.store, error, error)
    async with node.publishing():
        assert len(await node.devices()) == 8


async def test_a_stopping_agent_answers_with_the_cause_instead_of_trying_again(
    tmp_path: Path,
) -> None:
    node = await a_node(tmp_path)
    node.api = api = ClaimlessApi(node.store)
    ref = await node.claim("gpu-0")
    async with node.publishing(retry_budget_s=3600):
        call = asyncio.create_task(node.prepare(ref))
        await until(lambda: api.refusals)
    assert "etcd is away" in (await call)["claim"].error


async def test_an_agent_lives_while_its_api_server_is_away(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    node.api = EvasiveApi(node.store, *[Unreachable("refused")] * 1000)
    async with node.running() as agent:
        await until(lambda: agent.keeper.is_known)
        assert (await node.unprepare(a_ref()))["claim"].error == ""
        assert await node.devices() == []


@pytest.mark.parametrize("answer", ["", "someday", Forbidden("not you", status=403)])
async def test_a_server_without_a_version_gets_slices_in_the_plain_form(
    tmp_path: Path, answer: str | ApiError
) -> None:
    node = await a_node(tmp_path)
    node.api = EvasiveApi(node.store, answer)
    async with node.publishing(gates="DRAListTypeAttributes=true"):
        assert len(await node.devices()) == 8
