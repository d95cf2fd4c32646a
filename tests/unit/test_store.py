"""The store, case by case: what is kept, what is refused, and what its errors say."""

from __future__ import annotations

import errno
import gc
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from netaddr import IPAddress, IPNetwork

from cni.errors import Failure, StateCorrupt, TryAgain
from cni.spec import Attachment
from ipam.lease import Block, Lease, Leased
from ipam.moment import Moment
from ipam.schema import Damaged, bears_our_mark, failure, refuse_others, set_aside, translated
from ipam.store import SHOWN, Record, Store, Tenure
from tests.fakes.descriptors import descriptors

BLOCKS = {4: Block(IPNetwork("10.1.0.0/24"), "node-a"), 6: Block(IPNetwork("fd00::/124"), "eni-1", reserve=False)}


def at(seconds: float) -> Moment:
    """By both clocks."""
    return Moment(seconds, seconds)


def pod(number: int, network: str = "pods") -> Attachment:
    return Attachment(network, f"container{number}", "eth0")


def record(who: Attachment, *addresses: str, since: float = 100.0) -> Record:
    leased = tuple(Leased(IPAddress(one), BLOCKS[IPAddress(one).version]) for one in addresses)
    return Record(Lease(who, leased), f"/run/netns/{who.container}", "02:00:00:00:00:01", 1450, "shop/web-0", at(since))


def tenure(address: str, who: Attachment, since: float, until: float | None) -> Tenure:
    ip = IPAddress(address)
    netns = f"/run/netns/{who.container}"
    return Tenure(ip, BLOCKS[ip.version], who, netns, "02:00:00:00:00:01", "shop/web-0", since, until)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "routable.db"


def test_saved_records_are_loaded_as_they_were(path: Path) -> None:
    """What was saved is there for the next process, field by field, in the order of saving."""
    records = [record(pod(2), "10.1.0.9", "fd00::a"), record(pod(1), "10.1.0.5"), record(pod(3), "10.1.0.10")]
    records += [replace(record(pod(4), "10.1.0.4", "fd00::4"), beside=(6,))]
    records += [replace(record(pod(5), "10.1.0.6", "fd00::6"), beside=(4, 6))]
    records += [replace(record(pod(6), "10.1.0.7"), uid="4f3c")]
    with closing(Store(path, "boot-1", at(0.0))) as store:
        for each in records:
            store.save(each)
    with closing(Store(path, "boot-1", at(0.0))) as store:
        assert store.load() == records
        assert store.dropped == 0


def test_saving_again_keeps_one_record_in_its_place(path: Path) -> None:
    """A second save for an attachment is its record from then on; an address it no longer has is released."""
    with closing(Store(path, "boot-1", at(0.0))) as store:
        store.save(record(pod(1), "10.1.0.1", "fd00::1"))
        store.save(record(pod(2), "10.1.0.2"))
        changed = record(pod(1), "10.1.0.9", "fd00::1", since=150.0)
        store.save(changed)
        store.save(changed)
        assert store.load() == [changed, record(pod(2), "10.1.0.2")]
        assert store.released() == {IPAddress("10.1.0.1"): 150.0}


def test_one_container_on_two_networks_has_two_records(path: Path) -> None:
    """Attachments of one container to two networks are kept and dropped apart."""
    with closing(Store(path, "boot-1", at(0.0))) as store:
        store.save(record(pod(1, "pods"), "10.1.0.1"))
        store.save(record(pod(1, "storage"), "10.1.0.2"))
        assert store.drop([pod(1, "pods")], at(200.0))
        assert store.load() == [record(pod(1, "storage"), "10.1.0.2")]


def test_an_address_cannot_be_saved_twice(path: Path) -> None:
    """The file itself refuses a second holder of an address, by name, and keeps nothing of that record."""
    with closing(Store(path, "boot-1", at(0.0))) as store:
        store.save(record(pod(1), "fd00::1"))
        with pytest.raises(StateCorrupt, match="fd00::1 for pods/container2/eth0: it is leased to pods/container1/e"):
            store.save(record(pod(2), "10.1.0.2", "fd00::1"))
        assert store.load() == [record(pod(1), "fd00::1")]
        assert store.history(IPAddress("10.1.0.2")) == []


