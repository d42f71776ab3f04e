"""How the IMEX daemon's environment and flags are read, and how it logs."""

from __future__ import annotations

import json

import pytest

from nvdra_nodeagent.imex.logs import Log, level_of
from nvdra_nodeagent.imex.options import PROBE_PORT, Options, read_options

POD = {
    "POD_IP": "10.0.0.1",
    "COMPUTE_DOMAIN_UUID": "uid",
    "CLIQUE_ID": "c.1",
    "COMPUTE_DOMAIN_BOOT_ID": "boot",
    "LOG_VERBOSITY": "6",
}


def test_the_environment_of_the_pod_is_enough() -> None:
    found = read_options((), POD)
    assert found == Options(
        address="10.0.0.1", domain="uid", clique="c.1", boot_id="boot", verbosity=6
    )


def test_an_empty_clique_is_not_an_unknown_one() -> None:
    assert read_options((), {**POD, "CLIQUE_ID": ""}).clique == ""
    assert read_options((), {}).clique is None


def test_empty_variables_are_as_good_as_none() -> None:
    found = read_options((), {**POD, "PROBE_PORT": "", "IMEX_DIRECTORY": ""})
    assert (found.probe_port, found.directory) == (PROBE_PORT, "/imexd")


def test_flags_win_over_variables() -> None:
    found = read_options(("-v", "0", "--directory", "/tmp/x", "run"), POD)
    assert (found.verbosity, found.directory, found.command) == (0, "/tmp/x", "run")
    assert read_options(("check",), POD).command == "check"


def test_without_a_boot_id_the_machines_own_counts() -> None:
    assert read_options((), {}).boot_id


@pytest.mark.parametrize(
    "variables", [{"LOG_VERBOSITY": "much"}, {"LOG_FORMAT": "xml"}, {"POD_IP": "pod"}]
)
def test_impossible_values_are_refused_by_value(variables: dict[str, str]) -> None:
    with pytest.raises(SystemExit, match=next(iter(variables.values()))):
        read_options((), variables)


def written(level: int, form: str) -> list[str]:
    lines: list[str] = []
    log = Log(level, form=form, write=lines.append)
    log.debug("asked")
    log.info("peers read", peers="0=10.0.0.1 1=10.0.0.2", own=0, cause="")
    log.error("broken")
    return lines


def test_text_lines_have_an_event_and_its_values() -> None:
    (line, _) = written(level_of(4), "text")
    assert line.endswith("[info     ] peers read peers='0=10.0.0.1 1=10.0.0.2' own=0 cause=''\n")


def test_json_lines_have_the_same() -> None:
    (line, _) = written(level_of(4), "json")
    found = json.loads(line)
    assert (found["msg"], found["level"], found["own"]) == ("peers read", "info", 0)


def test_verbosity_decides_what_is_shown() -> None:
    assert [len(written(level_of(verbosity), "text")) for verbosity in (0, 1, 5, 6)] == [1, 2, 2, 3]
