"""What BIRD is told, as a person would read it, and whom a node speaks with."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from netaddr import IPAddress, IPNetwork

from backends.bgp import conf
from backends.bgp.conf import Mood, configuration, mark_of
from backends.bgp.sessions import speech
from backends.bgp.table import BgpTable, RouterTable, community, contradictions
from backends.bgp.wiring import BgpWiring
from backends.site import Options, Site
from cluster.peers import Peer
from cni.errors import ConfigInvalid
from dataplane.uplink import Uplink
from demo.place import Failed
from demo.speaking import program

ACCEPT = (IPNetwork("10.244.0.0/16"), IPNetwork("2001:db8::/32"))


def node(number: int, **more: Any) -> Peer:
    """A dual-stack node on one segment."""
    return Peer(
        f"node-{number}",
        (IPAddress(f"192.0.2.{number}"), IPAddress(f"2001:db8:ffff::{number}")),
        (IPNetwork(f"10.244.{number}.0/24"), IPNetwork(f"2001:db8:{number}::/64")),
        **more,
    )


UPLINK = Uplink("eth0", 1500, (IPNetwork("192.0.2.1/24"), IPNetwork("2001:db8:ffff::1/64")))
SITE = Site(node(1), UPLINK, Options())
PEERS = [node(1), node(2), node(3)]
FAR = replace(node(4), addresses=(IPAddress("198.51.100.4"), IPAddress("2001:db8:fffe::4")))


def table(**keys: Any) -> BgpTable:
    """A mesh, but for *keys*."""
    return BgpTable(**{"asn": 64512, "accept": ACCEPT, **keys})


def text(one: BgpTable, site: Site = SITE, peers: list[Peer] = PEERS, mood: Mood = conf.USUAL, **rest: Any) -> str:
    """The configuration without its first lines, in which its mark is."""
    whole = configuration(one, speech(one, site, peers, **rest), {"/p": "se cret"}, mood)
    return whole.split("\n", 2)[2]


def lines(one: BgpTable, site: Site = SITE, peers: list[Peer] = PEERS, **rest: Any) -> list[str]:
    """Each session in one line: its name, its ends, and whether it is direct."""
    return [
        f"{session.name}: {session.local_asn} {session.source or ''} -> {session.address} as {session.asn}, "
        f"{'/'.join(map(str, session.channels))}, {session.hops}{' client' if session.is_client else ''}"
        for session in speech(one, site, peers, **rest).sessions
    ]


FOUR = """\
log "/run/routable/bgp/bird.log" 1048576 "/run/routable/bgp/bird.log.1" all;
timeformat protocol "%s";
router id 192.0.2.1;
graceful restart wait 30;

protocol device {
	scan time 10;
}

# What was heard of others; nothing whose next hop cannot be reached.
filter to_kernel {
	if source != RTS_BGP || dest = RTD_UNREACHABLE then reject;
	accept;
}

protocol kernel kernel4 {
	metric 8282;
	persist;
	graceful restart;
	scan time 1;
	merge paths on limit 8;
	ipv4 {
		import none;
		export filter to_kernel;
	};
}

protocol static own4 {
	ipv4;
	route 10.244.1.0/24 unreachable;
}

define accepted4 = [ 10.244.0.0/16+ ];

filter heard4 {
	if net ~ [ 10.244.1.0/24+ ] then reject;  # our own pods are nowhere else
	if bgp_path ~ [= * 64512 * =] then reject;
	if net ~ accepted4 then accept;
	if net = 0.0.0.0/0 then accept;
	reject;
}

filter said4 {
	if source != RTS_STATIC then reject;
	accept;
}

