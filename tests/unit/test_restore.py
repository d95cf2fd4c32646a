"""Whose file is in the journal's place: ours, damaged or not, or somebody else's."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from netaddr import IPNetwork

from agent.process.machine import exclusive
from agent.start import restore
from cni.errors import ConfigInvalid, StateCorrupt
from cni.spec import Attachment
from ipam.moment import Moment
from ipam.store import Store
from tests.fakes.world import HERE, OTHER, World

TEXT = "nobody here knows this file\n" * 200


def opened(path: Path) -> Store:
    return restore.journal(path, "boot-1", lambda: Moment(60.0, 60.0))


def test_a_file_that_never_was_a_journal_is_left_alone(tmp_path: Path) -> None:
    """However often the agent is started: somebody mistyped paths.state, and it is told what is there."""
    path = tmp_path / "letter.txt"
    path.write_text(TEXT)
    path.chmod(0o644)
    for _ in range(2):
        with pytest.raises(StateCorrupt, match=r"is no journal of the agent's: it begins with b'nobody here know"):
            opened(path)
    assert path.read_text() == TEXT
    assert path.stat().st_mode & 0o777 == 0o644
    assert [one.name for one in tmp_path.iterdir()] == ["letter.txt"]


def test_what_stands_where_a_journal_was_is_set_aside(tmp_path: Path) -> None:
    """It was ours before, and whatever harmed it must not keep pods from getting addresses."""
    path = tmp_path / "routable.db"
    opened(path).close()
    path.write_text(TEXT)
    with closing(opened(path)) as store:
        assert store.is_new
    assert (tmp_path / "routable.db.damaged-19700101T000100Z").read_text() == TEXT


def test_a_journal_that_still_says_so_is_known_wherever_it_is(tmp_path: Path) -> None:
    """Its first page says whose it is: also of a copy, whose other pages are damaged."""
    first, second = tmp_path / "routable.db", tmp_path / "copy.db"
    opened(first).close()
    content = bytearray(first.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    second.write_bytes(content)
    with closing(opened(second)) as store:
        assert store.is_new
    assert (tmp_path / "copy.db.damaged-19700101T000100Z").read_bytes() == content


def test_a_strangers_file_in_the_locks_place_is_left_alone(tmp_path: Path) -> None:
    """It is not written to, and the agent does not start."""
    path = tmp_path / "routable.db"
    lock = tmp_path / "routable.db.lock"
    lock.write_text("mine")
    with pytest.raises(ConfigInvalid, match="is somebody else's: it was left alone"), exclusive(path):
        pass
    assert lock.read_text() == "mine"
    lock.unlink()
    for _ in range(2):
        with exclusive(path):
            opened(path).close()


def test_a_lost_lease_of_a_range_that_is_the_nodes_no_more(tmp_path: Path) -> None:
    """The pod keeps the address, which is told; when it goes, the address is nobody's."""
    world = World(tmp_path)
    world.kernel.add_netns("/run/netns/a")
    who = Attachment("pods", "c1", "eth0")
    before = world.add(who, "/run/netns/a").lease.addresses
    world.lose_store()
    world.nodes.set(replace(HERE, pod_cidrs=(IPNetwork("10.77.0.0/28"), IPNetwork("2001:db8:77::/64"))), OTHER)
    with closing(world):
        world.restart()
        lease = world.node.ledger.records()[who].lease
        assert lease.addresses == before
        assert {one.block.owner for one in lease.leased} == {"adopted"}
        world.node.delete(who)
        assert world.problems() == []


def test_a_journal_that_another_machine_wrote_is_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An image was made of a node: its leases and a cloud's intents are none of this machine's."""
    path = tmp_path / "routable.db"
    for boot, machine in (("boot-1", "one -"), ("boot-2", "one -"), ("boot-3", "other -")):
        caplog.clear()
        restore.journal(path, boot, lambda: Moment(60.0, 60.0), machine).close()
        assert ("another machine wrote the journal" in caplog.text) is (machine == "other -")


def test_a_journal_that_cannot_be_claimed_is_refused(tmp_path: Path) -> None:
    """What says that it is ours, whatever becomes of it, has no room beside it."""
    opened(tmp_path / "routable.db").close()
    lock = tmp_path / "routable.db.lock"
    lock.unlink()
    lock.mkdir()
    with pytest.raises(StateCorrupt, match=r"has no room beside it: .*check paths\.state"):
        opened(tmp_path / "routable.db")


def test_a_journal_that_cannot_be_built_anew_is_told_once_until_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its directory is something else for a while: that it takes nothing is one line, that it was built anew another,
    once that is so."""
    home = tmp_path / "home"
    home.mkdir()
    with closing(World(home)) as world:
        home.rename(tmp_path / "aside")
        home.touch()
        well = []
        for number in range(4):
            if number == 3:
                home.unlink()
            world.node.ledger.tend()
            well.append(world.node.ledger.problem is None)
        assert well == [False, False, False, True]
    told = [record.message for record in caplog.records if record.name == "agent.node.ledger"]
    assert told == ["the journal takes nothing", "the journal was built anew from memory"]
