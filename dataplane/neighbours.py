"""Whether the kernel has room for neighbours: its one table per family is shared by all namespaces of the machine.

Who sends to many addresses of a network that is on a link here, as a pod does that scans the nodes' segment, fills it.
Then the kernel forgets entries that are in use, the other nodes' among them, and makes no new ones (neigh_alloc in
net/core/neighbour.c): packets to a node are lost until one of the others gives up, after three seconds. What is
permanent, as our own entries are, neither counts nor is forgotten.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cni.errors import Failure

RECENT: Final = 300.0
"""Seconds for which it is told that a table was full: it comes and goes within one."""
_TABLES: Final = {4: "arp_cache", 6: "ndisc_cache"}
_COLUMN: Final = "table_fulls"
"""How often an entry was refused; in hexadecimal, a line per processor. Only a host's own namespace shows it."""


class Neighbours:
    """Looks at the tables below *proc*; what was there at first is no news. *clock* answers seconds, monotonic."""

    def __init__(self, proc: Path = Path("/proc"), clock: Callable[[], float] = time.monotonic) -> None:
        self._proc = proc
        self._clock = clock
        self._counts = {family: self._refused(family) for family in _TABLES}
        self._full_at: dict[int, float] = {}

    def findings(self) -> Iterator[Failure]:
        """Which were full a short time ago, and what to do. Any thread may ask."""
        now = self._clock()
        for family, before in self._counts.items():
            count = self._refused(family)
            if count > before:
                self._counts[family], self._full_at[family] = count, now
            if now - self._full_at.get(family, now - RECENT) < RECENT:
                yield self._full(family)

    def _refused(self, family: int) -> int:
        try:
            header, *lines = (self._proc / "net/stat" / _TABLES[family]).read_text().splitlines()
            column = header.split().index(_COLUMN)
        except (OSError, ValueError):  # of another namespace, or a kernel that does not count
            return 0
        return sum(int(line.split()[column], 16) for line in lines)

    def _full(self, family: int) -> Failure:
        prefix = f"net.ipv{family}.neigh.default.gc_thresh"
        return Failure(
            f"the kernel's table of IPv{family} neighbours was full within the last {RECENT / 60:.0f} minutes: packets "
            "to other nodes and routers may have been lost",
            "a pod or program sends to many addresses of a network that is on a link of this machine, as a scan does: "
            f"end that, or raise {prefix}1, 2 and 3, of which the last, {self._limit(family)}, is the most",
        )

    def _limit(self, family: int) -> str:
        try:
            return (self._proc / f"sys/net/ipv{family}/neigh/default/gc_thresh3").read_text().strip()
        except OSError:
            return "usually 1024"
