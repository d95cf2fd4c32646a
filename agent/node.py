"""The node: which attachment holds what, in memory, in the journal and in the kernel. The one thing that mutates.

The order is law: *allocate, save, apply, answer* to add, *undo, drop, cool down, answer* to remove; so a crash at
any arrow leaves a lease that a restart completes or a DEL removes, never an address without a lease.

One lock guards memory and journal and is never held across a call to the kernel. Requests for one attachment go
one by one (a lock per key), others in parallel.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Final

from netaddr import IPAddress

from agent import pod as pods
from agent.locks import KeyLocks
from agent.metrics import Metrics
from backends.podlink import link_name, pod_mac, remains
from backends.wiring import Wiring
from cni.errors import Drifted, EnvironmentInvalid, Failure, InterfaceExists, KernelRefused, TryAgain, UnknownContainer
from cni.spec import Attachment
from dataplane.diff import Change, diff, render
from dataplane.items import HOST
from dataplane.kernel import Dataplane
from dataplane.observe import PodLink
from ipam.allocator import Allocator
from ipam.family import Counts
from ipam.lease import Block
from ipam.schema import Damaged
from ipam.store import Record, Store, Tenure

log = logging.getLogger(__name__)

RESTORED: Final = 0
"""The sequence number of what an earlier process of the agent left."""


@dataclass(frozen=True, slots=True)
class Held:
    """A record, the number of the ADD that made it, and whether its runtime is known to have had the answer."""

    record: Record
    sequence: int
    is_answered: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """What an ADD asks for besides an attachment in a namespace: see ``cni.call.Call``."""

    ips: Sequence[IPAddress] = ()
    mac: str = ""
    pod: str = ""


class Node:
    """Adds, removes, checks and mends attachments; any thread may call.

    *records* are what the journal *store* holds, and *allocator* has been given their leases. *reopen* sets
    aside what is in the journal's place and begins an empty one. *clock* answers seconds since the epoch. No ADD is
    served before ``rewire``.
    """

    def __init__(
        self,
        *,
        allocator: Allocator,
        store: Store,
        dataplane: Dataplane,
        metrics: Metrics,
        clock: Callable[[], float],
        records: Iterable[Record] = (),
        reopen: Callable[[], Store] | None = None,
    ) -> None:
        self._allocator = allocator
        self._store = store
        self._reopen = reopen
        self._remembered: dict[str, str] = {}
        self._dataplane = dataplane
        self._metrics = metrics
        self._clock = clock
        self._lock = threading.Lock()
        self._keys = KeyLocks()
        self._held = {record.lease.who: Held(record, RESTORED, False) for record in records}
        self._sequence = RESTORED
        self._wiring: Wiring | None = None
        self._problem: Failure = TryAgain("the agent is starting", "it has not read the list of nodes yet")
        self.trouble: Failure | None = None
        """Why the journal does not take what is to be saved; None when it does."""

    # --- what it is told --------------------------------------------------------------------------------------

    def rewire(self, wiring: Wiring, blocks: Collection[Block]) -> None:
        """Wire pods with *wiring* and give addresses of *blocks* from now on."""
        with self._lock:
            self._allocator.offer(frozenset(blocks))
            self._wiring = wiring

    def refuse(self, problem: Failure) -> None:
        """While there is no wiring, ADDs are refused for this reason."""
        self._problem = problem

    def close(self) -> None:
        """Let go of the journal; nothing can be added or removed afterwards."""
        with self._lock:
            self._store.close()

    # --- what it tells ----------------------------------------------------------------------------------------

    @property
    def wiring(self) -> Wiring | None:
        """How pods are wired now; None while that is not known."""
        return self._wiring

    @property
    def is_busy(self) -> bool:
        """Whether a request is being served."""
        return len(self._keys) > 0

    @property
    def sequence(self) -> int:
        """The number of the last ADD that was served."""
        return self._sequence

    def records(self) -> dict[Attachment, Record]:
        """Every live record, oldest first: a copy."""
        with self._lock:
            return {who: held.record for who, held in self._held.items()}

    def record(self, who: Attachment) -> Record | None:
        """The live record of *who*."""
        with self._lock:
            held = self._held.get(who)
        return held.record if held else None

    def counts(self) -> list[Counts]:
        """The state of every block that addresses come from."""
        with self._lock:
            return self._allocator.counts(self._clock())

    def history(self, address: IPAddress) -> list[Tenure]:
        """Who has and who had *address*, newest first."""
        with self._lock:
            return self._store.history(address)

    def recall(self, name: str) -> str | None:
        """What the journal keeps under *name*; None when nothing."""
        with self._lock:
            return self._store.recall(name)

    def remember(self, name: str, value: str) -> None:
        """Keep *value* in the journal under *name*."""
        with self._lock:
            self._remembered[name] = value
            self._store.remember(name, value)

    def tend_journal(self) -> None:
        """See that the journal is there and takes what is saved. One that was lost or damaged while the agent ran is
        set aside and built anew from memory: the leases are all there, the history of addresses begins again."""
        with self._lock:
            trouble = self._store.trouble()
            if isinstance(trouble, Damaged) and self._reopen is not None:
                log.error("the journal is built anew from memory", extra={"error": str(trouble)})
                try:
                    store = self._reopen()
                    for held in self._held.values():
                        store.save(held.record)
                    for name, value in self._remembered.items():
                        store.remember(name, value)
                except Failure as failure:
                    trouble = failure
                else:
                    with suppress(Failure):
                        self._store.close()
                    self._store, trouble = store, None
            if trouble is not None and str(trouble) != str(self.trouble):
                log.error("the journal takes nothing", extra={"error": str(trouble)})
            self.trouble = trouble

    def let_pass(self) -> None:
        """Return when every request that is under way now is over."""
        self._keys.let_pass()

    def prune(self, before: float) -> None:
        """Forget the history before that time (seconds since the epoch)."""
        with self._lock:
            self._store.prune(before)

    # --- ADD --------------------------------------------------------------------------------------------------

    def add(self, who: Attachment, netns: str, asked: Asked) -> Record:
        """Attach: a lease, saved, and the pod wired. All or nothing.

        Raises:
            EnvironmentInvalid: *netns* is no network namespace of a pod.
            InterfaceExists: the pod has an interface of that name; it was left alone.
            ConfigInvalid, Exhausted, TryAgain: no address can be given; KernelRefused: no wire.
        """
        with self._keys.hold(who):
            if self._dataplane.identity(netns) is None:
                raise EnvironmentInvalid(f"CNI_NETNS names nothing: {netns!r}", "the path does not exist")
            wiring = self._wiring
            if wiring is None:
                raise self._problem
            held = self._held.get(who)
            if held is not None:
                record = self._resumed(held, netns, wiring)
                if record is not None:
                    return record
            record = self._leased(who, netns, asked, wiring)
            try:
                with self._metrics.phase("ADD", "apply"):
                    self._wire(record, wiring)
            except BaseException:
                self._abandon(record)
                raise
            return self._enter(record)

    def begin_addition(
        self, asked: Mapping[Attachment, tuple[str, Asked]]
    ) -> Callable[[], dict[Attachment, Record]]:
        """Attach many as one is: one transaction, and one message to the kernel for all that is on the host. What is
        returned must be called, and answers those that were attached.

        The others were left as they were, for being added alone: those with a request under way or attached already,
        and all of them where anything went wrong.
        """
        keys = ExitStack()
        free = [who for who in asked if keys.enter_context(self._keys.hold_if_free(who))]
        records: list[Record] = []
        try:
            wiring = self._wiring
            if wiring is not None:
                new = {who: asked[who] for who in free if who not in self._held}
                records = self._leased_together(new, wiring)
            if wiring is not None and records:
                with self._metrics.phase("ADD", "apply"):
                    self._dataplane.apply([change for one in records for change in diff({}, wiring.pod(one))])
        except Failure as failure:
            log.info("requests are served one by one", extra={"error": str(failure)})
            self._abandon(*records)
            records = []
        except BaseException:
            keys.close()
            raise

        def finish() -> dict[Attachment, Record]:
            with keys:
                return {one.lease.who: self._enter(one) for one in records}

        return finish

    def _leased_together(self, asked: Mapping[Attachment, tuple[str, Asked]], wiring: Wiring) -> list[Record]:
        """Leases for those for whom there are any, saved; all or, where the journal refuses, none."""
        records = []
        now = self._clock()
        with self._lock:
            with self._metrics.phase("ADD", "allocate"):
                for who, (netns, one) in asked.items():
                    with suppress(Failure):
                        lease = self._allocator.allocate(who, now, one.ips)
                        mac = one.mac or pod_mac(lease.addresses)
                        records.append(Record(lease, netns, mac, wiring.mtu, one.pod, now))
            try:
                with self._metrics.phase("ADD", "save"):
                    self._store.enter(records)
            except BaseException:
                for record in records:
                    self._allocator.cancel(record.lease.who)
                raise
            for record in records:
                self._held[record.lease.who] = Held(record, self._sequence + 1, False)
        return records

    def answered(self, who: Attachment) -> None:
        """The runtime has the answer to its ADD: another ADD of the same attachment is now its mistake."""
        with self._lock:
            held = self._held.get(who)
            if held is not None:
                self._held[who] = replace(held, is_answered=True)

    def _leased(self, who: Attachment, netns: str, asked: Asked, wiring: Wiring) -> Record:
        now = self._clock()
        with self._lock:
            with self._metrics.phase("ADD", "allocate"):
                lease = self._allocator.allocate(who, now, asked.ips)
            record = Record(lease, netns, asked.mac or pod_mac(lease.addresses), wiring.mtu, asked.pod, now)
            try:
                with self._metrics.phase("ADD", "save"):
                    self._store.save(record)
            except BaseException:
                self._allocator.cancel(who)
                raise
            # In flight: known, for DEL and for the count; its number comes when it is served.
            self._held[who] = Held(record, self._sequence + 1, False)
        return record

    def _wire(self, record: Record, wiring: Wiring) -> None:
        want = wiring.pod(record)
        try:
            self._dataplane.apply(diff({}, want))
        except KernelRefused as error:
            if (error.errno, error.kind) != (errno.EEXIST, "link"):
                raise
            have = self._dataplane.observe(pods.scopes(record, wiring))
            if pods.port_key(record) in have:
                raise _exists(record) from error
            if pods.link_key(record) not in have:
                raise
            # The host's end of a link whose other end is in no pod that we know: left by something that went wrong.
            self._dismantle(record.lease.who)
            self._dataplane.apply(diff({}, want))

    def _enter(self, record: Record) -> Record:
        with self._lock:
            self._sequence += 1
            self._held[record.lease.who] = Held(record, self._sequence, False)
        return record

    def _resumed(self, held: Held, netns: str, wiring: Wiring) -> Record | None:
        """An ADD of what is attached already: completed where its runtime may never have had an answer."""
        record = held.record
        who = record.lease.who
        if record.netns != netns:
            if pods.link_key(record) in self._dataplane.observe([PodLink(link_name(who))]):
                raise InterfaceExists(f"{who} is attached already, in {record.netns}", "DEL comes before another ADD")
            self._remove([who])  # that namespace is gone, and its DEL never came
            return None
        have = self._dataplane.observe(pods.scopes(record, wiring))
        if pods.port_key(record) in have and (held.is_answered or pods.link_key(record) not in have):
            raise _exists(record)
        if pods.port_key(record) in have:
            self._dataplane.apply(pods.faults(have, pods.expected(wiring, record, have)))
        else:
            self._dismantle(who)
            self._dataplane.apply(diff({}, wiring.pod(record)))
        return self._enter(record)

    def _abandon(self, *records: Record) -> None:
        """Undo ADDs that failed. Their addresses never were a running pod's, so they do not cool down."""
        whos = [record.lease.who for record in records]
        try:
            self._dismantle(*whos)
            with self._lock:
                self._store.drop(whos, self._clock())
                for who in whos:
                    self._allocator.cancel(who)
                    del self._held[who]
        except Failure as error:
            # The lease stays: the runtime's DEL or a GC ends it, and the address is given to nobody meanwhile.
            log.warning("a failed ADD could not be undone wholly", extra={"error": str(error)})

    # --- DEL and GC -------------------------------------------------------------------------------------------

    def delete(self, who: Attachment, added_before: float | None = None) -> bool:
        """Detach; nothing that is gone already is an error. False: there was no lease.

        With *added_before* (seconds since the epoch) an attachment added later than that is left alone: a DEL that
        waited in the spool was not meant for it.
        """
        with self._keys.hold(who):
            held = self._held.get(who)
            if held is not None and added_before is not None and held.record.since > added_before:
                log.info("a DEL from before the ADD changes nothing", extra={"attachment": str(who)})
                return False
            return bool(self._remove([who]))

    def begin_removal(
        self, whos: Iterable[Attachment], wanted: Callable[[Held | None], bool] = lambda held: True
    ) -> Callable[[], dict[Attachment, Exception | None]]:
        """Take many from the kernel with one message; what is returned must be called, drops them from the journal in
        one transaction, and tells why one could not be removed, or None.

        Those are left out that are not *wanted*, or that have a request under way, which nobody here shall wait for.
        """
        keys = ExitStack()
        free = [who for who in dict.fromkeys(whos) if keys.enter_context(self._keys.hold_if_free(who))]
        found = [who for who in free if wanted(self._held.get(who))]
        refusal: Exception | None = None
        try:
            self._dismantle(*found)
        except Exception as error:  # noqa: BLE001 - told by what is returned
            refusal = error
        except BaseException:
            keys.close()
            raise

        def finish() -> dict[Attachment, Exception | None]:
            with keys:
                if refusal is None:
                    try:
                        self._drop(found)
                    except Failure as error:
                        return dict.fromkeys(found, error)
                    return dict.fromkeys(found)
                if len(found) == 1:
                    return {found[0]: refusal}
                # One that is refused must not keep the others from being removed.
                return {who: self._refusal(who) for who in found}

        return finish

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

        with self._lock:
            stale = [who for who, held in self._held.items() if is_stale(held)]
        done = self.begin_removal(stale, is_stale)()
        for who in stale:
            if who not in done:
                with self._keys.hold(who):
                    if is_stale(self._held.get(who)):
                        done[who] = self._refusal(who)
        for failure in done.values():
            if failure is not None:
                raise failure
        return list(done)

    def _refusal(self, who: Attachment) -> Failure | None:
        try:
            self._remove([who])
        except Failure as failure:
            return failure
        return None

    def _remove(self, whos: Sequence[Attachment]) -> list[Attachment]:
        """Undo, drop, cool down; the answer is who of them had a lease."""
        self._dismantle(*whos)
        return self._drop(whos)

    def _drop(self, whos: Sequence[Attachment]) -> list[Attachment]:
        with self._lock:
            now = self._clock()
            leased = [who for who in whos if who in self._held]
            self._store.drop(leased, now)
            for who in leased:
                self._allocator.release(who, now)
                del self._held[who]
        return leased

    def _dismantle(self, *whos: Attachment) -> None:
        """Want nothing of these attachments: what is gone already, and what is not ours, is not touched."""
        self._dataplane.apply([change for who in whos for change in diff(remains(who), {})])

    # --- CHECK and repair -------------------------------------------------------------------------------------

    def check(self, who: Attachment, netns: str, mac: str, mtu: int) -> Record:
        """The record of *who*, if all is as it should be; *mac* and *mtu* (bytes) are what the runtime believes the
        pod's end to have, '' and 0 where it does not know.

        Raises:
            UnknownContainer: there is no lease.
            Drifted: something differs; the details are the difference.
        """
        with self._keys.hold(who):
            held, wiring = self._held.get(who), self._wiring
            if held is None:
                raise UnknownContainer(f"{who} has no lease on this node", "it was never added, or was deleted")
            if wiring is None:
                raise self._problem
            record = held.record
            if netns != record.netns and self._dataplane.identity(netns) != self._dataplane.identity(record.netns):
                raise Drifted(f"{who} is not in {netns}", f"it was attached in {record.netns}")
            have = self._dataplane.observe(pods.scopes(record, wiring))
            now = pods.seen(record, have)
            believed = replace(record, mac=mac) if mac else now
            changes = pods.faults(have, pods.expected(wiring, believed, have, mtu))
            if changes and now is not record and believed == now:
                # A plugin chained after us gave the pod's end another hardware address, as the runtime knows, and took
                # the link down for that. The next pass would follow; so does this.
                self._dataplane.apply(changes)
                self._save(replace(held, record=now))
                return now
        if changes:
            raise Drifted(f"{who} is not as it should be (- is there, + should be)", render(changes))
        return record

    def mend(self, who: Attachment, allowed: Callable[[Change], bool]) -> list[Change]:
        """Put right what differs at *who*, as far as *allowed*; the answer is what was changed.

        Nothing is done to an attachment with a request under way.

        Raises:
            KernelRefused, Drifted: it could not be put right.
        """
        with self._keys.hold_if_free(who) as is_free:
            held, wiring = self._held.get(who), self._wiring
            if not is_free or held is None or wiring is None:
                return []
            record = held.record
            have = self._dataplane.observe(pods.scopes(record, wiring))
            is_wired = pods.link_key(record) in have
            is_reachable = self._dataplane.identity(record.netns) is not None
            if not is_wired and not is_reachable:
                self._remove([who])
                log.warning("released the lease of a pod that is gone", extra={"attachment": str(who)})
                return []
            now = pods.seen(record, have) if is_wired else record
            changes = [change for change in pods.faults(have, pods.expected(wiring, now, have)) if allowed(change)]
            if is_wired and pods.port_key(record) not in have:
                changes = [change for change in changes if change.item.key.place == HOST]
                self._dataplane.apply(changes)
                if is_reachable:
                    raise Drifted(
                        f"{who} has no interface {who.ifname} in {record.netns}, though its link is there",
                        "it was renamed or moved within the pod; delete the pod to get it back",
                    )
                return changes
            self._dataplane.apply(changes)
            if any(old is not None and new is not None for old, new in changes):
                # A link that is given another address or goes down loses neighbours and routes.
                have = self._dataplane.observe(pods.scopes(record, wiring))
                lost = [change for change in pods.faults(have, pods.expected(wiring, now, have)) if allowed(change)]
                self._dataplane.apply(lost)
                changes += lost
            if now is not record:
                self._save(replace(held, record=now))
            return changes

    def _save(self, held: Held) -> None:
        with self._lock:
            self._store.save(held.record)
            self._held[held.record.lease.who] = held

    def drop_link(self, who: Attachment) -> bool:
        """Remove the link of an attachment that has no lease; False: it has one, or a request is under way."""
        with self._keys.hold_if_free(who) as is_free:
            if not is_free or who in self._held:
                return False
            self._dismantle(who)
            return True


def _exists(record: Record) -> InterfaceExists:
    who = record.lease.who
    return InterfaceExists(
        f"CNI_IFNAME {who.ifname!r} exists already in {record.netns}",
        "nothing was changed; DEL comes before another ADD, or ask for another name",
    )
