"""``routable-agent``: the composition root. Here, and only here, the parts are put together; `agent.start` makes them.

The order of a start: configuration, one agent per node, what the machine lacks, the journal, the list of nodes, what
the kernel knows and the journal does not, the first pass, the DELs that waited; then the socket, and last the log line
"ready". SIGTERM and SIGINT end it; pods keep working.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import gc
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from agent.config import load as configuration
from agent.config.schema import Config
from agent.keep.reconciler import Reconciler
from agent.node.ledger import Ledger
from agent.process import logs, terminal
from agent.process import outlet as outlets
from agent.process import supervisor as supervisors
from agent.process.life import Life, Living
from agent.process.machine import DEFAULT_CONFIG, exclusive, hostname, version
from agent.process.outlet import Outlet
from agent.serve.parking import Parking
from agent.start import check
from agent.start.front import STATUS_PATIENCE, Inside, connections, judging, opened, ports, serving, telling
from agent.start.ground import grounded, refuse_what_is_missing, restored
from agent.start.keeping import changing, kept
from agent.start.outside import surrounded
from agent.start.supply import Use
from agent.start.voices import voices
from cni.errors import Failure

log = logging.getLogger("agent")

_LOOK: Final = 1.0
"""Seconds between looks of the thread that waits for the end."""
_M_ARENA_MAX = -8


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal; the answer is the process's exit code."""
    parser = argparse.ArgumentParser(prog="routable-agent", description="Gives the pods of this node routable IPs.")
    parser.add_argument("--config", metavar="FILE", default=DEFAULT_CONFIG, help="default: %(default)s")
    parser.add_argument(
        "--check", action="store_true", help="say of all that a start needs whether it is there; change nothing"
    )
    parser.add_argument("--version", action="version", version=version())
    say: Callable[[str], None] = _print
    try:
        with terminal.forgiving():
            options = parser.parse_args(arguments)
            if options.check:
                return check.tell(options.config)
        config = configuration.load(options.config, hostname=hostname(os.environ))
        stderr = outlets.standard_error()
        faulthandler.enable(stderr)  # a supervisor that ends us by SIGABRT has the log say where every thread was
        life = Life()
        outlet = Outlet(outlets.to(stderr), life.die)
        logs.install(config.log.level, config.log.format, outlet)
        say = outlet.put
        # Threads share one heap instead of one each: their garbage is small, and the memory is the node's.
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
        return run(config, life, outlet)
    except Failure as failure:
        say(f"routable-agent: {failure}")
        return 1


def _print(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201


def run(config: Config, life: Life, outlet: Outlet) -> int:
    """Serve until the end of *life*; the answer is the process's exit code.

    Failure: the start is not possible, and why. Nothing that pods need was taken away by then.
    """
    most = connections()
    parking = Parking(most, patience={b"STATUS": STATUS_PATIENCE})
    with ExitStack() as parts:
        parts.enter_context(exclusive(Path(config.paths.state)))
        ground = grounded(config, parts)
        use = Use(ground.ledger, parking)
        outside = surrounded(config, ground, use)
        refuse_what_is_missing(outside.survey, ground.nft, Path(config.paths.sysctls))
        restored(ground, outside.survey)
        keeping = kept(config, ground, outside, use, life, parts)
        inside = Inside(ground, outside, keeping, changing(config, ground, outside, keeping, life))
        doors = opened(config, parts)
        note, source = keeping.repair.diary.note, outside.supply.source
        judged = judging(config, inside, doors, parking, outlet)
        said = voices(config, os.environ, source, ground.ledger, judged, note, life.die)
        status = telling(config, inside, judged, said)
        server = serving(inside, doors, parking, status, life, most)
        keeping.reconciler.once(is_whole=True)
        listening = outside.supply.listening(inside.changing.handles)
        https = ports(inside, doors, status, life)
        begun: list[Living] = [server, keeping.reconciler, *https, *listening, inside.changing.switch, *said.parts]
        live(life, begun, ground.ledger, config, keeping.reconciler)
    return life.code


def live(life: Life, served: Sequence[Living], ledger: Ledger, config: Config, reconciler: Reconciler) -> None:
    """Serve, until it is time to end."""
    supervisor = supervisors.here()
    every = min(_LOOK, supervisor.patience / 2) if supervisor.patience else _LOOK
    try:
        for part in served:
            life.begin(part)
        gc.freeze()  # what is here now stays; no collection needs to walk over it again
        leases, path = len(ledger.records()), config.paths.socket
        log.info("ready", extra={"backend": config.backend, "leases": leases, "socket": path})
        supervisor.ready()
        life.wait(lambda: supervisor.works(reconciler.problem()), every)
        log.info("stopping; pods keep working")
        supervisor.stopping()
    finally:
        life.end(ledger.close, logging.shutdown)


if __name__ == "__main__":
    sys.exit(main())
