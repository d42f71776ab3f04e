"""Values that people install the chart with: one entry for each thing that they change."""

from __future__ import annotations

from typing import Any, Final

MATRIX: Final[dict[str, dict[str, Any]]] = {
    "defaults": {},
    "simulated": {"simulation": {"enabled": True}},
    "simulated MIG": {
        "simulation": {
            "enabled": True,
            "migLayout": "a",
            "migLayouts": {"version": "v1", "mig-configs": {"a": []}},
        }
    },
    "operator's driver": {"nvidiaDriverRoot": "/run/nvidia/driver", "altProcDevices": "/x/devices"},
    "own hook": {"nvidiaCDIHookPath": "/usr/bin/nvidia-ctk"},
    "no probes": {"kubeletPlugin": {"containers": {"gpus": {"healthcheckPort": 0}}}},
    "no metrics": {"kubeletPlugin": {"metrics": {"enabled": False}}},
    "no endpoint": {"kubeletPlugin": {"metrics": None}},
    "masked": {"maskNvidiaDriverParams": True},
    "gates": {"featureGates": {"TimeSlicingSettings": True, "DynamicMIG": False}},
    "old cluster": {"resourceApiVersion": "resource.k8s.io/v1beta1"},
    "network policy": {"kubeletPlugin": {"networkPolicy": {"enabled": True}}},
    "own account": {"serviceAccount": {"create": False, "name": "mine"}},
    "pull secret": {"imagePullSecrets": [{"name": "s"}], "image": {"repository": "r", "tag": "t"}},
    "gpus only": {"resources": {"computeDomains": {"enabled": False}}},
    "compute domains only": {"resources": {"gpus": {"enabled": False}}},
    "own IMEX daemons": {
        "resources": {"computeDomains": {"imex": {"mode": "hostManaged"}}},
        "featureGates": {"HostManagedIMEXDaemon": True},
    },
    "replicas": {
        "controller": {
            "replicas": 2,
            "affinity": None,
            "leaderElection": {"leaseDuration": "6s", "renewDeadline": "4s", "retryPeriod": "1s"},
            "networkPolicy": {"enabled": True},
        }
    },
    "own controller": {
        "logVerbosityCDDaemon": 6,
        "resources": {
            "computeDomains": {
                "rightsForEarlierDaemons": False,
                "imex": {"maxNodesPerIMEXDomain": 9},
            }
        },
        "controller": {
            "metrics": {"enabled": False},
            "podAnnotations": {"a": "b"},
            "podSecurityContext": {"fsGroup": 1},
            "nodeSelector": {"a": "b"},
            "priorityClassName": "",
            "tolerations": [],
            "containers": {
                "computeDomain": {
                    "env": [{"name": "LOGGING_FORMAT", "value": "json"}],
                    "securityContext": {"readOnlyRootFilesystem": False},
                    "resources": {"limits": {"memory": "200Mi"}},
                }
            },
        },
    },
    "clique label": {
        "kubeletPlugin": {"containers": {"computeDomains": {"gpuCliqueLabelEnabled": True}}}
    },
    "own pod": {
        "kubeletPlugin": {
            "podAnnotations": {"a": "b"},
            "podSecurityContext": {"seLinuxOptions": {"type": "spc_t"}},
            "nodeSelector": {"gpu": "yes"},
            "priorityClassName": "",
            "containers": {"gpus": {"resources": {"limits": {"memory": "200Mi"}}}},
        }
    },
}
