"""Who may talk to the API server: static tokens, one kubeconfig for each user.

The API server makes its own serving certificate; that file is every client's CA.
"""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .processes import run

if TYPE_CHECKING:
    from pathlib import Path

_GROUPS = {"admin": "system:masters"}


def node_user(node: str) -> str:
    return f"system:node:{node}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """The folder with keys, tokens and kubeconfigs of one cluster."""

    folder: Path
    tokens: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, *, nodes: list[str]) -> Credentials:
        folder.mkdir(parents=True, exist_ok=True)
        users = ["admin", "system:kube-scheduler", "system:kube-proxy", *map(node_user, nodes)]
        made = cls(folder, {user: secrets.token_hex(16) for user in users})
        run(["openssl", "genrsa", "-out", made.signing_key, "2048"])
        made.tokens_file.touch(mode=0o600)
        made.tokens_file.write_text("".join(map(made._line, users)))
        return made

    @property
    def signing_key(self) -> Path:
        """Signs ServiceAccount tokens."""
        return self.folder / "sa.key"

    @property
    def tokens_file(self) -> Path:
        return self.folder / "tokens.csv"

    @property
    def ca(self) -> Path:
        """There once the API server has started."""
        return self.folder / "apiserver.crt"

    def _line(self, user: str) -> str:
        group = "system:nodes" if user.startswith("system:node:") else _GROUPS.get(user, "")
        return f'{self.tokens[user]},{user},{user},"{group}"\n'

    def kubeconfig(self, user: str, *, server: str) -> str:
        """A kubeconfig (JSON is YAML) with everything inside, so that it can be copied away."""
        ca = base64.b64encode(self.ca.read_bytes()).decode()
        context = {"cluster": "ring", "user": user}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "ring",
            "clusters": [
                {"name": "ring", "cluster": {"server": server, "certificate-authority-data": ca}}
            ],
            "contexts": [{"name": "ring", "context": context}],
            "users": [{"name": user, "user": {"token": self.tokens[user]}}],
        }
        return json.dumps(config, indent=1) + "\n"
