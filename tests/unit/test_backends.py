"""What the backends want of the kernel, as a person would write it down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from netaddr import IPAddress, IPNetwork

import backends
from backends import nodeplan, podlink
from backends.site import Options, Site
from backends.static.wiring import StaticWiring
from backends.vxlan.table import VxlanTable
from backends.vxlan.wiring import VxlanWiring
from backends.wiring import Wiring
from cluster.peers import Peer
from cni.errors import ConfigInvalid
from cni.spec import Attachment, Identity
from dataplane.host import Facts
from dataplane.items import HOST, Addr, Item, Key, Nexthop, NftTable, Route
from dataplane.links import Veth
from dataplane.uplink import Uplink
from ipam.lease import Block, Lease, Leased
from ipam.moment import Moment
from ipam.store import Record

UPLINK = Uplink("eth0", 1500, (IPNetwork("192.0.2.1/24"), IPNetwork("2001:db8::1/64")))


def peer(name: str, number: int, *, subnet: str = "192.0.2", six: bool = True) -> Peer:
    addresses = [IPAddress(f"{subnet}.{number}"), *([IPAddress(f"2001:db8::{number}")] if six else [])]
    cidrs = [IPNetwork(f"10.1.{number}.0/24"), *([IPNetwork(f"2001:db8:{number}::/64")] if six else [])]
    return Peer(name, tuple(addresses), tuple(cidrs))


HERE, NEAR, FAR = peer("a", 1), peer("b", 2), peer("c", 3, subnet="198.51.100", six=False)
SITE = Site(HERE, UPLINK, Options())


def lines(plan: dict[Key, Item]) -> list[str]:
    return [str(item) for item in plan.values() if not isinstance(item, NftTable)]


def record(mtu: int = 1500) -> Record:
    who = Attachment("pods", "c1", "eth0")
    leased = (
        Leased(IPAddress("10.1.1.5"), Block(IPNetwork("10.1.1.0/24"), "a")),
        Leased(IPAddress("2001:db8:1::5"), Block(IPNetwork("2001:db8:1::/64"), "a")),
    )
    space, since = Identity(4, 4026532000, 7), Moment(0.0, 0.0)
    return Record(Lease(who, leased), "/run/netns/x", "0a:58:0a:01:01:05", mtu, "", since, space)


def test_a_pods_plan() -> None:
    """The link by a name that follows from the attachment, /32 and /128, the gateway, permanent neighbours."""
    name = podlink.link_name(Attachment("pods", "c1", "eth0"))
    inside = "[/run/netns/x] "
    assert lines(StaticWiring(SITE).pod(record())) == [
        f"link {name} veth mtu 1500 address ee:ee:ee:ee:ee:ee up alias 'routable pods c1 eth0 /run/netns/x'",
        f"{inside}link eth0 mtu 1500 address 0a:58:0a:01:01:05 up",
        f"neigh 10.1.1.5 dev {name} lladdr 0a:58:0a:01:01:05 nud permanent",
        f"route 10.1.1.5/32 dev {name}",
        f"{inside}addr 10.1.1.5/32 dev eth0",
        f"{inside}neigh 169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee nud permanent",
        f"{inside}route 0.0.0.0/0 via 169.254.1.1 dev eth0 onlink",
        f"neigh 2001:db8:1::5 dev {name} lladdr 0a:58:0a:01:01:05 nud permanent",
        f"route 2001:db8:1::5/128 dev {name}",
        f"{inside}sysctl net/ipv6/conf/eth0/disable_ipv6 = 0",
        f"{inside}addr 2001:db8:1::5/128 dev eth0",
        f"{inside}neigh fe80::1 dev eth0 lladdr ee:ee:ee:ee:ee:ee nud permanent",
        f"{inside}route ::/0 via fe80::1 dev eth0 onlink",
    ]
    assert len(name) == 13


def test_a_pod_beside_another_network() -> None:
    """Where it has a default route elsewhere: a rule for what has its address, and a table of the link's own."""
    table = podlink.own_table(podlink.link_name(Attachment("pods", "c1", "eth0")))
    usual = lines(StaticWiring(SITE).pod(record()))
    inside, default = "[/run/netns/x] ", "0.0.0.0/0 via 169.254.1.1 dev eth0 onlink"
    assert table >= 1 << 30
    assert set(lines(StaticWiring(SITE).pod(replace(record(), beside=(4,))))) ^ set(usual) == {
        f"{inside}route {default}",
        f"{inside}route {default} table {table}",
        f"{inside}rule ipv4 8200: from 10.1.1.5/32 lookup {table}",
    }


