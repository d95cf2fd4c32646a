"""``routable-agent``: the composition root. Here, and only here, the parts are made and put together.

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
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector

from agent.config import chosen
from agent.config import load as configuration
from agent.config.schema import Config
from agent.keep.reality import Reality
from agent.keep.reconciler import Reconciler
from agent.keep.repair import Repair
from agent.keep.replay import delete_spooled
from agent.keep.spool import Spool
from agent.keep.survey import Surroundings, Survey
from agent.node.ledger import Ledger
from agent.node.node import Node
from agent.process import logs, terminal
from agent.process import outlet as outlets
from agent.process import supervisor as supervisors
from agent.process.life import Life, Living
from agent.process.machine import (
    DEFAULT_CONFIG,
    FEW,
    boot_id,
    descriptors,
    exclusive,
    hostname,
    identity,
    moment,
    room,
    version,
)
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
from agent.start import check, restore
from agent.start.supply import Supply, Use, supply
from agent.start.voices import Voices, voices
from agent.switch.lives import Lives
from agent.switch.switch import Switch
from agent.switch.way import Way
from agent.tell import metrics
from agent.tell.metrics import Metrics
from agent.tell.status import Status
from backends import nodeplan
from backends.descriptor import Around, Handles
from cni.errors import Failure, NotReady, TryAgain
from dataplane import host, preflight, uplink, ways
from dataplane.events import Events
from dataplane.forward import Forward
from dataplane.hooks import Hooks
from dataplane.items import plan
from dataplane.kernel import Kernel
from dataplane.neighbours import Neighbours
from dataplane.netns import Netns
from dataplane.nft import Nft
from dataplane.probe import silence
from ipam.allocator import Allocator
from ipam.store import Store

log = logging.getLogger("agent")

WORKERS = 6
"""Threads for requests. Python runs one of them at a time; of ADDs, and of DELs, one is begun, one waits for that, and
one is finished, so that one is always left to read."""
ADDS = 8
"""ADDs that are begun together: what the kernel says to one batch is told while the next is begun."""
COMPANY = 0.002
"""Seconds that DELs which came while others were under way wait for more: each message costs the kernel 20 ms."""
_LOOK: Final = 1.0
"""Seconds between looks of the thread that waits for the end."""
STATUS_PATIENCE = 3.0
"""Seconds for which STATUS waits for an agent that is just starting: see cni/relay.py, which waits for its socket."""
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
        faulthandler.enable()  # a supervisor that ends us by SIGABRT has the log say where every thread was
        life = Life()
        outlet = Outlet(outlets.to(sys.stderr.fileno()), life.die)
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


@dataclass(frozen=True, slots=True)
class Ground:
    """What everything stands on: the journal, and the kernel."""

    boot: str
    store: Store
    ledger: Ledger
    registry: CollectorRegistry
    metrics: Metrics
    nft: Nft
    forward: Forward
    kernel: Kernel


@dataclass(frozen=True, slots=True)
class Outside:
    """What surrounds the node, and what gives it addresses and peers."""

    survey: Survey
    supply: Supply
    way: Way


@dataclass(frozen=True, slots=True)
class Keeping:
    """The node, and what keeps it as it should be."""

    node: Node
    spool: Spool
    repair: Repair
    reality: Reality
    events: Events
    reconciler: Reconciler


@dataclass(frozen=True, slots=True)
class Doors:
    """What can be one process's only, and had before anything is changed in the kernel; the HTTP port may be off."""

    listener: Listener
    http: Sequence[Binding]


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
        reconciler = keeping.reconciler
        around = partial(surroundings, outside.survey, outside.way)
        handles = Handles(reconciler.settle, keeping.events.wake, life.die, around)
        lives = Lives(lambda name: outside.supply.parts(name, handles), life, outside.supply.lasting)
        switch = switching(config, ground, outside, keeping, lives, life)
        doors = opened(config, parts)
        note = keeping.repair.diary.note
        said = voices(config, os.environ, outside.supply.source, ground.ledger, lambda: status, note, life.die)
        status = telling(config, outside, keeping, switch, doors, parking, outlet, lives, said)
        info = {"node": config.node, "backend": switch.backend, "version": version()}
        metrics.show(ground.registry, status.snapshot, info)
        verbs = Verbs(keeping.node, ground.metrics, status.unable, outside.supply.fabric.shortage)
        server = Server(
            doors.listener,
            parking,
            Control(status, keeping.node, outside.survey, switch, verbs.serve).serve,
            lambda: ground.ledger.sequence,
            life.die,
            workers=WORKERS,
            together={
                b"ADD": Together(verbs.add_together, most=ADDS),
                b"DEL": Together(verbs.delete_together, company=COMPANY),
            },
            on_wait=lives.wake,
            room=most,
        )
        https = ports(doors.http, ground.registry, status, reconciler, life)
        reconciler.once(is_whole=True)
        living: list[Living] = [server, reconciler, *https, *outside.supply.listening(handles), switch, *said.parts]
        live(life, living, ground.ledger, config, reconciler)
    return life.code


