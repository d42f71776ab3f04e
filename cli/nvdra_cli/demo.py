"""The demo that runs without arguments, and where the demos are."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

DEMO = "shared-gpu.yaml"

DEMO_STORY = """
[bold]What you saw[/bold]
  A ResourceClaimTemplate asked for one GPU; the scheduler found it in the ResourceSlice that the
  node agent had published; the agent prepared the claim and wrote a CDI file for it; two containers
  of one pod got that GPU and no other: both printed the same UUID.

[bold]Try next[/bold]
  nvdra simulate --profile gb200 --nodes 2     other hardware, more nodes
  nvdra simulate --keep                        leave it running, use kubectl
  nvdra simulate YOUR.yaml                     your own claims and pods
  nvdra simulate --profile list                all hardware profiles
"""


def demo_path(name: str) -> Path:
    """A demo manifest: beside this package when installed, in the source tree otherwise.

    Raises `FileNotFoundError`.
    """
    packaged = Path(str(resources.files("nvdra_cli"))) / "demo" / name
    source = Path(__file__).resolve().parents[2] / "manifests" / "demo" / name
    for path in (packaged, source):
        if path.is_file():
            return path
    raise FileNotFoundError(f"demo {name} is in neither {packaged} nor {source}")
