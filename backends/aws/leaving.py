"""What is taken from this node: blocks, and whole interfaces.

The invariant: **no address of a living pod leaves the node by our own hand**, whatever the metadata, the journal or the
order of events say. So before every UnassignPrivateIpAddresses, DetachNetworkInterface and DeleteNetworkInterface,
also of a change that an earlier process began, the blocks are withdrawn from offering first, then EC2 is asked what is
there at that moment, and each block of that answer, known here or not, is held against leases and cool-downs. An
interface goes only while EC2's answer about it cannot be older than the last change. What is found to be used is kept,
and is offered again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from netaddr import IPNetwork

from backends.aws.calls import DELETE, DETACH, UNASSIGN
from backends.aws.indexes import Indexes
from backends.aws.inventory import STALE, Intent, Inventory
from backends.aws.model import Eni, eni
from backends.aws.refusals import NOT_FOUND
from backends.cloud.asking import Cloud, Later
from backends.cloud.failures import Refused
from backends.cloud.steps import Settle, Steps
from backends.cloud.usage import Usage
from backends.cloud.withholding import Held, Withholding

log = logging.getLogger(__name__)

KEPT: Final = 60.0
"""Seconds until it is thought of again to take away what had to stay."""
NOT_ATTACHED: Final = "InvalidAttachmentID.NotFound"


class Leaving:
    """*clock* answers seconds."""

    def __init__(
        self, inventory: Inventory, cloud: Cloud, usage: Usage, indexes: Indexes, clock: Callable[[], float]
    ) -> None:
        self._inventory = inventory
        self._cloud = cloud
        self._usage = usage
        self._indexes = indexes
        self._clock = clock
        self._stays: dict[str, float] = {}
        self._let_go: dict[str, float] = {}
        self._withholding = Withholding()

    @property
    def withheld(self) -> frozenset[Held]:
        """Blocks that are not offered, because it is being found out whether they can go."""
        return self._withholding.now

    def unassign(self, name: str, blocks: frozenset[IPNetwork]) -> Steps[None]:
        """Take blocks from an interface: those that nobody uses."""
        self._ready(name, UNASSIGN)

        def going(found: Eni | None) -> Intent | None:
            free = (blocks - self._used(blocks)) & (found.blocks if found is not None else frozenset())
            return Intent("unassign", self._clock(), name, blocks=_texts(free)) if free else None

        if (begun := (yield from self._begun(name, blocks, going))) is not None:
            yield from self._unassigned(*begun)

    def delete(self, name: str) -> Steps[None]:
        """Detach and delete an interface that an agent made, if nobody uses its addresses."""
        self._ready(name, DETACH, DELETE)
        if left := self._inventory.clear_in(name):
            raise Later(DETACH, left)
        blocks = self._inventory.enis[name].blocks

        def going(found: Eni | None) -> Intent | None:
            if found is None or found.index is None or self._used(blocks | found.blocks):
                return None
            return Intent("delete", self._clock(), name, blocks=_texts(blocks | found.blocks))

        if (begun := (yield from self._begun(name, blocks, going))) is not None:
            yield from self._deleted(*begun)

    def resume(self, intent: Intent, found: Eni | None) -> Steps[None]:
        """Go on with what was begun, by this process or another, from what EC2 says now."""
        if found is None:
            if self._clock() - intent.since >= STALE:
                self._gone(intent)
        elif intent.kind == "unassign":
            yield from self._unassigned(intent, found)
        else:
            yield from self._deleted(intent, found)

    def described(self, name: str) -> Steps[Eni | None]:
        """What EC2 says of an interface; None: that there is none."""
        try:
            answer = yield from self._cloud.ask("DescribeNetworkInterfaces", NetworkInterfaceIds=[name])
        except Refused as error:
            if error.code != NOT_FOUND:
                raise
            return None
        found = answer["NetworkInterfaces"]
        return eni(found[0]) if found else None

    # --- blocks -----------------------------------------------------------------------------------------------

    def _unassigned(self, intent: Intent, found: Eni) -> Steps[None]:
        wanted = frozenset(map(IPNetwork, intent.blocks))
        if used := self._used(wanted):
            log.error("blocks that are used are kept", extra={"interface": intent.eni, "blocks": _texts(used)})
            intent = self._less(intent, wanted - used)
        left = (wanted - used) & found.blocks
        if left:
            try:
                yield from self._cloud.ask(UNASSIGN, NetworkInterfaceId=intent.eni, **_parameters(left))
            except Refused as error:
                log.error("blocks could not be given back", extra={"error": str(error)})
                if self._clock() - intent.since >= STALE:
                    self._keep(intent.eni)
                    self._inventory.end(intent)  # they are there, so they are offered again
                    yield Settle()
                return  # or else what EC2 showed was of before it took them away: it is asked again
        self._inventory.given_back(intent)
        yield Settle()

    def _less(self, intent: Intent, blocks: Iterable[IPNetwork]) -> Intent:
        less = intent._replace(blocks=_texts(blocks))
        self._inventory.change(intent, less)
        return less

    # --- interfaces -------------------------------------------------------------------------------------------

    def _deleted(self, intent: Intent, found: Eni) -> Steps[None]:
        """One step: detach it, or delete it once it is detached, which takes EC2 a while."""
        if self._used(found.blocks | frozenset(map(IPNetwork, intent.blocks))):
            yield from self._kept(intent, found)
            return
        if intent.eni in self._inventory.enis:
            self._inventory.drop(intent.eni)
            yield Settle()
        if found.status == "available":
            yield from self._deleted_at_last(intent)
        elif found.index is not None and not found.is_detaching and not self._is_let_go(intent.eni):
            self._indexes.reserve(intent.eni, found.index)
            self._let_go[intent.eni] = self._clock()
            try:
                yield from self._cloud.ask(DETACH, intent.eni, AttachmentId=found.attachment)
            except Refused as error:
                del self._let_go[intent.eni]
                log.error("an interface could not be detached", extra={"error": str(error)})
                if error.code != NOT_ATTACHED:
                    yield from self._kept(intent, found)

    def _is_let_go(self, name: str) -> bool:
        """Whether it was detached a moment ago, and EC2's answer may be older than that."""
        self._let_go = {one: when for one, when in self._let_go.items() if abs(self._clock() - when) < STALE}
        return name in self._let_go

    def _deleted_at_last(self, intent: Intent) -> Steps[None]:
        try:
            yield from self._cloud.ask(DELETE, NetworkInterfaceId=intent.eni)
        except Refused as error:
            log.error("an interface could not be deleted", extra={"error": str(error)})
            if error.code != NOT_FOUND or self._clock() - intent.since < STALE:
                return  # it is tried again: one that was made a moment ago may not be known everywhere yet
        self._gone(intent)

    def _gone(self, intent: Intent) -> None:
        self._inventory.given_back(intent)
        self._indexes.free(intent.eni)

    def _kept(self, intent: Intent, found: Eni) -> Steps[None]:
        """It stays, as EC2 shows it."""
        log.error("an interface is kept", extra={"interface": intent.eni})
        self._keep(intent.eni)
        if found.index is not None:
            self._inventory.put(found)
        self._inventory.end(intent)
        yield Settle()

    # --- what may go ------------------------------------------------------------------------------------------

    def _used(self, blocks: Iterable[IPNetwork]) -> frozenset[IPNetwork]:
        return frozenset(filter(self._usage.busy, blocks))

    def _begun(
        self, name: str, blocks: Iterable[IPNetwork], going: Callable[[Eni | None], Intent | None]
    ) -> Steps[tuple[Intent, Eni] | None]:
        """Nobody is given an address of *blocks* any more while EC2 says what there is, and *going* what of it may go;
        None: nothing may."""

        def begin(found: Eni | None) -> tuple[Intent, Eni] | None:
            intent = going(found)
            if intent is None or found is None:
                self._keep(name)
                return None
            self._inventory.begin(intent)
            return intent, found

        pairs = frozenset((name, block) for block in blocks)
        return (yield from self._withholding.begun(pairs, self.described(name), begin))

    def _keep(self, name: str) -> None:
        """It had to stay: what was believed of it is not so. EC2's full answer will say more."""
        self._stays = {one: until for one, until in self._stays.items() if until > self._clock()}
        self._stays[name] = self._clock() + KEPT
        self._inventory.unclear_until = min(self._inventory.unclear_until, self._clock())

    def _ready(self, name: str, *actions: str) -> None:
        """Later: not now."""
        if (left := self._stays.get(name, 0.0) - self._clock()) > 0:
            raise Later(actions[0], min(left, KEPT))
        for action in actions:
            self._cloud.ready(action, name)


def _parameters(blocks: Iterable[IPNetwork]) -> dict[str, Any]:
    prefixes = [str(one) for one in blocks if one.prefixlen < 32]
    addresses = [str(one.ip) for one in blocks if one.prefixlen == 32]
    return ({"Ipv4Prefixes": prefixes} if prefixes else {}) | ({"PrivateIpAddresses": addresses} if addresses else {})


def _texts(blocks: Iterable[IPNetwork]) -> tuple[str, ...]:
    return tuple(map(str, sorted(blocks)))
