"""A table of neighbours that was full is told for a while, with what fills it and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataplane.neighbours import RECENT, Neighbours

HEADER = "entries  allocs   destroys unresolved_discards table_fulls"


def write(proc: Path, name: str, *counts: int) -> None:
    """The kernel has refused so many entries of that table, by processor."""
    path = proc / "net/stat" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"00000047 00047949 0005137e 00000000            {count:08x}" for count in counts]
    path.write_text("\n".join([HEADER, *lines, ""]))


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Tables that were full long ago."""
    write(tmp_path, "arp_cache", 10, 20)
    write(tmp_path, "ndisc_cache", 0, 0)
    return tmp_path


def told(neighbours: Neighbours) -> list[str]:
    return list(map(str, neighbours.findings()))


def test_a_limit_that_cannot_be_read_is_the_usual_one(proc: Path) -> None:
    """As where `/proc/sys` is not the host's."""
    neighbours = Neighbours(proc)
    write(proc, "arp_cache", 30, 20)
    (said,) = told(neighbours)
    assert "of which the last, usually 1024, is the most" in said


def test_what_was_before_the_start_is_no_news(proc: Path) -> None:
    """The counters are the machine's, since it was started."""
    assert told(Neighbours(proc)) == []


@pytest.mark.parametrize(("name", "family"), [("arp_cache", 4), ("ndisc_cache", 6)])
def test_a_table_that_is_full_is_told_for_a_while(proc: Path, name: str, family: int) -> None:
    """By family, with the limit and the settings that raise it; no more when it was not full for some minutes."""
    limit = proc / f"sys/net/ipv{family}/neigh/default/gc_thresh3"
    limit.parent.mkdir(parents=True)
    limit.write_text("2048\n")
    now = [1000.0]
    neighbours = Neighbours(proc, lambda: now[0])
    write(proc, name, 30, 20)
    (said,) = told(neighbours)
    assert f"table of IPv{family} neighbours was full" in said
    assert f"net.ipv{family}.neigh.default.gc_thresh1, 2 and 3" in said
    assert "2048" in said
    now[0] += RECENT - 1
    assert told(neighbours) == [said]
    write(proc, name, 30, 21)
    told(neighbours)
    now[0] += RECENT - 1
    assert told(neighbours) == [said]
    now[0] += 1
    assert told(neighbours) == []


@pytest.mark.parametrize("content", [None, "", "entries allocs\n00000001 00000002\n"])
def test_a_kernel_that_does_not_say_is_believed_to_be_well(tmp_path: Path, content: str | None) -> None:
    """In a container's own namespace there are no such counters."""
    if content is not None:
        path = tmp_path / "net/stat/arp_cache"
        path.parent.mkdir(parents=True)
        path.write_text(content)
    neighbours = Neighbours(tmp_path)
    assert told(neighbours) == []
