"""The page on changing drivers: its commands work, its tables are those of the program."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.checkpoint import command
from nvdra_nodeagent.checkpoint.command import GPU_EXPORTER
from nvdra_nodeagent.checkpoint.migration import EXPORTED, MIGRATED, UNREADABLE
from nvdra_nodeagent.computedomain.export import EXPORTER
from nvdra_testing.documents import ROOT, blocks, code, rows_under

if TYPE_CHECKING:
    from pathlib import Path

    from nvdra_nodeagent.checkpoint.command import Exporter

PAGE = "changing-drivers.md"


def commands_with(word: str) -> list[list[str]]:
    lines = [
        shlex.split(line)
        for block in blocks("sh")
        if block.page.name == PAGE
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    return [words[words.index(word) :] for words in lines if word in words]


@pytest.mark.parametrize("exporter", [GPU_EXPORTER, EXPORTER], ids=lambda one: one.driver)
def test_the_export_on_the_page_is_understood_and_written_where_the_old_driver_looks(
    tmp_path: Path, exporter: Exporter
) -> None:
    [[program, name, *arguments]] = commands_with(exporter.program)
    assert (program, name) == (exporter.program, command.NAME)
    options = command.parser({}, program=program).parse_args(arguments)
    state_dir = options.kubelet_plugins_directory_path / exporter.driver
    assert options.output == state_dir / "checkpoint.json"

    output = tmp_path / exporter.driver / "checkpoint.json"
    arguments = ["--output", str(output)]
    environ = {"KUBELET_PLUGINS_DIRECTORY_PATH": str(tmp_path), "CDI_ROOT": str(tmp_path)}
    done = command.main(arguments, environ=environ, boot_id="b", exporter=exporter)
    assert done == command.DONE
    assert output.exists()


def test_the_options_on_the_page_are_those_of_the_command() -> None:
    parser = command.parser({})
    known = {
        action.option_strings[-1]: str(action.default or "")
        for action in parser._actions
        if action.dest != "help"
    }
    rows = rows_under(PAGE, "Options of the export")
    assert {code(row["option"])[0]: "".join(code(row["default"])) for row in rows} == known


def test_the_exit_statuses_on_the_page_are_those_of_the_command() -> None:
    rows = rows_under(PAGE, "Exit status of the export")
    told = {int(row["exit status"]) for row in rows}
    assert told == {command.DONE, command.FAILED, command.PARTLY, 2}


def test_files_are_named_on_the_page() -> None:
    text = (ROOT / "docs" / PAGE).read_text()
    assert all(f"`{name}`" in text for name in (MIGRATED, UNREADABLE, EXPORTED))