def test_drop_ends_a_lease_once(path: Path) -> None:
    """A dropped lease is history with the time of its end; dropping again answers False and changes nothing."""
    with closing(Store(path, "boot-1", at(0.0))) as store:
        store.save(record(pod(1), "10.1.0.1", "fd00::1"))
        assert store.drop([pod(1)], at(200.0))
        assert not store.drop([pod(1)], at(300.0))
        assert store.load() == []
        assert store.released() == {IPAddress("10.1.0.1"): 200.0, IPAddress("fd00::1"): 200.0}


def test_history_tells_who_has_and_who_had_an_address(path: Path) -> None:
    """The history of an address is every tenure, newest first, the present holder included."""
    with closing(Store(path, "boot-1", at(0.0))) as store:
        store.save(record(pod(1), "10.1.0.1", since=100.0))
        store.drop([pod(1)], at(200.0))
        store.save(record(pod(2), "10.1.0.1", since=300.0))
        assert store.history(IPAddress("10.1.0.1")) == [
            tenure("10.1.0.1", pod(2), 300.0, None),
            tenure("10.1.0.1", pod(1), 100.0, 200.0),
        ]
        assert store.released() == {}


def test_history_of_a_pod(path: Path) -> None:
    """By its name, newest first: every address of every pod that was ever called so, and which of them that was."""
    with closing(Store(path, "boot-1", at(0.0))) as store:
        store.save(replace(record(pod(1), "10.1.0.1", "fd00::1"), uid="first"))
        store.save(replace(record(pod(2), "10.1.0.2"), pod="shop/web-1"))
        store.drop([pod(1)], at(200.0))
        store.save(replace(record(pod(3), "10.1.0.3", since=300.0), uid="second"))
        found = [(str(one.address), one.uid, one.until) for one in store.history_of("shop/web-0")]
        assert found == [("10.1.0.3", "second", None), ("fd00::1", "first", 200.0), ("10.1.0.1", "first", 200.0)]
        assert store.history_of("web-0") == []


def test_a_file_from_before_uids_is_read_and_written(path: Path) -> None:
    """Its leases are of pods whose uid nobody knows; an agent from before, which is gone back to, knows the rest."""
    with closing(Store(path, "boot-1", at(0.0))) as store:
        store.save(replace(record(pod(1), "10.1.0.1"), uid="lost"))
    with closing(sqlite3.connect(path)) as database:
        database.execute("ALTER TABLE tenure DROP COLUMN uid")
    with closing(Store(path, "boot-1", at(0.0))) as store:
        assert store.load() == [record(pod(1), "10.1.0.1")]
        store.save(replace(record(pod(2), "10.1.0.2"), uid="known"))
        assert [one.uid for one in store.load()] == ["", "known"]


def test_who_a_lease_is_of_is_told_by_the_pods_name(path: Path) -> None:
    """Which of its interfaces and sandboxes, too; without Kubernetes by the attachment."""
    long = Attachment("pods", "0123456789abcdef" * 4, "net1")
    assert record(long, "10.1.0.1").called == "shop/web-0 (net1 of 0123456789abc)"
    assert replace(record(long, "10.1.0.1"), pod="").called == str(long)


def test_prune_keeps_the_last_tenure_of_each_address(path: Path) -> None:
    """Old history goes, but the last release of every address stays, for the order of reuse, and all that is live."""
    with closing(Store(path, "boot-1", at(0.0))) as store:
        for number in (1, 2, 3):
            store.save(record(pod(number), "10.1.0.1", since=number * 100.0))
            store.drop([pod(number)], at(number * 100.0 + 50))
        store.save(record(pod(4), "10.1.0.2", since=50.0))
        assert store.prune(260.0) == 2
        assert store.history(IPAddress("10.1.0.1")) == [tenure("10.1.0.1", pod(3), 300.0, 350.0)]
        assert store.prune(1000.0) == 0
        assert store.released() == {IPAddress("10.1.0.1"): 350.0}
        assert store.load() == [record(pod(4), "10.1.0.2", since=50.0)]


