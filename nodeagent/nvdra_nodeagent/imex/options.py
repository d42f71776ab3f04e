"""How the daemon is started: by environment variables, or by flags of the same meaning."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

from nvdra_nodeagent.imex.inputs import usual_address
from nvdra_nodeagent.imex.lifecycle import Timings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROBE_PORT: Final = 50006
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"


class Options(NamedTuple):
    """Where things are and whose daemon this is. `clique` is None where nobody says.

    `claim_uid` and `boot_id` make the daemon refuse any other settings; without them it accepts
    the first claim it finds, and settings of the node's present boot.
    """

    command: str = "run"
    directory: str = "/imexd"
    hosts: str = "/etc/hosts"
    imex: str = "nvidia-imex"
    control: str = "nvidia-imex-ctl"
    address: str = ""
    probe_port: int = PROBE_PORT
    domain: str = ""
    clique: str | None = None
    claim_uid: str = ""
    boot_id: str = ""
    stacks: str = "/tmp/nvdra-stacks.dump"
    verbosity: int = 4
    log_format: str = "text"
    timings: Timings = Timings()


class _Flag(NamedTuple):
    option: str
    variable: str
    help: str


_FLAGS: Final = (
    _Flag("directory", "IMEX_DIRECTORY", "Directory shared with the node agent."),
    _Flag("hosts", "HOSTS_FILE", "The pod's hosts file."),
    _Flag("imex", "NVIDIA_IMEX", "Name or path of nvidia-imex."),
    _Flag("control", "NVIDIA_IMEX_CTL", "Name or path of nvidia-imex-ctl."),
    _Flag("address", "POD_IP", "The pod's address; probes are answered there."),
    _Flag("probe-port", "PROBE_PORT", "Port of the probes."),
    _Flag("domain", "COMPUTE_DOMAIN_UUID", "UID of the ComputeDomain."),
    _Flag("clique", "CLIQUE_ID", "NVLink clique of the node; empty where it has none."),
    _Flag("claim-uid", "COMPUTE_DOMAIN_CLAIM_UID", "UID of the daemon's claim."),
    _Flag("boot-id", "COMPUTE_DOMAIN_BOOT_ID", "The node's boot, if it is not this machine's."),
    _Flag("stacks", "STACKS_FILE", "File that SIGUSR2 writes stacks to."),
    _Flag("verbosity", "LOG_VERBOSITY", "0 only what is wrong, 4 what is done, 6 also why."),
    _Flag("log-format", "LOG_FORMAT", "text or json."),
)


def read_options(arguments: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Flags win over variables; exits with a message when a value is impossible."""
    values = {
        flag.option.replace("-", "_"): environ[flag.variable]
        for flag in _FLAGS
        if flag.variable in environ
    }
    if arguments:
        values |= _parsed(arguments)
    try:
        return _typed(values)
    except ValueError as error:
        sys.exit(f"nvdra-imex-daemon: {error}")


def _parsed(arguments: Sequence[str]) -> dict[str, str]:
    import argparse  # only here: the daemon's pod passes no flags, and needs none of its memory

    parser = argparse.ArgumentParser(
        prog="nvdra-imex-daemon",
        description="Runs nvidia-imex for one ComputeDomain on one node.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=("run", "check"),
        help="run (default); check asks a running daemon whether it is ready",
    )
    for flag in _FLAGS:
        names = ["-v"] if flag.option == "verbosity" else []
        text = f"{flag.help} [{flag.variable}]"
        parser.add_argument(*names, f"--{flag.option}", metavar="VALUE", help=text)
    given = vars(parser.parse_args(arguments))
    return {name: value for name, value in given.items() if value is not None}


def _typed(values: Mapping[str, str]) -> Options:
    numbers = {
        name: _number(name, values[name])
        for name in ("probe_port", "verbosity")
        if values.get(name)
    }
    texts = {name: value for name, value in values.items() if value or name == "clique"}
    merged: dict[str, object] = {**texts, **numbers}
    for name in ("probe_port", "verbosity"):
        if not values.get(name):
            merged.pop(name, None)
    options = Options(**merged)  # type: ignore[arg-type]
    if options.log_format not in ("text", "json"):
        raise ValueError(f"log format is text or json, not {options.log_format!r}")
    address = options.address and usual_address(options.address)
    if options.address and not address:
        raise ValueError(f"address {options.address!r} is no IP address")
    return options._replace(address=address, boot_id=options.boot_id or _boot_id())


def _number(name: str, text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{name} is {text!r}, and has to be a number")
    return int(text)


def _boot_id() -> str:
    """Empty where the kernel does not say: then settings of any boot are accepted."""
    try:
        descriptor = os.open(_BOOT_ID, os.O_RDONLY)
    except OSError:
        return ""
    try:
        return os.read(descriptor, 64).decode().strip()
    finally:
        os.close(descriptor)
