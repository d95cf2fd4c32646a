"""The one durable thing: the live leases, and who held which address before.

Every change is one transaction, so a process that dies leaves all of it or nothing. What always holds: ``load``
gives what was saved and not dropped, in the order of saving. Not thread-safe: the caller holds its one lock around
every call, the same that guards the allocator; any thread may call.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from netaddr import AddrFormatError, IPAddress, IPNetwork

from cni.errors import Failure, StateCorrupt
from cni.spec import Attachment, Identity
from ipam.lease import Block, Lease, Leased
from ipam.moment import Moment
from ipam.schema import Damaged, opened, translated, unknown

_WRITER: Final = "writer"
"""The name under which it is remembered who wrote last: the boot, and words for the machine."""
_LOG: Final = "-wal"
"""What the name of SQLite's log has besides: the newest of what was saved is there, and nowhere else."""
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})

REMEMBERED = 1 << 16
"""How many addresses keep their last tenure when history is pruned: as many as a /16 has."""
KEPT = 100_000
"""How many tenures are kept besides, the newest: some 50 MB, with a pod every 10 s more than a week."""
PRUNED = 20_000
"""How many are forgotten at once: nobody is given an address meanwhile."""
SHOWN = 1000
"""How many tenures a history tells, the newest: an address of a small range, or a pod that is made anew every minute,
has tens of thousands, and nobody is given an address while they are read."""


@dataclass(frozen=True, slots=True)
class Record:
    """A live lease, where its pod is, and since when it holds it. *netns* is '' and *space* None where that is not
    known: nothing is then done but on the host.

    *netns* is the path that the runtime gave, *mac* the pod's hardware address, *mtu* in bytes, *pod* the
    Kubernetes "namespace/name", empty without Kubernetes, and *uid* which pod of that name. *beside* are the families
    (4, 6) in which the pod's default route is not by this attachment, but by another network's or none.
    """

    lease: Lease
    netns: str
    mac: str
    mtu: int
    pod: str
    since: Moment
    space: Identity | None = None
    beside: tuple[int, ...] = ()
    uid: str = ""

    @property
    def called(self) -> str:
        """Whose it is, in words for people: the pod, where that is known, and which of its interfaces and sandboxes."""
        who = self.lease.who
        return f"{self.pod} ({who.ifname} of {who.container[:13]})" if self.pod else str(who)

    @property
    def is_certain(self) -> bool:
        """Whether *space* tells the namespace from one that is made after its end, even without its link."""
        return self.space is not None and self.space.cookie != 0


@dataclass(frozen=True, slots=True)
class Tenure:
    """Who held *address* of *block*, from *since* to *until* (seconds since the epoch, for people); until None: holds
    it now."""

    address: IPAddress
    block: Block
    who: Attachment
    netns: str
    mac: str
    pod: str
    since: float
    until: float | None
    uid: str = ""