def test_history_is_bounded_however_many_pods_come_and_go(path: Path) -> None:
    """Of thirty lately the newest ten are kept, whatever their age; a few at a time; who lives is never forgotten."""
    with closing(Store(path, "boot-1", at(0.0))) as store:
        store.save(record(pod(99), "10.1.0.9", since=1.0))
        for number in range(30):
            store.save(record(pod(number), "10.1.0.1", since=number * 10.0 + 2))
            store.drop([pod(number)], at(number * 10.0 + 5))
        assert [store.prune(0.0, rows=10, at_once=8) for _ in range(4)] == [8, 8, 4, 0]
        assert len(store.history(IPAddress("10.1.0.1"))) == 10
        assert store.history(IPAddress("10.1.0.1"))[0].who == pod(29)
        assert store.load() == [record(pod(99), "10.1.0.9", since=1.0)]


def test_of_a_long_history_the_newest_is_told(path: Path) -> None:
    """An address of a small range, or a pod that is made anew all the time, has more than anybody reads."""
    with closing(Store(path, "boot-1", at(0.0))) as store:
        for number in range(SHOWN + 5):
            store.enter([record(pod(number), "10.1.0.1", since=number * 10.0)])
            store.drop([pod(number)], at(number * 10.0 + 5))
        for found in (store.history(IPAddress("10.1.0.1")), store.history_of("shop/web-0")):
            assert [one.who for one in found] == [pod(number) for number in reversed(range(5, SHOWN + 5))]


def test_prune_remembers_a_bounded_number_of_addresses(path: Path) -> None:
    """However many addresses a /64 has used, only the newest keep a last tenure once they are old."""
    with closing(Store(path, "boot-1", at(0.0))) as store:
        for number in (1, 2, 3):
            store.save(record(pod(number), f"fd00::{number}"))
            store.drop([pod(number)], at(200.0))
        assert store.prune(1000.0, addresses=2) == 1
        assert list(store.released()) == [IPAddress("fd00::2"), IPAddress("fd00::3")]


def test_leases_of_an_earlier_boot_are_dropped(path: Path) -> None:
    """After a reboot no lease is live, their addresses cool down from now, and how many it were is known. What was
    released before cools down from the boot on: its own clock began anew."""
    with closing(Store(path, "boot-1", at(0.0))) as store:
        store.save(record(pod(1), "10.1.0.1", "fd00::1"))
        store.save(record(pod(2), "10.1.0.2"))
        store.drop([pod(2)], at(150.0))
    with closing(Store(path, "boot-2", at(500.0))) as store:
        assert store.dropped == 1
        assert store.load() == []
        assert store.released() == dict(
            zip(map(IPAddress, ["10.1.0.2", "10.1.0.1", "fd00::1"]), [0.0, 500.0, 500.0], strict=True)
        )


def test_a_process_that_dies_loses_nothing_saved(path: Path) -> None:
    """A process that ends without closing the store has lost nothing that it saved."""
    code = (
        "import os, sys; from pathlib import Path; from tests.unit.test_store import *; "
        "store = Store(Path(sys.argv[1]), 'boot-1', at(0.0)); "
        "store.save(record(pod(1), '10.1.0.1', 'fd00::1')); os._exit(9)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code, path], cwd=root).returncode == 9
    with closing(Store(path, "boot-1", at(0.0))) as store:
        assert store.load() == [record(pod(1), "10.1.0.1", "fd00::1")]


def test_only_the_owner_can_read_the_store(path: Path) -> None:
    """The directory, the file and SQLite's files beside it are for their owner alone, whatever they were before."""
    path.parent.mkdir(mode=0o700)
    path.touch(0o644)
    with closing(Store(path, "boot-1", at(0.0))) as store:
        store.save(record(pod(1), "10.1.0.1"))
        files = sorted(path.parent.iterdir())
        assert [each.name for each in files] == ["routable.db", "routable.db-shm", "routable.db-wal"]
        assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}


def test_missing_directory_is_made_for_the_owner_alone(path: Path) -> None:
    """A state directory that does not exist is made with mode 0700."""
    Store(path, "boot-1", at(0.0)).close()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_person_reads_leases_in_the_order_of_their_addresses(path: Path) -> None:
    """The view "lease" lists addresses as text, by number, with readable times."""
    with closing(Store(path, "boot-1", at(0.0))) as store:
        for number, address in enumerate(["10.1.0.10", "fd00::10", "fd00::9", "10.1.0.9"]):
            store.save(record(pod(number), address, since=1_700_000_000.0))
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT address, pod, since FROM lease").fetchall()
    assert [row[0] for row in rows] == ["10.1.0.9", "10.1.0.10", "fd00::9", "fd00::10"]
    assert rows[0][1:] == ("shop/web-0", "2023-11-14 22:13:20")