# 192.0.2.254
protocol bgp 'router.192.0.2.254' {
	local as 64512;
	neighbor 192.0.2.254 as 65001;
	direct;
	allow local as;
	hold time 90;
	connect delay time 1;
	connect retry time 5;
	error wait time 1, 5;
	graceful restart on;
	graceful restart time 120;
	ipv4 {
		import filter heard4;
		import keep filtered;
		import limit 10000 action block;
		export filter said4;
	};
}
"""


def test_a_node_below_a_router_is_told_this() -> None:
    """The whole text."""
    router = RouterTable(address=IPAddress("192.0.2.254"), asn=65001)
    assert text(table(topology="tor", router=(router,))) == FOUR


def test_the_mark_tells_whose_it_is_and_which() -> None:
    """Another node, and any other word, have another."""
    whole = configuration(table(), speech(table(), SITE, PEERS), {})
    other = configuration(table(hold_time=9), speech(table(), SITE, PEERS), {})
    assert mark_of(whole).startswith("node-1 ")
    assert mark_of(whole) != mark_of(other)
    assert whole.splitlines()[0] == "# Written by routable-agent: what is changed here is lost."


def test_a_mesh_has_a_session_with_every_node_in_each_family() -> None:
    """Between their own addresses, on the segment that they share."""
    assert lines(table()) == [
        "node-2.v4: 64512 192.0.2.1 -> 192.0.2.2 as 64512, 4, 1",
        "node-2.v6: 64512 2001:db8:ffff::1 -> 2001:db8:ffff::2 as 64512, 6, 1",
        "node-3.v4: 64512 192.0.2.1 -> 192.0.2.3 as 64512, 4, 1",
        "node-3.v6: 64512 2001:db8:ffff::1 -> 2001:db8:ffff::3 as 64512, 6, 1",
    ]


def test_nodes_of_other_systems_are_external() -> None:
    """Each end has the number that the list of nodes gives it."""
    site = replace(SITE, here=node(1, asn=65101))
    assert lines(table(), site, [site.here, node(2, asn=65102)])[0] == (
        "node-2.v4: 65101 192.0.2.1 -> 192.0.2.2 as 65102, 4, 1"
    )


def test_who_is_not_on_the_segment_is_told() -> None:
    """Nobody there could be a next hop."""
    found = speech(table(), SITE, [*PEERS, FAR])
    assert {one.peer for one in found.unserved} == {"node-4"}
    assert "node-4" not in str(found.sessions)
    assert 'use bgp.topology = "tor"' in found.unserved[0].why


def test_pods_of_a_family_without_an_address_for_it_are_told() -> None:
    """Nothing could be their next hop."""
    other = replace(node(2), addresses=node(2).addresses[:1])
    found = speech(table(), SITE, [node(1), other])
    assert [one.name for one in found.sessions] == ["node-2.v4"]
    assert [one.why for one in found.unserved] == [
        "node-2 has IPv6 pods but no IPv6 address of its own; give it one in its list entry"
    ]


def test_families_are_those_that_both_have() -> None:
    """Of a node without IPv6 there is one session."""
    four = Peer("node-2", (IPAddress("192.0.2.2"),), (IPNetwork("10.244.2.0/24"),))
    assert [line.split(":")[0] for line in lines(table(), SITE, [node(1), four])] == ["node-2.v4"]


def test_ipv4_by_ipv6_next_hops_needs_one_session() -> None:
    """RFC 8950: one session carries both families."""
    one = table(extended_next_hop=True)
    assert lines(one)[0] == "node-2.v6: 64512 2001:db8:ffff::1 -> 2001:db8:ffff::2 as 64512, 4/6, 1"
    assert len(lines(one)) == 2
    assert text(one).count("extended next hop on;") == 2


def test_nodes_speak_with_reflectors_alone() -> None:
    """By name, by address, and with one that is no node; reflectors with everybody."""
    one = table(topology="reflectors", reflectors=("node-2", "192.0.2.9", "198.51.100.7"))
    peers = [*PEERS, node(9)]
    assert [line.split(":")[0] for line in lines(one, SITE, peers)] == [
        "node-2.v4", "node-2.v6", "node-9.v4", "node-9.v6", "reflector.198.51.100.7",
    ]  # fmt: skip
    assert lines(one, SITE, peers)[-1] == "reflector.198.51.100.7: 64512 192.0.2.1 -> 198.51.100.7 as 64512, 4, 8"
    there = replace(SITE, here=node(2))
    assert [line for line in lines(one, there, peers) if "v4" in line] == [
        "node-1.v4: 64512 192.0.2.2 -> 192.0.2.1 as 64512, 4, 1 client",
        "node-3.v4: 64512 192.0.2.2 -> 192.0.2.3 as 64512, 4, 1 client",
        "node-9.v4: 64512 192.0.2.2 -> 192.0.2.9 as 64512, 4, 1",
    ]


def test_a_reflector_passes_on_what_it_hears() -> None:
    """To its clients and the other reflectors; nobody else does."""
    one = table(topology="reflectors", reflectors=("node-1", "node-2"))
    there = text(one)
    assert "\tif source = RTS_BGP then accept;  # as a reflector does" in there
    assert there.count("rr client;") == 2
    assert "RTS_BGP then accept" not in text(one, replace(SITE, here=node(3)))


def test_next_hops_that_others_name_are_found_by_the_links() -> None:
    """Where a reflector is not a neighbour."""
    one = table(topology="reflectors", reflectors=("198.51.100.7",))
    assert 'protocol direct {\n\tinterface "-rt*", "*";' in text(one)
    assert "multihop 8;" in text(one)
    assert "protocol direct" not in text(table())


def test_a_reflector_that_nobody_knows_is_told() -> None:
    """As a name that the list of nodes does not have."""
    found = speech(table(topology="reflectors", reflectors=("node-x",)), SITE, PEERS)
    assert [one.peer for one in found.unserved] == ["node-x"]
    assert found.sessions == ()


def test_routers_are_chosen_by_labels() -> None:
    """And the number of a node's system by the node, by the router, or by the table."""
    routers = (
        RouterTable(address=IPAddress("192.0.2.254"), asn=65001, where="rack=r1", name="tor-1", local_asn=65101),
        RouterTable(address=IPAddress("192.0.2.253"), asn=65002, where="rack=r2"),
        RouterTable(address=IPAddress("2001:db8:ffff::fe"), asn=65003, hops=2),
    )
    one = table(topology="tor", router=routers)
    here = replace(SITE, here=node(1, labels=(("rack", "r1"),)))
    assert lines(one, here) == [
        "router.2001:db8:ffff::fe: 64512 2001:db8:ffff::1 -> 2001:db8:ffff::fe as 65003, 6, 2",
        "tor-1.192.0.2.254: 65101  -> 192.0.2.254 as 65001, 4, 1",
    ]
    own = replace(SITE, here=node(1, labels=(("rack", "r2"),), asn=65199))
    assert lines(one, own)[0] == "router.192.0.2.253: 65199  -> 192.0.2.253 as 65002, 4, 1"
    assert speech(one, own, PEERS).unserved == ()


