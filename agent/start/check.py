"""``routable-agent --check``: looks at all that a start needs and tells it line by line.

What always holds: nothing is changed, not even a file made, and an agent that runs here is not disturbed. What is
looked at is asked of the same code that a start uses.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import backends
from agent import commands
from agent.announce import check as announcements
from agent.config import chosen
from agent.config import load as configuration
from agent.config.schema import Config, PathsTable
from agent.keep.spool import Spool
from agent.keep.survey import Surroundings, Survey
from agent.process.machine import boot_id, holder, hostname, identity, moment
from agent.serve import listener
from agent.start import nodes, restore, voices
from backends import nodeplan
from backends.podcidrs import PodCidrs
from backends.verdict import Mark, Verdict
from cluster.apiserver import Api
from cluster.kubernetes import KubernetesNodes
from cni.errors import ConfigInvalid, Failure
from dataplane import host, preflight, uplink
from dataplane.forward import Forward
from dataplane.items import Plan, plan
from dataplane.nft import Nft
from dataplane.settings import is_fixed
from ipam.schema import Damaged, refuse_others
from ipam.store import Store

_SHOWN: Final = 5
"""Peers that cannot be reached are told, up to so many."""


Plans = Generator[Verdict, None, Plan]
"""Verdicts, and at the end what this node would need of the kernel, as far as that is known."""


def tell(path: str) -> int:
    """Print what is found for the configuration at *path*; the answer is the process's exit code."""
    logging.disable(logging.CRITICAL)  # what the parts of a start would log is told here
    wrong = 0
    for one in verdicts(path):
        print(one, flush=True)  # noqa: T201
        wrong += one.mark is Mark.WRONG
    verdict = f"wrong: {wrong} of the above; nothing was changed" if wrong else "good: the agent can start here"
    print(verdict)  # noqa: T201
    return 1 if wrong else 0


def verdicts(path: str) -> Iterator[Verdict]:
    """All that a start with the configuration at *path* needs."""
    try:
        config = configuration.load(path, hostname=hostname(os.environ))
    except Failure as failure:
        yield Verdict(Mark.WRONG, "configuration", str(failure))
        return
    yield Verdict(Mark.GOOD, "configuration", f"{path}: backend {config.backend}, node {config.node}")
    backend = backends.load(config.backend)
    yield from backend.check(config.of(backend), os.environ)
    needed = (yield from _listed(config)) if backend.needs_nodes else _least()
    yield from _machine(needed, Path(config.paths.sysctls))
    running = yield from _agent(config)
    yield from _paths(config, running)
    yield from _port(config, is_running=running is not None)
    yield from _voices(config)


# --- what is around the node ------------------------------------------------------------------------------------------


def _listed(config: Config) -> Plans:
    try:
        source = nodes.source(config, os.environ)
        if isinstance(source, KubernetesNodes):
            source.look()
    except Failure as failure:
        yield Verdict(Mark.WRONG, "list of nodes", str(failure))
        return _least()
    survey = Survey(
        node=config.node,
        uplink=config.uplink,
        options=chosen.wanted(config),
        source=source,
        fabric=PodCidrs(),
        find_uplink=uplink.find,
        wire=chosen.wirings(config)(config.backend),
        look=partial(host.look, Forward(), Path(config.paths.sysctls)),
    )
    survey.refresh()
    if source.error is not None:
        yield Verdict(Mark.WRONG, "list of nodes", str(source.error))
    else:
        yield Verdict(Mark.GOOD, "list of nodes", f"{source.origin}: {len(source.nodes)} nodes")
        if survey.now is None:
            yield Verdict(Mark.WRONG, "this node", str(survey.problem))
    if survey.now is None:
        return _least()
    yield from _site(survey.now)
    return survey.now.wired.plan


def _site(now: Surroundings) -> Iterator[Verdict]:
    here, link = now.site.here, now.site.uplink
    own, pods = (", ".join(map(str, one)) for one in (here.addresses, here.pod_cidrs))
    yield Verdict(Mark.GOOD, "this node", f"{own}; pods' addresses from {pods}")
    state = "up" if link.is_up else "down: other nodes cannot be reached until it is up"
    said = f"{link.name}, {link.mtu} bytes, {state}; pods get {now.wiring.mtu} bytes"
    yield Verdict(Mark.GOOD if link.is_up else Mark.NOTE, "uplink", said)
    for one in now.unserved[:_SHOWN]:
        yield Verdict(Mark.NOTE, "peer", f"{one.peer} cannot be reached: {one.why}")
    if len(now.unserved) > _SHOWN:
        yield Verdict(Mark.NOTE, "peer", f"nor can {len(now.unserved) - _SHOWN} others")


def _least() -> Plan:
    """What every node needs."""
    return plan(nodeplan.table((), None))


def _machine(needed: Plan, settings: Path) -> Iterator[Verdict]:
    try:
        if is_fixed(settings):
            said = f"{settings} is read-only here: what is right is right, and pods' links stay as new ones are"
            yield Verdict(Mark.NOTE, "sysctls", f"{said}; a container is given the host's beside it, by paths.sysctls")
        lacking = preflight.missing(needed, Nft(), settings=settings)
    except Failure as failure:
        yield Verdict(Mark.WRONG, "machine", f"cannot be judged: {failure}")
        return
    for one in lacking:
        yield Verdict(Mark.WRONG, "machine", f"lacks {one}")
    if not lacking:
        yield Verdict(Mark.GOOD, "machine", f"Linux {platform.release()}: it has what the agent needs")


