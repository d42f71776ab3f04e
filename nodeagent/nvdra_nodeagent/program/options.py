"""Command line of the node agent: every flag has an environment variable and a sentence.

Names are those that charts and scripts already pass. A flag wins over its variable.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


# Most are UUIDs; those of static pods are hashes.
_POD_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}")


@dataclass(frozen=True, slots=True)
class Flag:
    """One option: its long name without dashes (the attribute, with underscores), and the rest."""

    name: str
    help: str
    default: str = ""
    parse: Callable[[str], Any] = str
    aliases: tuple[str, ...] = ()
    envs: tuple[str, ...] = ()

    @property
    def variables(self) -> tuple[str, ...]:
        """Environment variables that set it; the first one that is not empty counts."""
        return self.envs or (self.name.replace("-", "_").upper(),)


def _optional_path(text: str) -> Path | None:
    return Path(text) if text else None


def _verbosity(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 10:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and 10")
    return value


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither 'true' nor 'false'")
    return text == "true"


def _pod_uid(text: str) -> str:
    if text and not _POD_UID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the UID of a pod")
    return text


def _interval(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text} s is not between 1 and 86400")
    return value


def _log_format(text: str) -> str:
    if text not in ("text", "json"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither 'text' nor 'json'")
    return text


def _conditions(text: str) -> str:
    if text not in ("failures", "always", "never"):
        raise argparse.ArgumentTypeError(f"{text!r} is not 'failures', 'always' or 'never'")
    return text


def truth_or_empty(text: str) -> bool:
    """A chart's way to say false may be to say nothing."""
    if text.lower() not in ("", "true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither 'true' nor 'false'")
    return text.lower() == "true"


FLAGS = (
    Flag("node-name", "Name of this node; also the name of its resource pool. Required."),
    Flag("namespace", "Namespace that the driver runs in.", "default"),
    Flag("cdi-root", "Directory for CDI files.", "/etc/cdi", Path),
    Flag(
        "nvidia-driver-root",
        "Root of the NVIDIA driver installation on the host.",
        "/",
        Path,
        aliases=("--host_driver-root",),
        envs=("NVIDIA_DRIVER_ROOT", "HOST_DRIVER_ROOT"),
    ),
    Flag(
        "container-driver-root",
        "The same directory as this process sees it.",
        "/driver-root",
        Path,
        envs=("DRIVER_ROOT_CTR_PATH",),
    ),
    Flag(
        "nvidia-cdi-hook-path",
        "Host path of nvidia-cdi-hook. Empty: the program's own copy is put into the plugin "
        "directory and used.",
    ),
    Flag(
        "kubelet-registrar-directory-path",
        "Directory that the kubelet watches for registration sockets.",
        "/var/lib/kubelet/plugins_registry",
        Path,
    ),
    Flag(
        "kubelet-plugins-directory-path",
        "Directory for the state and the socket of drivers; same path inside and outside.",
        "/var/lib/kubelet/plugins",
        Path,
    ),
    Flag(
        "rolling-update",
        "true: serve beside another instance on this node, on sockets named after the pod; for "
        "kubelets from 1.33 on, with older ones it has no effect. false: fixed names.",
        "false",
        _truth,
    ),
    Flag("pod-uid", "UID of the pod; required with --rolling-update.", parse=_pod_uid),
    Flag(
        "rescan-interval",
        "Seconds between two looks at the hardware when nothing hints at a change; 1 at least.",
        "30",
        _interval,
    ),
    Flag(
        "healthcheck-port",
        "TCP port of the gRPC liveness service; 0 picks one, negative switches it off.",
        "-1",
        int,
    ),
    Flag(
        "http-endpoint",
        "HOST:PORT for metrics, /healthz and /readyz; empty switches them off.",
    ),
    Flag("metrics-path", "Path of the metrics on the HTTP endpoint.", "/metrics"),
    Flag("feature-gates", "Comma-separated NAME=true|false pairs."),
    Flag(
        "kubeconfig",
        "Path of a kubeconfig; empty: the pod's service account.",
        parse=_optional_path,
    ),
    Flag(
        "service-account-dir",
        "Directory with the service account's token and ca.crt.",
        "/var/run/secrets/kubernetes.io/serviceaccount",
        Path,
    ),
    Flag(
        "alt-proc-devices-path",
        "File to read instead of /proc/devices.",
        parse=_optional_path,
    ),
    Flag(
        "simulate",
        "Run on simulated hardware: name of a profile, e.g. h100.",
        envs=("NVDRA_SIMULATE",),
    ),
    Flag(
        "simulate-state",
        "Directory of the simulated hardware.",
        parse=_optional_path,
        envs=("NVDRA_SIMULATE_STATE",),
    ),
    Flag(
        "simulate-mig-layout",
        "MIG layout file (mig-parted form) that a new simulated machine starts with.",
        parse=_optional_path,
        envs=("NVDRA_SIMULATE_MIG_LAYOUT",),
    ),
    Flag(
        "claim-conditions",
        "When claims get the condition Ready in status.devices: for 'failures' and their recovery, "
        "'always', or 'never'.",
        "failures",
        _conditions,
    ),
    Flag(
        "sweep-dry-run",
        "With 'true', leftovers of claims that are gone are named in the log and counted, but "
        "stay.",
        "false",
        truth_or_empty,
    ),
    Flag("logging-format", "Log lines as 'text' or 'json'.", "text", _log_format),
)

