"""Keep a real Kubernetes cluster on this machine, for looking around and trying things.

Run as root from anywhere:

    python tests/e2e/keep.py up [--name keep] [--nodes 2] [--port 0]
        Bring a cluster up, leave it running, print how to use and how to stop it.
    python tests/e2e/keep.py status
        List the clusters on this machine with their kubeconfigs.
    python tests/e2e/keep.py enter NODE [COMMAND...]   (a shell without a command)
        Run a command on a node.
    python tests/e2e/keep.py down [--name keep]
        Stop the cluster and remove everything it left.
    python tests/e2e/keep.py build
        Only build what the cluster needs into the cache (${XDG_CACHE_HOME:-~/.cache}/nvdra/e2e).

The cluster belongs to one process in the background: all of it ends with that process.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.e2e.ring import preflight
from tests.e2e.ring.binaries import KUBERNETES, ensure_built
from tests.e2e.ring.cluster import RealCluster
from tests.e2e.ring.errors import RingError
from tests.e2e.ring.machine import NAMESPACES
from tests.e2e.ring.network import MOST_NODES
from tests.e2e.ring.patience import eventually
from tests.e2e.ring.record import ClusterRecord, records
from tests.e2e.ring.storage import cache_root, clusters_dir


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def up(arguments: argparse.Namespace) -> None:
    """Start the owner in the background and wait until its cluster is up."""
    wanted = preflight.Wanted(cluster=arguments.name, port=arguments.port)
    preflight.check(wanted, say=say)
    ensure_built(say=say)
    log = _log(arguments.name)
    command = [sys.executable, str(Path(__file__).absolute()), "hold"]
    options = ["--name", arguments.name, f"--nodes={arguments.nodes}", f"--port={arguments.port}"]
    with log.open("w") as output:
        owner = subprocess.Popen(
            [*command, *options], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, cwd="/",
        )  # fmt: skip

    def is_up() -> bool:
        if owner.poll() is not None:
            raise SystemExit(f"the cluster did not come up:\n{log.read_text()}")
        record = ClusterRecord.read(arguments.name)
        return record is not None and record.is_up

    try:
        eventually(is_up, until="the cluster is up", deadline_s=600)
    except BaseException:  # Ctrl-C, too
        owner.terminate()
        owner.wait()
        raise
    record = ClusterRecord.read(arguments.name)
    assert record is not None
    say(f"cluster {record.name} runs at {record.server} (process {record.owner.pid}, log {log})")
    say(f"  export KUBECONFIG={record.kubeconfig}")
    say(f"  export PATH={KUBERNETES.folder()}:$PATH    # kubectl")
    say(f"  {sys.executable} {__file__} enter node-1    # a shell on a node")
    say(f"  {sys.executable} {__file__} down --name {record.name}    # stop it")


def hold(arguments: argparse.Namespace) -> None:
    """Own a cluster in the foreground until SIGTERM or SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    options = {"name": arguments.name, "nodes": arguments.nodes, "port": arguments.port}
    with RealCluster(**options, say=say) as cluster:
        say(f"export KUBECONFIG={cluster.kubeconfig}")
        while True:
            signal.pause()


def down(arguments: argparse.Namespace) -> None:
    record = ClusterRecord.read(arguments.name)
    if record is None:
        say(f"no cluster {arguments.name}")
        return
    if record.owner.kill(signal.SIGTERM):
        eventually(lambda: not record.is_running, until=f"process {record.owner.pid} has ended")
    if (clusters_dir() / arguments.name).exists():
        record.erase()
    _log(arguments.name).unlink(missing_ok=True)
    say(f"cluster {arguments.name} is stopped and removed")


def _log(name: str) -> Path:
    """What the owner in the background says."""
    return cache_root() / f"{name}.log"


def status(_: argparse.Namespace) -> None:
    known = list(records())
    for record in known:
        state = "up" if record.is_up else "starting or stopping"
        if not record.is_running:
            state = "stale (its owner was killed; the next run clears up)"
        say(f"{record.name}: {state}, {record.server or 'no server yet'}, {record.kubeconfig}")
    if not known:
        say(f"no clusters in {clusters_dir()}")


def enter(arguments: argparse.Namespace) -> None:
    record = ClusterRecord.read(arguments.name)
    machine = record.machines.get(arguments.node) if record is not None else None
    if machine is None or not machine.alive:
        raise RingError(f"no machine {arguments.node} in cluster {arguments.name}",
                        remedy="see status; nodes are node-1, node-2, ... and control-plane",
                        )  # fmt: skip
    command = arguments.command or ["bash"]
    os.execvp("nsenter", ["nsenter", f"--target={machine.pid}", *NAMESPACES, "--", *command])


def build(_: argparse.Namespace) -> None:
    started = time.monotonic()
    ensure_built(say=say)
    say(f"all programs are built ({time.monotonic() - started:.1f} s)")


def _name(word: str) -> str:
    """A folder and control groups have it, and are removed with the cluster."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", word):
        raise argparse.ArgumentTypeError(f"{word!r} is not lower-case letters, digits and hyphens")
    return word


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for action in (up, hold, down, status, enter, build):
        command = commands.add_parser(action.__name__, help=action.__doc__)
        command.set_defaults(action=action)
        command.add_argument(
            "--name", type=_name, default="keep", help="of the cluster (%(default)s)"
        )
        if action in (up, hold):
            command.add_argument("--nodes", type=int, default=2, choices=range(1, MOST_NODES + 1))
            command.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0: any")
        if action is enter:
            command.add_argument("node")
            command.add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args(words)


def main() -> int:
    arguments = parse(sys.argv[1:])
    try:
        arguments.action(arguments)
    except RingError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"e2e: {line}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
