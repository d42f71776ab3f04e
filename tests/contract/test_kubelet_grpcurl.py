"""grpc-go, the kubelet's own gRPC library, talks to the driver's sockets through grpcurl."""

from __future__ import annotations

import asyncio
import json
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import nvdra_nodeagent.kubelet.proto as proto
from nvdra_nodeagent.claims.model import PreparedDevice
from nvdra_testing.kubelet import ScriptedClaims, a_plugin

GRPCURL = shutil.which("grpcurl", path=sysconfig.get_path("scripts")) or shutil.which("grpcurl")
PROTO_DIR = Path(next(iter(proto.__path__)))


async def grpcurl(socket: Path, proto_file: str, method: str, body: dict[str, Any]) -> Any:
    assert GRPCURL, "grpcurl is missing: install the test dependency group"
    process = await asyncio.create_subprocess_exec(
        GRPCURL,
        *("-plaintext", "-unix", "-import-path", str(PROTO_DIR), "-proto", proto_file),
        *("-d", json.dumps(body), str(socket), method),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


async def test_grpc_go_reads_the_plugin_info(tmp_path: Path) -> None:
    async with a_plugin(tmp_path, ScriptedClaims()) as plugin:
        info = await grpcurl(
            plugin.registration_socket,
            "registration.proto",
            "pluginregistration.Registration/GetInfo",
            {},
        )
    assert info["name"] == "gpu.nvidia.com"
    assert info["supportedVersions"] == ["v1.DRAPlugin", "v1beta1.DRAPlugin"]


async def test_grpc_go_prepares_a_claim(tmp_path: Path) -> None:
    device = PreparedDevice(requests=("gpu",), pool="n", device="gpu-3", cdi_ids=("v/c=d",))
    async with a_plugin(tmp_path, ScriptedClaims({"one": (device,)})) as plugin:
        answer = await grpcurl(
            plugin.endpoint,
            "dra_v1.proto",
            "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources",
            {"claims": [{"namespace": "default", "name": "one", "uid": "u1"}]},
        )
    assert answer["claims"]["u1"]["devices"] == [
        {"requestNames": ["gpu"], "poolName": "n", "deviceName": "gpu-3", "cdiDeviceIds": ["v/c=d"]}
    ]
