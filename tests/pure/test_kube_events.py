"""The event recorder against an API that remembers what it was told, in fake time."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from nvdra_kube.errors import Forbidden, NotFound, ServerError, TooManyRequests, Unreachable
from nvdra_kube.events import EventRecorder
from nvdra_testing.kube_stub import KubeStub

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_kube.api import Body

pytestmark = pytest.mark.looptime

POD: Body = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
}
NODE: Body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "uid": "un"}}


@dataclass
class Board(KubeStub):
    """Keeps Events; the next calls fail with `errors`."""

    errors: list[Exception] = field(default_factory=list)
    events: dict[str, Body] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    on_create: Callable[[], None] = lambda: None

    async def create(self, *args: Any, **kwargs: Any) -> Body:
        body: Body = args[1]
        self.on_create()
        self._fail("create")
        assert kwargs["namespace"] == body["metadata"]["namespace"]
        self.events[body["metadata"]["name"]] = body
        return body

    async def patch(self, *args: Any, **_: Any) -> Body:
        _, name, patch = args
        self._fail("patch")
        if name not in self.events:
            raise NotFound("forgotten")
        self.events[name] |= patch
        return self.events[name]

    def _fail(self, verb: str) -> None:
        self.calls.append(verb)
        if self.errors:
            raise self.errors.pop(0)

    @property
    def only(self) -> Body:
        [event] = self.events.values()
        return event


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def recorder(board: Board) -> EventRecorder:
    return EventRecorder(board, component="gpu.nvidia.com", instance="node-1")


async def settle(recorder: EventRecorder) -> None:
    await recorder.aclose(timeout_s=3600)


async def a_warning(recorder: EventRecorder, regarding: Body = POD, note: str = "why") -> None:
    await recorder.event(regarding, type="Warning", reason="PrepareFailed", note=note)


async def test_an_event_has_what_describe_shows(board: Board, recorder: EventRecorder) -> None:
    await a_warning(recorder)
    await settle(recorder)
    event = board.only
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "ns",
        "name": "p",
        "uid": "u",
    }
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "PrepareFailed", "why")
    assert event["source"] == {"component": "gpu.nvidia.com", "host": "node-1"}
    assert event["count"] == 1
    assert event["firstTimestamp"] == event["lastTimestamp"]


async def test_events_about_nodes_live_in_default(board: Board, recorder: EventRecorder) -> None:
    await a_warning(recorder, NODE)
    await settle(recorder)
    assert board.only["metadata"]["namespace"] == "default"
    assert "namespace" not in board.only["involvedObject"]


async def test_repeats_are_counted(board: Board, recorder: EventRecorder) -> None:
    for _ in range(3):
        await a_warning(recorder)
        await settle(recorder)
    assert board.only["count"] == 3
    assert board.calls == ["create", "patch", "patch"]


async def test_a_burst_of_repeats_is_one_write(board: Board, recorder: EventRecorder) -> None:
    for _ in range(20):
        await a_warning(recorder)
    await settle(recorder)
    assert board.only["count"] == 20
    assert board.calls == ["create"]


async def test_another_note_is_another_event(board: Board, recorder: EventRecorder) -> None:
    await a_warning(recorder, note="a")
    await a_warning(recorder, note="b")
    await settle(recorder)
    assert {event["message"] for event in board.events.values()} == {"a", "b"}


async def test_after_a_while_a_repeat_is_a_new_event(board: Board, recorder: EventRecorder) -> None:
    await a_warning(recorder)
    await settle(recorder)
    await asyncio.sleep(700)
    await a_warning(recorder)
    await settle(recorder)
    assert len(board.events) == 2


async def test_an_event_that_the_server_forgot_is_made_again(
    board: Board, recorder: EventRecorder
) -> None:
    await a_warning(recorder)
    await settle(recorder)
    board.events.clear()
    await a_warning(recorder)
    await settle(recorder)
    assert board.only["count"] == 2


async def test_an_object_cannot_flood_the_server(board: Board, recorder: EventRecorder) -> None:
    for number in range(100):
        await a_warning(recorder, note=str(number))
    await a_warning(recorder, NODE)
    await settle(recorder)
    assert len(board.events) == 26
    assert recorder.dropped == 75


async def test_a_flood_may_go_on_slowly(board: Board, recorder: EventRecorder) -> None:
    for number in range(100):
        await a_warning(recorder, note=str(number))
    await asyncio.sleep(301)
    await a_warning(recorder, note="later")
    await settle(recorder)
    assert "later" in {event["message"] for event in board.events.values()}


@pytest.mark.parametrize(
    "error",
    [Unreachable("refused"), ServerError("etcd"), TooManyRequests("busy", retry_after_s=40)],
)
async def test_trouble_is_waited_out(
    board: Board, recorder: EventRecorder, error: Exception
) -> None:
    board.errors = [error, error]
    await a_warning(recorder)
    await settle(recorder)
    assert board.calls == ["create"] * 3
    assert board.only


async def test_lasting_trouble_is_given_up(board: Board, recorder: EventRecorder) -> None:
    board.errors = [Unreachable("refused")] * 100
    await a_warning(recorder)
    await settle(recorder)
    assert board.calls == ["create"] * 8
    assert recorder.dropped == 1


@pytest.mark.parametrize("error", [Forbidden("no right"), RuntimeError("bug")])
async def test_a_refusal_is_not_repeated_and_stops_nothing(
    board: Board, recorder: EventRecorder, error: Exception
) -> None:
    board.errors = [error]
    await a_warning(recorder)
    await a_warning(recorder, NODE)
    await settle(recorder)
    assert board.only["involvedObject"]["name"] == "n"


async def test_the_caller_waits_for_nothing(board: Board, recorder: EventRecorder) -> None:
    board.errors = [Unreachable("refused")] * 100
    before = asyncio.get_running_loop().time()
    await a_warning(recorder)
    assert asyncio.get_running_loop().time() == before
    assert board.calls == []
    await recorder.aclose(timeout_s=0)


@pytest.mark.parametrize("regarding", [{}, {"metadata": {}}, {"metadata": None}, None])
async def test_what_is_no_object_is_no_event(
    board: Board, recorder: EventRecorder, regarding: Any
) -> None:
    await a_warning(recorder, regarding)
    await settle(recorder)
    assert board.events == {}


async def test_long_notes_are_cut_within_a_kilobyte(board: Board, recorder: EventRecorder) -> None:
    await a_warning(recorder, note="ä" * 2000)
    await settle(recorder)
    assert 1000 < len(board.only["message"].encode()) <= 1024
    assert board.only["message"].endswith("...")


@pytest.mark.parametrize("name", ["x" * 253, "x" * 235 + ".-" * 9])
async def test_long_names_give_valid_event_names(
    board: Board, recorder: EventRecorder, name: str
) -> None:
    await a_warning(recorder, {**POD, "metadata": {"name": name, "namespace": "ns"}})
    await settle(recorder)
    event_name = board.only["metadata"]["name"]
    assert len(event_name) <= 253
    assert ".." not in event_name
    assert "-." not in event_name


async def test_no_task_is_left_when_all_is_written(board: Board, recorder: EventRecorder) -> None:
    await a_warning(recorder)
    await asyncio.sleep(1)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert board.events


async def test_closing_does_not_wait_for_a_dead_server(
    board: Board, recorder: EventRecorder
) -> None:
    board.errors = [Unreachable("refused")] * 100
    async with recorder:
        await a_warning(recorder)
    assert asyncio.get_running_loop().time() <= 2.0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_whoever_asked_is_told_of_each_event_that_is_lost(board: Board) -> None:
    told: list[int] = []
    recorder = EventRecorder(board, component="c", instance="i", on_dropped=lambda: told.append(1))
    board.errors = [Forbidden("no")]
    await a_warning(recorder)
    await settle(recorder)
    assert (len(told), recorder.dropped) == (1, 1)


async def test_what_is_not_written_in_the_end_counts_as_lost(board: Board) -> None:
    told: list[int] = []
    recorder = EventRecorder(board, component="c", instance="i", on_dropped=lambda: told.append(1))
    board.errors = [Unreachable("down")] * 99
    for note in ("one", "two", "three"):
        await a_warning(recorder, note=note)
    await recorder.aclose(timeout_s=1.0)
    assert len(told) == 2  # and one that was being written, of which nobody knows


async def test_the_writer_does_not_speak_in_the_name_of_whoever_woke_it(
    board: Board, recorder: EventRecorder
) -> None:
    said = ContextVar("said", default="")
    heard: list[str] = []
    board.on_create = lambda: heard.append(said.get())
    said.set("claim-1")
    await a_warning(recorder)
    await settle(recorder)
    assert heard == [""]