def test_a_node_that_no_router_is_for_is_told() -> None:
    """With its labels."""
    one = table(topology="tor", router=(RouterTable(address=IPAddress("192.0.2.254"), asn=65001, where="rack=r1"),))
    here = replace(SITE, here=node(1, labels=(("rack", "r7"),)))
    (found,) = speech(one, here, PEERS).unserved
    assert found.why.startswith("no [[bgp.router]] is for this node, which has rack=r7")


def test_a_router_that_is_given_twice_for_a_node_is_told() -> None:
    """By two labels that it has both: two sessions with one address would end each other."""
    routers = [
        RouterTable(address=IPAddress("192.0.2.254"), asn=65001, where=where, name=name)
        for name, where in (("tor", "rack=r1"), ("edge", "zone=z1"))
    ]
    here = replace(SITE, here=node(1, labels=(("rack", "r1"), ("zone", "z1"))))
    found = speech(table(topology="tor", router=tuple(routers)), here, PEERS)
    assert [one.name for one in found.sessions] == ["tor.192.0.2.254"]
    assert [one.peer for one in found.unserved] == ["edge"]


def test_what_is_chosen_is_said() -> None:
    """Password, TTL security, BFD, limits, communities, and no graceful restart."""
    said = text(
        table(
            password_file="/p",
            ttl_security=True,
            bfd="on",
            bfd_interval=50,
            bfd_multiplier=5,
            graceful_restart=False,
            communities=("64512:100", "4200000001:1:2"),
            max_prefixes=7,
            ecmp=1,
            accept_default=False,
            hold_time=9,
        )
    )
    for one in (
        'password "se cret";',
        "ttl security on;",
        "bfd on;",
        'protocol bfd {\n\tinterface "*" {\n\t\tinterval 50 ms;\n\t\tmultiplier 5;',
        "graceful restart off;",
        "bgp_community.add((64512, 100));",
        "bgp_large_community.add((4200000001, 1, 2));",
        "import limit 7 action block;",
        "hold time 9;",
    ):
        assert one in said, one
    assert "merge paths" not in said
    assert "0.0.0.0/0" not in said