def test_a_newer_store_is_left_alone(path: Path) -> None:
    """A file that a newer agent wrote is refused with its version and the remedy."""
    Store(path, "boot-1", at(0.0)).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 7")
    with pytest.raises(StateCorrupt) as caught:
        Store(path, "boot-1", at(0.0))
    assert caught.value.message == f"the store {path} has version 7; this agent knows versions up to 1"
    assert "newer agent" in caught.value.details


def test_a_database_of_another_program_is_left_alone(path: Path) -> None:
    """A database with other tables is refused, and not one byte of it is changed."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE song (title)")
    before = path.read_bytes()
    with pytest.raises(StateCorrupt, match="database of another program"):
        Store(path, "boot-1", at(0.0))
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    """A text file in the store's place is named, with what to do."""
    path.parent.mkdir()
    path.write_text("leases:\n" * 200)
    with pytest.raises(StateCorrupt, match=r"routable\.db is damaged or not a database"):
        Store(path, "boot-1", at(0.0))


EARLIER = """
CREATE TABLE tenure (
    id INTEGER PRIMARY KEY, address TEXT NOT NULL, place TEXT NOT NULL, block TEXT NOT NULL, reserve INTEGER NOT NULL,
    owner TEXT NOT NULL, network TEXT NOT NULL, container TEXT NOT NULL, ifname TEXT NOT NULL, netns TEXT NOT NULL,
    mac TEXT NOT NULL, mtu INTEGER NOT NULL, pod TEXT NOT NULL, boot TEXT NOT NULL, since REAL NOT NULL, until REAL
) STRICT;
CREATE INDEX tenure_address ON tenure (address);
CREATE UNIQUE INDEX tenure_one_holder ON tenure (address) WHERE until IS NULL;
CREATE UNIQUE INDEX tenure_one_per_family ON tenure (network, container, ifname, substr(place, 1, 1))
    WHERE until IS NULL;
PRAGMA user_version = 1;
INSERT INTO tenure VALUES (1, '10.1.0.5', '4:0a010005', '10.1.0.0/24', 1, 'node-a', 'pods', 'container1', 'eth0',
    '/run/netns/container1', '02:00:00:00:00:01', 1450, 'shop/web-0', 'boot-1', 9000.0, NULL);
INSERT INTO tenure VALUES (2, '10.1.0.6', '4:0a010006', '10.1.0.0/24', 1, 'node-a', 'pods', 'container2', 'eth0',
    '/run/netns/container2', '02:00:00:00:00:02', 1450, '', 'boot-1', 9000.0, 9900.0);
INSERT INTO tenure VALUES (3, '10.1.0.7', '4:0a010007', '10.1.0.0/24', 1, 'node-a', 'pods', 'container3', 'eth0',
    '/run/netns/container3', '02:00:00:00:00:03', 1450, '', 'boot-1', 9000.0, 99999.0);
"""
"""What the first agents wrote, which knew the wall clock alone."""


def test_a_journal_of_an_earlier_agent_is_taken_over(path: Path) -> None:
    """All that it knew is there; its times, which were the wall clock's, are told as seconds since the boot, and none
    of them lies ahead. The agent that wrote it could still read it."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(EARLIER)
    now = Moment(2000.0, 10_000.0)
    with closing(Store(path, "boot-1", now)) as store:
        (kept,) = store.load()
        assert kept == replace(record(pod(1), "10.1.0.5"), since=Moment(1000.0, 9000.0))
        assert store.released() == {IPAddress("10.1.0.6"): 1900.0, IPAddress("10.1.0.7"): 2000.0}
        assert not store.is_foreign
        store.save(record(pod(4), "10.1.0.8"))
    with closing(Store(path, "boot-1", Moment(2001.0, 5.0))) as store:
        assert store.load() == [kept, record(pod(4), "10.1.0.8")]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)


def test_a_clock_that_is_set_changes_no_order(path: Path) -> None:
    """The wall clock goes back by an hour and forth by a day: what was released first is told first, and when, by the
    seconds since the boot; people read the wall clock's."""
    with closing(Store(path, "boot-1", Moment(10.0, 90_000.0))) as store:
        for number, wall in enumerate((90_000.0, 86_400.0, 180_000.0)):
            store.save(record(pod(number), f"10.1.0.{number}"))
            store.drop([pod(number)], Moment(20.0 + number, wall))
        assert list(store.released().items()) == [
            (IPAddress(f"10.1.0.{number}"), 20.0 + number) for number in range(3)
        ]
        assert [one.until for one in store.history(IPAddress("10.1.0.1"))] == [86_400.0]