@pytest.mark.parametrize(
    ("is_off", "families", "mtu", "wanted"),
    [
        (False, (4, 6), 1500, False),
        (True, (4, 6), 1500, False),
        (True, (4,), 1500, True),
        (True, (4,), 1279, False),
        (False, (4,), 1500, False),
    ],
)
def test_ipv6_of_a_pods_link(is_off: bool, families: tuple[int, ...], mtu: int, wanted: bool) -> None:
    """A pod with an IPv6 address has it on; another as the host has it, where the link can have any."""
    whole = record(mtu)
    lease = replace(whole.lease, leased=tuple(one for one in whole.lease.leased if one.address.version in families))
    site = replace(SITE, host=Facts(is_ipv6_off=is_off))
    (veth,) = (one for one in StaticWiring(site).pod(replace(whole, lease=lease)).values() if isinstance(one, Veth))
    assert veth.is_ipv6_off is wanted
    assert veth.is_guarded


def test_a_pod_whose_link_carries_more_than_the_way_is_told_by_its_route() -> None:
    """As after a change to a backend with overhead."""
    plan = VxlanWiring(SITE).pod(record(1500))
    assert [str(item) for item in plan.values() if isinstance(item, Route) and item.via] == [
        "[/run/netns/x] route 0.0.0.0/0 via 169.254.1.1 dev eth0 onlink mtu 1450",
        "[/run/netns/x] route ::/0 via fe80::1 dev eth0 onlink mtu 1450",
    ]


def test_an_alias_tells_the_attachment_again() -> None:
    """Also one without the namespace, where that is too long; nothing is read out of others' aliases."""
    who = Attachment("pods", "c1", "eth0")
    assert podlink.parse_alias(podlink.alias(who, "/run/netns/a b")) == (who, "/run/netns/a b")
    long = Attachment("n" * 80, "c" * 100, "e" * 15)
    text = podlink.alias(long, "/" + "x" * 200)
    assert len(text) <= 255
    assert podlink.parse_alias(text) == (long, "")
    for other in ("", "routable", "routable a b", "routable  b c", "something else entirely"):
        assert podlink.parse_alias(other) is None


def test_static_reaches_peers_by_their_addresses() -> None:
    """One nexthop per peer and family, routes by its id, no route for our own range but unreachable."""
    wired = StaticWiring(SITE).node([HERE, NEAR])
    four, six = nodeplan.natural_ids(NEAR).values()
    assert lines(wired.plan) == [
        "route unreachable 10.1.1.0/24",
        "route unreachable 2001:db8:1::/64",
        "sysctl net/ipv4/ip_forward = 1",
        "sysctl net/ipv4/conf/eth0/forwarding = 1",
        "sysctl net/ipv6/conf/all/forwarding = 1",
        "sysctl net/ipv6/conf/eth0/forwarding = 1",
        f"nexthop id {four} via 192.0.2.2 dev eth0",
        f"route 10.1.2.0/24 nhid {four}",
        f"nexthop id {six} via 2001:db8::2 dev eth0",
        f"route 2001:db8:2::/64 nhid {six}",
    ]
    assert wired.unserved == ()