def test_own_numbers_in_a_path_are_taken_only_where_that_is_chosen() -> None:
    """Else what is heard is refused by them, so that it can be shown: BIRD drops it unseen."""
    router = RouterTable(address=IPAddress("192.0.2.254"), asn=65001, local_asn=65101)
    below = table(topology="tor", router=(router, RouterTable(address=IPAddress("192.0.2.253"), asn=65001)))
    assert text(below).count("allow local as;") == 2
    for asn in (64512, 65101):
        assert f"if bgp_path ~ [= * {asn} * =] then reject;" in text(below)
    chosen = text(table(topology="tor", router=below.router, accept_own_asn=True))
    assert chosen.count("allow local as;") == 2
    assert "bgp_path ~" not in chosen
    assert "allow local as;" not in text(table(accept_own_asn=True))


def test_more_is_announced_where_that_is_chosen() -> None:
    """Ranges by every node; single addresses by the node where a pod has them."""
    one = table(announce=(IPNetwork("10.96.0.0/12"), IPNetwork("10.244.9.9/32"), IPNetwork("10.244.9.8/32")))
    said = text(one, pods=[IPAddress("10.244.9.9")])
    assert "\troute 10.96.0.0/12 unreachable;" in said
    assert "\troute 10.244.9.9/32 unreachable;" in said
    assert "10.244.9.8" not in said


def test_a_node_that_is_drained_announces_nothing() -> None:
    """Its sessions are the same."""
    assert "\troute " not in text(table(), mood=Mood(is_draining=True))
    assert text(table(), mood=Mood(is_draining=True)).count("protocol bgp") == 4


def test_on_the_way_routes_are_in_a_table_besides() -> None:
    """Where single addresses are tried by; and a node that has left says so."""
    said = text(table(), mood=Mood(is_changing=True, is_leaving=True))
    assert "protocol kernel between_kernel4 {\n\tkernel table 8282;\n\tmetric 8282;" in said
    assert "bgp_large_community.add((64512, 8282, 1));" in said


def test_a_node_without_ipv4_has_a_router_id_all_the_same() -> None:
    """It follows from its name."""
    six = Peer("node-1", (IPAddress("2001:db8:ffff::1"),), (IPNetwork("2001:db8:1::/64"),))
    there = speech(table(), replace(SITE, here=six), [six, node(2)])
    assert there.router_id != "0.0.0.0"
    assert [one.name for one in there.sessions] == ["node-2.v6"]


