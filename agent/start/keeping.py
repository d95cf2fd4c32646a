"""The node, what keeps it as it should be, and what changes how it is wired."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.config import chosen
from agent.config.schema import Config
from agent.keep.reality import Reality
from agent.keep.reconciler import Reconciler
from agent.keep.repair import Repair
from agent.keep.replay import delete_spooled
from agent.keep.spool import Spool
from agent.keep.survey import Surroundings, Survey
from agent.node.node import Node
from agent.process.life import Life
from agent.start.ground import Ground
from agent.start.outside import Outside
from agent.start.supply import Use
from agent.switch.lives import Lives
from agent.switch.switch import Switch
from backends.descriptor import Handles
from cni.errors import TryAgain
from dataplane import preflight, ways
from dataplane.events import Events
from dataplane.hooks import Hooks
from dataplane.probe import silence


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
class Changing:
    """What changes the backend, and the parts of the backends in use; *handles* are what those can do here."""

    handles: Handles
    lives: Lives
    switch: Switch


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
        offered=partial(use.resume, outside.supply.fabric),
        on_death=life.die,
        clock=time.monotonic,
        wall=time.time,
    )
    return Keeping(node, spool, repair, reality, events, reconciler)


def changing(config: Config, ground: Ground, outside: Outside, keeping: Keeping, life: Life) -> Changing:
    """Make what changes the backend."""
    handles = Handles(keeping.reconciler.settle, keeping.events.wake, life.die, outside.around)
    lives = Lives(lambda name: outside.supply.parts(name, handles), life, outside.supply.lasting)
    switch = Switch(
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
    return Changing(handles, lives, switch)


def settled(reconciler: Reconciler, survey: Survey) -> Surroundings | None:
    """What surrounds the node once the kernel is as that wants it. TryAgain: it is not."""
    if not reconciler.settle():
        raise TryAgain("the kernel is not as it should be yet", "a pass failed or takes long: see routablectl status")
    return survey.now
