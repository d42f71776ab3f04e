"""The daemon runs on every node of every domain: what it loads, and that it stays that way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nvdra_nodeagent
from nvdra_testing.imex import a_domain, until

ALLOWED_ROOMS = {"nvdra_nodeagent", "nvdra_nodeagent.imex"}
COSTLY = {"asyncio", "dataclasses", "subprocess", "threading", "http", "pathlib", "argparse"}

_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import nvdra_nodeagent.imex.main
import json
print(json.dumps(sorted(sys.modules)))
"""


def loaded() -> set[str]:
    """Modules of the daemon and of the bare interpreter, no site-packages in reach."""
    source = str(Path(nvdra_nodeagent.__file__).parents[1])
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM, source]
    return set(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))


def test_the_daemon_needs_nothing_but_the_standard_library() -> None:
    roots = {name.partition(".")[0] for name in loaded()} - {"__main__"}
    assert roots - sys.stdlib_module_names == {"nvdra_nodeagent"}


def test_the_daemon_loads_no_other_room_of_the_node_agent() -> None:
    ours = {name for name in loaded() if name.startswith("nvdra_")}
    assert {name for name in ours if not name.startswith("nvdra_nodeagent.imex")} <= ALLOWED_ROOMS


def test_the_daemon_leaves_out_what_costs_memory() -> None:
    assert not {name.partition(".")[0] for name in loaded()} & COSTLY


def test_a_ready_daemon_needs_no_more_than_16_mib(tmp_path: Path) -> None:
    with a_domain(tmp_path) as domain:
        (box, _) = domain.formed(2)
        until(lambda: box.read("domain.json").get("state") == "UP")
        assert box.process
        status = Path(f"/proc/{box.process.pid}/status").read_text()
    sizes = dict(line.split(":", 1) for line in status.splitlines())
    assert int(sizes["VmHWM"].split()[0]) <= 16 * 1024
