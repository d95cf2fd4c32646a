"""The nodes file: what it accepts, how it complains, and when it is read again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netaddr import IPAddress, IPNetwork

from cluster import addresses, nodeslist, tomlfile
from cluster.nodesfile import NodesFile, Signature, read
from cluster.peers import Peer, Source
from cni.errors import ConfigInvalid

GOOD = """\
# The cluster.
[[node]]
name = "a"
addresses = ["2001:db8::1", "192.0.2.1"]
pod_cidrs = ["10.1.0.0/24", "2001:db8:1::/64"]

[[node]]
name = "b"
addresses = [
    "192.0.2.2",
    "2001:db8::2",
]
pod_cidrs = ["10.2.0.0/24"]
"""


def node(**keys: str) -> str:
    """One [[node]] table whose keys are given as TOML text."""
    return "[[node]]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())


def refusal(text: str) -> str:
    """The complaint about a nodes file with this text."""
    with pytest.raises(ConfigInvalid) as caught:
        nodeslist.parse("nodes.toml", text.encode())
    return str(caught.value)


def test_reads_nodes_of_both_families() -> None:
    """Every table becomes a Peer whose addresses are ordered IPv4 first."""
    assert nodeslist.parse("nodes.toml", GOOD.encode()) == {
        Peer(
            "a",
            (IPAddress("192.0.2.1"), IPAddress("2001:db8::1")),
            (IPNetwork("10.1.0.0/24"), IPNetwork("2001:db8:1::/64")),
        ),
        Peer("b", (IPAddress("192.0.2.2"), IPAddress("2001:db8::2")), (IPNetwork("10.2.0.0/24"),)),
    }


def test_reads_what_routers_of_the_network_need_to_know() -> None:
    """A node may say its autonomous system and any labels; else it has none."""
    more = GOOD.replace('name = "b"', 'name = "b"\nasn = 4200000002\nlabels = { rack = "r1", "a/b" = "" }')
    found = {peer.name: peer for peer in nodeslist.parse("nodes.toml", more.encode())}
    assert (found["b"].asn, found["b"].labels) == (4200000002, (("a/b", ""), ("rack", "r1")))
    assert (found["a"].asn, found["a"].labels) == (0, ())


def test_answers_an_address_by_family() -> None:
    """A peer knows its address of each family, and None where it has none."""
    peer = Peer("a", (IPAddress("192.0.2.1"),), (IPNetwork("10.1.0.0/24"),))
    assert (peer.address(4), peer.address(6)) == (IPAddress("192.0.2.1"), None)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"192.0.2.2"', '"192.0.2.300"', 'line 10, node b: addresses "192.0.2.300": is not an IPv4 or IPv6 address'),
        ('"192.0.2.2"', '"192.0.2.02"', 'line 10, node b: addresses "192.0.2.02": is not an IPv4'),
        ('"192.0.2.2"', '"fe80::1%eth0"', 'line 10, node b: addresses "fe80::1%eth0": is not an IPv4'),
        ('"192.0.2.2"', '"192.0.2.2\\u0000"', 'node b: addresses "192.0.2.2\\u0000": is not an IPv4'),
        ('"192.0.2.2"', '"192.0.2.1"', 'line 10, node b: addresses "192.0.2.1": is also an address of node a'),
        ('"2001:db8::2"', '"2001:DB8:0::1"', "is also an address of node a"),
        ('"192.0.2.2"', '"192.0.2.2", "192.0.2.3"', 'line 10, node b: addresses "192.0.2.3": is a second IPv4 address'),
        ('"192.0.2.2"', '"127.0.0.1"', "lies in 127.0.0.0/8 (loopback)"),
        ('"192.0.2.2"', '"::ffff:192.0.2.2"', "(IPv4-mapped)"),
        ('"192.0.2.2"', "192", "line 9, node b: addresses 192: allowed: strings, in quotes"),
        ('name = "b"', 'name = "a"', 'line 8, node a: name "a": is also the name of node number 1'),
        ('name = "b"', 'name = "b"\nasn = 0', "line 9, node b: asn 0: allowed: the number of an autonomous system"),
        ('name = "b"', 'name = "b"\nasn = true', "node b: asn true: allowed: the number of an autonomous system"),
        ('name = "b"', 'name = "b"\nasn = 4294967295', "allowed: the number of an autonomous system, 1 to 4294967294"),
        ('name = "b"', 'name = "b"\nlabels = "r1"', 'line 9, node b: labels "r1": allowed: a table of strings'),
        ('name = "b"', 'name = "b"\nlabels = { rack = 1 }', "allowed: a table of strings"),
        ('name = "b"', 'name = ""', 'line 8, node number 2: name "": allowed: at most 253'),
        ('name = "b"', 'name = "b c"', 'line 8, node number 2: name "b c": allowed: at most 253'),
        ('name = "b"', f'name = "{"b" * 254}"', "(256 characters): allowed: at most 253"),
        ('name = "b"', "name = 7", "line 8, node number 2: name 7: allowed: at most 253"),
        ('name = "b"\n', "", "line 7, node number 2: name: is missing; every node has name, addresses, pod_cidrs"),
        ('name = "b"', 'name = "b"\nzone = "x"', 'line 9, node b: zone "x": unknown key; allowed: name, addresses'),
        ('["10.2.0.0/24"]', "[]", "line 13, node b: pod_cidrs []: allowed: a list of at least one string"),
        ('["10.2.0.0/24"]', '"10.2.0.0/24"', 'node b: pod_cidrs "10.2.0.0/24": allowed: a list'),
        ("10.2.0.0/24", "10.2.0.0", 'line 13, node b: pod_cidrs "10.2.0.0": has no prefix length'),
        ("10.2.0.0/24", "10.2.0.0/33", "has a prefix length that is not a number from 0 to 32"),
        ("10.2.0.0/24", "10.2.0.0/255.255.255.0", "has a prefix length that is not a number from 0 to 32"),
        ("10.2.0.0/24", "10.2.0.0/024", "has a prefix length that is not a number from 0 to 32"),
        ("10.2.0.0/24", "10.2.0.9/24", "has host bits set; the range that holds this address is 10.2.0.0/24"),
        ("10.2.0.0/24", "10.1.0.0/24", 'line 13, node b: pod_cidrs "10.1.0.0/24": overlaps 10.1.0.0/24 of node a'),
        ("10.2.0.0/24", "10.1.0.128/25", 'node b: pod_cidrs "10.1.0.128/25": overlaps 10.1.0.0/24 of node a'),
        ("10.2.0.0/24", "10.0.0.0/8", 'line 5, node a: pod_cidrs "10.1.0.0/24": overlaps 10.0.0.0/8 of node b'),
        ("10.2.0.0/24", "10.2.0.0/24\", \"10.2.0.8/32", "overlaps 10.2.0.0/24 of node b"),
        ("10.2.0.0/24", "192.0.2.0/24", 'line 13, node b: pod_cidrs "192.0.2.0/24": contains 192.0.2.1, the address'),
        ("10.2.0.0/24", "2001:db8::/126", "contains 2001:db8::1, the address of node a"),
        ("10.2.0.0/24", "0.0.0.0/0", "takes in 0.0.0.0/8 (this network, RFC 791), which no node or pod can have"),
        ("10.2.0.0/24", "127.1.0.0/16", "lies in 127.0.0.0/8 (loopback)"),
        ("10.2.0.0/24", "169.254.1.0/24", "lies in 169.254.0.0/16 (link-local"),
        ("10.2.0.0/24", "224.0.0.0/24", "lies in 224.0.0.0/4 (multicast)"),
        ("10.2.0.0/24", "::/0", "takes in ::/128 (unspecified)"),
        ("10.2.0.0/24", "::1/128", "lies in ::1/128 (loopback)"),
        ("10.2.0.0/24", "fe80::/64", "lies in fe80::/10 (link-local"),
        ("10.2.0.0/24", "ff02::/64", "lies in ff00::/8 (multicast)"),
    ],
)
def test_names_line_node_key_and_value(old: str, new: str, complaint: str) -> None:
    """A wrong entry is refused with its line, its node, the key, the value and what is allowed."""
    text = refusal(GOOD.replace(old, new))
    assert text.startswith("nodes.toml, line ")
    assert complaint in text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "nodes.toml: lists no node"),
        ("node = []", "nodes.toml: lists no node"),
        ('[node]\nname = "a"', "nodes.toml, line 1: node is not a list of tables"),
        ("# hm\nnode = 3", "nodes.toml, line 2: node is not a list of tables"),
        (GOOD + "[cluster]\n", 'nodes.toml, line 14: unknown key "cluster"'),
        ("colour = 1\n" + GOOD, 'nodes.toml, line 1: unknown key "colour"'),
        ("[[node]]\nname = a", "nodes.toml, line 2, column 8: is not TOML: Invalid value"),
        ("[[node", "nodes.toml: is not TOML:"),
        ("a = " + "[" * 5000, "nodes.toml: is not TOML: values are nested too deeply"),
        ("a = " + "9" * 5000, "nodes.toml: is not TOML:"),
    ],
)
def test_names_what_is_wrong_with_the_whole_file(text: str, complaint: str) -> None:
    """A file that is no list of nodes is refused, with the line where there is one."""
    assert refusal(text).startswith(complaint)


def test_names_the_line_that_is_not_utf8() -> None:
    """Bytes that are not UTF-8 are refused with their line."""
    with pytest.raises(ConfigInvalid, match=r"nodes\.toml, line 2: is not UTF-8"):
        nodeslist.parse("nodes.toml", b"# fine\n# \xff\n")


def test_names_no_line_that_it_cannot_know() -> None:
    """Inline tables, whose place a search cannot find, are refused without a line rather than with a wrong one."""
    text = 'node = [{name = "a", addresses = ["192.0.2.1"], pod_cidrs = ["10.1.0.0/33"]}]'
    assert refusal(text).startswith('nodes.toml, node a: pod_cidrs "10.1.0.0/33": has a prefix')


@st.composite
def cidrs(draw: st.DrawFn) -> IPNetwork:
    """A CIDR in a crowded corner of one family, so that two often overlap."""
    length = draw(st.integers(24, 32))
    return IPNetwork((0x0A000000 | draw(st.integers(0, 1023)) >> (32 - length) << (32 - length), length), version=4)


@given(st.lists(cidrs(), min_size=1, max_size=8))
def test_refuses_exactly_the_sets_that_overlap(ranges: list[IPNetwork]) -> None:
    """Pod CIDRs are accepted when no pair shares an address, and refused otherwise: as comparing every pair says."""
    text = "".join(
        node(name=f'"n{i}"', addresses=f'["192.0.2.{i + 1}"]', pod_cidrs=f'["{one}"]') for i, one in enumerate(ranges)
    )
    overlap = any(a.first <= b.last and b.first <= a.last for i, a in enumerate(ranges) for b in ranges[:i])
    if overlap:
        assert "overlaps" in refusal(text)
    else:
        assert len(nodeslist.parse("nodes.toml", text.encode())) == len(ranges)


@given(st.ip_addresses())
def test_reads_addresses_as_netaddr_does(one: object) -> None:
    """Any address in canonical form is the address that netaddr's own parser makes of it."""
    assert addresses.address(str(one)) == IPAddress(str(one))


