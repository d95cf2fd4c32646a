"""What the agent knows of the world around it: the list of nodes, itself in it, its uplink, and what follows.

Whole sets, never changes to them: ``refresh`` looks again and works everything out anew if anything differs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from itertools import islice
from typing import Final, NamedTuple

from netaddr import IPAddress

from backends.fabric import Fabric
from backends.site import Options, Site
from backends.wiring import Unserved, Wired, Wiring
from cluster.peers import Peer, Source
from cni.errors import Failure, TryAgain
from dataplane.host import Facts
from dataplane.uplink import Uplink
from ipam.lease import Block

log = logging.getLogger(__name__)

FindUplink = Callable[[str, Collection[IPAddress], Collection[IPAddress]], Uplink]
LookAround = Callable[[str, Collection[str]], Facts]
"""See `dataplane.host.look`."""
ASKED: Final = 8
"""The kernel's way to so many other nodes tells the uplink, where the node's own address does not."""


class Surroundings(NamedTuple):
    """One consistent view: where this node is, how it wires, and what the node's part of the kernel should hold."""

    site: Site
    peers: frozenset[Peer]
    wiring: Wiring
    wired: Wired
    blocks: frozenset[Block]

    @property
    def unserved(self) -> tuple[Unserved, ...]:
        """The peers that the backend cannot reach, and why."""
        return self.wired.unserved


class Survey:
    """Keeps the last good `Surroundings`; one thread refreshes, any may read.

    *node* is this node's name in the list, *uplink* the name of its link or '' to find it by the node's addresses.
    *wire* answers how to wire now; while that is as it was, with the same object. *look* sees what others made of this
    host.
    """

    def __init__(
        self,
        *,
        node: str,
        uplink: str,
        options: Options,
        source: Source,
        fabric: Fabric,
        find_uplink: FindUplink,
        wire: Callable[[Site], Wiring],
        look: LookAround,
    ) -> None:
        self._node = node
        self._uplink = uplink
        self._options = options
        self._source = source
        self._fabric = fabric
        self._find_uplink = find_uplink
        self._wire = wire
        self._look = look
        self._facts = Facts()
        self._taken: frozenset[int] = frozenset()
        self._now: Surroundings | None = None
        # What nobody could know yet is no error that were to be told: every fresh start would begin with one.
        starting = TryAgain("the agent is starting", "it has not read the list of nodes yet")
        self._problem: Failure | None = source.error or starting
        self.unseen: Failure | None = None
        """Why what others made of this host could not be looked at, so that what was seen last counts; None: it was."""

    @property
    def now(self) -> Surroundings | None:
        """The last good view; None while there was none."""
        return self._now

    @property
    def problem(self) -> Failure | None:
        """Why the view is missing or out of date; None when it is neither."""
        return self._problem

    @property
    def origin(self) -> str:
        """Where the list of nodes is of."""
        return self._source.origin

    @property
    def stale(self) -> Failure | None:
        """Why the list of nodes in use is not the newest one; None when it is."""
        return self._source.error

    def avoid(self, nexthop: int) -> None:
        """Another program has a nexthop object with that id, so from the next look on no peer has it; for as long as
        this process lives, or its coming and going would move routes."""
        log.warning("another program has a nexthop object with an id of ours: another is chosen", extra={"id": nexthop})
        self._taken |= {nexthop}

    def refresh(self) -> bool:
        """Look again; True when the surroundings changed. The uplink is always looked at: it costs milliseconds."""
        if self._source.refresh() and self._source.error is not None:
            log.error("the list of nodes cannot be used", extra={"error": str(self._source.error)})
        try:
            found = self._surroundings()
        except Failure as error:
            if str(error) != str(self._problem):
                log.error("the surroundings are not usable", extra={"error": str(error)})
            self._problem = error
            return False
        self._problem = None
        changed = found is not self._now
        self._now = found
        return changed

    def _surroundings(self) -> Surroundings:
        peers = self._source.nodes
        here = next((peer for peer in peers if peer.name == self._node), None)
        if here is None:
            error = self._source.error
            raise (
                error
                if error is not None and not peers
                else TryAgain(
                    f"no node is named {self._node} in the list of nodes",
                    f"add this node to the list, {self._source.origin}, or set node in the agent's configuration",
                )
            )
        if here.flaws and not (here.addresses and here.pod_cidrs):
            here = self._before(here)
        found = self._fabric.supplied(here)
        others = (peer.addresses[0] for peer in peers if peer is not here and peer.addresses)
        uplink = self._find_uplink(self._uplink, here.addresses, tuple(islice(others, ASKED)))
        facts = self._around(uplink, here.addresses)
        site = Site(here, uplink, self._options, found.interfaces, found.networks, self._taken, facts)
        last = self._now
        wiring = self._wire(site)
        if last is not None and last.wiring is wiring and last.peers == peers:
            return last if last.blocks == found.blocks else last._replace(blocks=found.blocks)
        wired = wiring.node(peers)
        flawed = [Unserved(peer.name, "; ".join(peer.flaws)) for peer in peers if peer.flaws]
        flawed += [Unserved(here.name, f"no link of it has its address {one}") for one in facts.missing]
        wired = wired._replace(unserved=(*wired.unserved, *sorted(flawed)))
        self._tell(wired, last)
        return Surroundings(site, peers, wiring, wired, found.blocks)

    def _before(self, here: Peer) -> Peer:
        """What stands in for *here*, where too much of it cannot be used: what it was. That it is so is told like the
        flaws of the others."""
        if self._now is None:
            told = f"node {here.name} cannot have pods yet, as it is in the list of nodes, {self._source.origin}"
            raise TryAgain(told, "; ".join(here.flaws))
        return self._now.site.here

    def _around(self, uplink: Uplink, addresses: Collection[IPAddress]) -> Facts:
        try:
            self._facts = self._look(uplink.name, [str(one) for one in addresses])
        except Failure as failure:
            if str(failure) != str(self.unseen):
                log.error("the host's rules and firewall could not be looked at", extra={"error": str(failure)})
            self.unseen = failure
        else:
            self.unseen = None
        return self._facts

    def _tell(self, wired: Wired, last: Surroundings | None) -> None:
        known = set(last.unserved) if last is not None else set()
        for one in wired.unserved:
            if one not in known:
                log.warning("a peer cannot be reached", extra={"peer": one.peer, "why": one.why})