def test_a_router_id_could_be_a_hosts_address() -> None:
    """Routers that go by RFC 4271 end a session with any other: those of class D and E, loopback and zero."""
    own, cidrs = (IPAddress("2001:db8:ffff::1"),), (IPNetwork("2001:db8:1::/64"),)
    made = [speech(table(), replace(SITE, here=Peer(f"n{n}", own, cidrs)), ()).router_id for n in range(2000)]
    firsts = {IPAddress(one).words[0] for one in made}
    assert firsts <= {*range(1, 127), *range(128, 224)}
    assert {min(firsts), max(firsts)} == {1, 223}
    assert len(set(made)) == len(made)


def test_no_two_nodes_have_one_router_id() -> None:
    """Two whose names give the same number, and a node whose address it is: each knows which is whose, whatever the
    order of its list."""
    cidrs = (IPNetwork("2001:db8:1::/64"),)
    addresses = [(IPAddress(f"2001:db8:ffff::{one}"),) for one in (1, 2)]
    twins = [Peer(name, own, cidrs) for name, own in zip(("node-10709", "node-27007"), addresses, strict=True)]

    def ids(*others: Peer) -> list[str]:
        nodes = [*twins, *others]
        return [speech(table(), replace(SITE, here=one), nodes[::turn]).router_id for one in twins for turn in (1, -1)]

    first, again, last, as_well = ids()
    assert (first, last) == (again, as_well)
    assert first == "199.239.72.49"
    assert last != first
    lone = speech(table(), replace(SITE, here=twins[1]), twins[1:]).router_id
    assert lone == first
    owner = replace(node(2), addresses=(IPAddress(first),))
    assert first not in ids(owner)
    assert len(set(ids(owner))) == 2


def test_long_names_stay_apart() -> None:
    """BIRD's names have 64 characters."""
    names = [f"{'n' * 200}{one}" for one in "ab"]
    peers = [replace(node(2), name=names[0]), replace(node(3), name=names[1])]
    found = [line.split(":")[0] for line in lines(table(), SITE, peers)]
    assert len(set(found)) == 4
    assert max(map(len, found)) <= 60