@given(st.text(max_size=20), st.integers(0, 200))
def test_never_fails_otherwise_than_by_refusing(text: str, length: int) -> None:
    """Arbitrary text is either a CIDR or a ValueError that says what is wrong."""
    for reader in (addresses.address, addresses.cidr):
        for one in (text, f"{text}/{length}"):
            try:
                reader(one)
            except ValueError as error:
                assert str(error).startswith(("is not an IPv4", "has "))


class Clock:
    """Nanoseconds since the epoch, moved by hand."""

    def __init__(self) -> None:
        self.now = time.time_ns()

    def __call__(self) -> int:
        return self.now


def test_reads_nothing_before_the_first_refresh(tmp_path: Path) -> None:
    """A new source is empty and without error; the first refresh fills it and says so, the second finds no change."""
    path = tmp_path / "nodes.toml"
    path.write_text(GOOD)
    source: Source = NodesFile(str(path))
    assert (source.nodes, source.error) == (frozenset(), None)
    assert source.refresh()
    assert {peer.name for peer in source.nodes} == {"a", "b"}
    assert not source.refresh()


def test_keeps_the_last_good_set_when_the_file_turns_bad(tmp_path: Path) -> None:
    """A bad file sets the error once and keeps the nodes; mending it clears the error, even to the same set."""
    path = tmp_path / "nodes.toml"
    path.write_text(GOOD)
    source = NodesFile(str(path))
    source.refresh()
    good = source.nodes
    path.write_text("[[node]]")
    assert source.refresh()
    assert source.nodes is good
    assert "is missing" in str(source.error)
    assert not source.refresh()
    path.write_text(GOOD)
    assert source.refresh()
    assert (source.nodes, source.error) == (good, None)


