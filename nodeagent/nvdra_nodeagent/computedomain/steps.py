"""Which handlers make the steps of ComputeDomains true on a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nvdra_nodeagent.computedomain.marks import NodeObject
from nvdra_nodeagent.computedomain.readiness import NodeReadiness, domains_of_others
from nvdra_nodeagent.steps.domain_cdi import ChannelCdiStep, DaemonCdiStep, DomainCdiHandler
from nvdra_nodeagent.steps.domain_dir import DomainDirHandler, DomainDirStep
from nvdra_nodeagent.steps.domain_ready import DomainReadyHandler, DomainReadyStep, Readiness
from nvdra_nodeagent.steps.node_label import NodeLabelHandler, NodeLabelStep

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nvdra_kube.api import KubeApi
    from nvdra_nodeagent.claims.record import Record
    from nvdra_nodeagent.computedomain.asking import LoopCaller
    from nvdra_nodeagent.computedomain.cdi_files import DomainCdiFiles
    from nvdra_nodeagent.computedomain.directories import DomainDirectories
    from nvdra_nodeagent.computedomain.host_imex import HostImex
    from nvdra_nodeagent.steps.domain_ready import WaitOutcome
    from nvdra_nodeagent.steps.registry import AnyStep, StepHandler


class DomainSteps:
    """Handlers of the steps that this driver alone has: an `OwnSteps`."""

    def __init__(
        self,
        api: KubeApi,
        *,
        directories: DomainDirectories,
        cdi: DomainCdiFiles,
        node: str,
        boot_id: str,
        loop: LoopCaller,
        host: HostImex | None,
        on_wait: Callable[[WaitOutcome, float], None],
        is_doubtful: Callable[[str], bool],
    ) -> None:
        """`on_wait` as `DomainReadyHandler` tells the ends of waits, `is_doubtful` as
        `NodeLabelHandler` asks for domains."""
        self._host = host
        self._is_doubtful = is_doubtful
        self._on_wait = on_wait
        self._api = api
        self._directories = directories
        self._cdi = cdi
        self._node = node
        self._boot_id = boot_id
        self._loop = loop

    def __call__(
        self, records: Callable[[], Sequence[Record]]
    ) -> Mapping[type[AnyStep], StepHandler[Any]]:
        readiness: Readiness = self._host or NodeReadiness(
            self._directories,
            self._api,
            records=records,
            node=self._node,
            boot_id=self._boot_id,
            loop=self._loop,
        )
        files = DomainCdiHandler(self._cdi)
        return {
            NodeLabelStep: NodeLabelHandler(
                NodeObject(self._api, node=self._node, loop=self._loop),
                domains_of_others=lambda uid: domains_of_others(records(), uid),
                is_doubtful=self._is_doubtful,
            ),
            DomainReadyStep: DomainReadyHandler(readiness.obstacle, on_end=self._on_wait),
            DomainDirStep: DomainDirHandler(self._directories),
            ChannelCdiStep: files,
            DaemonCdiStep: files,
        }
