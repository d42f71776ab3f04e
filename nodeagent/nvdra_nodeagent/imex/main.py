"""Entry point of `nvdra-imex-daemon`."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys

from nvdra_nodeagent.imex.daemon import Daemon
from nvdra_nodeagent.imex.logs import Log, level_of
from nvdra_nodeagent.imex.options import Options, read_options
from nvdra_nodeagent.imex.reactor import Signals


def main() -> None:
    """Exit status 0 after SIGTERM in whatever state; `check` says by it whether all is well."""
    options = read_options(sys.argv[1:], os.environ)
    if options.command == "check":
        from nvdra_nodeagent.imex.checking import check

        sys.exit(check(options.address, options.probe_port))
    serve(options)


def serve(options: Options) -> None:
    """Run the daemon until a signal ends it."""
    # As first process of a container it would not be stopped by signals that nobody handles.
    signals = Signals((signal.SIGTERM, signal.SIGINT, signal.SIGCHLD))
    log = Log(level_of(options.verbosity), form=options.log_format)
    _dump_stacks_on_signal(options.stacks, log)
    log.info("daemon started", domain=options.domain, clique=options.clique, pid=os.getpid())
    Daemon(options, signals=signals, log=log).run()
    log.info("daemon ended")


def _dump_stacks_on_signal(path: str, log: Log) -> None:
    """SIGUSR2 writes where the program is, also when its loop hangs."""
    try:
        file = open(path, "w")  # noqa: SIM115, PTH123 - open as long as the program runs
    except OSError as error:
        log.warning("stacks go to standard error", file=path, cause=error)
        faulthandler.register(signal.SIGUSR2, file=2, all_threads=True)
        return
    faulthandler.register(signal.SIGUSR2, file=file, all_threads=True)
