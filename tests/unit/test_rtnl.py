"""Our netlink messages, read by pyroute2's decoders, which know nothing of ours."""

from __future__ import annotations

import struct
from socket import AF_INET
from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from dataplane import linkmsg, routemsg, rtnl
from dataplane.items import HOST, Addr, Item, Neigh, Route
from dataplane.links import Fdb, Port, Veth, Vxlan


def decoded(kind: Any, message: rtnl.Message) -> Any:
    """The message with a header, as pyroute2 understands it."""
    header = struct.pack("=IHHII", 16 + len(message.body), message.type, message.flags, 1, 0)
    found = kind(header + message.body)
    found.decode()
    return found


def test_a_veth_with_its_peer_in_another_namespace() -> None:
    """Both ends' names, addresses and MTUs, and the namespace of the peer, in one message; alias and state after it."""
    veth = Veth("rt1", "routable a b c /n", 1450, "ee:ee:ee:ee:ee:ee", True, "/n", "eth0", "0a:58:00:00:00:01")
    link = decoded(ifinfmsg, linkmsg.create_veth(veth, 99, 7, 1400))
    assert (link.get_attr("IFLA_IFNAME"), link.get_attr("IFLA_MTU")) == ("rt1", 1450)
    assert link.get_attr("IFLA_ADDRESS") == "ee:ee:ee:ee:ee:ee"
    assert (link.get_attr("IFLA_NUM_TX_QUEUES"), link.get_attr("IFLA_NUM_RX_QUEUES")) == (1, 1)
    info = link.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "veth"
    peer = info.get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
    assert (peer.get_attr("IFLA_IFNAME"), peer.get_attr("IFLA_MTU")) == ("eth0", 1400)
    assert (peer.get_attr("IFLA_ADDRESS"), peer.get_attr("IFLA_NET_NS_FD")) == ("0a:58:00:00:00:01", 7)
    assert (peer.get_attr("IFLA_NUM_TX_QUEUES"), peer.get_attr("IFLA_NUM_RX_QUEUES")) == (1, 1)
    rest = decoded(ifinfmsg, linkmsg.finish_link(veth, 99))
    assert rest.get_attr("IFLA_IFALIAS") == "routable a b c /n"
    assert rest["flags"] & rest["change"] & 1
    assert rest.get_attr("IFLA_AF_SPEC") is not None


@pytest.mark.parametrize(("mtu", "has_ipv6"), [(1279, True), (1500, False)])
def test_no_ipv6_is_spoken_of_where_there_is_none(mtu: int, has_ipv6: bool) -> None:
    """Neither on a link that is too small for it nor in a kernel without: these refuse the whole message."""
    veth = Veth("rt1", "routable a b c /n", mtu, "ee:ee:ee:ee:ee:ee")
    body = linkmsg.finish_link(veth, 99, has_ipv6).body
    spec = rtnl.attrs(body, linkmsg.IFINFO.size, len(body))[linkmsg.IFLA_AF_SPEC]
    assert rtnl.attrs(spec, 0, len(spec)).keys() == {AF_INET}


@pytest.mark.parametrize(("local", "name"), [("192.0.2.1", "IFLA_VXLAN_LOCAL"), ("2001:db8::1", "IFLA_VXLAN_LOCAL6")])
def test_a_vxlan_device(local: str, name: str) -> None:
    """Number, port and local address of either family; no learning."""
    vxlan = Vxlan("routable-vxlan", 4096, 4789, local, "02:52:c0:00:02:01", 1450)
    data = decoded(ifinfmsg, linkmsg.create_vxlan(vxlan, 98)).get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
    found = [data.get_attr(f"IFLA_VXLAN_{one}") for one in ("ID", "PORT", "LEARNING")]
    assert [*found, data.get_attr(name)] == [4096, 4789, 0, local]


def test_of_a_link_only_what_differs_is_said() -> None:
    """The kernel forgets permanent neighbours whenever it is told an address, be it the same."""
    old = Port("/n", "eth0", 1450, "0a:58:00:00:00:01")
    message = decoded(ifinfmsg, linkmsg.set_link(Port("/n", "eth0", 1400, "0a:58:00:00:00:01"), old))
    assert message.get_attr("IFLA_MTU") == 1400
    assert message.get_attr("IFLA_ADDRESS") is None


@pytest.mark.parametrize(
    ("item", "kind", "wanted"),
    [
        (Addr("/n", "eth0", "10.0.0.5/32"), ifaddrmsg, {"family": 2, "prefixlen": 32, "IFA_LOCAL": "10.0.0.5"}),
        (
            Addr("/n", "eth0", "2001:db8::5/128"),
            ifaddrmsg,
            {"family": 10, "IFA_ADDRESS": "2001:db8::5", "IFA_FLAGS": 2},
        ),
        (Neigh(HOST, "rt1", "10.0.0.5", "0a:58:00:00:00:01"), ndmsg, {"state": 128, "NDA_DST": "10.0.0.5"}),
        (
            Fdb("routable-vxlan", "02:52:00:00:00:01", "192.0.2.2"),
            ndmsg,
            {"flags": 2, "NDA_LLADDR": "02:52:00:00:00:01"},
        ),
        (Route(HOST, "10.0.0.5/32", "rt1"), rtmsg, {"dst_len": 32, "proto": 82, "scope": 253, "RTA_OIF": 3}),
        (Route(HOST, "10.1.0.0/24", nhid=7), rtmsg, {"RTA_DST": "10.1.0.0", "type": 1}),
        (Route(HOST, "2001:db8::/64", unreachable=True), rtmsg, {"family": 10, "type": 7, "RTA_OIF": None}),
        (
            Route("/n", "0.0.0.0/0", "eth0", "169.254.1.1", onlink=True),
            rtmsg,
            {"dst_len": 0, "flags": 4, "RTA_GATEWAY": "169.254.1.1", "RTA_OIF": 3},
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, Addr | Neigh | Fdb | Route) else "",
)
def test_an_item_as_pyroute2_reads_it(item: Item, kind: Any, wanted: dict[str, Any]) -> None:
    """Header fields and attributes."""
    message = decoded(kind, routemsg.put(item, 3, False))
    found = {name: message.get_attr(name) if name.isupper() else message[name] for name in wanted}
    assert found == wanted


def test_the_mtu_of_a_route_is_a_metric() -> None:
    """RTAX_MTU within RTA_METRICS."""
    message = decoded(rtmsg, routemsg.put(Route("/n", "::/0", "eth0", "fe80::1", onlink=True, mtu=1400), 3, False))
    assert message.get_attr("RTA_METRICS").get_attr("RTAX_MTU") == 1400


def test_a_neighbour_without_its_addresses_is_none() -> None:
    """As a proxy's, or one of a bridge's that leads to no other machine."""
    body = routemsg.NDMSG.pack(AF_INET, 7, routemsg.NUD_PERMANENT, 0, 0)
    lladdr = rtnl.attr(routemsg.NDA_LLADDR, bytes(6))
    dst = rtnl.attr(routemsg.NDA_DST, bytes((192, 0, 2, 1)))
    for less in (b"", lladdr, dst):
        assert routemsg.neigh(body + less, HOST, {7: "eth0"}) is None
        assert routemsg.fdb(body + less, "eth0") is None
    whole = Neigh(HOST, "eth0", "192.0.2.1", "00:00:00:00:00:00")
    assert routemsg.neigh(body + lladdr + dst, HOST, {7: "eth0"}) == whole
