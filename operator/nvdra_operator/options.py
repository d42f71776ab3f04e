"""Command line of the controller: every flag has an environment variable and a sentence.

Names are those that charts and scripts already pass. A flag wins over its variable.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from nvdra_api.gates import FeatureGates, GateError
from nvdra_api.names import MAX_NODES_PER_IMEX_DOMAIN
from nvdra_kube.lease_record import LeaseTimes
from nvdra_operator.settings import DriverSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_UNITS_S: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d*)?(?:h|ms|m|s|us|µs|ns))+")
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d*)?)(h|ms|m|s|us|µs|ns)")
_TRUE: Final = ("1", "t", "T", "true", "TRUE", "True")
_FALSE: Final = ("", "0", "f", "F", "false", "FALSE", "False")


@dataclass(frozen=True, slots=True)
class Flag:
    """One option: its long name without dashes, and the rest."""

    name: str
    help: str
    default: str = ""
    parse: Callable[[str], Any] = str
    required: bool = False

    @property
    def field(self) -> str:
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        return self.field.upper()


def duration_s(text: str) -> float:
    """Seconds of a duration as Kubernetes programs write it: `15s`, `1m30s`, `500ms`."""
    if not _DURATION.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 15s or 1m30s")
    return sum(float(value) * _UNITS_S[unit] for value, unit in _DURATION_PART.findall(text))


def _boolean(text: str) -> bool:
    if text not in _TRUE + _FALSE:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text in _TRUE


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.strip().lstrip("-").isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {low} to {high}")
        return int(text)

    return parse


def _one_of(*values: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in values:
            raise argparse.ArgumentTypeError(
                f"{text!r} is none of {', '.join(filter(None, values))}"
            )
        return text

    return parse


FLAGS: Final = (
    Flag(
        "pod-name", "Name of the pod that this runs in; part of who holds the lease.", required=True
    ),
    Flag("namespace", "Namespace that the driver runs in.", "default"),
    Flag("image-name", "Image of the IMEX daemons.", required=True),
    Flag("cd-daemon-image-pull-secret-names", "Their pull secrets, comma-separated.", "", _names),
    Flag("log-verbosity-cd-daemon", "Their log verbosity.", "", _number(0, 10), required=True),
    Flag(
        "max-nodes-per-imex-domain",
        "Most nodes that one NVLink clique of a domain can have.",
        str(MAX_NODES_PER_IMEX_DOMAIN),
        _number(1, 9999),
    ),
    Flag(
        "imex-mode",
        "Who runs IMEX daemons: 'driverManaged' or 'hostManaged'.",
        "driverManaged",
        _one_of("driverManaged", "hostManaged"),
    ),
    Flag(
        "imex-isolation",
        "What workloads are kept apart by: only 'domain' exists.",
        "domain",
        _one_of("domain", "channel", ""),
    ),
    Flag("http-endpoint", "HOST:PORT for metrics, /healthz and /readyz; empty: none."),
    Flag("metrics-path", "Path of the metrics on the HTTP endpoint; empty: none.", "/metrics"),
    Flag(
        "additional-namespaces",
        "Namespaces, comma-separated, where DaemonSets of earlier installations may be.",
        "",
        _names,
    ),
    Flag("leader-election-enabled", "Work only while holding the lease.", "false", _boolean),
    Flag(
        "leader-election-lease-lock-name",
        "Name of the Lease.",
        "nvidia-compute-domain-controller",
    ),
    Flag("leader-election-lease-lock-namespace", "Namespace of the Lease.", "default"),
    Flag(
        "leader-election-lease-duration",
        "How long others wait for a leader that does not renew.",
        "15s",
        duration_s,
    ),
    Flag(
        "leader-election-renew-deadline",
        "How long the leader goes on without a renewal.",
        "10s",
        duration_s,
    ),
    Flag("leader-election-retry-period", "How often it is renewed.", "2s", duration_s),
    Flag("kubeconfig", "Path of a kubeconfig; empty: the pod's service account.", "", _path),
    Flag(
        "service-account-dir",
        "Directory with the service account's token and ca.crt.",
        "/var/run/secrets/kubernetes.io/serviceaccount",
        Path,
    ),
    Flag("feature-gates", "Comma-separated NAME=true|false pairs."),
    Flag(
        "lifecycle",
        "Who follows ComputeDomains: 'kopf', or 'mirror' for simulations.",
        "kopf",
        _one_of("kopf", "mirror"),
    ),
    Flag("logging-format", "Log lines as 'text' or 'json'.", "text", _one_of("text", "json")),
)

NO_EFFECT: Final = (
    "kube-api-qps",
    "kube-api-burst",
    "pprof-path",
    "vmodule",
    "log-flush-frequency",
)
"""Flags that existing manifests pass and that change nothing here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The parsed command line of `nvdra-controller`. `election` is None where there is none."""

    pod_name: str
    settings: DriverSettings
    election: LeaseTimes | None
    lease_name: str
    lease_namespace: str
    http_endpoint: str
    metrics_path: str
    kubeconfig: Path | None
    service_account_dir: Path
    lifecycle: Literal["kopf", "mirror"]
    logging_format: Literal["text", "json"]
    verbosity: int


def parse_options(argv: Sequence[str], *, environ: Mapping[str, str], version: str) -> Options:
    """Options from flags and environment; prints the problem and exits with 2 on bad ones."""
    parser = _parser(environ, version)
    values = vars(parser.parse_args(argv))
    for flag in FLAGS:
        if flag.required and values[flag.field] in ("", None):
            parser.error(f"--{flag.name} (or {flag.variable}) is required: {flag.help}")
    if values["imex_isolation"] == "channel":
        parser.error("--imex-isolation=channel does not exist yet; use domain")
    try:
        return _options(values)
    except (GateError, ValueError) as error:
        parser.error(str(error))


def _options(values: Mapping[str, Any]) -> Options:
    election = LeaseTimes(
        lease_duration_s=values["leader_election_lease_duration"],
        renew_deadline_s=values["leader_election_renew_deadline"],
        retry_period_s=values["leader_election_retry_period"],
    )
    return Options(
        pod_name=values["pod_name"],
        settings=_settings(values),
        election=election if values["leader_election_enabled"] else None,
        lease_name=values["leader_election_lease_lock_name"],
        lease_namespace=values["leader_election_lease_lock_namespace"],
        http_endpoint=values["http_endpoint"],
        metrics_path=values["metrics_path"],
        kubeconfig=values["kubeconfig"],
        service_account_dir=values["service_account_dir"],
        lifecycle=values["lifecycle"],
        logging_format=values["logging_format"],
        verbosity=values["verbosity"],
    )


def _settings(values: Mapping[str, Any]) -> DriverSettings:
    gates = FeatureGates.parse(values["feature_gates"])
    host_managed = values["imex_mode"] == "hostManaged"
    if host_managed and not gates["HostManagedIMEXDaemon"]:
        raise ValueError(
            "--imex-mode=hostManaged needs the feature gate HostManagedIMEXDaemon=true"
        )
    return DriverSettings(
        namespace=values["namespace"],
        image=values["image_name"],
        pull_secrets=values["cd_daemon_image_pull_secret_names"],
        additional_namespaces=values["additional_namespaces"],
        daemon_verbosity=values["log_verbosity_cd_daemon"],
        max_nodes=values["max_nodes_per_imex_domain"],
        host_managed=host_managed,
        gates=gates,
    )


def _parser(environ: Mapping[str, str], version: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nvdra-controller",
        description="Makes ComputeDomains: their objects, their cliques and their status.",
        allow_abbrev=False,
    )
    for flag in FLAGS:
        default = environ.get(flag.variable) or flag.default
        optional = flag.required and not default
        parser.add_argument(
            f"--{flag.name}",
            dest=flag.field,
            type=flag.parse,
            default=None if optional else default,
            metavar="VALUE",
            help=_help(flag).replace("%", "%%"),
        )
    parser.add_argument(
        "-v",
        dest="verbosity",
        type=_number(0, 10),
        default=environ.get("LOG_VERBOSITY") or "4",
        metavar="N",
        help="Log verbosity 0-10: 0 only what is wrong, 4 what is done (default), 6 every call. "
        "[LOG_VERBOSITY]",
    )
    for name in NO_EFFECT:
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"nvdra {version}")
    return parser


def _help(flag: Flag) -> str:
    default = f" Default: {flag.default}." if flag.default else ""
    return f"{flag.help}{default} [{flag.variable}]"
