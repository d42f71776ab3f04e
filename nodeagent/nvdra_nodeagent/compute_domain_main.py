"""Entry point of `nvdra-compute-domain-plugin`."""

from __future__ import annotations

import os
import sys

from nvdra_api.names import COMPUTE_DOMAIN_DRIVER
from nvdra_nodeagent import __version__
from nvdra_nodeagent.computedomain.agent import DomainAgent
from nvdra_nodeagent.computedomain.devices import DEVICE_TYPES
from nvdra_nodeagent.computedomain.options import parse_domain_options
from nvdra_nodeagent.main import Driver, run_program, this_boot


def compute_domain_plugin() -> None:
    """Exit status 0 after a stop signal, 1 on failure, 2 on bad options."""
    if sys.argv[1:2] == ["export-checkpoint"]:
        from nvdra_nodeagent.computedomain.export import main as export

        sys.exit(export(sys.argv[2:], environ=os.environ, boot_id=this_boot()))
    options = parse_domain_options(sys.argv[1:], environ=os.environ, version=__version__)
    driver = Driver(COMPUTE_DOMAIN_DRIVER, "nvdra-compute-domain-plugin", DEVICE_TYPES)
    run_program(options.common, driver, lambda node: DomainAgent(options, **node))


if __name__ == "__main__":
    compute_domain_plugin()
