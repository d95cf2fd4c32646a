"""What others meet: the socket with the requests, the HTTP port, and what is told there."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from agent.config.schema import Config
from agent.process.life import Life
from agent.process.machine import FEW, descriptors, room, version
from agent.process.outlet import Outlet
from agent.serve.binding import Binding
from agent.serve.connections import CONNECTIONS_MAX
from agent.serve.control import Control
from agent.serve.http import Http, listening
from agent.serve.lane import Together
from agent.serve.listener import Listener
from agent.serve.parking import Parking
from agent.serve.port import HttpPort
from agent.serve.server import Server
from agent.serve.verbs import Verbs
from agent.start.ground import Ground
from agent.start.keeping import Changing, Keeping
from agent.start.outside import Outside
from agent.start.voices import Voices
from agent.tell import metrics
from agent.tell.status import Status
from cni.errors import Failure
from dataplane.neighbours import Neighbours

log = logging.getLogger("agent")

WORKERS = 6
"""Threads for requests. Python runs one of them at a time; of ADDs, and of DELs, one is begun, one waits for that, and
one is finished, so that one is always left to read."""
ADDS = 8
"""ADDs that are begun together: what the kernel says to one batch is told while the next is begun."""
COMPANY = 0.002
"""Seconds that DELs which came while others were under way wait for more: each message costs the kernel 20 ms."""
STATUS_PATIENCE = 3.0
"""Seconds for which STATUS waits for an agent that is just starting: see cni/relay.py, which waits for its socket."""


@dataclass(frozen=True, slots=True)
class Inside:
    """What is made before anybody is let in."""

    ground: Ground
    outside: Outside
    keeping: Keeping
    changing: Changing


@dataclass(frozen=True, slots=True)
class Doors:
    """What can be one process's only, and had before anything is changed in the kernel; the HTTP port may be off."""

    listener: Listener
    http: Sequence[Binding]

    def unseen(self) -> Failure | None:
        """Why nobody can see the metrics; None when they can be seen, or shall not."""
        return next((one.problem for one in self.http), None)


def connections() -> int:
    """How many clients may be connected at once."""
    limit = descriptors()
    if limit < FEW:
        log.warning("few descriptors: set LimitNOFILE= of the service, or ulimit -n", extra={"limit": limit})
    return min(CONNECTIONS_MAX, room(limit))


def opened(config: Config, parts: ExitStack) -> Doors:
    """Have the socket and the HTTP port; nobody is answered yet."""
    listener = parts.enter_context(closing(Listener(Path(config.paths.socket))))
    endpoint = config.metrics.endpoint
    return Doors(listener, [] if endpoint is None else [Binding(partial(listening, *endpoint))])


def judging(config: Config, inside: Inside, doors: Doors, parking: Parking, outlet: Outlet) -> Status:
    """Make what judges how the agent is."""
    outside, keeping, changing = inside.outside, inside.keeping, inside.changing
    neighbours = Neighbours()
    return Status(
        config.node,
        version(),
        keeping.node,
        outside.survey,
        outside.supply.fabric,
        keeping.repair,
        keeping.spool,
        changing.switch,
        parking.waiting,
        stuck=lambda: keeping.reconciler.problem() or doors.listener.problem(),
        findings=lambda: [*keeping.reality.findings, *neighbours.findings()],
        log_dropped=lambda: outlet.dropped,
        pass_age=keeping.reconciler.age,
        unseen=doors.unseen,
        tellers=[changing.lives],
    )


def telling(config: Config, inside: Inside, judged: Status, said: Voices) -> Status:
    """Make what tells of all that is there, to whoever asks and to Prometheus: what was *judged*, and what could not be
    *said* of that."""
    status = replace(judged, announced=said.troubles)
    info = {"node": config.node, "backend": inside.changing.switch.backend, "version": version()}
    metrics.show(inside.ground.registry, status.snapshot, info)
    return status


def serving(inside: Inside, doors: Doors, parking: Parking, status: Status, life: Life, most: int) -> Server:
    """Make what serves requests, of *most* clients at once."""
    ground, outside, node = inside.ground, inside.outside, inside.keeping.node
    verbs = Verbs(node, ground.metrics, status.unable, outside.supply.fabric.shortage)
    return Server(
        doors.listener,
        parking,
        Control(status, node, outside.survey, inside.changing.switch, verbs.serve).serve,
        lambda: ground.ledger.sequence,
        life.die,
        workers=WORKERS,
        together={
            b"ADD": Together(verbs.add_together, most=ADDS),
            b"DEL": Together(verbs.delete_together, company=COMPANY),
        },
        on_wait=inside.changing.lives.wake,
        room=most,
    )


def ports(inside: Inside, doors: Doors, status: Status, life: Life) -> list[HttpPort]:
    """The HTTP port, unless it is off."""

    def works() -> tuple[bool, str]:
        problem = inside.keeping.reconciler.problem()
        return problem is None, str(problem or "ok")

    def pages(listener: socket.socket) -> Http:
        scrape = partial(metrics.page, inside.ground.registry)
        return Http(listener, scrape=scrape, ready=status.ready, works=works, on_death=life.die)

    return [HttpPort(one, pages, life.die) for one in doors.http]
