"""Kills a migration at each of its file operations and runs it again.

`python -m nvdra_testing.checkpoint_crashes DIRECTORY [domains]` prints one JSON object a crash: all
files of the state directory with their contents, after the second run. The first one is not
disturbed.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvdra_api.gates import FeatureGates
from nvdra_nodeagent.cdi.names import DOMAIN_CLAIM_KIND, cdi_device_id
from nvdra_nodeagent.cdi.store import CdiStore
from nvdra_nodeagent.checkpoint.conversion import EarlierNode
from nvdra_nodeagent.checkpoint.migration import LOCK, Migration
from nvdra_nodeagent.claims.journal import Journal
from nvdra_nodeagent.computedomain.earlier_claims import DaemonFiles, EarlierClaims
from nvdra_nodeagent.durable import is_temporary
from nvdra_testing.checkpoints import (
    a_checkpoint,
    a_completed,
    a_gpu_device,
    a_group,
    a_started,
    a_vfio_device,
)
from nvdra_testing.claims import BOOT, DRIVER, NODE, a_ref, a_result
from nvdra_testing.domain_checkpoints import a_daemon_yaml, a_domain_status, a_place, a_prepared
from nvdra_testing.domain_steps import DOMAIN

if TYPE_CHECKING:
    from collections.abc import Callable

_WATCHED = ("open", "os.rename", "os.remove", "os.mkdir", "os.scandir")


def main(directory: Path, *, domains: bool = False) -> None:
    prepare, migrate = (_leave_domains, _of_domains) if domains else (_leave_gpus, _of_gpus)
    for point in itertools.count():
        root = directory / str(point)
        root.mkdir()
        prepare(root)
        killed = _in_child(root, migrate, kill_at=point) if point else False
        if point and not killed:
            break  # it has come to its end: there is no such point any more
        _in_child(root, migrate)
        line = json.dumps({"killed": killed, "files": _files(root)})
        print(line, flush=True)  # noqa: T201 - at once, or children print it again


def _leave_gpus(root: Path) -> None:
    (root / "checkpoint.json").write_bytes(_checkpoint())


def _of_gpus(root: Path) -> Migration:
    return Migration(root, Journal(root), node=EarlierNode(DRIVER, NODE, BOOT))


def _leave_domains(root: Path) -> None:
    workload, daemon, begun = (a_ref(name).uid for name in ("workload", "daemon", "begun"))
    text = a_daemon_yaml(daemon, DOMAIN, clique="clique", directory="/d")
    CdiStore(root, kind=DOMAIN_CLAIM_KIND).path(daemon).write_text(text)
    channel, place = (a_domain_status(name, DOMAIN) for name in ("channel-0", "daemon-0"))
    claims = {
        workload: a_prepared(channel, a_place("channel-0", DOMAIN, uid=workload)),
        daemon: a_prepared(place, a_place("daemon-0", DOMAIN, uid=daemon)),
        begun: a_prepared(channel, state="PrepareStarted", name="begun", namespace="default"),
    }
    (root / "checkpoint.json").write_bytes(a_checkpoint(claims))


def _of_domains(root: Path) -> Migration:
    make = EarlierClaims(
        DaemonFiles(CdiStore(root, kind=DOMAIN_CLAIM_KIND)),
        gates=FeatureGates.parse(""),
        home="driver",
        cdi_id=lambda uid, device: cdi_device_id(uid, device, kind=DOMAIN_CLAIM_KIND),
        clique=lambda: "clique",
    )
    node = EarlierNode("compute-domain.nvidia.com", "node-1", BOOT)
    return Migration(root, Journal(root), node=node, make=make)


def _checkpoint() -> bytes:
    one, two, begun, odd = (a_ref(name).uid for name in ("one", "two", "begun", "odd"))
    return a_checkpoint(
        {
            one: a_completed(a_group(a_gpu_device(0, uid=one))),
            two: a_completed(a_group(a_gpu_device(1, uid=two))),
            begun: a_started(a_result("gpu-2"), name="begun"),
            odd: a_completed(a_group(a_vfio_device(3, uid=odd))),
        }
    )


def _in_child(root: Path, migrate: Callable[[Path], Migration], *, kill_at: int = 0) -> bool:
    """Whether the migration was killed."""
    child = os.fork()
    if not child:
        try:
            if kill_at:
                _kill_at(kill_at, root)
            migrate(root).run()
        except BaseException as error:  # the child's end, whatever it was
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _kill_at(count: int, root: Path) -> None:
    """Die before the given file operation below `root`."""
    operations = itertools.count(1)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        touches = arguments and str(arguments[0]).startswith(str(root))
        if event in _WATCHED and touches and next(operations) == count:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def _files(root: Path) -> dict[str, str]:
    """Temporaries are the sweeper's."""
    return {
        str(path.relative_to(root)): path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not is_temporary(path.name) and path.name != LOCK
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), domains=sys.argv[2:] == ["domains"])
