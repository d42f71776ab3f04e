"""The catalogue of reasons, the code that gives them, and the page that explains them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from nvdra_api.reasons import CATALOGUE, REASONS, Actor, Kind, Reason
from nvdra_cli.troubleshooting import main, page
from nvdra_testing.documents import ROOT
from nvdra_testing.raised_reasons import Unclear, raised_reasons

if TYPE_CHECKING:
    from pathlib import Path

PAGE = ROOT / "docs" / "troubleshooting.md"
KINDS = {
    "Permanent": Kind.PERMANENT,
    "Retryable": Kind.RETRIED,
    "NotYet": Kind.RETRIED,
    "NodeFault": Kind.NODE,
}
OF_CLAIMS = set(KINDS.values())


def by_name(reason: Reason) -> str:
    return reason.name


def test_every_reason_in_the_code_is_in_the_catalogue() -> None:
    assert {r.reason: r.place for r in raised_reasons() if r.reason not in REASONS} == {}


def test_every_reason_in_the_catalogue_is_in_the_code() -> None:
    assert set(REASONS) - {raised.reason for raised in raised_reasons()} == set()


def test_a_reason_is_of_the_kind_that_its_error_is() -> None:
    for raised in raised_reasons():
        kind = REASONS[raised.reason].kind
        if kind in OF_CLAIMS and raised.error:
            assert kind == KINDS[raised.error], raised


def test_no_reason_stands_twice_in_the_catalogue() -> None:
    assert len(REASONS) == len(CATALOGUE)


@pytest.mark.parametrize("reason", CATALOGUE, ids=by_name)
def test_an_entry_can_be_read_by_people(reason: Reason) -> None:
    assert re.fullmatch(r"([A-Z][a-z]+)+", reason.name)
    for text in (reason.meaning, reason.next_step):
        assert text[0].isupper() or text[0] == "`"
        assert text[-1] in ".?"
        assert "|" not in text and "\n" not in text


@pytest.mark.parametrize("reason", CATALOGUE, ids=by_name)
def test_every_entry_is_on_the_page(reason: Reason) -> None:
    assert page().count(f"| `{reason.name}` |") == 1


@pytest.mark.parametrize("actor", Actor)
def test_everybody_who_is_named_has_something_to_do(actor: Actor) -> None:
    assert any(reason.actor == actor for reason in CATALOGUE)


def test_the_page_is_made_from_the_catalogue() -> None:
    main([str(PAGE), "--check"])


def test_a_page_that_is_not_made_from_the_catalogue_is_told(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(page() + "by hand\n")
    with pytest.raises(SystemExit, match=r"page\.md differs"):
        main([str(tmp_path / "page.md"), "--check"])


def test_the_page_can_be_written(tmp_path: Path) -> None:
    main([str(tmp_path / "page.md")])
    assert (tmp_path / "page.md").read_text() == page()


# Finding reasons in source


def reasons_of(tmp_path: Path, source: str) -> set[tuple[str, str]]:
    (tmp_path / "module.py").write_text(source)
    return {(raised.reason, raised.error) for raised in raised_reasons(tmp_path)}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('raise Permanent("Wrong", "x")', {("Wrong", "Permanent")}),
        (
            'x = NodeFault("Full" if f else "Bad", "x")',
            {("Full", "NodeFault"), ("Bad", "NodeFault")},
        ),
        (
            'class Lost(Retryable):\n  def __init__(self):\n    super().__init__("Lost", "x")',
            {("Lost", "Retryable")},
        ),
        (
            'def ask(reason, f):\n  raise NodeFault(reason, "x")\nask("Missing", 1)',
            {("Missing", "NodeFault")},
        ),
        ('hold(reason="Busy")', {("Busy", "")}),
        ('told(reason="not a reason")', set()),
    ],
)
def test_a_reason_is_found_however_it_is_given(
    tmp_path: Path, source: str, found: set[tuple[str, str]]
) -> None:
    assert reasons_of(tmp_path, source) == found


def test_an_error_whose_reason_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unclear, match=r"module\.py:1: which reason has made\(\)"):
        reasons_of(tmp_path, 'raise Permanent(made(), "x")')