def test_keeps_the_last_good_set_when_the_file_vanishes(tmp_path: Path) -> None:
    """A vanished file is an error that keeps the nodes; the very same file back again is good again."""
    path, away = tmp_path / "nodes.toml", tmp_path / "away"
    path.write_text(GOOD)
    source = NodesFile(str(path))
    source.refresh()
    path.rename(away)
    assert source.refresh()
    assert str(source.error) == f"{path}: cannot be read: No such file or directory"
    assert len(source.nodes) == 2
    assert not source.refresh()
    away.rename(path)
    assert source.refresh()
    assert source.error is None


def test_a_start_with_a_bad_list_goes_on_with_the_last_good_one(tmp_path: Path) -> None:
    """Whatever became of the file: the copy is used, which the error says, until there is a good list again."""
    path, kept = tmp_path / "nodes.toml", tmp_path / "state" / "routable.nodes.toml"
    path.write_text(GOOD)
    NodesFile(str(path), kept=kept).refresh()
    assert kept.stat().st_mode & 0o777 == 0o600
    for spoil in (lambda: path.write_text("[[node]]"), path.unlink):
        spoil()
        source = NodesFile(str(path), kept=kept)
        assert source.refresh()
        assert {peer.name for peer in source.nodes} == {"a", "b"}
        assert f"until it is mended, {kept} is used, the last good list" in str(source.error)
        assert not source.refresh()
    path.write_text(GOOD.replace('"b"', '"c"'))
    assert source.refresh()
    assert ({peer.name for peer in source.nodes}, source.error) == ({"a", "c"}, None)
    path.write_text("nonsense")
    source.refresh()
    assert "is used" not in str(source.error)
    again = NodesFile(str(path), kept=kept)
    again.refresh()
    assert {peer.name for peer in again.nodes} == {"a", "c"}


