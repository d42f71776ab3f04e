"""`export-checkpoint` of the node's plugins: the way back to `dra-driver-nvidia-gpu` 25.x.

Reads only; may run beside the agent. To be called inside the plugin's container.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nvdra_api.names import GPU_DRIVER
from nvdra_nodeagent.cdi.names import GPU_CLAIM_KIND
from nvdra_nodeagent.cdi.store import CdiStore
from nvdra_nodeagent.checkpoint.document import encode_checkpoint
from nvdra_nodeagent.checkpoint.export import Inexpressible, express
from nvdra_nodeagent.checkpoint.migration import EXPORTED, digest
from nvdra_nodeagent.claims.journal import Journal
from nvdra_nodeagent.claims.seal import Damaged
from nvdra_nodeagent.durable import write_durably
from nvdra_nodeagent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nvdra_nodeagent.checkpoint.document import ClaimEntry
    from nvdra_nodeagent.checkpoint.export import Express

NAME: Final = "export-checkpoint"
DONE, FAILED, PARTLY = 0, 1, 3


@dataclass(frozen=True, slots=True)
class Exporter:
    """Whose claims these are. `cdi_kind` is that of their CDI files."""

    program: str
    driver: str
    cdi_kind: str
    express: Express


GPU_EXPORTER: Final = Exporter("nvdra-gpu-plugin", GPU_DRIVER, GPU_CLAIM_KIND, express)


@dataclass(slots=True)
class Export:
    """Claims by UID, and why others are left out."""

    claims: dict[str, ClaimEntry] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def main(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str],
    boot_id: str,
    exporter: Exporter = GPU_EXPORTER,
) -> int:
    """Exit status: 0 all claims are in the file, 3 some are not, 1 nothing was written."""
    options = parser(environ, program=exporter.program).parse_args(argv)
    state_dir = options.kubelet_plugins_directory_path / exporter.driver
    try:
        _refuse_taken(options.output)
        cdi = CdiStore(options.cdi_root, kind=exporter.cdi_kind)
        export = collect(state_dir, cdi=cdi, boot_id=boot_id, exporter=exporter)
        data = encode_checkpoint(export.claims, boot_id=boot_id)
        write_durably(state_dir / EXPORTED, f"{digest(data)}\n".encode(), mode=0o600)
        write_durably(options.output, data, mode=0o600)
    except (AgentError, OSError) as error:
        sys.stderr.write(f"{NAME}: {error}\n")
        return FAILED
    for uid, why in sorted(export.left_out.items()):
        sys.stderr.write(f"{NAME}: claim {uid} is left out: {why}\n")
    sys.stdout.write(f"{options.output}: {len(export.claims)} claims\n")
    return PARTLY if export.left_out else DONE


def parser(
    environ: Mapping[str, str], *, program: str = GPU_EXPORTER.program
) -> argparse.ArgumentParser:
    """The directories have the flags and variables of the agent."""
    made = argparse.ArgumentParser(
        prog=f"{program} {NAME}",
        description="Write the checkpoint of dra-driver-nvidia-gpu 25.x for the claims that are "
        "prepared on this node, to go back to it.",
        allow_abbrev=False,
    )
    made.add_argument("--output", type=Path, required=True, help="File to write; must not exist.")
    for flag, default, text in (
        ("kubelet-plugins-directory-path", "/var/lib/kubelet/plugins", "The agent's state."),
        ("cdi-root", "/etc/cdi", "Directory of CDI files."),
    ):
        variable = flag.replace("-", "_").upper()
        value = environ.get(variable) or default
        made.add_argument(f"--{flag}", type=Path, default=value, help=f"{text} [{variable}]")
    return made


def collect(state_dir: Path, *, cdi: CdiStore, boot_id: str, exporter: Exporter) -> Export:
    """What the journal holds. :raises AgentError: it cannot be read."""
    export, journal, driver = Export(), Journal(state_dir), exporter.driver
    for uid in journal.entries():
        try:
            record = journal.read(uid)
            if record is None:
                continue  # unprepared since it was listed
            seen = cdi.device_names(uid)
            claim = exporter.express(record, driver=driver, boot_id=boot_id, seen=seen)
            export.claims[uid] = claim
        except Damaged as damage:
            export.left_out[uid] = f"its record cannot be used: {damage.reason}"
        except Inexpressible as error:
            export.left_out[uid] = str(error)
    for uid, aside in journal.quarantined().items():
        if uid not in export.claims:
            export.left_out[uid] = f"what it holds is not known: {aside.reason}"
    for path in sorted((state_dir / "tombstones").glob("*.json")):
        export.left_out.setdefault(path.stem, "it is gone, and something of it is not undone yet")
    return export


def _refuse_taken(output: Path) -> None:
    if os.path.lexists(output):
        raise FileExistsError(f"{output} exists; move it away or name another file")