@pytest.mark.parametrize(
    ("boot", "machine", "is_forgotten"),
    [
        ("boot-1", "a uuid-1", False),
        ("boot-1", "b uuid-2", False),  # somebody gave the machine another id while it runs
        ("boot-2", "a uuid-1", False),
        ("boot-2", "b uuid-1", True),
        ("boot-2", "a uuid-2", True),  # an image whose machine-id went with it
        ("boot-2", "- -", False),
        ("boot-2", "- uuid-1", False),
    ],
)
def test_what_another_machine_wrote_is_forgotten(path: Path, boot: str, machine: str, is_forgotten: bool) -> None:
    """A node that was started from another's disk or image acts on nothing that that one was about to do."""
    with closing(Store(path, "boot-1", at(0.0), "a uuid-1")) as store:
        store.save(record(pod(1), "10.1.0.1"))
        store.remember("aws-eni", "delete eni-1")
    with closing(Store(path, boot, at(500.0), machine)) as store:
        assert store.is_foreign is store.is_new is is_forgotten
        assert store.recall("aws-eni") == (None if is_forgotten else "delete eni-1")
        assert bool(store.history(IPAddress("10.1.0.1"))) is not is_forgotten
    with closing(Store(path, boot, at(500.0), machine)) as store:
        assert not store.is_foreign


@pytest.mark.parametrize("version", [0, 1, 7])
@pytest.mark.parametrize("application", [0, 0x47504B47])
def test_no_byte_of_a_strangers_file_is_changed(path: Path, version: int, application: int) -> None:
    """Whatever version another program's database has, and whether it says whose it is: it keeps content and mode."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(
            f"CREATE TABLE song (title); PRAGMA user_version = {version}; PRAGMA application_id = {application}"
        )
    path.chmod(0o644)
    before = path.read_bytes()
    with pytest.raises(StateCorrupt, match=r"database of another program: it was left alone; set paths\.state"):
        Store(path, "boot-1", at(0.0))
    assert path.read_bytes() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (Path.mkdir, "directory"),
        (os.mkfifo, "FIFO"),
        (lambda path: path.symlink_to("elsewhere"), "symbolic link"),
    ],
)
def test_what_is_no_file_is_named_and_left_alone(path: Path, make: Callable[[Path], None], kind: str) -> None:
    """Of whatever kind it is; a link may lead to somebody's file."""
    path.parent.mkdir()
    make(path)
    with pytest.raises(StateCorrupt, match=f"which is a {kind}: it was left alone"):
        Store(path, "boot-1", at(0.0))
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_damaged_store_is_refused(path: Path) -> None:
    """A store whose pages were overwritten is refused at start, before anything is read from it."""
    with closing(Store(path, "boot-1", at(0.0))) as store:
        for number in range(200):
            store.save(record(pod(number), f"10.1.0.{number}"))
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(StateCorrupt, match="damaged"):
        Store(path, "boot-1", at(0.0))