@pytest.mark.parametrize("wire", [StaticWiring, VxlanWiring])
def test_ranges_of_one_or_two_addresses_are_pods_alone(wire: Callable[[Site], Wiring]) -> None:
    """Nothing of the node's has an address, or a route, that is a pod's; peers are reached all the same."""
    networks = IPNetwork("10.1.1.6/31"), IPNetwork("10.1.1.9/32"), IPNetwork("2001:db8:1::8/127")
    tiny = replace(HERE, pod_cidrs=networks)
    small = replace(NEAR, pod_cidrs=(IPNetwork("10.1.2.5/32"), IPNetwork("2001:db8:2::5/128")))
    wired = wire(replace(SITE, here=tiny)).node([tiny, small])
    assert wired.unserved == ()
    assert not [item for item in wired.plan.values() if isinstance(item, Addr)]
    routes = {item.dst: item for item in wired.plan.values() if isinstance(item, Route)}
    assert {dst for dst, item in routes.items() if item.unreachable} == {"10.1.1.6/31", "2001:db8:1::8/127"}
    assert {dst for dst, item in routes.items() if item.nhid} == {"10.1.2.5/32", "2001:db8:2::5/128"}


def test_static_names_whom_it_cannot_reach_and_why() -> None:
    """Off-link, or without an address of the family; never a wrong route."""
    odd = Peer("d", (IPAddress("192.0.2.9"),), (IPNetwork("2001:db8:9::/64"),))
    wired = StaticWiring(SITE).node([HERE, FAR, odd])
    assert [one.peer for one in wired.unserved] == ["c", "d"]
    assert "c (198.51.100.3) is not on-link at eth0 (IPv4 networks there: 192.0.2.0/24)" in wired.unserved[0].why
    assert "no IPv6 address of its own" in wired.unserved[1].why
    assert not any(isinstance(item, Nexthop) for item in wired.plan.values())


def test_vxlan_wraps_for_every_peer() -> None:
    """The device, its own overlay addresses, and per peer a neighbour, a forwarding entry and the nexthops."""
    wired = VxlanWiring(SITE).node([HERE, NEAR])
    four, six = nodeplan.natural_ids(NEAR).values()
    assert lines(wired.plan)[6:] == [
        "link routable-vxlan vxlan id 4096 local 192.0.2.1 dstport 4789 mtu 1450 address 02:52:c0:00:02:01 up "
        "tx-checksum on",
        "sysctl net/ipv4/conf/routable-vxlan/rp_filter = 2",
        "sysctl net/ipv4/conf/eth0/rp_filter = 2",
        "sysctl net/ipv6/conf/routable-vxlan/disable_ipv6 = 0",
        "addr 10.1.1.0/32 dev routable-vxlan",
        "addr 2001:db8:1::/128 dev routable-vxlan",
        "fdb 02:52:c0:00:02:02 dev routable-vxlan dst 192.0.2.2",
        f"route 10.1.2.0/24 nhid {four}",
        "neigh 10.1.2.0 dev routable-vxlan lladdr 02:52:c0:00:02:02 nud permanent",
        f"nexthop id {four} via 10.1.2.0 dev routable-vxlan onlink",
        f"route 2001:db8:2::/64 nhid {six}",
        "neigh fe80::52:c0ff:fe00:202 dev routable-vxlan lladdr 02:52:c0:00:02:02 nud permanent",
        f"nexthop id {six} via fe80::52:c0ff:fe00:202 dev routable-vxlan onlink",
    ]
    assert wired.unserved == ()


def test_vxlan_takes_encapsulated_packets_from_the_peers_of_the_list() -> None:
    """By the address of theirs that carries, each once, and not from this node itself; the others are whoever."""
    over6 = VxlanWiring(SITE, VxlanTable(vni=7, port=8472, underlay="ipv6"))
    six = over6.node({HERE, NEAR, FAR}).plan[Key(HOST, "nft", "inet routable-overlay")]
    assert isinstance(six, NftTable)
    for line in (
        "elements = { 2001:db8::2 }",
        "meta nfproto ipv6 udp dport 8472 jump encapsulated",
        "@th,96,24 != 7 return",
        "ip6 saddr != @peers drop",
    ):
        assert f"\t\t{line}\n" in six.text
    wiring = VxlanWiring(SITE)
    tables = []
    for nodes in ({HERE, NEAR, FAR}, {HERE, FAR}, {HERE}):
        (table,) = (item for item in wiring.node(nodes).plan.values() if item.key.name == "inet routable-overlay")
        assert isinstance(table, NftTable)
        tables.append(next((line.strip() for line in table.text.splitlines() if "elements" in line), ""))
    assert tables == ["elements = { 192.0.2.2, 198.51.100.3 }", "elements = { 198.51.100.3 }", ""]