def test_only_a_good_copy_of_the_same_file_stands_in(tmp_path: Path) -> None:
    """Not another file's, not one that was edited, cut short or is none at all; and a good list needs none."""
    path, kept = tmp_path / "nodes.toml", tmp_path / "kept"
    path.write_text(GOOD)
    NodesFile(str(path), kept=kept).refresh()
    whole = kept.read_bytes()
    path.unlink()
    elsewhere = NodesFile(str(tmp_path / "other.toml"), kept=kept)
    elsewhere.refresh()
    assert elsewhere.nodes == frozenset()
    for content in (b"", whole[:40], whole[:-30], whole + b"x", GOOD.encode()):
        kept.write_bytes(content)
        source = NodesFile(str(path), kept=kept)
        source.refresh()
        assert source.nodes == frozenset()
        assert str(source.error) == f"{path}: cannot be read: No such file or directory"
    path.write_text(GOOD)
    kept.unlink()
    kept.mkdir()  # it cannot be kept
    source = NodesFile(str(path), kept=kept)
    assert source.refresh()
    assert (len(source.nodes), source.error) == (2, None)


def test_refuses_what_is_no_regular_file(tmp_path: Path) -> None:
    """A FIFO or a directory in the file's place is refused at once, without hanging, and a file put back is read."""
    path = tmp_path / "nodes.toml"
    path.write_text(GOOD)
    source = NodesFile(str(path))
    source.refresh()
    path.unlink()
    os.mkfifo(path)
    assert source.refresh()
    assert str(source.error) == f"{path}: is not a regular file: name a TOML file"
    path.unlink()
    path.mkdir()
    assert source.refresh()
    assert str(source.error) == f"{path}: cannot be read: Is a directory"
    path.rmdir()
    path.write_text(GOOD)
    assert source.refresh()
    assert source.error is None