def connections() -> int:
    """How many clients may be connected at once."""
    limit = descriptors()
    if limit < FEW:
        log.warning("few descriptors: set LimitNOFILE= of the service, or ulimit -n", extra={"limit": limit})
    return min(CONNECTIONS_MAX, room(limit))


def grounded(config: Config, parts: ExitStack) -> Ground:
    """Read the journal. Its leases are in the ledger once they are `restored`."""
    netns = parts.enter_context(closing(Netns()))
    boot, machine, state = boot_id(), identity(), Path(config.paths.state)
    store = restore.journal(state, boot, machine=machine)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    measured = Metrics(registry)
    ledger = Ledger(
        allocator=Allocator(config.ipam.cooldown),
        store=store,
        metrics=measured,
        clock=moment,
        reopen=lambda: restore.renewed(state, boot, machine=machine),
    )
    nft, forward = Nft(memory=ledger), Forward()
    kernel = parts.enter_context(closing(Kernel(netns, nft, settings=Path(config.paths.sysctls), forward=forward)))
    parts.callback(ledger.close)
    restore.refuse_other_pods(store, config.backend)
    return Ground(boot, store, ledger, registry, measured, nft, forward, kernel)


def surrounded(config: Config, ground: Ground, use: Use) -> Outside:
    """Look at what surrounds the node, for the first time."""
    found = supply(config, use)
    state = restore.state(ground.store, ground.kernel, found.source, config.backend, ground.boot)
    way = Way(state, chosen.wirings(config))
    survey = Survey(
        node=config.node,
        uplink=config.uplink,
        options=chosen.wanted(config),
        source=found.source,
        fabric=found.fabric,
        find_uplink=uplink.find,
        wire=way.wiring,
        look=partial(host.look, ground.forward, Path(config.paths.sysctls)),
    )
    survey.refresh()
    return Outside(survey, found, way)


def restored(ground: Ground, survey: Survey) -> None:
    """Give the ledger what the journal and the kernel know of leases."""
    store = ground.store
    if store.dropped:
        log.info("dropped the leases of an earlier boot", extra={"leases": store.dropped})
    blocks = survey.now.blocks if survey.now else frozenset()
    ground.ledger.restore(restore.records(store, ground.kernel, blocks))


def kept(config: Config, ground: Ground, outside: Outside, use: Use, life: Life, parts: ExitStack) -> Keeping:
    """Make the node, and what keeps it."""
    spool = Spool(Path(config.paths.spool), ground.boot, time.time)
    spool.prepare()
    node = Node(ground.ledger, ground.kernel, ground.metrics)
    repair = Repair(node=node, survey=outside.survey, dataplane=ground.kernel, clock=time.monotonic, wall=time.time)
    hooks = Hooks()
    reality = Reality(
        ask=ways.ways,
        explain=ways.explain,
        hooks=lambda networks, is_asymmetric: hooks.look(networks, is_asymmetric=is_asymmetric),
    )
    events = parts.enter_context(closing(Events()))
    reconciler = Reconciler(
        survey=outside.survey,
        node=node,
        repair=repair,
        reality=reality,
        spool=spool,
        serve_spooled=partial(delete_spooled, node),
        events=events,
        offered=use.resume,
        on_death=life.die,
        clock=time.monotonic,
        wall=time.time,
    )
    return Keeping(node, spool, repair, reality, events, reconciler)