def test_vxlan_of_ipv4_pods_wants_nothing_of_ipv6() -> None:
    """A host may have it switched off, or a link too small for it."""
    here, near = (replace(peer, pod_cidrs=peer.pod_cidrs[:1]) for peer in (HERE, NEAR))
    plan = VxlanWiring(replace(SITE, here=here)).node([here, near]).plan
    assert [line for line in lines(plan) if "ipv6" in line or "fe80" in line] == []


def test_vxlan_direct_uses_plain_routes_where_it_can() -> None:
    """On-link peers directly, the others wrapped."""
    plan = VxlanWiring(SITE, VxlanTable(direct=True)).node([HERE, NEAR, FAR]).plan
    vias = {item.via: item.dev for item in plan.values() if isinstance(item, Nexthop)}
    assert vias == {
        "192.0.2.2": "eth0",
        "2001:db8::2": "eth0",
        str(FAR.pod_cidrs[0].ip): "routable-vxlan",
    }


def test_a_change_of_backend_changes_nexthops_and_nothing_of_the_routes() -> None:
    """The routes to peers that both serve are the same items."""
    static, overlay = (wiring(SITE).node([HERE, NEAR]).plan for wiring in (StaticWiring, VxlanWiring))
    routes = [{item for item in plan.values() if isinstance(item, Route)} for plan in (static, overlay)]
    assert routes[0] == routes[1]
    nexthops = [{key for key, item in plan.items() if isinstance(item, Nexthop)} for plan in (static, overlay)]
    assert nexthops[0] == nexthops[1]


def test_old_kernels_do_not_offload_checksums() -> None:
    """Before 5.7 they spoil packets."""
    site = replace(SITE, options=Options(kernel=(5, 4)))
    assert any("tx-checksum off" in line for line in lines(VxlanWiring(site).node([HERE]).plan))


@pytest.mark.parametrize(
    ("options", "table", "uplink_mtu", "static", "overlay"),
    [
        (Options(), VxlanTable(), 1500, 1500, 1450),
        (Options(), VxlanTable(), 9001, 9001, 8951),
        (Options(), VxlanTable(underlay="ipv6"), 1500, 1500, 1430),
        (Options(mtu=1400), VxlanTable(), 1500, 1400, 1400),
    ],
)
def test_the_mtu(options: Options, table: VxlanTable, uplink_mtu: int, static: int, overlay: int) -> None:
    """The uplink's less the overhead, or as configured."""
    site = Site(HERE, replace(UPLINK, mtu=uplink_mtu), options)
    assert (StaticWiring(site).mtu, VxlanWiring(site, table).mtu) == (static, overlay)


def test_an_impossible_mtu_is_refused_with_the_numbers() -> None:
    """More than the way carries, or less than the pods' families need."""
    with pytest.raises(ConfigInvalid, match="at most 1450: eth0 carries 1500, less 50 of overhead"):
        VxlanWiring(Site(HERE, UPLINK, Options(mtu=1500)))
    with pytest.raises(ConfigInvalid, match="at least 1280"):
        StaticWiring(Site(HERE, UPLINK, Options(mtu=1200)))
    with pytest.raises(ConfigInvalid, match="would be 1250"):
        VxlanWiring(Site(HERE, replace(UPLINK, mtu=1300), Options()))


