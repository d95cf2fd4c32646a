"""The node: leases and the kernel brought together, in an order that is law. The one thing that mutates either.

*Allocate, save, apply, answer* to add, *undo, drop, cool down, answer* to remove; so a crash at any arrow leaves a
lease that a restart completes or a DEL removes, never an address without a lease.

Requests for one container go one by one (a lock per key), others in parallel: of two networks that come into one pod at
once the second has to see the first's default route. No other lock is held across the kernel.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from agent.node import pod as pods
from agent.node.ledger import Asked, Held, Ledger, Stopwatch
from agent.node.locks import KeyLocks
from agent.node.wires import Wires, exists
from backends.podlink import link_name
from backends.wiring import Wiring
from cni.errors import Drifted, Failure, InterfaceExists, TryAgain, UnknownContainer
from cni.spec import Attachment
from dataplane.diff import Change, diff, render
from dataplane.observe import PodLink
from dataplane.seam import Dataplane
from ipam.store import Record

log = logging.getLogger(__name__)


class Removed(NamedTuple):
    """How the removal of one attachment went. *was_attached*: it had a lease, which ended now; a runtime asks at least
    twice. *error*: why it could not be removed."""

    was_attached: bool
    error: Exception | None = None


class Node:
    """Adds, removes, checks and mends attachments; any thread may call. No ADD is served before ``rewire``."""

    def __init__(self, ledger: Ledger, dataplane: Dataplane, metrics: Stopwatch) -> None:
        self.ledger = ledger
        self._dataplane = dataplane
        self._wires = Wires(dataplane)
        self._metrics = metrics
        self._keys = KeyLocks()
        self._wiring: Wiring | None = None
        self._problem: Failure = TryAgain("the agent is starting", "it has not read the list of nodes yet")

    def rewire(self, wiring: Wiring) -> None:
        """Wire pods with *wiring* from now on."""
        self._wiring = wiring

    def refuse(self, problem: Failure) -> None:
        """While there is no wiring, ADDs are refused for this reason."""
        self._problem = problem

    @property
    def wiring(self) -> Wiring | None:
        """How pods are wired now; None while that is not known."""
        return self._wiring

    @property
    def is_busy(self) -> bool:
        """Whether a request is being served."""
        return len(self._keys) > 0

    def let_pass(self, patience: float) -> bool:
        """Whether every request that is under way now is over within *patience* seconds."""
        return self._keys.let_pass(patience)

    # --- ADD --------------------------------------------------------------------------------------------------

    def add(self, who: Attachment, asked: Asked) -> Record:
        """Attach: a lease, saved, and the pod wired. All or nothing.

        Raises:
            EnvironmentInvalid: there is no network namespace of a pod.
            InterfaceExists: the pod has an interface of that name; it was left alone.
            ConfigInvalid, Exhausted, TryAgain: no address can be given; KernelRefused: no wire.
        """
        with self._keys.hold(who.container):
            asked = self._wires.found(who, asked)
            wiring = self._wiring
            if wiring is None:
                raise self._problem
            held = self.ledger.held(who)
            if held is not None:
                record = self._resumed(held, asked, wiring)
                if record is not None:
                    return record
            record = self.ledger.lease(who, asked, wiring.mtu)
            try:
                with self._metrics.phase("ADD", "apply"):
                    self._wires.wire(record, wiring)
            except BaseException:
                self._abandon(record)
                raise
            return self.ledger.enter(record)

    def begin_addition(self, asked: Mapping[Attachment, Asked]) -> Callable[[], dict[Attachment, Record]]:
        """Attach many as one is: one transaction, and one message to the kernel for all that is on the host. What is
        returned must be called, and answers those that were attached.

        The others were left as they were, for being added alone: those with a request under way or attached already, a
        container's second, and all of them where anything went wrong.
        """
        with ExitStack() as keys:
            free = [who for who in asked if keys.enter_context(self._keys.hold_if_free(who.container))]
            records = self._added_together({who: asked[who] for who in free})
            return partial(self._end_addition, keys.pop_all(), records)

    def _added_together(self, asked: Mapping[Attachment, Asked]) -> list[Record]:
        """Those that are not attached yet, leased and wired; none where anything goes wrong with one."""
        wiring, records = self._wiring, list[Record]()
        if wiring is None:
            return []
        try:
            new = {who: self._wires.found(who, one) for who, one in asked.items() if self.ledger.held(who) is None}
            records = self.ledger.lease_together(new, wiring.mtu)
            if records:
                with self._metrics.phase("ADD", "apply"):
                    self._dataplane.apply([change for one in records for change in diff({}, wiring.pod(one))])
        except Exception as error:  # noqa: BLE001 - one by one the others are served, and it is told whose it is
            log.info("requests are served one by one", extra={"error": str(error)})
            self._abandon(*records)
            return []
        return records

    def _end_addition(self, keys: ExitStack, records: Sequence[Record]) -> dict[Attachment, Record]:
        with keys:
            return {one.lease.who: self.ledger.enter(one) for one in records}

    def _resumed(self, held: Held, asked: Asked, wiring: Wiring) -> Record | None:
        """An ADD of what is attached already: completed where its runtime may never have had an answer, with what it
        asks for now."""
        who = held.record.lease.who
        record = self._met(held.record, asked.netns)
        if record is None:
            if pods.link_key(held.record) in self._dataplane.observe([PodLink(link_name(who))]):
                where = held.record.netns or "another namespace"
                raise InterfaceExists(f"{who} is attached already, in {where}", "DEL comes before another ADD")
            self._remove([who])  # that namespace is gone, and its DEL never came
            return None
        have = self._dataplane.observe(pods.scopes(record, wiring))
        is_there = pods.port(record, have) is not None
        if is_there and (held.is_answered or pods.link_key(record) not in have):
            raise exists(record)
        if not {*asked.ips} <= {*record.lease.addresses}:
            self._remove([who])
            return None
        now = replace(record, mac=asked.mac or record.mac, beside=asked.beside_of(record.lease))
        if now != record:
            self._wires.dismantle({who: record})
            record, is_there = now, False
            self.ledger.replace(record)
        if is_there:
            self._dataplane.apply(pods.faults(have, pods.expected(wiring, record, have)))
        else:
            self._wires.dismantle({who: record})
            self._dataplane.apply(diff({}, wiring.pod(record)))
        return self.ledger.enter(record)

    def _met(self, record: Record, netns: str) -> Record | None:
        """See `Wires.met`; what is learned of the pod's namespace is kept."""
        return self._learned(record, self._wires.met(record, netns))

    def _still_there(self, record: Record) -> Record | None:
        """See `Wires.still_there`, likewise."""
        return self._learned(record, self._wires.still_there(record))

    def _learned(self, record: Record, met: Record | None) -> Record | None:
        if met is not None and met != record:
            self.ledger.replace(met)
        return met

    def _abandon(self, *records: Record) -> None:
        """Undo ADDs that failed. Their addresses never were a running pod's, so they do not cool down."""
        try:
            self._wires.dismantle({record.lease.who: record for record in records})
            self.ledger.cancel(records)
        except Exception as error:  # noqa: BLE001 - of what it was undone for, who asked is told
            # The lease stays: the runtime's DEL or a GC ends it, and the address is given to nobody meanwhile.
            log.warning("a failed ADD could not be undone wholly", extra={"error": str(error)})

    # --- DEL and GC -------------------------------------------------------------------------------------------

    def delete(self, who: Attachment, is_meant: Callable[[Record], bool] = lambda record: True) -> bool:
        """Detach; nothing that is gone already is an error. False: there was no lease, or one that is not meant: an
        attachment that was added after a DEL which waited in the spool is left alone."""
        with self._keys.hold(who.container):
            held = self.ledger.held(who)
            if held is not None and not is_meant(held.record):
                log.info("a DEL from before the ADD changes nothing", extra={"attachment": str(who)})
                return False
            return bool(self._remove([who]))

    def begin_removal(
        self, whos: Iterable[Attachment], wanted: Callable[[Held | None], bool] = lambda held: True
    ) -> Callable[[], dict[Attachment, Removed]]:
        """Take many from the kernel with one message; what is returned must be called, drops them from the journal in
        one transaction, and tells how that went for each.

        Those are left out that are not *wanted*, or that have a request under way, which nobody here shall wait for.
        """
        with ExitStack() as keys:
            asked = dict.fromkeys(whos)
            containers = dict.fromkeys(who.container for who in asked)
            free = {one for one in containers if keys.enter_context(self._keys.hold_if_free(one))}
            found = [who for who in asked if who.container in free and wanted(self.ledger.held(who))]
            refusal: Exception | None = None
            try:
                self._dismantle(found)
            except Exception as error:  # noqa: BLE001 - told by what is returned
                refusal = error
            return partial(self._end_removal, keys.pop_all(), found, refusal)

    def _end_removal(
        self, keys: ExitStack, found: Sequence[Attachment], refusal: Exception | None
    ) -> dict[Attachment, Removed]:
        with keys:
            if refusal is None:
                try:
                    dropped = self.ledger.drop(found)
                except Failure as error:
                    return dict.fromkeys(found, Removed(False, error))
                return {who: Removed(who in dropped) for who in found}
            if len(found) == 1:
                return {found[0]: Removed(False, refusal)}
            # One that is refused must not keep the others from being removed.
            return {who: self._removed(who) for who in found}

    def collect(self, network: str, valid: Collection[tuple[str, str]], sequence: int) -> list[Attachment]:
        """GC: detach what is on *network*, not among *valid* (container id, interface name) and was served as
        number *sequence* or earlier.

        All of them are tried; the first failure is raised at the end. The answer is what was detached.
        """

        def is_stale(held: Held | None) -> bool:
            if held is None or held.sequence > sequence:
                return False
            who = held.record.lease.who
            return who.network == network and (who.container, who.ifname) not in valid

        stale = self.ledger.find(is_stale)
        done = self.begin_removal(stale, is_stale)()
        for who in stale:
            if who not in done:
                with self._keys.hold(who.container):
                    if is_stale(self.ledger.held(who)):
                        done[who] = self._removed(who)
        for one in done.values():
            if one.error is not None:
                raise one.error
        return list(done)

    def _removed(self, who: Attachment) -> Removed:
        try:
            return Removed(bool(self._remove([who])))
        except Exception as error:  # noqa: BLE001 - told by what is returned: a bug keeps no other from being removed
            return Removed(False, error)

    def _remove(self, whos: Sequence[Attachment]) -> list[Attachment]:
        """Undo, drop, cool down; the answer is who of them had a lease."""
        self._dismantle(whos)
        return self.ledger.drop(whos)

    def _dismantle(self, whos: Iterable[Attachment]) -> None:
        held = {who: self.ledger.held(who) for who in whos}
        self._wires.dismantle({who: one.record if one is not None else None for who, one in held.items()})

    # --- CHECK and repair -------------------------------------------------------------------------------------

    def check(self, who: Attachment, netns: str, mac: str, mtu: int) -> Record:
        """The record of *who*, if all is as it should be; *mac* and *mtu* (bytes) are what the runtime believes the
        pod's end to have, '' and 0 where it does not know.

        Raises:
            UnknownContainer: there is no lease.
            Drifted: something differs; the details are the difference.
        """
        with self._keys.hold(who.container):
            held, wiring = self.ledger.held(who), self._wiring
            if held is None:
                raise UnknownContainer(f"{who} has no lease on this node", "it was never added, or was deleted")
            if wiring is None:
                raise self._problem
            record = self._met(held.record, netns)
            if record is None:
                where = held.record.netns or "another namespace"
                raise Drifted(f"{who} is not in {netns}", f"it was attached in {where}")
            have = self._dataplane.observe(pods.scopes(record, wiring))
            now = pods.seen(record, have)
            believed = replace(record, mac=mac) if mac else now
            changes = pods.faults(have, pods.expected(wiring, believed, have, mtu))
            if record.netns != held.record.netns:
                # The path by which the pod is known now is in the alias of its link, too, and that is our own business.
                named = [change for change in changes if change.item.key == pods.link_key(record)]
                self._dataplane.apply(named)
                changes = [change for change in changes if change not in named]
            if changes and now is not record and believed == now:
                # A plugin chained after us gave the pod's end another hardware address, as the runtime knows, and took
                # the link down for that. The next pass would follow; so does this.
                self._dataplane.apply(changes)
                self.ledger.replace(now)
                return now
        if changes:
            raise Drifted(f"{who} is not as it should be (- is there, + should be)", render(changes))
        return record

    def mend(
        self, who: Attachment, allowed: Callable[[Change], bool], *, is_wired_anew: bool = False
    ) -> list[Change] | None:
        """Put right what differs at *who* on the host, as far as *allowed*; the answer is what was changed.

        In the pod's namespace nothing is changed, unless the pod *is_wired_anew*: then its routes are told. None: a
        request for this container is under way, and nothing was done.

        Raises:
            KernelRefused, TryAgain: it could not be put right.
        """
        with self._keys.hold_if_free(who.container) as is_free:
            held, wiring = self.ledger.held(who), self._wiring
            if not is_free or held is None or wiring is None:
                return None
            record = held.record
            have = self._dataplane.observe([PodLink(link_name(who))])
            if pods.link_key(record) not in have:
                return self._made_again(record, wiring, allowed)
            if record.space is None:
                record = self._still_there(record) or record
            now = self._wires.as_it_is(record)
            changes = self._wires.mended(now, have, wiring, allowed)
            if any(old is not None and new is not None for old, new in changes):
                # A link that is given another address or goes down loses neighbours and routes.
                have = self._dataplane.observe([PodLink(link_name(who))])
                changes += self._wires.mended(now, have, wiring, allowed)
            if now is not record:
                self.ledger.replace(now)
            if is_wired_anew:
                have = self._dataplane.observe(pods.scopes(now, wiring))
                told = pods.outdated(have, wiring.pod(now))
                self._dataplane.apply(told)
                changes += told
            return changes

    def _made_again(self, record: Record, wiring: Wiring, allowed: Callable[[Change], bool]) -> list[Change]:
        """The link is gone, and with it all that hung on either end: it is made as by an ADD, if there is a pod."""
        who = record.lease.who
        met = self._still_there(record)
        if met is None or not met.is_certain:
            self._remove([who])
            log.warning("released the lease of a pod that is gone", extra={"pod": record.called})
            return []
        now = self._wires.beside_others(met)
        self._learned(met, now)
        changes = diff({}, wiring.pod(now))
        refused = [change for change in changes if not allowed(change)]
        if refused:
            return []
        try:
            self._dataplane.apply(changes)
        except BaseException:
            self._wires.dismantle({who: now})  # what is missing in half a pod would be taken for the pod's own doing
            raise
        return changes

    def drop_link(self, who: Attachment) -> bool:
        """Remove the link of an attachment that has no lease; False: it has one, or a request is under way."""
        with self._keys.hold_if_free(who.container) as is_free:
            if not is_free or self.ledger.held(who) is not None:
                return False
            self._wires.dismantle({who: None})
            return True
