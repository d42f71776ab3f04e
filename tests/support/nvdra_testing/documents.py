"""The project's pages as tests read them: fenced blocks, tables and links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MORE_PAGES = tuple(
    sorted(
        page
        for room in ("manifests", "tests")
        for page in (ROOT / room).rglob("*.md")
        if not any(part.startswith(".") for part in page.relative_to(ROOT).parts)
    )
)
"""Those beside what they are about; their tables and blocks are tested there."""

_FENCE = re.compile(r"^(?P<mark>`{3,})(?P<info>[^`]*)$")
_HEADING = re.compile(r"^#+ (?P<title>.+)$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the words after the fence's marks, and the text between."""

    page: Path
    line: int
    words: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def kind(self) -> str:
        """`yaml simulate`: the language, and for YAML what it is."""
        return " ".join(self.words[:2] if self.words[:1] == ("yaml",) else self.words[:1])

    @property
    def options(self) -> tuple[str, ...]:
        """The words after the kind."""
        return self.words[2:]


def blocks(*kinds: str) -> list[Block]:
    """All blocks of these kinds on all pages, in order; without kinds, every block."""
    found = [block for page in PAGES for block in blocks_of(page)]
    return [block for block in found if not kinds or block.kind in kinds]


def blocks_of(page: Path) -> list[Block]:
    found: list[Block] = []
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), start=1))
    for number, line in lines:
        if opening := _FENCE.match(line):
            text = _until(lines, opening["mark"])
            found.append(Block(page, number, tuple(opening["info"].split()), text))
    return found


def text_after(block: Block) -> str:
    """The `text` block that follows `block` on its page: what it is said to print."""
    for other in blocks_of(block.page):
        if other.line > block.line:
            assert other.kind == "text", f"{block}: no text block follows"
            return other.text
    raise AssertionError(f"{block}: no text block follows")


def rows_under(page: str, heading: str) -> list[dict[str, str]]:
    """Rows of the first table under a heading of `docs/<page>`, cells without code marks."""
    lines = iter(_prose(ROOT / "docs" / page))
    if not any((match := _HEADING.match(line)) and match["title"] == heading for line in lines):
        raise AssertionError(f"docs/{page} has no heading {heading!r}")
    cells: list[list[str]] = []
    for line in lines:
        if line.startswith("|"):
            cells.append([cell.strip() for cell in line.strip("|").split("|")])
        elif cells or _HEADING.match(line):
            break
    assert cells, f"docs/{page}: no table under {heading!r}"
    header, _, *rows = cells
    return [dict(zip(header, row, strict=True)) for row in rows]


def code(cell: str) -> list[str]:
    """The words that a cell or a paragraph sets in code marks."""
    return re.findall(r"`([^`]*)`", cell)


def paragraph(page: str, beginning: str) -> str:
    """The paragraph of `docs/<page>` that begins with these words, on one line."""
    text = "\n".join(_prose(ROOT / "docs" / page))
    for part in text.split("\n\n"):
        if part.strip().startswith(beginning):
            return part.strip().replace("\n", " ")
    raise AssertionError(f"docs/{page} has no paragraph that begins with {beginning!r}")


def links(page: Path) -> list[str]:
    return [match["target"] for line in _prose(page) for match in _LINK.finditer(line)]


def anchors(page: Path) -> set[str]:
    """The names under which a page's headings can be linked to, as GitHub makes them."""
    titles = [match["title"] for line in _prose(page) if (match := _HEADING.match(line))]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _until(lines: Iterator[tuple[int, str]], mark: str) -> str:
    text: list[str] = []
    for _, line in lines:
        if line.rstrip() == mark:
            return "\n".join(text) + "\n"
        text.append(line)
    raise AssertionError(f"a fence {mark} is never closed")


def _prose(page: Path) -> list[str]:
    """The lines outside of fences."""
    kept, mark = [], ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if mark:
            mark = "" if line.rstrip() == mark else mark
        elif opening := _FENCE.match(line):
            mark = opening["mark"]
        else:
            kept.append(line)
    return kept
