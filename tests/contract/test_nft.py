"""Our nft table over the life of several agents: it is the very same as long as nothing differs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pytest
from netaddr import IPNetwork

from backends.nodeplan import TABLE, table
from cni.errors import TryAgain
from dataplane.items import NftTable
from dataplane.nft import Nft
from dataplane.program import Done, call
from demo.place import run


class Kept:
    """A memory that outlives what remembers."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.is_full = False

    def recall(self, name: str) -> str | None:
        """See `dataplane.memory.Memory`."""
        return self.kept.get(name)

    def remember(self, name: str, value: str) -> None:
        """See `dataplane.memory.Memory`."""
        if self.is_full:
            raise TryAgain("the store is full", "")
        self.kept[name] = value


@pytest.fixture
def wanted() -> Iterator[NftTable]:
    """A table of ours, which is removed afterwards."""
    made = table((IPNetwork("10.1.1.0/24"), IPNetwork("2001:db8:1::/64")), (IPNetwork("10.0.0.0/8"),))
    yield made
    Nft().delete(made)


def handle() -> int:
    """What tells a table from one that was made in its place."""
    return int(json.loads(run("nft", "--json", "list", "table", *TABLE))["nftables"][1]["table"]["handle"])


def test_the_next_agent_knows_the_table_again(wanted: NftTable) -> None:
    """What it reads is what was written."""
    memory = Kept()
    Nft(memory=memory).write(wanted)
    before = handle()
    assert Nft(memory=memory).read(*TABLE) == wanted
    assert handle() == before


def test_a_change_while_no_agent_ran_is_seen(wanted: NftTable) -> None:
    """By the next one, as by the one that wrote it; and what that puts right is known again."""
    memory = Kept()
    nft = Nft(memory=memory)
    nft.write(wanted)
    run("nft", "add", "rule", *TABLE, "source", "counter")
    for one in (nft, Nft(memory=memory)):
        found = one.read(*TABLE)
        assert found is not None
        assert found.text.startswith("changed by others")
    nft.write(wanted)
    assert Nft(memory=memory).read(*TABLE) == wanted


@pytest.mark.parametrize("kept", [None, "", "no JSON", "[]", '["a"]', "7", "null", '{"a": 1}'])
def test_a_table_that_nobody_remembers_is_of_unknown_text(wanted: NftTable, kept: str | None) -> None:
    """Nothing or nonsense in the journal, or one that was full: the table is written, and differs at the next start."""
    memory = Kept()
    memory.is_full = True
    nft = Nft(memory=memory)
    nft.write(wanted)
    assert nft.read(*TABLE) == wanted
    memory.kept = {} if kept is None else {f"nft {' '.join(TABLE)}": kept}
    found = Nft(memory=memory).read(*TABLE)
    assert found is not None
    assert found != wanted


def test_a_table_is_listed_anew_when_anybody_changed_any(wanted: NftTable) -> None:
    """And not before: nftables counts its changes. Each change is seen, of an element of a set, too."""
    now = [1]
    told, untold = Nft(), Nft(generation=lambda: now[0])
    table = wanted._replace(text=wanted.text + "\n\tset peers {\n\t\ttype ipv4_addr\n\t}")
    told.write(table)
    untold.write(table)
    told.write(table)
    for nft in (told, untold):
        assert nft.read(*TABLE) == table
    run("nft", "add", "element", *TABLE, "peers", "{ 192.0.2.1 }")
    found = told.read(*TABLE)
    assert found is not None
    assert found != table
    assert untold.read(*TABLE) == table
    now[0] += 1
    assert untold.read(*TABLE) == found
    run("nft", "delete", "table", *TABLE)
    assert told.read(*TABLE) is None


def test_of_the_tables_that_were_written_the_last_is_known(wanted: NftTable) -> None:
    """Those before it are gone, and remembering them all would have no end; without its chain it is ours still."""
    nft = Nft()
    for number in range(5):
        nft.write(wanted._replace(text=f"{wanted.text}\n\tset peers{number} {{\n\t\ttype ipv4_addr\n\t}}"))
    assert nft._handles == {TABLE: {handle()}}
    run("nft", "flush", "chain", *TABLE, "source")
    run("nft", "rename", "chain", *TABLE, "source", "other")
    found = nft.read(*TABLE)
    assert found is not None
    assert found.text.startswith("changed by others")
    nft.delete(wanted)
    assert nft.read(*TABLE) is None


def test_the_table_of_another_is_not_known(wanted: NftTable) -> None:
    """One that has our name, and was made while no agent ran, in the place of ours."""
    memory = Kept()
    Nft(memory=memory).write(wanted)
    run("nft", "delete", "table", *TABLE)
    run("nft", "add", "table", *TABLE)
    assert Nft(memory=memory).read(*TABLE) is None
    run("nft", "delete", "table", *TABLE)


def test_a_change_at_the_moment_of_writing_is_not_taken_for_what_was_written(wanted: NftTable) -> None:
    """Somebody flushes a chain between the writing and the look at what came of it: it is seen, and written anew."""
    harms = [["nft", "flush", "chain", *TABLE, "source"]]

    def hasty(arguments: Sequence[str], text: str) -> Done:
        done = call(["nft", *arguments], text)
        if arguments[0] == "-f" and harms:
            run(*harms.pop())
        return done

    nft = Nft(hasty)
    nft.write(wanted)
    assert nft.read(*TABLE) != wanted
    nft.write(wanted)
    assert nft.read(*TABLE) == wanted
