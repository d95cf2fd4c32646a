"""For ``--check``: whether what the agent is to say to others could be said. Nothing is written, here or there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from agent.announce.conflist import is_ours
from agent.announce.directories import before, content, missing, wanted
from agent.config.schema import CniTable
from backends.verdict import Mark, Verdict
from cluster.apiserver import Api, Unanswered
from cluster.kubernetes import PATH
from cluster.ownnode import NETWORK, said
from cni.errors import Failure
from cni.install import NAME


def directories(table: CniTable) -> Iterator[Verdict]:
    """Of the runtime's directories."""
    if table.executables:
        yield _writable("executables", Path(table.executables))
    if not table.conflist:
        return
    path = Path(table.conflist)
    try:
        made, have = wanted(table), content(path)
        if have is not None and not is_ours(have):
            why = "it has no mark of the agent's, and will be left alone: take it away, or set cni.conflist"
            yield Verdict(Mark.WRONG, "conflist", f"{path} is not the agent's: {why}")
        elif have is None:
            yield _writable("conflist", path)
        else:
            yield Verdict(Mark.GOOD, "conflist", f"{path} is an agent's")
        lacking = missing(table, made)
        lacking.pop(NAME, None)  # the agent puts it there
        yield from (Verdict(Mark.WRONG, "conflist", str(one)) for one in (*lacking.values(), *before(path)))
    except Failure as failure:
        yield Verdict(Mark.WRONG, "conflist", str(failure))
    except OSError as error:
        yield Verdict(Mark.WRONG, "conflist", f"{path} cannot be looked at: {error.strerror or error}")


def node(api: Api, origin: str, name: str) -> Iterator[Verdict]:
    """Of this node's Node, at the *api* of that *origin*; whether it may be changed is not tried."""
    try:
        with api.connected() as connection:
            now, _ = said(connection.answer(f"{PATH}/{quote(name)}", {}, "the verb get on nodes"))
    except Unanswered as unanswered:
        yield Verdict(Mark.WRONG, "Node", str(unanswered.failure))
        return
    except ValueError as error:
        yield Verdict(Mark.WRONG, "Node", f"{origin} answers with something else than a Node: {error}")
        return
    known = now.conditions.get(NETWORK)
    says = f"{NETWORK}={known.status} ({known.reason})" if known else f"nothing of {NETWORK}"
    taints = ", ".join(str(one.get("key")) for one in now.taints) or "none"
    yield Verdict(Mark.GOOD, "Node", f"{name} says {says}; taints: {taints}")


def _writable(what: str, path: Path) -> Verdict:
    there = path if what == "executables" else path.parent
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Verdict(Mark.WRONG, what, f"{path} cannot be written: see {there}")
    return Verdict(Mark.GOOD, what, f"{path} can be written")
