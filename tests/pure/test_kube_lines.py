"""Lines of any length out of chunks of any size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nvdra_kube.lines import LineSplitter


def test_a_line_may_come_in_pieces() -> None:
    splitter = LineSplitter()
    assert [splitter.feed(chunk) for chunk in (b"ab", b"c\nd", b"\n")] == [[], [b"abc"], [b"d"]]


def test_an_unfinished_line_is_pending() -> None:
    splitter = LineSplitter()
    splitter.feed(b"a\nb")
    assert splitter.pending
    splitter.feed(b"\n")
    assert not splitter.pending


def test_empty_lines_are_left_out() -> None:
    assert LineSplitter().feed(b"\n\r\na\n\n") == [b"a"]


@given(st.lists(st.binary(min_size=1).filter(lambda line: b"\n" not in line)), st.data())
def test_any_cutting_gives_the_same_lines(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    splitter = LineSplitter()
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    found = [line for chunk in chunks for line in splitter.feed(chunk)]
    assert found == [line for line in lines if line.strip()]
    assert not splitter.pending