def test_follows_the_symlink_swap_of_a_configmap(tmp_path: Path) -> None:
    """A ConfigMap volume swaps the directory behind ..data: the file behind the unchanged path is read again."""
    for version, text in (("v1", GOOD), ("v2", GOOD.replace('"b"', '"c"'))):
        (tmp_path / version).mkdir()
        (tmp_path / version / "nodes.toml").write_text(text)
        os.utime(tmp_path / version / "nodes.toml", ns=(10**18, 10**18))
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "nodes.toml").symlink_to("..data/nodes.toml")
    clock = Clock()
    clock.now += 10**10
    source = NodesFile(str(tmp_path / "nodes.toml"), clock)
    source.refresh()
    (tmp_path / "..next").symlink_to("v2")
    (tmp_path / "..next").rename(tmp_path / "..data")
    assert source.refresh()
    assert {peer.name for peer in source.nodes} == {"a", "c"}


def test_opens_the_file_only_when_it_may_have_changed(tmp_path: Path) -> None:
    """An unchanged signature saves the reading of an old file; a young one may change unseen, so it is read again."""
    path = tmp_path / "nodes.toml"
    path.write_text(GOOD)
    clock = Clock()
    opened: list[Path] = []

    def counting(one: Path) -> tuple[Signature, bytes]:
        opened.append(one)
        return read(one)

    source = NodesFile(str(path), clock, counting)
    clock.now = path.stat().st_ctime_ns
    for expected in (True, False):
        assert source.refresh() is expected
    assert len(opened) == 2
    clock.now += 3 * 10**9
    assert not source.refresh()
    assert len(opened) == 2
    path.write_text(GOOD + "\n")
    assert not source.refresh()
    assert len(opened) == 3


def test_reads_five_thousand_nodes_in_about_a_second() -> None:
    """The largest cluster, 5,000 dual-stack nodes, is read in seconds at the very most: there is no n² in it."""
    text = "".join(
        node(
            name=f'"node-{i}"',
            addresses=f'["172.16.{i // 250}.{i % 250 + 1}", "2001:db8::{i + 1:x}"]',
            pod_cidrs=f'["10.{i // 256}.{i % 256}.0/24", "2001:db8:1:{i:x}::/64"]',
        )
        for i in range(5000)
    )
    before = time.process_time()
    assert len(nodeslist.parse("nodes.toml", text.encode())) == 5000
    assert time.process_time() - before < 5


@pytest.mark.parametrize("key", ["name", "addresses", "pod_cidrs", "other"])
@pytest.mark.parametrize(
    "value",
    ["= 0x" + "f" * 5000, ".a" * 5000 + " = 1", "= 1979-05-27", "= nan", "= [[1]]", '= { a = 1 }'],
    ids=["number", "nested", "date", "nan", "list", "table"],
)
def test_values_that_cannot_be_shown(key: str, value: str) -> None:
    """A complaint about a value never fails itself, however large or deep that is."""
    with pytest.raises(ConfigInvalid) as caught:
        nodeslist.parse("nodes.toml", f"[[node]]\n{key}{value}\n".encode())
    assert len(str(caught.value)) < 400


def test_a_file_that_is_no_list_of_nodes_by_its_size_is_not_read(tmp_path: Path) -> None:
    """Somebody named a disk image: it is told, not read for a minute."""
    path = tmp_path / "nodes.toml"
    with path.open("wb") as file:
        file.truncate(tomlfile.SIZE_MAX + 1)
    with pytest.raises(ConfigInvalid, match="is larger than 8 MiB: is it the right file"):
        tomlfile.read(path)


def test_a_first_start_with_a_bad_list_has_no_nodes(tmp_path: Path) -> None:
    """There is no copy of a good one, or nothing that could be one."""
    path, kept = tmp_path / "nodes.toml", tmp_path / "kept"
    path.write_text("[[node]]")
    for is_there in (False, True):
        if is_there:
            kept.mkdir()
        source = NodesFile(str(path), kept=kept)
        source.refresh()
        assert source.nodes == frozenset()
        assert "until it is mended" not in str(source.error)
