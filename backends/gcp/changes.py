"""More ranges for this node, and less, each change from the intent in the journal to its end.

A change is one PATCH that names the whole list, and by a fingerprint what the interface was like: where that is not so
any more, nothing is done. So what nobody answered is asked again by the same id, until the API has shown that it was
made, or that it never will be. One is under way at a time: they are all of the one interface.

The invariant: **no address of a living pod leaves the node by our own hand**, whatever the metadata, the journal or the
order of events say. A list leaves out only ranges that were withdrawn from offering before the API was asked what there
is, and were then held against leases and cool-downs; and they are offered again only when it is certain that the change
will not be made any more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any, Final

from netaddr import IPNetwork

from backends.cloud.asking import Cloud, Later
from backends.cloud.failures import CloudError, Refused, Throttled
from backends.cloud.retries import Retries
from backends.cloud.scarcity import Scarcity
from backends.cloud.steps import Settle, Steps
from backends.cloud.usage import Usage
from backends.cloud.withholding import Held, Withholding
from backends.gcp.calls import (
    GET,
    OPERATION,
    SUBNET,
    UPDATE,
    failed,
    is_about_credentials,
    is_full,
    is_invalid,
    is_limited,
    is_missing,
    is_over_quota,
    is_plain,
    is_stale,
)
from backends.gcp.holding import STALE, Holding, Intent
from backends.gcp.model import NIC, Interface, Operation, Room, Seen, body, interface, operation, room, subnet_of
from backends.gcp.options import AliasOptions, length
from backends.gcp.refusals import Refusals

log = logging.getLogger(__name__)

KEPT: Final = 60.0
"""Seconds until it is thought of again to take away what had to stay."""
FRAGMENTED: Final = 60.0
"""Seconds until larger ranges are tried again, where there was none."""
_READ: Final = "read"
_STALE: Final = "stale"


class Changes:
    """*token* answers a new request id, *clock* seconds."""

    def __init__(
        self,
        *,
        options: AliasOptions,
        holding: Holding,
        cloud: Cloud,
        obstacles: Refusals,
        usage: Usage,
        token: Callable[[], str],
        clock: Callable[[], float],
    ) -> None:
        self._options = options
        self._holding = holding
        self._cloud = cloud
        self._obstacles = obstacles
        self._usage = usage
        self._token = token
        self._clock = clock
        self._scarcity = Scarcity(clock)
        self._retries = Retries(clock)
        self._withholding = Withholding()
        self._stays_until = 0.0
        self._fitting = 0.0, 0

    @property
    def withheld(self) -> frozenset[Held]:
        """Ranges that are not offered, because it is being found out whether they can go."""
        return self._withholding.now

    def read(self, here: Seen) -> Steps[Interface]:
        """What the API says of the interface. Later: that is older than what is known."""
        answer = yield from self._cloud.ask(GET, **here.where)
        try:
            found = interface(answer)
        except LookupError as error:
            refused = Refused(GET, "NotFound", str(error))
            self._obstacles.noticed(refused, "")
            raise refused from error
        if self._holding.is_old(found):
            self._retries.later(_READ)
            raise Later(GET, self._retries.left(_READ))
        self._retries.now(_READ)
        return found

    # --- more ---------------------------------------------------------------------------------------------------

    def grow(self, here: Seen, chunks: int, size: int) -> Steps[None]:
        """As many ranges of *size* addresses more, by one change; fewer where there are not as many."""
        self._ready()
        found = self._holding.interface
        if found is None:
            found = yield from self.read(here)
            self._holding.described(found)
        until, most = self._fitting
        if self._clock() < until and size > most:
            size = max(most, self._options.warm.prefix_size)
        chunks = self._scarcity.most(self._options.range, size, chunks)
        intent = Intent("grow", self._clock(), self._token(), found.fingerprint, chunks, size, kept=found.but(()))
        self._holding.begin(intent)
        yield from self._first(here, intent)

    # --- less ---------------------------------------------------------------------------------------------------

    def shrink(self, here: Seen, blocks: Collection[IPNetwork]) -> Steps[None]:
        """Give back those of *blocks* that nobody uses; but never all that there is, since the client library cannot
        say that a list is empty."""
        if (left := self._stays_until - self._clock()) > 0:
            raise Later(UPDATE, min(left, KEPT))
        self._ready()

        def begin(found: Interface) -> Intent | None:
            self._holding.described(found)
            free = sorted(found.blocks & frozenset(blocks) - self._used(blocks))
            free = free if found.but(free) else free[1:]
            if not free:
                self._stays_until = self._clock() + KEPT
                return None
            request, kept = self._token(), found.but(free)
            intent = Intent(
                "shrink", self._clock(), request, found.fingerprint, blocks=tuple(map(str, free)), kept=kept
            )
            self._holding.begin(intent)
            return intent

        pairs = frozenset((NIC, block) for block in blocks)
        if (intent := (yield from self._withholding.begun(pairs, self.read(here), begin))) is not None:
            yield from self._first(here, intent)

    # --- what is under way ----------------------------------------------------------------------------------------

    def resume(self, here: Seen) -> Steps[bool]:
        """Go on with the change whose end is not known, if it is time. True: it has ended. Later: then it is."""
        self._retries.keep([_READ, _STALE, *(one.request for one in self._holding.intents)])
        for intent in self._holding.intents:
            if left := self._retries.left(intent.request):
                raise Later(intent.kind, left)
            self._retries.later(intent.request)
            if intent.over:
                yield from self._seen(here, intent)
            elif intent.operation:
                yield from self._followed(here, intent)
            else:
                yield from self._again(here, intent)
            if self._now(intent) is None:
                return True
            raise Later(intent.kind, self._retries.left(intent.request))
        return False

    def hurry(self) -> None:
        """Something has changed: what is under way may be done."""
        for intent in self._holding.intents:
            self._retries.now(intent.request)

    def _first(self, here: Seen, intent: Intent) -> Steps[None]:
        """The first time that it is asked for: what is refused was not done."""
        self._retries.later(intent.request)
        try:
            yield from self._asked(here, intent)
        except Later:
            yield from self._ended(intent)
            raise
        except Refused as error:
            yield from self._ended(intent)
            yield from self._refused(intent, error)

    def _asked(self, here: Seen, intent: Intent) -> Steps[None]:
        """However often, it is the same: the API knows it by the request's id, and the interface by its fingerprint."""
        more = [(f"/{length(intent.size)}", self._options.range)] * intent.chunks
        answer = yield from self._cloud.ask(
            UPDATE,
            **here.where,
            network_interface=NIC,
            request_id=intent.request,
            network_interface_resource=body(intent.fingerprint, intent.ranges, more),
        )
        self._holding.change(intent, intent._replace(operation=operation(answer).name))
        self._retries.now(intent.request)
        for _ in range(2):  # it takes seconds, and the metadata may show sooner that it is done
            self._retries.later(intent.request)

    def _again(self, here: Seen, intent: Intent) -> Steps[None]:
        """Nobody answered."""
        if used := self._used(map(IPNetwork, intent.blocks)):  # nobody was given an address of them since
            log.error("ranges that are used are not given back", extra={"ranges": _texts(used)})
            self._over(intent)
            return
        try:
            yield from self._asked(here, intent)
        except Refused as error:
            if is_stale(error):
                self._over(intent)
            elif intent.kind == "grow":
                yield from self._ended(intent)
                yield from self._refused(intent, error)
            else:
                raise  # the first may still be done: until the interface has changed nothing is offered again

    def _followed(self, here: Seen, intent: Intent) -> Steps[None]:
        """From what the operation says now."""
        where = {"project": here.project, "zone": here.zone}
        try:
            found = operation((yield from self._cloud.ask(OPERATION, **where, operation=intent.operation)))
        except Refused as error:
            if not is_missing(error):
                raise
            # It is not known everywhere yet, or was forgotten: whoever is asked again by the same id knows.
            self._holding.change(intent, intent._replace(operation=""))
            return
        if not found.is_done:
            return
        if found.code:
            yield from self._failed(intent, found)
        else:
            self._over(intent)
        if (now := self._now(intent)) is not None and now.over:
            yield from self._seen(here, now)

    def _over(self, intent: Intent) -> None:
        """It will not be made any more: it was, or never will be."""
        self._holding.change(intent, intent._replace(over=self._clock()))
        self._retries.now(intent.request)
        self._retries.later(intent.request)

    def _seen(self, here: Seen, intent: Intent) -> Steps[None]:
        """Whether it was made: by an answer that shows it, or cannot be older than its end."""
        is_late = self._clock() - intent.over >= STALE
        found = yield from self.read(here)
        if is_late or _shows(found, intent):
            before = frozenset(self._holding.ranges)
            self._holding.done(intent, found)
            gained, lost = _texts(found.blocks - before), _texts(before - found.blocks)
            log.info("ranges changed", extra={"gained": " ".join(gained), "lost": " ".join(lost)})
            yield Settle()

    def _ended(self, intent: Intent) -> Steps[None]:
        """Nothing has come of it: what was to go is offered again."""
        if (now := self._now(intent)) is not None:
            self._holding.end(now)
        if intent.blocks:
            yield Settle()

    def _now(self, intent: Intent) -> Intent | None:
        """As it is in the journal now; None: it has ended."""
        return next((one for one in self._holding.intents if one.request == intent.request), None)

    # --- what is refused ------------------------------------------------------------------------------------------

    def _failed(self, intent: Intent, found: Operation) -> Steps[None]:
        """An operation has an error: one that says why has done nothing; one that does not may have done all."""
        error = failed(UPDATE, found.code, found.message)
        self._cloud.calls[UPDATE, found.code] += 1
        if isinstance(error, Throttled):
            self._obstacles.busy(error)
            yield from self._ended(intent)
        elif isinstance(error, Refused):
            self._obstacles.noticed(error, "")
            if is_plain(error):
                yield from self._ended(intent)
            else:
                self._over(intent)
            yield from self._refused(intent, error)

    def _refused(self, intent: Intent, error: Refused) -> Steps[None]:
        """It was refused, by the API or in the operation: what else may do?"""
        if is_stale(error):
            self._holding.unclear()
            self._retries.later(_STALE)
        elif is_full(error):
            self._scarcity.refused(self._options.range, intent.size, intent.chunks)
            if intent.chunks == 1 and intent.size > self._options.warm.prefix_size:
                self._fitting = self._clock() + FRAGMENTED, intent.size // 2
            elif intent.chunks == 1:
                self._obstacles.full(error, self._options.range, intent.size, (yield from self._room()))
        elif intent.chunks > 1 and (is_limited(error) or is_over_quota(error) or is_invalid(error)):
            # Perhaps it is only too many: which words say so is Google's to change.
            self._scarcity.refused(self._options.range, intent.size, intent.chunks)
        elif is_limited(error):
            self._obstacles.limited(error, len(self._holding.ranges))
        elif is_over_quota(error):
            self._obstacles.over_quota(error)
        if not is_about_credentials(error):
            log.error("ranges could not be changed", extra={"error": str(error)})

    def _room(self) -> Steps[Room | None]:
        """What there is to know of the range that is full; None: nobody says."""
        found = self._holding.interface
        try:
            where = subnet_of(found.subnetwork if found is not None else "")
            answer = yield from self._cloud.ask(SUBNET, **where, views="WITH_UTILIZATION")
        except (ValueError, Later, CloudError) as error:
            log.debug("how much of the range is left cannot be seen", extra={"error": str(error)})
            return None
        return room(answer, self._options.range)

    def _ready(self) -> None:
        """Later: not now."""
        if left := self._retries.left(_STALE):
            raise Later(UPDATE, left)
        for action in (UPDATE, GET, OPERATION):
            self._cloud.ready(action)

    def _used(self, blocks: Any) -> frozenset[IPNetwork]:
        return frozenset(filter(self._usage.busy, blocks))


def _shows(found: Interface, intent: Intent) -> bool:
    """Whether *found* is of after the change, by what it has."""
    if intent.blocks:
        return found.blocks.isdisjoint(map(IPNetwork, intent.blocks))
    return len(set(found.but(())).difference(intent.kept)) >= intent.chunks


def _texts(blocks: Collection[IPNetwork]) -> tuple[str, ...]:
    return tuple(map(str, sorted(blocks)))
