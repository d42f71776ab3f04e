"""Names of the files that an installed NVIDIA driver has, below its root."""

from __future__ import annotations

from typing import Final

LIBRARIES: Final = {
    "libcuda": "1",
    "libnvidia-ml": "1",
    "libcudadebugger": "1",
    "libnvcuvid": "1",
    "libnvidia-allocator": "1",
    "libnvidia-cfg": "1",
    "libnvidia-encode": "1",
    "libnvidia-fbc": "1",
    "libnvidia-ngx": "1",
    "libnvidia-nvvm": "4",
    "libnvidia-opencl": "1",
    "libnvidia-opticalflow": "1",
    "libnvidia-ptxjitcompiler": "1",
    "libnvidia-sandboxutils": "1",
    "libnvoptix": "1",
    "libEGL_nvidia": "0",
    "libGLESv1_CM_nvidia": "1",
    "libGLESv2_nvidia": "2",
    "libGLX_nvidia": "0",
    "vdpau/libvdpau_nvidia": "1",
}
"""Libraries named after the driver's version, and the number in their SONAME."""

PLAIN_LIBRARIES: Final = (
    "libnvidia-eglcore",
    "libnvidia-glcore",
    "libnvidia-glsi",
    "libnvidia-glvkspirv",
    "libnvidia-gpucomp",
    "libnvidia-pkcs11-openssl3",
    "libnvidia-rtcore",
    "libnvidia-tls",
)
"""Libraries that others load by their full name."""

BINARIES: Final = (
    "nvidia-cuda-mps-control",
    "nvidia-cuda-mps-server",
    "nvidia-debugdump",
    "nvidia-imex",
    "nvidia-imex-ctl",
    "nvidia-persistenced",
)

CONFIG_FILES: Final = (
    "etc/vulkan/icd.d/nvidia_icd.json",
    "etc/vulkan/implicit_layer.d/nvidia_layers.json",
    "usr/share/egl/egl_external_platform.d/15_nvidia_gbm.json",
    "usr/share/glvnd/egl_vendor.d/10_nvidia.json",
    "usr/share/nvidia/nvoptix.bin",
)
