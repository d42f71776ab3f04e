"""Generate the gRPC code of the kubelet's APIs from its .proto files, or check that it is current.

Usage: regenerate.py [--check]. The generator is pinned in the `proto` dependency group.
"""

from __future__ import annotations

import filecmp
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "nodeagent"
PROTO_DIR = Path("nvdra_nodeagent/kubelet/proto")


def generate(target: Path) -> None:
    """Write the generated modules below `target`, laid out as the package is."""
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    protos = sorted(
        str(path.relative_to(SOURCES)) for path in (SOURCES / PROTO_DIR).glob("*.proto")
    )
    outputs = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpclib_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", *outputs, *protos]
    subprocess.run(command, cwd=SOURCES, env=environ, check=True)


def differences(fresh: Path) -> list[str]:
    """Generated files that differ from the checked-in ones, or are missing there."""
    names = [path.name for path in (fresh / PROTO_DIR).iterdir()]
    _, changed, missing = filecmp.cmpfiles(
        fresh / PROTO_DIR, SOURCES / PROTO_DIR, names, shallow=False
    )
    return sorted([*changed, *missing])


def main() -> int:
    if "--check" not in sys.argv[1:]:
        generate(SOURCES)
        return 0
    with tempfile.TemporaryDirectory() as directory:
        generate(Path(directory))
        stale = differences(Path(directory))
    if stale:
        sys.stderr.write(f"stale: {', '.join(stale)}; run tests/proto/regenerate.py\n")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
