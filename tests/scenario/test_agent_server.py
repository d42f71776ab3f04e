"""What an agent does while its API server is away, or says strange things."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import pytest

from nvdra_kube.errors import ApiError, Forbidden, ServerError, Unreachable
from nvdra_sim.cluster.apiserver import LocalApi
from nvdra_testing.agent import a_node

if TYPE_CHECKING:
    from pathlib import Path

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


@pytest.mark.parametrize("error", [Unreachable("refused"), ServerError("starting", status=503)])
async def test_an_agent_that_is_up_before_the_api_server_waits_for_it(
    tmp_path: Path, error: ApiError
) -> None:
    node = await a_node(tmp_path)
    node.api = EvasiveApi(node.store, error, error)
    async with node.running() as agent:
        await agent.publisher.wait_published()
        assert len(await node.devices()) == 8


@pytest.mark.parametrize("answer", ["", "someday", Forbidden("not you", status=403)])
async def test_a_server_without_a_version_gets_slices_in_the_plain_form(
    tmp_path: Path, answer: str | ApiError
) -> None:
    node = await a_node(tmp_path)
    node.api = EvasiveApi(node.store, answer)
    async with node.running(gates="DRAListTypeAttributes=true") as agent:
        await agent.publisher.wait_published()
        assert len(await node.devices()) == 8
