"""What every benchmark of the agent starts from: a scratch directory, an API server, a node."""

from __future__ import annotations

import argparse
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nvdra_sim.cluster.access import ApiAccess
from nvdra_sim.cluster.node import NodeDirectories

from .agent import Node
from .child import Child, child
from .production import production_python

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

CLAIMS_PER_LANE = 25


@dataclass(frozen=True, slots=True)
class Setting:
    """`api_server` answers with its counts of calls; `claims` are references by lane, of which
    the first eight have a GPU each, and `sliced` those of one that asks for time slices."""

    root: Path
    api_server: Child
    node: Node

    @property
    def claims(self) -> list[list[dict[str, str]]]:
        claims: list[list[dict[str, str]]] = self.api_server.ready["claims"]
        return claims

    @property
    def sliced(self) -> list[dict[str, str]]:
        sliced: list[dict[str, str]] = self.api_server.ready["sliced"]
        return sliced


@asynccontextmanager
async def a_setting(*, claims_per_lane: int = CLAIMS_PER_LANE) -> AsyncIterator[Setting]:
    """Everything below one temporary directory, on the disk that $TMPDIR is on."""
    with tempfile.TemporaryDirectory(prefix="nvdra-bench-") as text:
        root = Path(text)
        account = root / "serviceaccount"
        arguments = {"service_account_dir": account, "claims_per_lane": claims_per_lane}
        async with child("api_server", arguments) as server:
            directories = NodeDirectories(root / "node")
            directories.create()
            access = ApiAccess(
                host="127.0.0.1", port=server.ready["port"], service_account_dir=account
            )
            python = production_python(root / "venv")
            yield Setting(root, server, Node(python, directories, access))


def rounds_of(
    benchmark: str, argv: Sequence[str], *, rounds: int, quick: int
) -> argparse.Namespace:
    """The options that all benchmarks have: `--rounds N`, `--quick`."""
    parser = argparse.ArgumentParser(prog=f"python tests/bench {benchmark}")
    parser.add_argument("--rounds", type=int, default=0, help=f"default {rounds}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, each shorter")
    options = parser.parse_args(argv)
    options.rounds = options.rounds or (quick if options.quick else rounds)
    return options