def test_a_damaged_database_without_our_mark_is_told_as_that(path: Path) -> None:
    """Whose it was cannot be asked any more; whoever only looks at it, without opening it as ours, is told, too."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE song (title)")
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 4096)
    for look in (refuse_others, lambda path: Store(path, "boot-1", at(0.0))):
        with pytest.raises(Damaged, match="damaged or not a database"):
            look(path)


def test_a_row_that_is_no_address_is_named(path: Path) -> None:
    """A row that someone wrote by hand is an error that quotes it, not a guess."""
    with closing(Store(path, "boot-1", at(0.0))) as store:
        store.save(record(pod(1), "10.1.0.1"))
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE tenure SET address = 'ten one'")
        with pytest.raises(StateCorrupt, match="'ten one' where an address"):
            store.load()


def test_a_row_whose_block_is_none_is_named(path: Path) -> None:
    """Likewise."""
    with closing(Store(path, "boot-1", at(0.0))) as store:
        store.save(record(pod(1), "10.1.0.1"))
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE tenure SET block = 'all of them'")
    with closing(Store(path, "boot-1", at(0.0))) as store, pytest.raises(StateCorrupt, match="'all of them' where"):
        store.load()


def test_what_is_not_there_bears_no_mark(path: Path) -> None:
    """Nor does it keep the agent from making its journal there."""
    assert not bears_our_mark(path)


def test_a_locked_store_is_worth_a_retry(path: Path) -> None:
    """While another program holds a transaction, a save is told to try again, and works afterwards."""
    with closing(Store(path, "boot-1", at(0.0))) as store, closing(sqlite3.connect(path)) as database:
        database.execute("BEGIN IMMEDIATE")
        with pytest.raises(TryAgain, match="locked by another program"):
            store.save(record(pod(1), "10.1.0.1"))
        database.rollback()
        store.save(record(pod(1), "10.1.0.1"))
        assert store.load() == [record(pod(1), "10.1.0.1")]


def test_a_place_where_no_file_can_be_is_named(tmp_path: Path) -> None:
    """A path below a file is an error that names it and the key to check."""
    (tmp_path / "file").touch()
    with pytest.raises(StateCorrupt, match=r"file/routable\.db cannot be opened: .+: check paths\.state"):
        Store(tmp_path / "file" / "routable.db", "boot-1", at(0.0))


def test_a_failed_write_leaves_the_store_as_it_was(path: Path) -> None:
    """When the file can grow no further the save is refused, nothing of it is kept, and the next process reads on."""
    code = (
        "import resource, sys; from pathlib import Path; from tests.unit.test_store import *\n"
        "store = Store(Path(sys.argv[1]), 'boot-1', at(0.0))\n"
        "store.save(record(pod(1), '10.1.0.1', 'fd00::1'))\n"
        "size = Path(sys.argv[1] + '-wal').stat().st_size\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5000, resource.RLIM_INFINITY))\n"
        "try: store.save(record(pod(2), '10.1.0.2', 'fd00::2'))\n"
        "except Failure as failure: print(failure.code, failure)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "assert [each.lease.who for each in store.load()] == [pod(1)]\n"
        "store.save(record(pod(3), '10.1.0.2', 'fd00::2'))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, path], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith(("11 the store", "104 the store")) and str(path) in run.stdout
    with closing(Store(path, "boot-1", at(0.0))) as store:
        assert store.load() == [record(pod(1), "10.1.0.1", "fd00::1"), record(pod(3), "10.1.0.2", "fd00::2")]


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("SQLITE_FULL", TryAgain, "file system is full: free some space"),
        ("SQLITE_BUSY_SNAPSHOT", TryAgain, "locked by another program"),
        ("SQLITE_NOMEM", TryAgain, "cannot be used now"),
        ("SQLITE_CORRUPT_INDEX", Damaged, "damaged"),
        ("SQLITE_READONLY_DBMOVED", StateCorrupt, "check the disk"),
        ("SQLITE_IOERR_WRITE", StateCorrupt, "SQLITE_IOERR_WRITE"),
    ],
)
def test_errors_of_sqlite_say_who_acts(name: str, kind: type[Failure], words: str) -> None:
    """Each kind of SQLite error becomes a failure of the class of who must act, naming the file."""
    error = sqlite3.OperationalError("disk trouble")
    error.sqlite_errorname = name
    translated = failure(Path("/state/routable.db"), error)
    assert type(translated) is kind
    assert "/state/routable.db" in str(translated) and words in str(translated)


def test_a_store_that_is_taken_away_is_missed(path: Path) -> None:
    """SQLite goes on writing into a file that has no name any more: what it saves would be lost."""
    with closing(Store(path, "boot-1", at(0.0))) as store:
        assert store.problem() is None
        path.rename(path.with_suffix(".old"))
        assert isinstance(store.problem(), Damaged)
        path.write_bytes(path.with_suffix(".old").read_bytes())
        trouble = store.problem()
        assert isinstance(trouble, Damaged)
        assert "another file" in str(trouble)


def test_trouble_that_has_passed_is_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another program keeps the file locked nothing can be saved, and that is told; afterwards it is not."""
    monkeypatch.setattr("ipam.schema.PATIENCE", 0.01)
    store, other = Store(path, "boot-1", at(0.0)), sqlite3.connect(path, isolation_level=None)
    with closing(store), closing(other):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TryAgain):
            store.save(record(pod(1), "10.1.0.1"))
        assert isinstance(store.problem(), TryAgain)
        other.execute("ROLLBACK")
        assert store.problem() is None
        store.save(record(pod(1), "10.1.0.1"))
        assert [one.lease.who for one in store.load()] == [pod(1)]


