"""Every line that work on a claim logs says which claim it is, in the loop and in threads."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
import structlog

from nvdra_kube.errors import ServerError
from nvdra_kube.logs import configure
from nvdra_nodeagent.hardware.errors import HardwareError
from nvdra_testing.claims import OTHER_BOOT, ClaimNode, a_ref

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@dataclass
class Log:
    stream: io.StringIO

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def claims(self) -> set[str | None]:
        """The claims that the lines name; None where one names none."""
        return {line.get("claim") for line in self.lines()}

    def events(self) -> list[str]:
        return [line["msg"] for line in self.lines()]


@pytest.fixture
def log() -> Iterator[Log]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    configure(verbosity=6, format="json", stream=stream)
    yield Log(stream)
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[ClaimNode]:
    node = ClaimNode(tmp_path)
    yield node
    node.cdi.failing = None
    await node.close()


async def test_preparing_and_unpreparing_name_the_claim(node: ClaimNode, log: Log) -> None:
    ref, agent = node.api.add(a_ref()), node.agent()
    await agent.prepare([ref])
    await agent.unprepare([ref])
    assert "claim released" in log.events()
    assert log.claims() == {ref.uid}


async def test_a_failed_prepare_names_the_claim(node: ClaimNode, log: Log) -> None:
    await node.agent().prepare([a_ref("missing")])
    assert log.events() == ["claim failed"]
    assert log.claims() == {a_ref("missing").uid}


async def test_a_retry_names_the_claim(node: ClaimNode, log: Log) -> None:
    ref = node.api.add(a_ref())
    node.api.errors.append(ServerError("down"))
    await node.agent(retry_budget_s=30.0).prepare([ref])
    assert log.events() == ["attempt failed, will retry", "claim done"]
    assert log.claims() == {ref.uid}


async def test_lines_of_the_worker_thread_name_the_claim(node: ClaimNode, log: Log) -> None:
    """`driver files found` stands for whatever a room below logs that knows of no claim."""
    ref = node.api.add(a_ref())

    def chat(_: str) -> None:
        structlog.get_logger("nvdra_x").info("driver files found")

    node.cdi.on_write = chat
    await node.agent().prepare([ref])
    assert "driver files found" in log.events()
    assert log.claims() == {ref.uid}


async def test_a_rollback_that_fails_names_the_claim(node: ClaimNode, log: Log) -> None:
    ref, node.cdi.failing = node.api.add(a_ref()), HardwareError("NVML is silent")
    await node.agent().prepare([ref])
    assert "rollback incomplete" in log.events()
    assert log.claims() == {ref.uid}


async def test_claims_at_once_do_not_take_each_others_name(node: ClaimNode, log: Log) -> None:
    refs = [node.api.add(a_ref(f"c{index}"), f"gpu-{index}") for index in range(2)]
    await node.agent().prepare(refs)
    done = [line for line in log.lines() if line["msg"] == "claim done"]
    assert {line["name"]: line["claim"] for line in done} == {ref.name: ref.uid for ref in refs}


async def test_a_replaced_preparation_names_the_claim(node: ClaimNode, log: Log) -> None:
    ref = node.api.add(a_ref())
    await node.agent().prepare([ref])
    await node.agent(boot_id=OTHER_BOOT).prepare([ref])
    assert log.claims() == {ref.uid}


async def test_lines_about_nobody_name_nobody(node: ClaimNode, log: Log) -> None:
    await node.agent().prepare([node.api.add(a_ref())])
    structlog.get_logger("nvdra_x").info("something else")
    assert "claim" not in log.lines()[-1]
