"""The journal is lost, damaged, full or read-only: pods go on, no lease is forgotten, and what happened is said."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from demo import traffic
from demo.lab import Lab, Node, built, eventually
from demo.place import Failed, run
from demo.runtime import Refused
from demo.stream import Datagrams
from tests.pace import within


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Two nodes with two pods each."""
    with built(nodes=2, family="dual") as lab:
        for node in lab.nodes:
            node.add()
            node.add()
        yield lab


def journal(node: Node) -> Path:
    return Path(node.settings["paths"]["state"])


def leases(node: Node) -> set[str]:
    return {address for lease in node.status()["leases"] for address in lease["addresses"]}


def remove(path: Path) -> None:
    path.unlink()


def replace_by_text(path: Path) -> None:
    path.unlink()
    path.write_text("leases:\n" * 300)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def overwrite(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [remove, replace_by_text])
def test_it_is_lost_under_the_running_agent(lab: Lab, harm: Any) -> None:
    """It is built anew from memory within two seconds: after a restart every lease is there."""
    node = lab.nodes[0]
    before = leases(node)
    harm(journal(node))
    within(2.0, "it is built anew", lambda: "built anew from memory" in node.tail())
    pod = node.add()
    node.stop(signal.SIGKILL)
    node.start()
    assert leases(node) == before | set(pod.addresses)
    assert "the kernel knows it" not in node.tail(), "the journal knew everything"
    if harm is replace_by_text:
        aside = min(journal(node).parent.glob("*.damaged-*"))
        assert aside.read_text().startswith("leases:")


@pytest.mark.parametrize("harm", [remove, replace_by_text, truncate, empty, overwrite])
def test_it_is_lost_before_a_start(lab: Lab, harm: Any) -> None:
    """The kernel knows the leases: no pod loses a packet, no address is given twice, and the log says what happened."""
    node, other = lab.nodes
    before = leases(node)
    with Datagrams(node.pods[0], other.pods[0]) as stream:
        node.stop()
        for file in journal(node).parent.glob(f"{journal(node).name}-*"):
            file.unlink()  # what SQLite had not folded into the file yet
        harm(journal(node))
        node.start()
    assert stream.lost == 0, stream.losses()
    assert leases(node) == before
    assert node.tail().count("the kernel knows it") == 2
    pod = node.add()
    assert not set(pod.addresses) & before
    node.delete(pod)


def test_lost_with_a_link_that_does_not_tell_whose_it_is(lab: Lab) -> None:
    """Nothing is guessed: the agent does not start, says which link, and pods go on; with the link gone it starts."""
    node, other = lab.nodes
    first, second = node.pods
    link = first.result["interfaces"][0]["name"]
    node.stop()
    journal(node).unlink()
    node.place.ip(f"link set {link} alias changed")
    with pytest.raises(Failed, match=f"the journal is lost, and link {link} does not say which pod's it is"):
        node.start()
    assert traffic.seen_by_udp(other.pods[0].place, first.place, first.address(4)) == other.pods[0].address(4)
    node.place.ip(f"link delete {link}")
    node.start()
    assert leases(node) == set(second.addresses)


def test_a_newer_one_is_refused_and_left_alone(lab: Lab) -> None:
    """Its agent may know better what is in it."""
    node = lab.nodes[0]
    node.stop()
    with closing(sqlite3.connect(journal(node))) as database:
        database.execute("PRAGMA user_version = 99")
    content = journal(node).read_bytes()
    with pytest.raises(Failed, match="has version 99; this agent knows versions up to"):
        node.start()
    assert journal(node).read_bytes() == content
    assert not list(journal(node).parent.glob("*.damaged-*"))


@pytest.fixture
def small(lab: Lab, tmp_path: Path) -> Iterator[Path]:
    """The first node's journal is on a file system of its own, of 1 MB."""
    node = lab.nodes[0]
    node.stop()
    run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path))
    try:
        shutil.copy(journal(node), tmp_path / "routable.db")
        node.settings["paths"] = {**node.settings["paths"], "state": str(tmp_path / "routable.db")}
        node.start()
        yield tmp_path
    finally:
        if node.agent is not None:
            node.stop(signal.SIGKILL)
        run("umount", str(tmp_path))


def test_its_file_system_is_full(lab: Lab, small: Path) -> None:
    """ADD is told to try again, STATUS why; a DEL waits for the runtime's next try; with room again all goes on."""
    node = lab.nodes[0]
    before = leases(node)
    filler = small / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"\0" * 4096)
    refusals = []
    for _ in range(20):  # SQLite may have a few pages of room in its log
        try:
            node.delete(node.add())
        except Refused as refused:
            refusals.append(refused)
            break
    assert refusals
    assert refusals[0].code == 11
    assert "its file system is full" in str(refusals[0])
    problems = eventually("STATUS tells", lambda: node.status()["problems"])
    assert problems[0]["code"] == 50
    assert "file system is full" in problems[0]["msg"]
    assert before <= leases(node)
    filler.unlink()
    eventually("it is well again", lambda: not node.status()["problems"], 20.0)
    pod = node.add()
    node.stop(signal.SIGKILL)
    node.start()
    assert before | set(pod.addresses) <= leases(node)


def test_its_file_system_is_read_only(lab: Lab, small: Path) -> None:
    """The agent says so and does not start; pods go on; writable again, it starts with what it knew."""
    node, other = lab.nodes
    before = leases(node)
    node.stop()
    run("mount", "-o", "remount,bind,ro", str(small))
    with pytest.raises(Failed, match="Read-only file system"):
        node.start()
    pod = node.pods[0]
    assert traffic.seen_by_udp(other.pods[0].place, pod.place, pod.address(4)) == other.pods[0].address(4)
    run("mount", "-o", "remount,bind,rw", str(small))
    node.start()
    assert leases(node) == before
