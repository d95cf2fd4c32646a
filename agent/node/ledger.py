"""Which attachment holds what: memory and journal together, and never the kernel.

What always holds: who has a lease in memory has it in the journal, and the other way round; no address is in two
leases. One lock guards both, for as long as SQLite takes and no longer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from typing import Final, Protocol

from netaddr import IPAddress, IPNetwork

from backends.podlink import pod_mac
from cni.errors import Failure
from cni.spec import Attachment, Identity
from ipam.allocator import Allocator
from ipam.family import Counts
from ipam.lease import Block, Lease
from ipam.moment import Moment
from ipam.schema import Damaged
from ipam.store import PRUNED, Record, Store, Tenure

log = logging.getLogger(__name__)

_PRUNINGS: Final = 10
"""How often the journal is asked to forget some more; others are served between."""
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
    """What an ADD asks for besides an attachment: see ``cni.call.Call``. *netns* is a path, *space* what is there;
    *beside* are the families in which it shall have no default route."""

    netns: str
    ips: Sequence[IPAddress] = ()
    mac: str = ""
    pod: str = ""
    space: Identity | None = None
    beside: frozenset[int] = frozenset()
    uid: str = ""

    def beside_of(self, lease: Lease) -> tuple[int, ...]:
        """See `ipam.store.Record.beside`."""
        return tuple(address.version for address in lease.addresses if address.version in self.beside)


class Stopwatch(Protocol):
    """Measures the parts of a request: see ``agent.tell.metrics``."""

    def phase(self, verb: str, phase: str) -> AbstractContextManager[object]:
        """``with stopwatch.phase("ADD", "save"): …`` measures that part."""


class Ledger:
    """Any thread may call.

    *store* is the journal; what it held at the start is given by `restore`. *reopen* sets aside what is in the
    journal's place and begins an empty one.
    """

    def __init__(
        self,
        *,
        allocator: Allocator,
        store: Store,
        metrics: Stopwatch,
        clock: Callable[[], Moment],
        reopen: Callable[[], Store] | None = None,
    ) -> None:
        self._allocator = allocator
        self._store = store
        self._reopen = reopen
        self._metrics = metrics
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[Attachment, Held] = {}
        self._remembered: dict[str, str] = {}
        self._sequence = RESTORED
        self.problem: Failure | None = None
        """Why the journal does not take what is to be saved; None when it does."""

    # --- what it tells ----------------------------------------------------------------------------------------

    @property
    def sequence(self) -> int:
        """The number of the last ADD that was served."""
        return self._sequence

    def held(self, who: Attachment) -> Held | None:
        """What *who* holds."""
        return self._held.get(who)

    def find(self, wanted: Callable[[Held], bool]) -> list[Attachment]:
        """Whose holdings are *wanted*."""
        with self._lock:
            return [who for who, held in self._held.items() if wanted(held)]

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
            return self._allocator.counts(self._clock().up)

    def busy(self, network: IPNetwork) -> int:
        """How many addresses of *network* are held or cooling down, be it offered or not."""
        with self._lock:
            return self._allocator.busy(network, self._clock().up)

    def history(self, address: IPAddress) -> list[Tenure]:
        """Who has and who had *address*, newest first."""
        with self._lock:
            return self._store.history(address)

    def history_of(self, pod: str) -> list[Tenure]:
        """Which addresses the *pod*, "namespace/name", has and had, newest first."""
        with self._lock:
            return self._store.history_of(pod)

    def recall(self, name: str) -> str | None:
        """What the journal keeps under *name*; None when nothing."""
        with self._lock:
            return self._store.recall(name)

    def remember(self, name: str, value: str) -> None:
        """Keep *value* in the journal under *name*."""
        with self._lock:
            self._remembered[name] = value
            self._store.remember(name, value)

    def prune(self, before: float) -> None:
        """Forget the history before that time (seconds since the epoch), and what of it is too much to keep."""
        for _ in range(_PRUNINGS):
            with self._lock:
                if self._store.prune(before) < PRUNED:
                    return

    # --- leases -----------------------------------------------------------------------------------------------

    def restore(self, records: Collection[Record]) -> None:
        """Take over *records*, which are in the journal, and what it knows of addresses released lately: at the start,
        once."""
        with self._lock:
            self._allocator.restore((record.lease for record in records), self._store.released())
            self._held = {record.lease.who: Held(record, RESTORED, False) for record in records}

    def offer(self, blocks: Collection[Block]) -> None:
        """Give addresses of *blocks* from now on."""
        with self._lock:
            self._allocator.offer(frozenset(blocks))

    def lease(self, who: Attachment, asked: Asked, mtu: int) -> Record:
        """A new lease, saved; *mtu* (bytes) is the link's. It is in flight until ``enter``.

        Raises:
            ConfigInvalid, Exhausted, TryAgain: no address can be given. TryAgain, StateCorrupt: it cannot be saved.
        """
        with self._lock:
            with self._metrics.phase("ADD", "allocate"):
                record = self._allocated(who, asked, mtu, self._clock())
            self._save_new([record])
        return record

    def lease_together(self, asked: Mapping[Attachment, Asked], mtu: int) -> list[Record]:
        """New leases for those for whom there are addresses, all saved in one transaction.

        Raises:
            TryAgain, StateCorrupt: they cannot be saved; there are none then.
        """
        records = []
        with self._lock:
            now = self._clock()
            with self._metrics.phase("ADD", "allocate"):
                for who, one in asked.items():
                    with suppress(Failure):
                        records.append(self._allocated(who, one, mtu, now))
            self._save_new(records)
        return records

    def enter(self, record: Record) -> Record:
        """The ADD that it was leased for is served: from now on it has a number."""
        with self._lock:
            self._sequence += 1
            self._held[record.lease.who] = Held(record, self._sequence, False)
        return record

    def answered(self, who: Attachment) -> None:
        """The runtime has the answer to its ADD: another ADD of the same attachment is now its mistake."""
        with self._lock:
            held = self._held.get(who)
            if held is not None:
                self._held[who] = replace(held, is_answered=True)

    def replace(self, record: Record) -> None:
        """Keep *record* in the place of what its attachment holds, under the same number."""
        with self._lock:
            self._store.save(record)
            who = record.lease.who
            self._held[who] = replace(self._held[who], record=record)

    def cancel(self, records: Collection[Record]) -> None:
        """End leases whose addresses never were a running pod's: nothing cools down, and no history tells of them."""
        whos = [record.lease.who for record in records]
        with self._lock:
            self._store.cancel(whos)
            for who in whos:
                self._allocator.cancel(who)
                del self._held[who]

    def drop(self, whos: Collection[Attachment]) -> list[Attachment]:
        """End the leases of *whos* in one transaction; their addresses cool down. The answer is who had one."""
        with self._lock:
            now = self._clock()
            leased = [who for who in whos if who in self._held]
            self._store.drop(leased, now)
            for who in leased:
                self._allocator.release(who, now.up)
                del self._held[who]
        return leased

    def _allocated(self, who: Attachment, asked: Asked, mtu: int, now: Moment) -> Record:
        lease = self._allocator.allocate(who, now.up, asked.ips)
        mac, beside = asked.mac or pod_mac(lease.addresses), asked.beside_of(lease)
        return Record(lease, asked.netns, mac, mtu, asked.pod, now, asked.space, beside, asked.uid)

    def _save_new(self, records: Sequence[Record]) -> None:
        try:
            with self._metrics.phase("ADD", "save"):
                self._store.enter(records)
        except BaseException:
            for record in records:
                self._allocator.cancel(record.lease.who)
            raise
        for record in records:
            # In flight: known, for DEL and for the count; its number comes when it is served.
            self._held[record.lease.who] = Held(record, self._sequence + 1, False)

    # --- the journal ------------------------------------------------------------------------------------------

    def tend(self) -> None:
        """See that the journal is there and takes what is saved. One that was lost or damaged while the agent ran is
        set aside and built anew from memory: the leases are all there, the history of addresses begins again."""
        with self._lock:
            problem = self._store.problem()
            if isinstance(problem, Damaged) and self._reopen is not None:
                try:
                    store = self._built_anew(self._reopen())
                except Failure as failure:
                    problem = failure
                else:
                    with suppress(Failure):
                        self._store.close()
                    log.error("the journal was built anew from memory", extra={"error": str(problem)})
                    self._store, problem = store, None
            if problem is not None and str(problem) != str(self.problem):
                log.error("the journal takes nothing", extra={"error": str(problem)})
            self.problem = problem

    def _built_anew(self, store: Store) -> Store:
        try:
            for held in self._held.values():
                store.save(held.record)
            for name, value in self._remembered.items():
                store.remember(name, value)
        except BaseException:  # it is tried again every second
            store.close()
            raise
        return store

    def close(self) -> None:
        """Let go of the journal; nothing can be leased or dropped afterwards."""
        with self._lock:
            self._store.close()
