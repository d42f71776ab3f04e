"""The registration service: tells the kubelet who we are and where the DRA socket is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from nvdra_nodeagent.kubelet.proto import registration_pb2 as messages
from nvdra_nodeagent.kubelet.proto.registration_grpc import RegistrationBase

if TYPE_CHECKING:
    from pathlib import Path

    from grpclib.server import Stream

log = structlog.get_logger(__name__)

DRA_SERVICES = ("v1.DRAPlugin", "v1beta1.DRAPlugin")
"""Kubelets from 1.34 take the first entry that they know: newest first."""


class Registration(RegistrationBase):
    """`pluginregistration.Registration` for one driver."""

    def __init__(self, *, driver: str, endpoint: Path) -> None:
        self._driver = driver
        self._endpoint = endpoint
        self.registered = asyncio.Event()
        self.refusal = ""

    async def GetInfo(self, stream: Stream[messages.InfoRequest, messages.PluginInfo]) -> None:
        await stream.recv_message()
        await stream.send_message(
            messages.PluginInfo(
                type="DRAPlugin",
                name=self._driver,
                endpoint=str(self._endpoint),
                supported_versions=DRA_SERVICES,
            )
        )

    async def NotifyRegistrationStatus(
        self, stream: Stream[messages.RegistrationStatus, messages.RegistrationStatusResponse]
    ) -> None:
        status = await stream.recv_message()
        if status is not None:
            self._note(status)
        await stream.send_message(messages.RegistrationStatusResponse())

    def _note(self, status: messages.RegistrationStatus) -> None:
        if status.plugin_registered:
            self.refusal = ""
            self.registered.set()
            log.info("registered with the kubelet", driver=self._driver)
        else:
            self.refusal = status.error or "the kubelet gave no reason"
            self.registered.clear()
            log.error("the kubelet refused the driver", driver=self._driver, cause=self.refusal)
