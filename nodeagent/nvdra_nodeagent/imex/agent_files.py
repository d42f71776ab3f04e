"""The node agent's files as the daemon last could use them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_nodeagent.imex import plan, storage
from nvdra_nodeagent.imex.inputs import BadInput, read_peers, read_settings
from nvdra_nodeagent.imex.rendering import NODES_FILE

if TYPE_CHECKING:
    from nvdra_nodeagent.imex.inputs import Peers, Settings
    from nvdra_nodeagent.imex.logs import Log
    from nvdra_nodeagent.imex.plan import Desire, Halt, Identity

BAD_SETTINGS = "BadSettings"
BAD_PEERS = "BadPeers"


class AgentFiles:
    """Reads `settings.json` and `peers.json` below `directory` whenever they changed.

    A file that got worse changes nothing: what was good before counts on. The first settings that
    are beyond doubt also say whose daemon this is, where the environment does not.
    """

    def __init__(self, directory: str, identity: Identity, *, log: Log) -> None:
        self._settings_path = f"{directory}/settings.json"
        self._peers_path = f"{directory}/peers.json"
        self._nodes_path = f"{directory}/{NODES_FILE}"
        self._identity = identity
        self._log = log
        self._marks: dict[str, storage.Mark | None] = {}
        self._doubt: Halt | None = None
        self._settings_problem = self._peers_problem = ""
        self.settings: Settings | None = None
        self.peers: Peers | None = None

    @property
    def owner(self) -> Settings | None:
        """The settings, as long as the shared directory is this daemon's to write to."""
        return None if self._doubt else self.settings

    def refresh(self) -> None:
        """Look for changes; cheap when there are none."""
        if self._changed(self._settings_path):
            self._read_settings()
            self._marks.pop(self._peers_path, None)  # judged by the settings
        if self.settings is not None and self._changed(self._peers_path):
            self._read_peers(self.settings)

    def desire(self) -> Desire:
        """What has to run by what is known now."""
        if self._doubt is not None:
            return self._doubt
        if self.settings is None:
            return self._without_settings()
        wanted = plan.desire(
            self.settings, self.peers, identity=self._identity, nodes_path=self._nodes_path
        )
        if isinstance(wanted, plan.Stay) and self._peers_problem:
            return plan.Stay(BAD_PEERS, self._peers_problem)
        return wanted

    def _without_settings(self) -> Desire:
        if self._identity.clique == "":
            return plan.Halt(plan.NO_FABRIC, "the node is in no NVLink clique", idle=True)
        if self._settings_problem:
            return plan.Stay(BAD_SETTINGS, self._settings_problem)
        detail = f"{self._settings_path} is not there"
        if not self._identity.domain:
            detail += ", nor is COMPUTE_DOMAIN_UUID set: is CDI enabled in the container runtime?"
        return plan.Stay(plan.NO_SETTINGS, detail)

    def _changed(self, path: str) -> bool:
        found = storage.mark(path)
        if path in self._marks and self._marks[path] == found:
            return False
        self._marks[path] = found
        return found is not None

    def _read_settings(self) -> None:
        try:
            settings = read_settings(storage.read(self._settings_path))
        except (OSError, BadInput) as error:
            self._settings_problem = str(error)
            self._log.error("settings cannot be used", cause=error)
            return
        self._settings_problem = ""
        self._doubt = plan.doubt(settings, self._identity, accepted=self.settings is not None)
        if self._doubt is not None:
            self._log.error(
                "settings are not used", reason=self._doubt.reason, cause=self._doubt.detail
            )
            return
        self._identity = self._identity._replace(claim_uid=settings.claim_uid)
        if settings != self.settings:
            self._log.info("settings read", **settings._asdict())
        self.settings = settings

    def _read_peers(self, settings: Settings) -> None:
        try:
            peers = read_peers(storage.read(self._peers_path), settings)
        except (OSError, BadInput) as error:
            self._peers_problem = str(error)
            self._log.error("peers cannot be used", cause=error)
            return
        self._peers_problem = ""
        for problem in peers.left_out:
            self._log.error("peer left out", cause=problem)
        self._log.info(
            "peers read",
            generation=peers.generation,
            own_index=peers.own_index,
            peers=" ".join(f"{peer.slot}={peer.ip}" for peer in peers.entries),
        )
        self.peers = peers
