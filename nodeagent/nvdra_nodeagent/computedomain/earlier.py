"""What daemons of the driver dra-driver-nvidia-gpu find in their directory when they start.

They fill in the address (the placeholder is that of a Go template, and the name that of the field
which they fill in, since 25.3) and put the result beside it; everything else of theirs is in the
API.
"""

from __future__ import annotations

from typing import Final

from nvdra_nodeagent.imex.rendering import NODES_FILE, configuration

EARLIER_TEMPLATE_FILE: Final = "imexd.cfg.tmpl"
EARLIER_TEMPLATE: Final = configuration(
    address="{{ .IMEXCmdBindInterfaceIP }}", nodes_path=f"/imexd/{NODES_FILE}"
).encode()
