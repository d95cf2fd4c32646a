"""Agents of different versions on one journal: an upgrade and the way back lose no lease, or say why they cannot be."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from netaddr import IPAddress, IPNetwork

from cni.errors import StateCorrupt
from cni.spec import Attachment, Identity
from ipam.lease import Block, Lease, Leased
from ipam.moment import Moment
from ipam.schema import VERSION
from ipam.store import Record, Store

JOURNALS = Path(__file__).parent / "journals"
NOW = Moment(1020.0, 2020.0)
BLOCKS = {4: Block(IPNetwork("10.1.0.0/24"), "node-a"), 6: Block(IPNetwork("fd00::/124"), "node-a")}


def record(number: int, *addresses: str) -> Record:
    """What the journals' agents saved."""
    who = Attachment("pods", f"container{number}", "eth0")
    leased = tuple(Leased(IPAddress(one), BLOCKS[IPAddress(one).version]) for one in addresses)
    since = Moment(1000.0 + number, 2000.0 + number)
    mac, pod = f"02:00:00:00:00:0{number}", f"shop/web-{number}"
    return Record(Lease(who, leased), f"/run/netns/c{number}", mac, 1450, pod, since)


FIRST, SECOND = record(1, "10.1.0.5", "fd00::5"), record(2, "10.1.0.6")
WITH_SPACE = replace(FIRST, space=Identity(4, 4026532001, 1), beside=(6,))


@pytest.fixture
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of one of the journals: the newest, unless the test says which."""
    target = tmp_path / "routable.db"
    shutil.copy(JOURNALS / f"{getattr(request, 'param', '816dec6')}.db", target)
    return target


@pytest.mark.parametrize(
    ("path", "first"), [("34cd7e3", FIRST), ("816dec6", WITH_SPACE)], ids=["34cd7e3", "816dec6"], indirect=["path"]
)
def test_a_journal_of_an_earlier_commit_loses_nothing(path: Path, first: Record) -> None:
    """Leases as they were, addresses that cool down, who had them; and a new lease beside them."""
    with closing(Store(path, "boot-1", NOW)) as store:
        assert store.load() == [first, SECOND]
        assert store.released() == {IPAddress("10.1.0.7"): 1010.0, IPAddress("fd00::7"): 1010.0}
        assert [one.pod for one in store.history(IPAddress("10.1.0.7"))] == ["shop/web-3"]
        assert not store.is_foreign
        store.save(record(4, "10.1.0.8"))
    with closing(Store(path, "boot-1", NOW)) as store:
        assert store.load() == [first, SECOND, record(4, "10.1.0.8")]


def newer(path: Path) -> None:
    """What an agent to come may do to the file within its version: a column, a table, a setting."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("ALTER TABLE tenure ADD COLUMN tomorrow TEXT")
        database.execute("UPDATE tenure SET tomorrow = 'known of ' || container")
        database.execute("CREATE TABLE beyond (name TEXT PRIMARY KEY) STRICT")
        database.execute("INSERT INTO beyond VALUES ('kept')")
        database.execute("INSERT INTO setting VALUES ('beyond', 'kept')")
        database.commit()


def tomorrow(path: Path) -> dict[str, str | None]:
    """What the newer agent finds in its column of live leases."""
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT name FROM beyond").fetchall() == [("kept",)]
        return dict(database.execute("SELECT address, tomorrow FROM tenure WHERE until IS NULL").fetchall())


def test_an_older_agent_goes_on_with_a_newer_journal_and_keeps_what_it_does_not_know(path: Path) -> None:
    """As after a roll-back: its leases are there, it gives and takes others, and the next newer agent finds its own."""
    newer(path)
    with closing(Store(path, "boot-1", NOW)) as store:
        assert store.load() == [WITH_SPACE, SECOND]
        store.enter([record(4, "10.1.0.8")])
        store.drop([SECOND.lease.who], NOW)
        assert store.recall("beyond") == "kept"
    assert tomorrow(path) == {"10.1.0.5": "known of container1", "fd00::5": "known of container1", "10.1.0.8": None}


def test_what_an_older_agent_writes_over_says_nothing_that_it_does_not_know(path: Path) -> None:
    """The same pod in another namespace: what a newer agent noted of the old one is not taken for the new one's."""
    newer(path)
    with closing(Store(path, "boot-1", NOW)) as store:
        store.save(replace(SECOND, netns="/run/netns/another"))
    assert tomorrow(path) == {"10.1.0.5": "known of container1", "fd00::5": "known of container1", "10.1.0.6": None}


def test_a_journal_that_an_older_agent_could_not_go_on_with_is_refused_and_kept(path: Path) -> None:
    """By its version; with what to do, and not a byte changed."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {VERSION + 1}")
        database.execute("PRAGMA journal_mode = DELETE")
    before = path.read_bytes()
    words = f"has version {VERSION + 1}; this agent knows versions up to {VERSION}"
    with pytest.raises(StateCorrupt, match=words) as caught:
        Store(path, "boot-1", NOW)
    assert "a newer agent wrote it: run that one" in caught.value.details
    assert path.read_bytes() == before