def test_an_underlay_without_an_address_is_refused() -> None:
    """In words, at start."""
    site = Site(FAR, UPLINK, Options())
    with pytest.raises(ConfigInvalid, match=r"vxlan\.underlay is ipv6, but this node has no IPv6 address"):
        VxlanWiring(site, VxlanTable(underlay="ipv6"))


def test_peers_of_the_same_overlay_address_are_told() -> None:
    """Two nodes in the list with one IPv6 hash, or our own: the second is unserved, not the first broken."""
    twin = Peer("z", (IPAddress("192.0.2.2"),), (IPNetwork("10.1.9.0/24"),))
    wired = VxlanWiring(SITE).node([HERE, NEAR, twin])
    assert [one.peer for one in wired.unserved] == ["z"]
    assert "same hardware address in the overlay as b" in wired.unserved[0].why


def test_a_peer_that_the_underlay_does_not_reach_is_told() -> None:
    """It has no address of that family; or one whose hash, of four bytes, happens to be that of our own."""
    six = VxlanTable(underlay="ipv6")
    here = Peer("a", (IPAddress("2001:db8::f04"),), (IPNetwork("2001:db8:1::/64"),))
    twin = Peer("b", (IPAddress("2001:db8::1:af4"),), (IPNetwork("2001:db8:2::/64"),))
    site = Site(here, UPLINK, Options())
    four = Peer("c", (IPAddress("192.0.2.3"),), (IPNetwork("2001:db8:3::/64"),))
    wired = VxlanWiring(site, six).node([here, twin, four])
    assert {one.peer: one.why for one in wired.unserved} == {
        "b": "b would have this node's hardware address in the overlay: change a node's address",
        "c": "c has no IPv6 address, and this node's underlay is 2001:db8::f04",
    }
    assert not [item for item in wired.plan.values() if item.key.kind == "fdb"]


def test_ids_stay_when_peers_come_and_go() -> None:
    """Nexthops of the others are not touched."""
    all_of_them = [peer(f"n{number}", number) for number in range(2, 252)]
    whole, fewer = (
        {key for key in StaticWiring(SITE).node([HERE, *peers]).plan if key.kind == "nexthop"}
        for peers in (all_of_them, all_of_them[1:])
    )
    assert fewer < whole
    assert (len(whole), len(fewer)) == (500, 498)
    assert all(int(key.name) >> 30 == 1 for key in whole)


def test_masquerade_spares_the_routable_ranges() -> None:
    """Of each family its own; a family without a range is not masqueraded at all."""
    text = nodeplan.table(HERE.pod_cidrs, [IPNetwork("10.0.0.0/8"), IPNetwork("192.0.2.0/24")]).text
    ranges = "ip saddr { 10.1.1.0/24 } ip daddr != { 10.0.0.0/8, 192.0.2.0/24 }"
    assert f'{ranges} oifname "rt*" oifgroup 82 return\n\t\t{ranges} masquerade' in text
    assert "ip6 saddr {" not in text
    assert "masquerade" not in nodeplan.table(HERE.pod_cidrs, None).text


def test_every_name_in_the_table_is_a_wiring() -> None:
    """An operator's choice must not fail at import."""
    needed = {"bgp": {"asn": 64512, "accept": (IPNetwork("10.1.0.0/16"),)}}
    for name in backends.BACKENDS:
        backend = backends.load(name)
        assert backend.name == name
        assert backend.wiring(SITE, backend.table(**needed.get(name, {}))).mtu > 0


def test_ids_that_collide_move_to_the_next_that_is_nobodys() -> None:
    """The first by name keeps its own; nobody who collides with none is moved."""
    base = 1 << 30
    natural = {("a", 4): base | 5, ("b", 4): base | 5, ("c", 4): base | 6, ("d", 4): base | 5, ("e", 4): base | 9}
    assert nodeplan.moved(natural) == {("b", 4): base | 7, ("d", 4): base | 8}
    assert nodeplan.moved({("a", 4): base | (base - 1), ("b", 4): base | (base - 1)}) == {("b", 4): base}