def test_a_damaged_store_is_set_aside_whole(path: Path) -> None:
    """With what SQLite keeps beside it, under a name that says when; and there is room for a new one."""
    with closing(Store(path, "boot-1", at(0.0))) as store:
        store.save(record(pod(1), "10.1.0.1"))
        files = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    for name, content in files.items():
        (path.parent / name).write_bytes(content)
    aside = set_aside(path, 60.0)
    assert aside == path.with_name("routable.db.damaged-19700101T000100Z")
    assert {file.name.replace(".damaged-19700101T000100Z", "") for file in path.parent.iterdir()} == set(files)
    assert set_aside(path, 60.0) is None
    with closing(Store(path, "boot-1", at(0.0))) as store:
        assert store.is_new
        assert store.load() == []


def test_what_was_remembered_is_recalled(path: Path) -> None:
    """Across processes, the last value; nothing under another name."""
    with closing(Store(path, "boot-1", at(0.0))) as store:
        assert store.recall("backend") is None
        store.remember("backend", "a")
        store.remember("backend", "b")
    with closing(Store(path, "boot-1", at(0.0))) as store:
        assert store.recall("backend") == "b"


def test_a_cancelled_lease_was_never_there(path: Path) -> None:
    """No history, nothing released: a runtime that tries an impossible ADD again and again fills no disk."""
    with closing(Store(path, "boot-1", at(0.0))) as store:
        store.save(record(pod(1), "10.1.0.1"))
        store.drop([pod(1)], at(5.0))
        before = store.released(), store.history(IPAddress("10.1.0.1"))
        store.enter([record(pod(2), "10.1.0.1"), record(pod(3), "10.1.0.2")])
        assert store.cancel([pod(2), pod(4)]) == 1
        assert [one.lease.who for one in store.load()] == [pod(3)]
        assert store.cancel([pod(3)]) == 1
        assert (store.released(), store.history(IPAddress("10.1.0.1"))) == before
        store.save(record(pod(2), "10.1.0.1"))
        assert [one.lease.who for one in store.load()] == [pod(2)]


def test_a_store_that_cannot_be_looked_at_is_not_taken_for_lost(path: Path) -> None:
    """Its disk may be sick for a moment; one that is gone is built anew."""

    class Sick(type(Path())):  # type: ignore[misc]
        def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with closing(Store(path, "boot-1", at(0.0))) as store:
        assert store.problem() is None
        store.path = Sick(path)
        trouble = store.problem()
        assert type(trouble) is StateCorrupt
        assert "Input/output error" in str(trouble)
        store.path = path.with_name("gone")
        assert isinstance(store.problem(), Damaged)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_store_without_its_log_is_lost(path: Path, is_replaced: bool) -> None:
    """The newest of what was saved is in the file beside it, until that is folded in."""
    with closing(Store(path, "boot-1", at(0.0))) as store:
        store.save(record(pod(1), "10.1.0.1"))
        assert store.problem() is None
        log = path.with_name(f"{path.name}-wal")
        log.rename(path.with_name("aside"))
        if is_replaced:
            log.touch()
        problem = store.problem()
        assert isinstance(problem, Damaged)
        assert str(log) in str(problem)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR])
def test_a_shortage_passes(path: Path, number: int) -> None:
    """Of descriptors or memory, of the system's or of Python's own making."""
    with pytest.raises(TryAgain, match=r"cannot be opened now"), translated(path):
        raise OSError(number, os.strerror(number))
    with pytest.raises(TryAgain, match="memory is short"), translated(path):
        raise MemoryError


def test_a_store_without_descriptors(path: Path) -> None:
    """However few there are, it is a failure that says so, and nothing is leaked; with enough it opens."""
    gc.collect()  # what other tests left open would be closed at any moment
    for more in range(40):
        before = len(list(Path("/proc/self/fd").iterdir()))
        try:
            with descriptors(more), closing(Store(path, "boot-1", at(0.0))) as store:
                assert store.load() == []
        except Failure:
            assert len(list(Path("/proc/self/fd").iterdir())) == before
            continue
        assert more > 0
        return
    raise AssertionError("never enough")
