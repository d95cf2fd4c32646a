"""``routablectl bgp check``: would pods be reached all the time while BIRD is restarted? Asked before an upgrade.

Graceful restart (RFC 4724) is negotiated when a session begins, by each end and for each family. The restarting end
says that it keeps forwarding; the other must know of it, else it takes its routes away at once; and a BFD session that
ends with BIRD tells the other end that there is nobody any more, unless that takes it for a restart, too.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import Final

from backends.bgp.control import Conversation
from backends.bgp.files import files
from backends.bgp.replies import Shown, sessions
from backends.bgp.table import BgpTable
from backends.descriptor import Command
from backends.verdict import Mark, Verdict


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("what", choices=["check"], help="whether BIRD can be restarted without a packet lost")


def check(options: Namespace, table: BgpTable, cooldown: float) -> int:
    """Print a line per session and family; 1: something would be lost."""
    with Conversation(str(files(table).socket)) as bird:
        shown = sessions(bird.ask("show protocols all"))
    found = list(verdicts(table, shown))
    for one in found:
        print(one)  # noqa: T201
    wrong = sum(one.mark is Mark.WRONG for one in found)
    print(f"wrong: {wrong} of the above" if wrong else "good: BIRD can be restarted under running pods")  # noqa: T201
    return 1 if wrong else 0


def verdicts(table: BgpTable, shown: dict[str, Shown]) -> Iterator[Verdict]:
    """What would become of each session, by family."""
    if not shown:
        yield Verdict(Mark.WRONG, "sessions", "there are none")
    for name, one in sorted(shown.items()):
        if not one.is_up:
            said = ", ".join(filter(None, (one.state, one.error)))
            yield Verdict(Mark.WRONG, name, f"is not there ({said or 'unknown'}): nothing is known of it")
            continue
        for channel in one.channels:
            yield _of_family(name, one, channel.family)
    yield from _of_bfd(table)


def _of_family(name: str, one: Shown, family: int) -> Verdict:
    if family not in one.local.restarts:
        why = f"IPv{family}: this end did not say that it keeps forwarding: set bgp.graceful_restart = true"
        return Verdict(Mark.WRONG, name, why)
    if not one.neighbour.is_aware:
        why = f"IPv{family}: the other end knows no graceful restart, and would take this node's routes away at once"
        return Verdict(Mark.WRONG, name, why)
    waits = one.local.restart_time
    if family not in one.neighbour.restarts:
        why = f"IPv{family}: the other end waits {waits} s for BIRD here; a restart of its own loses packets"
        return Verdict(Mark.NOTE, name, why)
    why = f"IPv{family}: both ends; this one is waited for {waits} s, the other {one.neighbour.restart_time} s"
    return Verdict(Mark.GOOD, name, why)


def _of_bfd(table: BgpTable) -> Iterator[Verdict]:
    if table.bfd == "off":
        return
    if table.bfd == "on" and table.topology != "tor":
        why = 'is "on": other nodes take the end of BIRD for that of the node; set bgp.bfd = "graceful" on all'
        yield Verdict(Mark.WRONG, "bfd", why)
    elif table.topology == "tor":
        why = "the routers decide: each must take BFD's end for a restart (BIRD: bfd graceful), which no session tells"
        yield Verdict(Mark.NOTE, "bfd", why)
    else:
        yield Verdict(Mark.GOOD, "bfd", "its end is taken for a restart, here and on the other nodes")


BGP: Final = Command(
    name="bgp",
    help="whether BIRD can be restarted without a packet lost",
    description="With backend bgp. check: whether graceful restart was negotiated, by both ends and for each family, "
    "and whether BFD would defeat it. Exit code 1 where packets would be lost.",
    arguments=_arguments,
    run=check,
)
