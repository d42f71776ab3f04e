"""From records of channels and daemons to the checkpoint that an earlier driver goes on with."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from nvdra_api.configs import (
    ComputeDomainChannelConfig,
    ComputeDomainDaemonConfig,
    encode_config,
)
from nvdra_api.domains import ALLOCATION_ALL, ALLOCATION_SINGLE
from nvdra_api.names import COMPUTE_DOMAIN_DRIVER
from nvdra_nodeagent.cdi.names import DOMAIN_CLAIM_KIND
from nvdra_nodeagent.checkpoint import command
from nvdra_nodeagent.checkpoint.document import (
    COMPLETED,
    ClaimEntry,
    ConfigState,
    Group,
    PlaceInfo,
    PreparedChannel,
    PreparedDaemon,
    PreparedEntry,
)
from nvdra_nodeagent.checkpoint.export import (
    Inexpressible,
    a_config,
    answered,
    check_complete,
    status_of,
)
from nvdra_nodeagent.computedomain.devices import DAEMON, find_device
from nvdra_nodeagent.steps.domain_cdi import ChannelCdiStep
from nvdra_nodeagent.steps.domain_dir import DomainDirStep
from nvdra_nodeagent.steps.domain_ready import DomainReadyStep
from nvdra_nodeagent.steps.node_label import NodeLabelStep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvdra_nodeagent.claims.record import HeldDevice, Record

_Config = ComputeDomainChannelConfig | ComputeDomainDaemonConfig


def express_place(record: Record, *, driver: str, boot_id: str, seen: Sequence[str]) -> ClaimEntry:
    """An `Express`. That driver takes domain and mode from the config when it undoes the claim."""
    check_complete(record, boot_id=boot_id, seen=seen)
    config = _config(record)
    (held,) = record.devices
    parameters = encode_config(config)
    state = ConfigState(type=parameters["kind"], domain=config.domain_id)
    return ClaimEntry(
        state=COMPLETED,
        status=status_of(
            record, driver=driver, configs=(a_config(held.request, driver, parameters),)
        ),
        groups=(Group((_prepared(held),), state),),
    )


def _config(record: Record) -> _Config:
    """What the claim asked for, from what was done for it."""
    domain, mode = "", ALLOCATION_SINGLE
    for entry in record.steps:
        match entry.step:
            case DomainDirStep():
                return ComputeDomainDaemonConfig(domain_id=entry.step.domain)
            case NodeLabelStep():
                domain = entry.step.domain
            case DomainReadyStep() if entry.result is None:
                raise Inexpressible("it is not prepared completely: it waits for its domain")
            case ChannelCdiStep() if entry.step.count > 1:
                mode = ALLOCATION_ALL
    if not domain:
        raise Inexpressible("the hosts run nvidia-imex, and its node is in no domain")
    return ComputeDomainChannelConfig(domain_id=domain, allocation_mode=mode)


def _prepared(held: HeldDevice) -> PreparedEntry:
    device = find_device(held.device)
    if device is None:
        raise Inexpressible(f"{held.device} is no device of the driver")
    if device == DAEMON:
        daemon = PreparedDaemon(PlaceInfo(device.number), answered(held))
        return PreparedEntry(gpu=UNSET, mig=UNSET, channel=None, daemon=daemon)
    channel = PreparedChannel(PlaceInfo(device.number), answered(held))
    return PreparedEntry(gpu=UNSET, mig=UNSET, channel=channel, daemon=None)


EXPORTER: Final = command.Exporter(
    "nvdra-compute-domain-plugin", COMPUTE_DOMAIN_DRIVER, DOMAIN_CLAIM_KIND, express_place
)
main = partial(command.main, exporter=EXPORTER)
"""As `command.main`."""