def switching(
    config: Config, ground: Ground, outside: Outside, keeping: Keeping, lives: Lives, life: Life
) -> Switch:
    """Make what changes the backend."""
    return Switch(
        way=outside.way,
        boot=ground.boot,
        journal=ground.ledger,
        let_pass=keeping.node.let_pass,
        load=chosen.wirings(config),
        settle=partial(settled, keeping.reconciler, outside.survey),
        use=lives.use,
        missing=lambda plan: preflight.missing(plan, ground.nft, settings=Path(config.paths.sysctls)),
        silence=silence,
        on_death=life.die,
    )


def opened(config: Config, parts: ExitStack) -> Doors:
    """Have the socket and the HTTP port; nobody is answered yet."""
    listener = parts.enter_context(closing(Listener(Path(config.paths.socket))))
    endpoint = config.metrics.endpoint
    return Doors(listener, [] if endpoint is None else [Binding(partial(listening, *endpoint))])


def telling(
    config: Config,
    outside: Outside,
    keeping: Keeping,
    switch: Switch,
    doors: Doors,
    parking: Parking,
    outlet: Outlet,
    lives: Lives,
    said: Voices,
) -> Status:
    """Make what tells of all that is there."""
    neighbours = Neighbours()
    return Status(
        config.node,
        version(),
        keeping.node,
        outside.survey,
        outside.supply.fabric,
        keeping.repair,
        keeping.spool,
        switch,
        parking.waiting,
        stuck=lambda: keeping.reconciler.problem() or doors.listener.problem(),
        findings=lambda: [*keeping.reality.findings, *neighbours.findings()],
        log_dropped=lambda: outlet.dropped,
        pass_age=keeping.reconciler.age,
        unseen=lambda: next((one.problem for one in doors.http), None),
        tellers=[lives],
        announced=said.troubles,
    )


def ports(
    bindings: Sequence[Binding], registry: CollectorRegistry, status: Status, reconciler: Reconciler, life: Life
) -> list[HttpPort]:
    """The HTTP port, unless it is off."""

    def works() -> tuple[bool, str]:
        problem = reconciler.problem()
        return problem is None, str(problem or "ok")

    def pages(listener: socket.socket) -> Http:
        scrape = partial(metrics.page, registry)
        return Http(listener, scrape=scrape, ready=status.ready, works=works, on_death=life.die)

    return [HttpPort(one, pages, life.die) for one in bindings]


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


def settled(reconciler: Reconciler, survey: Survey) -> Surroundings | None:
    """What surrounds the node once the kernel is as that wants it. TryAgain: it is not."""
    if not reconciler.settle():
        raise TryAgain("the kernel is not as it should be yet", "a pass failed or takes long: see routablectl status")
    return survey.now


def surroundings(survey: Survey, way: Way) -> Around | None:
    """What the backends' parts know of the world; None while nothing is known."""
    now, state = survey.now, way.state
    return Around(now.site, now.peers, frozenset((state.active, state.wanted))) if now is not None else None


def refuse_what_is_missing(survey: Survey, nft: Nft, settings: Path) -> None:
    """Raise NotReady with all that this machine lacks, by name, before anything is changed."""
    now = survey.now
    # Where the list of nodes or a cloud's metadata is not there yet, what every node needs is known all the same.
    needed = now.wired.plan if now is not None else plan(nodeplan.table((), None))
    lacking = preflight.missing(needed, nft, settings=settings)
    if lacking:
        raise NotReady("this machine lacks what the agent needs", "; ".join(lacking))


if __name__ == "__main__":
    sys.exit(main())
