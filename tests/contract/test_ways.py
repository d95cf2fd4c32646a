"""Where the kernel says that a packet would go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from dataplane.ways import Course, Packet, explain, ways
from demo.lab import place
from demo.place import Place


@pytest.fixture
def host() -> Iterator[Place]:
    """A router with two links, a table that a rule leads to, and a range that nothing may go to."""
    with ExitStack() as cleanup:
        made = place(cleanup, f"ways{os.getpid()}")
        for name, number in (("eth0", 0), ("eth1", 1)):
            made.ip(f"link add {name} type veth peer name peer{number}")
            for end in (name, f"peer{number}"):
                made.ip(f"link set {end} up")
            made.ip(f"address add 192.0.{number}.1/24 dev {name}")
            made.ip(f"address add 2001:db8:{number}::1/64 dev {name} nodad")
        for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            made.sysctl(f"net/{path}", "1")
        made.sysctl("net/ipv4/conf/eth1/rp_filter", "1")
        made.ip("route add default via 192.0.0.254")
        made.ip("route add 10.9.0.0/16 via 192.0.1.254 table 52")
        made.ip("rule add to 10.9.0.0/16 lookup 52 priority 100")
        made.ip("route add unreachable 10.8.0.0/16")
        yield made


def asked(host: Place, *packets: Packet) -> list[Course]:
    """The answers of the kernel there."""
    return host.within(lambda: ways(packets))


def test_it_follows_rules_tables_and_gateways(host: Place) -> None:
    """As ``ip route get`` tells it."""
    assert [str(way) for way in asked(host, Packet("192.0.0.9"), Packet("203.0.113.1"), Packet("10.9.0.1"))] == [
        "dev eth0 (table 254)",
        "dev eth0 via 192.0.0.254 (table 254)",
        "dev eth1 via 192.0.1.254 (table 52)",
    ]
    assert asked(host, Packet("2001:db8:1::9"))[0]._replace(table=0) == Course("unicast", "eth1", src="2001:db8:1::1")
    assert asked(host, Packet("192.0.1.9"))[0].src == "192.0.1.1"


def test_it_tells_what_goes_nowhere_and_why(host: Place) -> None:
    """No error: that is the answer."""
    found = asked(
        host,
        Packet("10.8.0.1"),
        Packet("2001:db8:9::1"),
        Packet("192.0.0.1"),
        Packet("192.0.0.9", src="203.0.113.1", iif="eth1"),
        Packet("192.0.0.9", src="192.0.1.9", iif="eth1"),
        Packet("192.0.0.9", src="192.0.1.9", iif="gone"),
    )
    assert [way.kind for way in found] == [
        "no route",
        "no route",
        "local",
        "dropped: no packet of that source is taken from that link (rp_filter)",
        "unicast",
        "no link gone",
    ]


def test_it_tells_what_leads_a_marked_packet_and_why_one_is_dropped(host: Place) -> None:
    """Others' rules for a mark, of their own table; the sysctl that drops; and else where to look."""
    host.ip("rule add fwmark 7 lookup 53 priority 90")
    host.ip("route add default via 192.0.1.253 table 53")
    marked, plain = Packet("203.0.113.1", mark=7), Packet("192.0.0.9")
    dropped = Packet("192.0.0.9", "203.0.113.1", "eth1")
    found = asked(host, marked, dropped, plain)
    assert (found[0].dev, found[0].via, found[0].table) == ("eth1", "192.0.1.253", 53)
    assert host.within(lambda: explain(marked, found[0])) == "the rule is of another program: 90: lookup 53"
    for words in ("rule del fwmark 7 lookup 53 priority 90", "rule del to 10.9.0.0/16 lookup 52 priority 100"):
        host.ip(words)
    why = host.within(lambda: explain(dropped, found[1]))
    assert why.startswith("see the sysctls net.ipv4.conf.{all,eth1}.rp_filter, which way leads back to 203.0.113.1")
    assert host.within(lambda: explain(plain, found[2])) == "see ip -4 route show match 192.0.0.9"
