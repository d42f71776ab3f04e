"""What daemons of the driver dra-driver-nvidia-gpu find in their directory when they start.

They fill in the address and put the result beside it; everything else of theirs is in the API.
"""

from __future__ import annotations

from typing import Final

EARLIER_TEMPLATE_FILE: Final = "imexd.cfg.tmpl"

_KEYS: Final = {
    "LOG_LEVEL": "4",
    "LOG_FILE_NAME": "",
    "STATS_FILE_NAME": "/var/log/nvidia-imex-stats.log",
    "LOG_APPEND_TO_LOG": "0",
    "LOG_FILE_MAX_SIZE": "1024",
    "LOG_MAX_ROTATE_COUNT": "10",
    "LOG_USE_SYSLOG": "0",
    "DAEMONIZE": "0",
    "BIND_INTERFACE_IP": "",
    "NETWORK_INTERFACE": "",
    "SERVER_PORT": "50000",
    "IMEX_NODE_CONFIG_FILE": "/imexd/nodes.cfg",
    "IMEX_WAIT_FOR_QUORUM": "RECOVERY",
    "IMEX_ENABLE_AUTH_ENCRYPTION": "0",
    "IMEX_AUTH_ENCRYPTION_MODE": "SSL_TLS",
    "IMEX_CMD_ENABLED": "1",
    "IMEX_CMD_BIND_INTERFACE_IP": "{{ .IMEXCmdBindInterfaceIP }}",
    "IMEX_CMD_PORT": "50005",
    "IMEX_CMD_UNIX_DOMAIN_PATH": "",
    "IMEX_NODE_DISCONNECTED_GRACE_TIME": "-1",
}

EARLIER_TEMPLATE: Final = "".join(f"{key}={value}\n" for key, value in _KEYS.items()).encode()