class Store:
    """The store at *path*, opened during the boot *boot_id* of *machine* (words, "-" for one that is not known);
    StateCorrupt where the file cannot be trusted.

    Leases of an earlier boot ended with it: they are closed at *now*, and *dropped* says how many attachments that
    were. Their addresses cool down from *now*, since peers may still remember their connections. What another machine
    wrote, whose disk or image this one was given, says nothing of this one: it is forgotten, and *is_foreign* says so.
    """

    def __init__(self, path: Path, boot_id: str, now: Moment, machine: str = "-") -> None:
        self.path = path
        self._boot = boot_id
        self._problem: Failure | None = None
        # Parsing a block costs more than all the rest of a row, and a node has few of them.
        self._blocks: dict[tuple[Any, ...], Block] = {}
        self._database = opened(path)
        self._unknown = "".join(f', "{name}" = NULL' for name in unknown(self._database))
        self.is_foreign: bool = self._is_of_another(boot_id, machine)
        with self._transaction():
            if self.is_foreign:
                self._database.execute("DELETE FROM tenure")
                self._database.execute("DELETE FROM setting")
            self._remember(_WRITER, f"{boot_id} {machine}")
            self.is_new: bool = not self._database.execute("SELECT count(*) FROM tenure").fetchone()[0]
            """Whether it knew nothing of anything."""
            stale = "FROM tenure WHERE until IS NULL AND boot != ?"
            count = f"SELECT count(*) FROM (SELECT DISTINCT network, container, ifname {stale})"
            self.dropped: int = self._database.execute(count, (boot_id,)).fetchone()[0]
            """How many leases of an earlier boot were dropped."""
            self._database.execute(
                "UPDATE tenure SET until = ?, boot = ?, began = 0.0, ended = ? WHERE until IS NULL AND boot != ?",
                (now.wall, boot_id, now.up, boot_id),
            )
            # An agent that knew the wall clock alone wrote these, and as good as that is they are told.
            for up, wall in (("began", "since"), ("ended", "until")):
                self._database.execute(
                    f"UPDATE tenure SET {up} = max(0.0, ? - max(0.0, ? - {wall})) "
                    f"WHERE {up} IS NULL AND {wall} IS NOT NULL AND boot = ?",
                    (now.up, now.wall, boot_id),
                )
        # SQLite's log is there from the first write on, unless the file system can have none.
        self._files = {suffix: _identity(one.stat()) for suffix in ("", _LOG) if (one := self._beside(suffix)).exists()}

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _is_of_another(self, boot_id: str, machine: str) -> bool:
        boot, *words = (self.recall(_WRITER) or boot_id).split()
        return boot != boot_id and any(
            before != now and "-" not in (before, now) for before, now in zip(words, machine.split(), strict=False)
        )

    def save(self, record: Record) -> None:
        """Make *record* the one of its attachment, whatever was saved for it before.

        StateCorrupt: an address of it is in the lease of another attachment; nothing is saved then.
        """
        who = record.lease.who
        with self._transaction():
            rows = self._database.execute(
                "SELECT address, id FROM tenure "
                "WHERE network = ? AND container = ? AND ifname = ? AND until IS NULL",
                who,
            )
            saved: dict[str, int] = dict(rows.fetchall())
            leased = {str(one.address): one for one in record.lease.leased}
            for address in saved.keys() - leased.keys():
                self._database.execute(
                    "UPDATE tenure SET until = ?, ended = ? WHERE id = ?",
                    (record.since.wall, record.since.up, saved[address]),
                )
            for address, one in leased.items():
                self._write(record, one, saved.get(address))

    def enter(self, records: Collection[Record]) -> None:
        """Save records of attachments that have none yet, all in one transaction.

        StateCorrupt: an address or an attachment of them has a lease; nothing is saved then.
        """
        with self._transaction(sum(len(record.lease.leased) for record in records)):
            for record in records:
                for one in record.lease.leased:
                    self._write(record, one, None)

    def drop(self, whos: Collection[Attachment], now: Moment) -> int:
        """End the leases of *whos* at *now*, all in one transaction; the answer is how many addresses that were."""
        return self._end("UPDATE tenure SET until = ?, ended = ?", (now.wall, now.up), whos)

    def cancel(self, whos: Collection[Attachment]) -> int:
        """Forget the leases of *whos*, in one transaction, as if they had never been saved; the answer as of `drop`."""
        return self._end("DELETE FROM tenure", (), whos)

    def load(self) -> list[Record]:
        """Every live lease, in the order in which they were first saved."""
        rows: dict[Attachment, list[tuple[Any, ...]]] = {}
        columns = f"{_TENURE}, mtu, began, space, beside"
        for row in self._read(f"SELECT {columns} FROM tenure WHERE until IS NULL ORDER BY id"):
            rows.setdefault(Attachment(*row[4:7]), []).append(row)
        return [self._record(who, sorted(of, key=_family)) for who, of in rows.items()]

    def released(self) -> dict[IPAddress, float]:
        """When each address that nobody holds was last released (seconds since this boot; what an earlier boot
        released counts from this one's begin), oldest first."""
        # A bare column beside max() is SQLite's promise to take it from the row with that maximum.
        query = (
            "SELECT address, CASE boot WHEN ? THEN ended ELSE 0.0 END AS freed FROM "
            "(SELECT address, until, boot, ended, max(id) AS id FROM tenure GROUP BY address) "
            "WHERE until IS NOT NULL ORDER BY freed, until, id"
        )
        return {self._address(address): freed for address, freed in self._read(query, (self._boot,))}

    def history(self, address: IPAddress) -> list[Tenure]:
        """Who has and who had *address*, newest first, up to `SHOWN`."""
        return self._history("address", str(address))

    def history_of(self, pod: str) -> list[Tenure]:
        """Which addresses the *pod*, "namespace/name", has and had, newest first, up to `SHOWN`."""
        # Without an index, which every ADD would pay for: 100,000 rows are looked through in 10 ms.
        return self._history("pod", pod)

    def _history(self, column: str, value: str) -> list[Tenure]:
        query = f"SELECT {_TENURE}, until FROM tenure WHERE {column} = ? ORDER BY id DESC LIMIT {SHOWN}"
        return [self._tenure(row) for row in self._read(query, (value,))]

    def prune(self, before: float, addresses: int = REMEMBERED, rows: int = KEPT, at_once: int = PRUNED) -> int:
        """Forget tenures that ended before that time (seconds since the epoch), and all but the newest *rows*; the
        answer is how many, and that is *at_once* where there may be more to forget.

        The last one of each address stays, for the order of reuse; of more than *addresses*, as a /64 may use over
        the years, only of the newest.
        """
        newest = "SELECT id FROM tenure ORDER BY id DESC LIMIT 1 OFFSET ?"
        with self._transaction():
            superseded = self._database.execute(
                "DELETE FROM tenure WHERE id IN (SELECT id FROM tenure AS old WHERE until IS NOT NULL "
                f"AND (until < ? OR id <= ({newest})) "
                "AND EXISTS (SELECT 1 FROM tenure AS later WHERE later.address = old.address AND later.id > old.id) "
                "ORDER BY id LIMIT ?)",
                (before, rows, at_once),
            ).rowcount
            if superseded == at_once:
                return superseded
            forgotten = self._database.execute(
                f"DELETE FROM tenure WHERE until IS NOT NULL AND (until < ? OR id <= ({newest})) AND id NOT IN "
                "(SELECT max(id) FROM tenure GROUP BY address ORDER BY max(id) DESC LIMIT ?)",
                (before, rows, addresses),
            ).rowcount
            return min(superseded + forgotten, at_once - 1)

    def recall(self, name: str) -> str | None:
        """What was remembered under *name*; None when nothing was."""
        rows = self._read("SELECT value FROM setting WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    def remember(self, name: str, value: str) -> None:
        """Keep *value* under *name*, in place of what was there."""
        with self._transaction(1):
            self._remember(name, value)

    def _remember(self, name: str, value: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO setting (name, value) VALUES (?, ?)", (name, value))

    def problem(self) -> Failure | None:
        """Why what is saved now would be lost, or could not be saved; None when all is well. `Damaged`: build it anew.

        A write that failed is tried again here, so a problem that has passed is over.
        """
        for suffix, opened_one in self._files.items():
            path = self._beside(suffix)
            try:
                found = _identity(path.stat())
            except OSError as error:
                if error.errno in _GONE:
                    return Damaged(f"the store {path} is gone", str(error.strerror))
                # What cannot be looked at may be all right.
                why = f"the store {path} cannot be looked at: {error.strerror}"
                return StateCorrupt(why, "check the disk under it")
            if found != opened_one:
                return Damaged(f"the store {path} is another file than the agent opened", "somebody replaced it")
        if self._problem is not None:
            with suppress(Failure):
                self.remember("pulse", "")
        return self._problem

    def close(self) -> None:
        """Fold the log into the file and let go of it; the store cannot be used afterwards."""
        with translated(self.path):
            self._database.close()

    @contextmanager
    def _transaction(self, statements: int = 2) -> Iterator[None]:
        """All or nothing of the body's *statements*; one alone is a transaction by itself."""
        try:
            with translated(self.path):
                if statements < 2:
                    yield
                else:
                    self._database.execute("BEGIN IMMEDIATE")
                    try:
                        yield
                        self._database.execute("COMMIT")
                    except BaseException:
                        # After some errors, such as a full disk, SQLite has rolled back by itself.
                        if self._database.in_transaction:
                            self._database.execute("ROLLBACK")
                        raise
        except Failure as failure:
            self._problem = failure
            raise
        self._problem = None

    def _read(self, query: str, values: tuple[str, ...] = ()) -> list[tuple[Any, ...]]:
        with translated(self.path):
            return self._database.execute(query, values).fetchall()

    def _end(self, change: str, values: tuple[float, ...], whos: Collection[Attachment]) -> int:
        with self._transaction(len(whos)):
            ended = self._database.executemany(
                f"{change} WHERE network = ? AND container = ? AND ifname = ? AND until IS NULL",
                [(*values, *who) for who in whos],
            )
        return max(0, ended.rowcount)

    def _write(self, record: Record, one: Leased, row: int | None) -> None:
        who, address, block = record.lease.who, one.address, one.block
        place = f"{address.version}:{int(address):0{8 if address.version == 4 else 32}x}"
        values = (
            *(str(address), place, str(block.network), block.reserve, block.owner, *who),
            *(record.netns, record.mac, record.mtu, record.pod, self._boot, record.since.wall, record.since.up),
            ":".join(map(str, record.space)) if record.space is not None else None,
            "".join(map(str, record.beside)) or None,
            record.uid or None,
        )
        # The same columns either way: a row that is there keeps its id, and with it its place in the order.
        query = (
            "INSERT INTO tenure (id, address, place, block, reserve, owner, network, container, ifname,"
            " netns, mac, mtu, pod, boot, since, began, space, beside, uid)"
            f" VALUES ({','.join('?' * 19)})"
            " ON CONFLICT (id) DO UPDATE SET block = excluded.block, reserve = excluded.reserve,"
            " owner = excluded.owner, netns = excluded.netns, mac = excluded.mac, mtu = excluded.mtu,"
            " pod = excluded.pod, since = excluded.since, began = excluded.began, space = excluded.space,"
            f" beside = excluded.beside, uid = excluded.uid{self._unknown}"
        )
        try:
            self._database.execute(query, (row, *values))
        except sqlite3.IntegrityError as error:
            raise self._taken(record, address) from error

    def _taken(self, record: Record, address: IPAddress) -> StateCorrupt:
        holder = [str(tenure.who) for tenure in self.history(address) if tenure.until is None]
        return StateCorrupt(
            f"the store {self.path} cannot hold {address} for {record.lease.who}: "
            + (f"it is leased to {holder[0]}" if holder else "that has an address of this family already"),
            "restart the agent, which reads the leases anew; if this comes back, report it as a bug",
        )

    def _record(self, who: Attachment, rows: list[tuple[Any, ...]]) -> Record:
        *_, netns, mac, pod, uid, since, mtu, began, text, beside = rows[0]
        space = Identity(*map(int, text.split(":"))) if text is not None else None
        lease, families = Lease(who, tuple(map(self._leased, rows))), tuple(map(int, beside or ""))
        return Record(lease, netns, mac, mtu, pod, Moment(began, since), space, families, uid or "")

    def _tenure(self, row: tuple[Any, ...]) -> Tenure:
        one = self._leased(row)
        netns, mac, pod, uid, since, until = row[7:]
        return Tenure(one.address, one.block, Attachment(*row[4:7]), netns, mac, pod, since, until, uid or "")

    def _leased(self, row: tuple[Any, ...]) -> Leased:
        text, source = row[0], row[1:4]
        block = self._blocks.get(source)
        if block is None:
            network, reserve, owner = source
            try:
                block = self._blocks[source] = Block(IPNetwork(network), owner, bool(reserve))
            except (AddrFormatError, ValueError) as error:
                raise self._unreadable(network) from error
        return Leased(self._address(text), block)

    def _address(self, text: str) -> IPAddress:
        try:
            return IPAddress(text)
        except (AddrFormatError, ValueError) as error:
            raise self._unreadable(text) from error

    def _unreadable(self, text: str) -> StateCorrupt:
        return StateCorrupt(
            f"the store {self.path} has {text!r} where an address or a block should be",
            "something else wrote to it: correct that row of its table tenure, or delete it",
        )


_TENURE = "address, block, reserve, owner, network, container, ifname, netns, mac, pod, uid, since"


def _family(row: tuple[Any, ...]) -> bool:
    return ":" in row[0]


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
