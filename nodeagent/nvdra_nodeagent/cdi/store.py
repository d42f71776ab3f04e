"""The CDI files of one driver's claims: one file per claim in the runtime's CDI directory.

Two files that name the same device make it unresolvable, so every claim's file has one name only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nvdra_nodeagent.cdi.document import decode_spec, encode_spec
from nvdra_nodeagent.cdi.names import (
    GPU_CLAIM_KIND,
    claim_file_prefix,
    devices_named_in,
    is_claim_uid,
)
from nvdra_nodeagent.durable import (
    find_temporaries,
    remove_with_temporaries,
    storage_error,
    write_durably,
)
from nvdra_nodeagent.errors import Permanent

if TYPE_CHECKING:
    from pathlib import Path

    from nvdra_nodeagent.cdi.document import CdiSpec

_SUFFIX: Final = ".yaml"
_MODE: Final = 0o644


class CdiStore:
    """Files below `root`, which may be missing until the first write. Calls block.

    All raise `Retryable` (`StorageUnwritable`, `DiskFull`) with the path when the disk refuses,
    and `Permanent` (`InvalidUid`) for a UID that cannot be part of a file name.
    """

    def __init__(self, root: Path, *, kind: str = GPU_CLAIM_KIND) -> None:
        self._root = root
        self._prefix = claim_file_prefix(kind)

    def path(self, claim_uid: str) -> Path:
        """Where the claim's file is or would be."""
        if not is_claim_uid(claim_uid):
            raise Permanent("InvalidUid", f"{claim_uid!r} is not the UID of a claim")
        return self._root / f"{self._prefix}{claim_uid}{_SUFFIX}"

    def write(self, claim_uid: str, spec: CdiSpec) -> None:
        """Write or replace the claim's file, durably and as a whole."""
        write_durably(self.path(claim_uid), encode_spec(spec), mode=_MODE)

    def read(self, claim_uid: str) -> CdiSpec | None:
        """The claim's document; None when there is no file, or none that this agent wrote."""
        path = self.path(claim_uid)
        try:
            return decode_spec(path.read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        except OSError as error:
            raise storage_error("read", path, error) from error

    def device_names(self, claim_uid: str) -> list[str]:
        """The devices that the claim's file has entries for, whoever wrote it."""
        path = self.path(claim_uid)
        try:
            return devices_named_in(path.read_bytes(), claim_uid)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise storage_error("read", path, error) from error

    def holds(self, claim_uid: str, spec: CdiSpec) -> bool:
        """Whether the claim's file is exactly what `write` makes of `spec`."""
        path = self.path(claim_uid)
        try:
            return path.read_bytes() == encode_spec(spec)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise storage_error("read", path, error) from error

    def remove(self, claim_uid: str) -> bool:
        """Remove the claim's file; False when there was none."""
        return remove_with_temporaries(self.path(claim_uid))

    def claim_uids(self) -> list[str]:
        """The claims that have a file, in order."""
        try:
            names = [path.name for path in self._root.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise storage_error("list", self._root, error) from error
        uids = (
            name.removeprefix(self._prefix).removesuffix(_SUFFIX)
            for name in names
            if name.startswith(self._prefix) and name.endswith(_SUFFIX)
        )
        return sorted(uid for uid in uids if is_claim_uid(uid))

    def find_temporaries(self, *, older_than_s: float) -> list[Path]:
        """What writers of these files left when they died."""
        return find_temporaries(self._root, older_than_s=older_than_s, of_files=self._prefix)
