"""An embedded Kubernetes API server: the store, the API in process, and its HTTPS front."""

from nvdra_sim.cluster.apiserver.faults import Fault
from nvdra_sim.cluster.apiserver.https.server import ApiServer
from nvdra_sim.cluster.apiserver.local import LocalApi
from nvdra_sim.cluster.apiserver.store import ClusterStore

__all__ = ["ApiServer", "ClusterStore", "Fault", "LocalApi"]