# --- what an agent keeps here -----------------------------------------------------------------------------------------


def _agent(config: Config) -> Generator[Verdict, None, Any]:
    """The status of the agent that runs here, if one does."""
    who = holder()
    if who is None:
        yield Verdict(Mark.GOOD, "agent", "none runs here")
        return None
    try:
        status = commands.ask(config.paths.socket, commands.STATUS, {})
    except Failure as failure:
        why = f"{who} runs here, and does not answer at paths.socket: {failure}"
        yield Verdict(Mark.WRONG, "agent", f"{why}; if its configuration is another, stop it first")
        return None
    leases = len(status["leases"])
    yield Verdict(Mark.GOOD, "agent", f"{who} runs here: backend {status['backend']}, {leases} leases")
    return status


def _paths(config: Config, running: Any) -> Iterator[Verdict]:
    paths = config.paths
    for what, one in (("socket", paths.socket), ("journal", paths.state), ("spool", paths.spool)):
        try:
            yield Verdict(Mark.GOOD, what, f"{one} {_kept(config, running, what, Path(one))}")
        except Failure as failure:
            yield Verdict(Mark.WRONG, what, str(failure))
        except OSError as error:
            said = f"{one} cannot be looked at: {error.strerror or error}: run this as the agent's user"
            yield Verdict(Mark.WRONG, what, said)
    usual = PathsTable()
    for name, one, other in (("SOCKET", paths.socket, usual.socket), ("SPOOL", paths.spool, usual.spool)):
        if one != other:
            said = f"looks at {other}: give the runtime ROUTABLE_{name}={one} in its environment"
            yield Verdict(Mark.NOTE, "executable", said)


def _kept(config: Config, running: Any, what: str, path: Path) -> str:
    """What is worth telling of it. Failure: an agent would not start with it; OSError: it cannot be looked at."""
    why = _obstacle(path if what == "spool" else path.parent)
    if why:
        raise ConfigInvalid(f"{path} cannot be used: {why}", f"set paths.{'state' if what == 'journal' else what}")
    if what == "socket":
        listener.refuse_others(path)
    elif what == "spool" and path.exists():
        Spool(path, boot_id(), time.time).refuse_others()
    elif what == "journal" and (said := _journal(config, running)):
        return said
    return "is used by the agent that runs here" if running else "can be used"


def _obstacle(directory: Path) -> str:
    """Why nothing can be made in *directory*, which may have to be made itself; '' if it can."""
    there = directory
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return f"{there} is no directory"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{there} cannot be written here by user {os.geteuid()}"
    return ""


def _journal(config: Config, running: Any) -> str:
    """What is worth telling of the journal. Failure: an agent would not start on it."""
    path = Path(config.paths.state)
    if running:
        restore.refuse_pods_of(running["backend"], len(running["leases"]), config.backend)
        return ""
    if not path.exists() and not path.is_symlink():
        return "will be made"
    with tempfile.TemporaryDirectory(prefix="routable-check-") as directory:
        copy = Path(directory) / path.name  # to open a database is to write beside it
        try:
            return _opened(path, copy, config.backend)
        except Failure as failure:
            raise type(failure)(str(failure).replace(str(copy), str(path))) from failure


def _opened(path: Path, copy: Path, backend: str) -> str:
    try:
        refuse_others(path)
        for suffix in ("", "-wal"):
            if Path(f"{path}{suffix}").exists():
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        with closing(Store(copy, boot_id(), moment(), identity())) as store:
            restore.refuse_other_pods(store, backend)
            whose = "is another machine's, and will be begun anew" if store.is_foreign else ""
            return whose or f"has {len(store.load())} leases"
    except Damaged:
        restore.refuse_file_of_others(path)
        return "is damaged: it will be set aside, and built anew from what the kernel knows"


def _voices(config: Config) -> Iterator[Verdict]:
    """What the agent is to say to others."""
    yield from announcements.directories(config.cni)
    if config.kubernetes.announce:
        try:
            credentials, origin = voices.reached(config, os.environ)
            yield from announcements.node(Api(credentials), origin, config.node)
        except Failure as failure:
            yield Verdict(Mark.WRONG, "Node", str(failure))


def _port(config: Config, *, is_running: bool) -> Iterator[Verdict]:
    endpoint = config.metrics.endpoint
    if endpoint is None:
        yield Verdict(Mark.NOTE, "metrics", "are served nowhere, nor are the probes: metrics.listen is empty")
        return
    family = socket.AF_INET6 if ":" in endpoint[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(endpoint)
        except OSError as error:
            mark = Mark.GOOD if is_running else Mark.WRONG
            why = "is used by the agent that runs here" if is_running else f"cannot be used: {error.strerror}"
            remedy = "" if is_running else "; set metrics.listen"
            yield Verdict(mark, "metrics", f"{config.metrics.listen} {why}{remedy}")
            return
    yield Verdict(Mark.GOOD, "metrics", f"{config.metrics.listen} can be used")