def test_no_name_of_a_node_is_more_than_a_name(tmp_path: Path) -> None:
    """Whatever a list of nodes holds: BIRD reads as many sessions as there are, and nothing else."""
    odd = ("Node_A.example", "x'; }\nprotocol static { ipv4; }\n#", 'x"; }', "x', }", "é", "\u2028x", "a b", "#")
    peers = [replace(node(number), name=name) for number, name in enumerate(odd, 2)]
    said = speech(table(), SITE, [node(1), *peers])
    names = [one.name for one in said.sessions]
    assert len(set(names)) == 2 * len(odd)
    assert "Node_A.example.v4" in names
    path = tmp_path / "bird.conf"
    path.write_text(configuration(table(directory=str(tmp_path)), said, {}))
    assert path.read_text().count("\nprotocol ") == 1 + 2 + 2 + 2 * len(odd)
    done = subprocess.run([program(tmp_path), "-p", "-c", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("family", ["dual", "v6"])
@pytest.mark.parametrize(
    "keys",
    [
        {"bfd": "graceful", "communities": ("64512:1", "1:2:3"), "ttl_security": True, "password_file": "/p"},
        {"extended_next_hop": True, "graceful_restart": False},
        {"topology": "reflectors", "reflectors": ("node-1", "198.51.100.7"), "bfd": "on"},
        {"topology": "tor", "router": (RouterTable(address=IPAddress("192.0.2.254"), asn=65001, hops=3),)},
        {"announce": (IPNetwork("10.96.0.0/12"), IPNetwork("2001:db8:f::/64")), "ecmp": 1},
    ],
    ids=["mesh", "extended", "reflectors", "tor", "announce"],
)
def test_bird_takes_it(keys: dict[str, Any], family: str, tmp_path: Path) -> None:
    """Its own parser reads every form of it."""
    try:
        bird = program(tmp_path)
    except Failed as error:
        pytest.fail(str(error))
    here = node(1) if family == "dual" else Peer("node-1", (IPAddress("2001:db8:ffff::1"),), node(1).pod_cidrs[1:])
    one = table(**keys, directory=str(tmp_path))
    said = speech(one, replace(SITE, here=here), PEERS)
    path = tmp_path / "bird.conf"
    for mood in (conf.USUAL, Mood(is_changing=True, is_leaving=True), Mood(is_draining=True)):
        path.write_text(configuration(one, said, {"/p": "se cret"}, mood))
        done = subprocess.run([bird, "-p", "-c", path], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), path.read_text()


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"accept": ()}, "bgp.accept: is empty"),
        ({"asn": 0}, 'bgp.asn: must be given for topology = "mesh"'),
        ({"topology": "tor"}, 'bgp.router: is empty, and topology is "tor"'),
        ({"topology": "reflectors"}, 'bgp.reflectors: is empty, and topology is "reflectors"'),
        ({"reflectors": ("node-1",)}, 'bgp.reflectors: is given, and topology is "mesh"'),
        ({"router": (RouterTable(address=IPAddress("192.0.2.9"), asn=1),)}, 'bgp.router: is given, and topology is'),
        ({"communities": ("70000:1",)}, "bgp.communities: allowed"),
        ({"bfd": "graceful", "graceful_restart": False}, "bgp.bfd: is for graceful_restart = true"),
        ({"uplinks": ("rt0",)}, "bgp.uplinks: allowed: names of links"),
        ({"uplinks": ("..",)}, "bgp.uplinks: allowed: names of links"),
        ({"directory": "/" + "d" * 98}, "bgp.directory: allowed: an absolute path of at most 98 bytes"),
        (
            {"topology": "tor", "asn": 0, "router": (RouterTable(address=IPAddress("192.0.2.9"), asn=1),)},
            "bgp.router[0].local_asn: must be given",
        ),
        (
            {"topology": "tor", "router": 2 * (RouterTable(address=IPAddress("192.0.2.9"), asn=1),)},
            "bgp.router[1].address: is that of another router, too",
        ),
        (
            {"topology": "tor", "router": (RouterTable(address=IPAddress("fe80::1"), asn=1),)},
            "bgp.router[0].address: is link-local",
        ),
        (
            {
                "topology": "tor",
                "router": tuple(
                    RouterTable(address=IPAddress(f"192.0.2.{last}"), asn=1, name="tor") for last in (8, 9)
                ),
            },
            "bgp.router[1].name: is that of another router, too",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(keys: dict[str, Any], complaint: str) -> None:
    """By the key that is wrong."""
    found = [f"{one.key}: {one.why}" for one in contradictions(table(**keys))]
    assert any(one.startswith(complaint) for one in found), found
    with pytest.raises(ConfigInvalid):
        BgpWiring(SITE, table(**keys))


@pytest.mark.parametrize("text", ["", "1", "1:2:3:4", "65536:1", "4294967296:1:1", "a:b", "1:-2", "٣:1"])
def test_what_is_no_community(text: str) -> None:
    """Of two numbers below 65536, or three below 2³²."""
    assert community(text) is None


def test_there_is_no_wiring_without_the_table() -> None:
    """A change to bgp is refused, with where an example is."""
    with pytest.raises(ConfigInvalid, match=r"no table \[bgp\]"):
        BgpWiring(SITE, BgpTable())


def test_nothing_of_the_wiring_is_about_peers() -> None:
    """Ours are the routes of the node's own ranges, and its own address among them; the rest is BIRD's."""
    wiring = BgpWiring(SITE, table(uplinks=("eth1",)))
    plan = {str(item) for item in wiring.node(PEERS).plan.values()}
    assert {one for one in plan if one.startswith("route")} == {
        "route unreachable 10.244.1.0/24",
        "route unreachable 2001:db8:1::/64",
        "route local 10.244.1.0/32 dev lo table 255",
        "route local 2001:db8:1::/128 dev lo table 255",
    }
    assert any("eth1/rp_filter" in one for one in plan)
    assert wiring.mtu == 1500
