"""``routablectl drain``: nobody sends to this node's pods any more, before it goes down.

The word is a file, which the agent and its successors heed until it is taken back, or the machine starts anew (it lies
under /run).
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Collection
from typing import Final

from backends.bgp import replies
from backends.bgp.control import Conversation
from backends.bgp.files import files
from backends.bgp.table import BgpTable
from backends.descriptor import Command
from cni.errors import TryAgain

_LOOK: Final = 0.2
NOT_YET: Final = 3
"""The exit code where something was announced still when the time was over."""


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--undo", action="store_true", help="announce the pods again")
    parser.add_argument("--wait", type=float, metavar="SECONDS", default=30.0, help="at most; default: %(default)g")


def drain(options: Namespace, table: BgpTable, cooldown: float) -> int:
    """Have nothing announced, and wait until nothing is; or take that back."""
    path = files(table).drained
    if options.undo:
        path.unlink(missing_ok=True)
        print("this node announces its pods again")  # noqa: T201
        return 0
    if not path.parent.is_dir():
        raise TryAgain(f"there is no {path.parent}", "does the agent run here, with backend bgp?")
    path.touch(mode=0o600)
    announced = _waited(table, options.wait, time.monotonic, time.sleep)
    if announced:
        print(f"still announced: {announced} routes; the agent goes on withdrawing them: see routablectl status")  # noqa: T201
        return NOT_YET
    print("nothing is announced any more; `routablectl drain --undo` takes that back")  # noqa: T201
    return 0


def _waited(table: BgpTable, patience: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> int:
    """How many routes are announced when none is, or after *patience* seconds."""
    until = clock() + patience
    while True:
        left = announced(table)
        if not left or clock() >= until:
            return left
        sleep(_LOOK)


def announced(table: BgpTable) -> int:
    """How many routes of this node's own BIRD has to announce, or has announced in any session. TryAgain: it does not
    say."""
    with Conversation(str(files(table).socket)) as bird:
        shown = replies.sessions(bird.ask("show protocols all"))
        own = [bird.ask(f"show route protocol own{family}") for family in (4, 6)]
    return left(shown.values(), sum(len(replies.routes(one)) for one in own))


def left(sessions: Collection[replies.Shown], own: int) -> int:
    """How many routes are announced still, where BIRD has so many of its *own*: what a reflector passes on is not."""
    if own or any(one.is_reflecting for one in sessions):
        return own
    return sum(channel.exported for one in sessions for channel in one.channels)


DRAIN: Final = Command(
    name="drain",
    help="withdraw this node's announcements, before it goes down",
    description="With backend bgp: has BIRD announce nothing more, sessions stay, and waits until all is withdrawn. "
    "That lasts until it is taken back (--undo), or the machine starts anew.",
    arguments=_arguments,
    run=drain,
)