NO_EFFECT = (
    "image-name",
    "image-pull-secrets",
    "image-pull-policy",
    "service-account-name",
    "host-root",
    "additional-xids-to-ignore",
    "kube-api-qps",
    "kube-api-burst",
    "vmodule",
    "log-flush-frequency",
)
"""Flags that existing manifests pass and that change nothing here."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the node agents' command lines have in common, parsed."""

    node_name: str
    namespace: str
    cdi_root: Path
    nvidia_driver_root: Path
    container_driver_root: Path
    nvidia_cdi_hook_path: str
    kubelet_registrar_directory_path: Path
    kubelet_plugins_directory_path: Path
    rolling_update: bool
    pod_uid: str
    rescan_interval: float
    healthcheck_port: int
    http_endpoint: str
    metrics_path: str
    feature_gates: str
    kubeconfig: Path | None
    service_account_dir: Path
    alt_proc_devices_path: Path | None
    simulate: str
    simulate_state: Path | None
    simulate_mig_layout: Path | None
    claim_conditions: Literal["failures", "always", "never"]
    sweep_dry_run: bool
    logging_format: Literal["text", "json"]
    verbosity: int


def parse_options(argv: Sequence[str], *, environ: Mapping[str, str], version: str) -> Options:
    """Options from flags and environment; prints the problem and exits with 2 on bad ones."""
    parser = make_parser(
        environ,
        version,
        prog="nvdra-gpu-plugin",
        description="Publishes this node's NVIDIA GPUs and prepares claims for the kubelet.",
    )
    return checked(parser, vars(parser.parse_args(argv)))


def checked(parser: argparse.ArgumentParser, values: Mapping[str, Any]) -> Options:
    """The options among `values`; prints the problem and exits with 2 on a bad combination."""
    options = Options(**{field: values[field] for field in Options.__slots__})
    if not options.node_name:
        parser.error("--node-name (or NODE_NAME) is required: the name of the Node object")
    if options.rolling_update and not options.pod_uid:
        parser.error("--rolling-update needs --pod-uid (or POD_UID): it names the sockets")
    if options.simulate and options.simulate_state is None:
        parser.error("--simulate needs --simulate-state: the directory of the simulated machine")
    if values["consumable_shares"] not in ("", "disabled"):
        parser.error("--consumable-shares: sharing one device among claims is not supported yet")
    return options


def make_parser(
    environ: Mapping[str, str],
    version: str,
    *,
    prog: str,
    description: str,
    more: Sequence[Flag] = (),
) -> argparse.ArgumentParser:
    """A parser of the flags that all programs have, and of `more`."""
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False)
    for flag in (*FLAGS, *more):
        parser.add_argument(
            f"--{flag.name}",
            *flag.aliases,
            dest=flag.name.replace("-", "_"),
            type=flag.parse,
            default=_from_environment(flag, environ),
            metavar="VALUE",
            help=_help(flag),
        )
    parser.add_argument(
        "--consumable-shares",
        default=environ.get("CONSUMABLE_SHARES", ""),
        metavar="VALUE",
        help="Only 'disabled' is supported. [CONSUMABLE_SHARES]",
    )
    parser.add_argument(
        "-v",
        dest="verbosity",
        type=_verbosity,
        default=environ.get("LOG_VERBOSITY") or "4",
        metavar="N",
        help="Log verbosity 0-10: 0 only what is wrong, 4 what is done (default), 6 every call. "
        "[LOG_VERBOSITY]",
    )
    for name in NO_EFFECT:
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"nvdra {version}")
    return parser


def option_variables() -> frozenset[str]:
    """Every environment variable that sets an option of all programs."""
    named = (name for flag in FLAGS for name in flag.variables)
    return frozenset(("CONSUMABLE_SHARES", "LOG_VERBOSITY", *named))


def _from_environment(flag: Flag, environ: Mapping[str, str]) -> str:
    return next((environ[name] for name in flag.variables if environ.get(name)), flag.default)


def _help(flag: Flag) -> str:
    default = f" Default: {flag.default}." if flag.default else ""
    return f"{flag.help}{default} [{', '.join(flag.variables)}]".replace("%", "%%")
