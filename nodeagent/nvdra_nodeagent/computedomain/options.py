"""Command line of `nvdra-compute-domain-plugin`: the common flags, and those of ComputeDomains."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from nvdra_nodeagent.program.options import Flag, checked, make_parser, truth_or_empty

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nvdra_nodeagent.program.options import Options


def _mode(text: str) -> str:
    if text not in ("", "driverManaged", "hostManaged"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither 'driverManaged' nor 'hostManaged'")
    return text or "driverManaged"


def _isolation(text: str) -> str:
    if text == "channel":
        raise argparse.ArgumentTypeError("isolation by channel is not supported; use 'domain'")
    if text not in ("", "domain"):
        raise argparse.ArgumentTypeError(f"{text!r} is not 'domain'")
    return text or "domain"


DOMAIN_FLAGS: Final = (
    Flag(
        "additional-namespaces",
        "Further namespaces, separated by commas, in which daemons of ComputeDomains may live.",
    ),
    Flag(
        "gpu-clique-label-enabled",
        "true: keep the node's label nvidia.com/gpu.clique.",
        "false",
        truth_or_empty,
    ),
    Flag(
        "imex-mode",
        "driverManaged: a daemon for each ComputeDomain; hostManaged: the host runs nvidia-imex.",
        "driverManaged",
        _mode,
    ),
    Flag("imex-isolation", "Only 'domain' is supported.", "domain", _isolation),
    Flag(
        "imex-host-socket-path",
        "Command socket of the host's nvidia-imex, as the host sees it.",
        "/etc/nvidia-imex/imex_ctrl.sock",
        Path,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainOptions:
    """The parsed command line of `nvdra-compute-domain-plugin`."""

    common: Options
    additional_namespaces: tuple[str, ...]
    gpu_clique_label_enabled: bool
    imex_mode: Literal["driverManaged", "hostManaged"]
    imex_host_socket_path: Path

    @property
    def namespaces(self) -> frozenset[str]:
        """Where daemons may live."""
        return frozenset((self.common.namespace, *self.additional_namespaces))


def parse_domain_options(
    argv: Sequence[str], *, environ: Mapping[str, str], version: str
) -> DomainOptions:
    """Options from flags and environment; prints the problem and exits with 2 on bad ones."""
    parser = make_parser(
        environ,
        version,
        prog="nvdra-compute-domain-plugin",
        description="Prepares claims for IMEX channels and for the daemons of ComputeDomains.",
        more=DOMAIN_FLAGS,
    )
    values = vars(parser.parse_args(argv))
    common = checked(parser, values)
    listed = (name.strip() for name in values["additional_namespaces"].split(","))
    return DomainOptions(
        common=common,
        additional_namespaces=tuple(name for name in listed if name),
        gpu_clique_label_enabled=values["gpu_clique_label_enabled"],
        imex_mode=values["imex_mode"],
        imex_host_socket_path=values["imex_host_socket_path"],
    )
