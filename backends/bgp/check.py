"""``routablectl bgp check``: would pods be reached all the time while BIRD is restarted? Asked before an upgrade.

Graceful restart (RFC 4724) is negotiated when a session begins, by each end and for each family. The restarting end
says that it keeps forwarding; the other must know of it, else it takes its routes away at once; and a BFD session that
ends with BIRD tells the other end that there is nobody any more, unless that takes it for a restart, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from backends.bgp.control import Conversation
from backends.bgp.files import files
from backends.bgp.replies import Shown, sessions
from backends.bgp.table import BgpTable
from backends.verdict import Mark, Verdict
from cluster import addresses

_RECOVERING: Final = 24
"""BIRD's code for a restart that is under way."""


def check(table: BgpTable) -> int:
    """Print a line per session and family; 1: something would be lost."""
    with Conversation(str(files(table).socket)) as bird:
        shown = sessions(bird.ask("show protocols all"))
        is_recovering = any(one.code == _RECOVERING for one in bird.ask("show status"))
    found = list(verdicts(table, shown, is_recovering=is_recovering))
    for one in found:
        print(one)  # noqa: T201
    wrong = sum(one.mark is Mark.WRONG for one in found)
    print(f"wrong: {wrong} of the above" if wrong else "good: BIRD can be restarted under running pods")  # noqa: T201
    return 1 if wrong else 0


def verdicts(table: BgpTable, shown: dict[str, Shown], *, is_recovering: bool = False) -> Iterator[Verdict]:
    """What would become of each session, by family. *is_recovering*: BIRD was just restarted, and has not heard all."""
    if is_recovering or any(one.is_restarting for one in shown.values()):
        why = "is under way, here or there: one that is ended again before it is over takes its routes along; wait"
        yield Verdict(Mark.WRONG, "a restart", why)
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
    elif table.topology == "tor" or any(map(_is_address, table.reflectors)):
        words = "BIRD: bfd graceful; FRR: bfd check-control-plane-failure"
        why = f"the routers decide: each must take BFD's end for a restart ({words}), which no session tells"
        yield Verdict(Mark.NOTE, "bfd", why)
    else:
        yield Verdict(Mark.GOOD, "bfd", "its end is taken for a restart, here and on the other nodes")


def _is_address(reflector: str) -> bool:
    """Whether it is named as routers are; it may be a node all the same."""
    try:
        addresses.address(reflector)
    except ValueError:
        return False
    return True
