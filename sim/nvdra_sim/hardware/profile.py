"""Hardware profiles: what a kind of node has in it, as data beside this module.

Figures come from NVIDIA's public product pages and MIG user guide; memory and processors of MIG
instances as `nvidia-smi mig -lgip` prints them. A profile's `notes` say where it estimates.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from nvdra_sim.hardware.checks import profile_problems
from nvdra_sim.hardware.errors import BadProfile, UnknownProfile

MIB = 1024 * 1024
FIRST_ARCHITECTURE_WITHOUT_RESET = 9  # Hopper changes its MIG mode without a GPU reset

_PROFILES = Path(__file__).with_name("profiles")

Positive = Annotated[int, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class GpuSlot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where one GPU sits. `bus_id` in NVML's spelling, `root` the PCI root complex above it."""

    bus_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-F]{8}:[0-9A-F]{2}:[0-9A-F]{2}\.[0-7]$")]
    root: Annotated[str, msgspec.Meta(pattern=r"^pci[0-9a-f]{4}:[0-9a-f]{2}$")]
    numa_node: Annotated[int, msgspec.Meta(ge=-1)]
    minor: Count


class MigProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A GPU instance profile. `index` is NVML's enum value, `id` what instances carry.

    An instance covers `size` memory slices, beginning at one of `starts`.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[1-9]g\.[0-9]+gb([+-][a-z.]+)?$")]
    index: Annotated[int, msgspec.Meta(ge=0, le=17)]
    id: Count
    slices: Positive
    instances: Positive
    size: Positive
    starts: tuple[Count, ...]
    memory_mib: Positive
    multiprocessors: Positive
    copy_engines: Count
    decoders: Count
    encoders: Count
    jpeg_engines: Count
    ofa_engines: Count


class MigTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a GPU can be cut."""

    memory_slices: Positive
    compute_slices: Positive
    profiles: tuple[MigProfile, ...]

    def named(self, name: str) -> MigProfile | None:
        return next((profile for profile in self.profiles if profile.name == name), None)

    def with_id(self, profile_id: int) -> MigProfile:
        return next(profile for profile in self.profiles if profile.id == profile_id)

    def variants(self, size: int) -> tuple[MigProfile, ...]:
        """The profiles that compete for placements of this size, in NVML's order."""
        found = (profile for profile in self.profiles if profile.size == size)
        return tuple(sorted(found, key=lambda profile: profile.index))


class Fabric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The NVLink fabric across machines that the GPUs are part of: an NVLink partition."""

    cluster: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    clique: Count


class Majors(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """Major numbers of the machine's character devices; by default what is usual on real ones."""

    nvidia: Positive = 195
    drm: Positive = 226
    nvidia_caps_imex_channels: Positive = 234
    nvidia_caps: Positive = 236
    nvidia_uvm: Positive = 237

    def by_driver(self) -> dict[str, int]:
        """As `/proc/devices` names the drivers."""
        found: dict[str, int] = msgspec.to_builtins(self)
        return found


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of node: all its GPUs are of the same product and listed in PCI order."""

    name: str
    product: str
    notes: str
    memory_mib: Positive
    architecture: Positive
    brand: Count
    compute_capability: tuple[Positive, Count]
    addressing_mode: Literal[0, 1, 2] | None  # None: the driver does not know the call
    pci_device_id: Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-f]{4}$")]
    power_limit_w: Positive
    machine: Literal["x86_64", "aarch64"]
    driver_version: Annotated[str, msgspec.Meta(pattern=r"^\d+\.\d+(\.\d+)?$")]
    cuda_version: Positive
    gpus: Annotated[tuple[GpuSlot, ...], msgspec.Meta(min_length=1)]
    mig: MigTable | None = None
    fabric: Fabric | None = None  # None: the driver answers that it is not supported
    majors: Majors = msgspec.field(default_factory=Majors)

    @property
    def memory_bytes(self) -> int:
        return self.memory_mib * MIB

    @property
    def cuda_text(self) -> str:
        return f"{self.cuda_version // 1000}.{self.cuda_version % 1000 // 10}"

    @property
    def mig_mode_needs_reset(self) -> bool:
        return self.architecture < FIRST_ARCHITECTURE_WITHOUT_RESET


# Decoders are built on import: two threads that build one at once crash the process.
_decode = msgspec.json.Decoder(Profile).decode


def profile_names() -> tuple[str, ...]:
    """The profiles that come with the simulator, sorted."""
    return tuple(sorted(path.stem for path in _PROFILES.glob("*.json")))


@functools.lru_cache(maxsize=8)
def load_profile(name: str) -> Profile:
    """The profile of that name, or the one in the file if `name` is a path ending in `.json`.

    :raises UnknownProfile: there is none.
    :raises BadProfile: it does not decode strictly, or contradicts itself.
    """
    path = Path(name) if name.endswith(".json") else _PROFILES / f"{name}.json"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UnknownProfile(name, known=profile_names()) from error
    try:
        profile = _decode(raw)
    except msgspec.MsgspecError as error:
        raise BadProfile(name, problems=[str(error)]) from error
    if problems := profile_problems(profile):
        raise BadProfile(name, problems=problems)
    return profile
