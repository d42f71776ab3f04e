"""The `nvdra` command."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script; `argv` defaults to the process's."""
    _open_standard_streams()
    try:
        arguments = _parser().parse_args(argv)
        run: Callable[[argparse.Namespace], int] = arguments.run
        sys.exit(run(arguments))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _open_standard_streams() -> None:
    """A stream that the caller closed leads nowhere: its number must not become another file's."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nvdra", description="NVIDIA GPUs under Kubernetes Dynamic Resource Allocation."
    )
    parser.add_argument("--version", action="version", version=f"nvdra {version('nvdra')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_simulate(
        commands.add_parser(
            "simulate",
            help="run manifests on simulated GPUs and an embedded cluster",
            description=(
                "Starts simulated hardware, an embedded Kubernetes cluster and the real node "
                "agents in this process and its children (those of ComputeDomains, and their "
                "controller, where manifests ask for them, and with --keep), applies the "
                "manifests, shows what happens, and prints what each container saw. Without FILE "
                "it runs a demo."
            ),
            epilog=(
                "Exit status: 0 every pod reached Running or Succeeded; 1 a pod did not run (the "
                "reason is printed); 2 a manifest cannot be parsed or the API refuses it."
            ),
        )
    )
    return parser


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="manifests, directories, or - for stdin"
    )
    parser.add_argument(
        "--profile",
        default="h100",
        metavar="P",
        help="hardware of each node (default: h100; 'list' shows all)",
    )
    parser.add_argument(
        "--nodes",
        type=_count,
        default=1,
        metavar="N",
        help="number of nodes (default: 1); 0 is the control plane alone, which stays up",
    )
    parser.add_argument(
        "--feature-gates", default="", metavar="K=true,...", help="feature gates of all programs"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="seconds to wait for pods (default: 60)",
    )
    parser.add_argument(
        "--mig-layout", type=Path, metavar="FILE", help="cut the GPUs by this layout (mig-parted)"
    )
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.set_defaults(run=_simulate)


def _simulate(arguments: argparse.Namespace) -> int:
    try:
        from nvdra_cli.simulate import run_simulate
    except ModuleNotFoundError as exc:
        sys.stderr.write(f"nvdra simulate needs the simulator: pip install 'nvdra[sim]' ({exc})\n")
        return EXIT_USAGE
    return run_simulate(arguments)


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 <= value <= 64:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and 64")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of seconds")
    return value


if __name__ == "__main__":
    main()
