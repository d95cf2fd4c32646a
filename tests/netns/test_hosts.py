"""Hosts as people have them: hardened, with other programs' rules, with small links."""

from __future__ import annotations

import json
import socket
import struct
import threading
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from netaddr import IPAddress

from cni.errors import ConfigInvalid
from dataplane import uplink
from demo import show, traffic
from demo.lab import Lab, Node, built, eventually
from demo.place import Place

READ_ONLY = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys"


def unreached(lab: Lab, family: int = 4) -> list[str]:
    """Who does not reach whom by TCP and UDP, among pods, nodes and the outside machine, and why."""
    found = show.reachability(lab, family)
    return [f"{one.sender.label} -> {one.receiver.label}: {one.fault}" for one in found if one.fault]


def with_pods(lab: Lab) -> Lab:
    """The lab, started, with a pod on each node."""
    for node in lab.nodes:
        node.start()
        node.add()
    return lab


@pytest.mark.parametrize("backend", ["static", "vxlan"])
def test_ipv4_pods_need_no_ipv6(backend: str) -> None:
    """Hosts on which IPv6 is switched off for all links, as hardening guides say."""
    with built(backend=backend, nodes=2, is_started=False) as lab:
        for node in lab.nodes:
            for which in ("all", "default"):
                node.place.sysctl(f"net/ipv6/conf/{which}/disable_ipv6", "1")
        assert unreached(with_pods(lab)) == []


def test_ipv4_pods_on_links_too_small_for_ipv6() -> None:
    """An MTU below 1,280 bytes: the kernel has no IPv6 on such a device."""
    with built(backend="vxlan", nodes=2, mtu=1300, is_started=False) as lab:
        assert unreached(with_pods(lab)) == []


@pytest.mark.parametrize("backend", ["static", "vxlan"])
def test_the_nodes_address_on_another_link_too(backend: str) -> None:
    """kube-proxy puts the addresses of Services on a link of its own, a node's among them: that one is no uplink, be it
    up or not."""
    with built(backend=backend, nodes=2) as lab:
        node, other = lab.nodes
        node.place.ip("link add kube-ipvs0 type bridge")
        node.place.ip(f"address add {node.addresses[0]}/32 dev kube-ipvs0")
        for state in ("down", "up"):
            node.place.ip(f"link set kube-ipvs0 {state}")
            node.stop()
            node.start()
            other.pod_cidrs = [*other.pod_cidrs, f"10.244.20{len(other.pod_cidrs)}.0/24"]
            lab.write_nodes()
            eventually("the list is followed", lambda: other.pod_cidrs[-1] in node.place.ip("route show"))
            assert node.status()["site"]["uplink"] == "eth0"
            assert node.status()["problems"] == []
        for one in lab.nodes:
            one.add()
        assert unreached(lab) == []


def test_the_nodes_address_on_the_loopback() -> None:
    """A host that announces its own address: the uplink is the link that leads to the other nodes, with its MTU."""
    with built(backend="vxlan", nodes=2, is_routed=True, is_started=False) as lab:
        fabric = Place(f"{lab.name}-fabric")
        for node in lab.nodes:
            address = f"10.255.0.{node.number}"
            node.place.ip(f"address add {address}/32 dev lo")
            fabric.ip(f"route add {address}/32 via {node.addresses[0]}")
            node.place.ip(f"route replace default via {node.addresses[0].rpartition('.')[0]}.1 src {address}")
            node.addresses = [address]
        lab.write_nodes()
        with_pods(lab)
        assert lab.nodes[0].status()["site"]["pod_mtu"] == 1450
        (_, one), (_, two) = lab.pods
        assert traffic.seen_by_tcp(one.place, two.place, two.address(4), size=1 << 20) == one.address(4)


def test_an_address_of_the_list_that_the_node_has_not() -> None:
    """Of one family: that node's status says so, and that it is mended; its pods are reached by the other meanwhile."""
    with built(family="dual", nodes=2) as lab:
        node, other = lab.nodes
        pod, beyond = node.add(), other.add()
        right = node.addresses
        wrong = f"{node.address(6)}:7"
        node.addresses = [node.address(4), wrong]
        lab.write_nodes()
        eventually("it is told", lambda: len(node.status()["problems"]) == 1)
        (problem,) = node.status()["problems"]
        assert (problem["code"], problem["by_status"]) == (51, False)
        assert node.name in problem["msg"]
        assert problem["details"] == f"no link of it has its address {wrong}"
        assert other.status()["problems"] == []
        assert traffic.seen_by_tcp(beyond.place, pod.place, pod.address(4)) == beyond.address(4)
        node.addresses = right
        lab.write_nodes()
        eventually("it is told no more", lambda: node.status()["problems"] == [])
        assert traffic.seen_by_tcp(beyond.place, pod.place, pod.address(6)) == beyond.address(6)


def test_a_host_that_knows_no_way_to_another_node_is_asked_for_its_uplink() -> None:
    """Its address is on the loopback alone, and nothing says which link is meant."""
    with pytest.raises(ConfigInvalid, match="address is on lo, and no route leads to another node") as refusal:
        uplink.find("", [IPAddress("127.0.0.1")], [IPAddress("198.51.100.7")])
    assert "set uplink" in refusal.value.details


@contextmanager
def advertising(router: Place) -> Iterator[None]:
    """*router* says, ten times a second, that it is a default router (RFC 4861, section 4.2)."""
    (link,) = json.loads(router.ip("-j link show eth0"))
    message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    is_over = threading.Event()
    with closing(router.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, link["ifindex"])

        def advertise() -> None:
            while not is_over.wait(0.1):
                sock.sendto(message, ("ff02::1", 0, 0, link["ifindex"]))

        thread = threading.Thread(target=advertise)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


@pytest.mark.parametrize(("before", "after"), [("1", "2"), ("2", "2"), ("0", "0")])
def test_what_came_by_router_advertisements_stays(before: str, after: str) -> None:
    """The node becomes a router, and keeps its default route; one that takes no advertisements takes none then."""
    with built(family="dual", nodes=1, is_started=False) as lab, advertising(lab.outside):
        (node,) = lab.nodes
        node.place.sysctl("net/ipv6/conf/eth0/accept_ra", before)
        default = "-6 route show default"
        if before != "0":
            eventually("the default route has come", lambda: "proto ra" in node.place.ip(default))
        else:
            node.place.ip("-6 route flush proto ra")
        node.start()
        eventually("it is a router", lambda: setting(node, "net/ipv6/conf/eth0/forwarding") == "1")
        assert ("proto ra" in node.place.ip(default)) == (before != "0")
        assert setting(node, "net/ipv6/conf/eth0/accept_ra") == after


def setting(node: Node, path: str) -> str:
    """The value of a sysctl there."""
    return node.place.run("cat", f"/proc/sys/{path}").strip()


def test_forwarding_of_the_uplink_alone_is_mended() -> None:
    """A network service resets it when a link appears; the value for all links still says that it forwards."""
    with built(family="dual", nodes=2) as lab:
        with_one_pod_each(lab)
        for family in (4, 6):
            for node in lab.nodes:
                node.place.sysctl(f"net/ipv{family}/conf/eth0/forwarding", "0")
                path = f"net/ipv{family}/conf/eth0/forwarding"
                eventually("it forwards", lambda node=node, path=path: setting(node, path) == "1")
            assert unreached(lab, family) == []


def with_one_pod_each(lab: Lab) -> None:
    """A pod on each node."""
    for node in lab.nodes:
        node.add()


FIREWALLS = {"nft": ("iptables-nft", "ip6tables-nft"), "legacy": ("iptables-legacy", "ip6tables-legacy")}


@pytest.mark.parametrize("form", FIREWALLS)
@pytest.mark.parametrize("backend", ["static", "vxlan"])
def test_pods_work_where_forwarding_is_dropped_by_policy(backend: str, form: str) -> None:
    """Docker, ufw and others set it so, before or after the agent's start: our own pods' packets are accepted, nobody
    else's, and nothing of that stays when the policy is lifted."""
    with built(backend=backend, family="dual", nodes=2) as lab:
        with_one_pod_each(lab)
        lab.nodes[0].add()
        for node in lab.nodes:
            for program in FIREWALLS[form]:
                node.place.run(program, "-P", "FORWARD", "DROP")
        node = lab.nodes[0]
        eventually("it is seen", lambda: accepted(node, form) == [2, 2])
        eventually("here, too", lambda: accepted(lab.nodes[1], form) == [2, 2])
        assert [unreached(lab, family) for family in (4, 6)] == [[], []]
        node.place.run(FIREWALLS[form][0], "-F", "FORWARD")
        eventually("what somebody flushed is back", lambda: accepted(node, form) == [2, 2])
        for program in FIREWALLS[form]:
            node.place.run(program, "-P", "FORWARD", "ACCEPT")
        eventually("nothing of ours is left", lambda: accepted(node, form) == [0, 0])


def accepted(node: Node, form: str) -> list[int]:
    """How many rules of ours are in the chain FORWARD of each family."""
    rule = "--comment routable -j ACCEPT"
    return [node.place.run(program, "-S", "FORWARD").count(rule) for program in FIREWALLS[form]]


def test_uninstalling_leaves_no_rule_in_others_chains() -> None:
    """The chain is others'; our rules in it go with the rest."""
    with built(nodes=1) as lab:
        (node,) = lab.nodes
        node.place.run("iptables-nft", "-P", "FORWARD", "DROP")
        node.place.run("iptables-nft", "-A", "FORWARD", "-i", "docker0", "-j", "ACCEPT")
        eventually("it is seen", lambda: accepted(node, "nft")[0])
        node.stop()
        node.ctl("uninstall")
        assert node.place.run("iptables-nft", "-S", "FORWARD").splitlines() == [
            "-P FORWARD DROP",
            "-A FORWARD -i docker0 -j ACCEPT",
        ]


@pytest.mark.parametrize("route", ["default", "10.0.0.0/8"])
@pytest.mark.parametrize("backend", ["static", "vxlan"])
def test_pods_work_beside_rules_that_come_before_the_main_table(backend: str, route: str) -> None:
    """A VPN client on the host has everything, or a range, looked up in a table of its own first."""
    with built(backend=backend, nodes=2) as lab:
        with_one_pod_each(lab)
        node = lab.nodes[0]
        node.add()
        assert "82:" not in node.place.ip("rule show")
        node.place.ip("link add vpn0 type veth peer name vpn1")
        for words in ("address add 100.64.0.7/32 dev vpn0", "link set vpn0 up", "link set vpn1 up"):
            node.place.ip(words)
        node.place.ip(f"route add {route} dev vpn0 table 52")
        node.place.ip("route add throw 192.0.2.0/24 table 52")
        node.place.ip("rule add priority 5270 lookup 52")
        eventually("it is seen", lambda: "82:" in node.place.ip("rule show"))
        assert unreached(lab) == []
        node.place.ip("rule delete priority 5270")
        eventually("ours go with it", lambda: "82:" not in node.place.ip("rule show"))


@pytest.mark.parametrize("family", [4, 6])
def test_the_node_speaks_to_its_pods_as_itself(family: int) -> None:
    """A host with more addresses than the list names, on a link that comes first: the pod sees the one of the list."""
    with built(family="dual", nodes=1, is_started=False) as lab:
        (node,) = lab.nodes
        node.place.ip("address add 198.51.100.9/32 dev lo")
        node.place.ip("address add 3fff::9/128 dev lo")
        node.start()
        pod = node.add()
        assert traffic.seen_by_tcp(node.place, pod.place, pod.address(family)) == node.address(family)


def told(node: Node) -> list[str]:
    """What status says of how the host treats pods' packets."""
    problems = node.status()["problems"]
    return [f"{one['msg']}: {one['details']}" for one in problems if one["kind"] == "host"]


def spoils(lab: Lab, words: str, mends: str, expected: tuple[str, ...], *, is_hurried: bool = True) -> None:
    """After *words*, as a shell has them on the first node, status tells each of *expected*; after *mends* nothing.
    What others change is no event, and seen by the next whole pass, in half a minute: if *is_hurried*, one comes at
    once, because something of ours is changed, too."""
    node = lab.nodes[0]
    assert told(node) == []
    node.place.run("sh", "-c", words)
    if is_hurried:
        node.place.ip(f"route delete unreachable {node.pod_cidrs[0]}")
    eventually("it is told", lambda: all(any(one in text for text in told(node)) for one in expected))
    assert node.runtime.call("STATUS") is None, "no reason to evict anybody"
    node.place.run("sh", "-c", mends)
    eventually("nothing is told any more", lambda: told(node) == [])


@pytest.mark.parametrize(
    ("words", "mends", "expected"),
    [
        pytest.param(
            "ip route add 10.244.2.0/25 via 192.0.2.100",
            "ip route delete 10.244.2.0/25",
            ("to pods of node-b: the kernel says dev eth0 via 192.0.2.100", "route show match 10.244.2.1"),
            id="a more specific route",
        ),
        pytest.param(
            "ip route add blackhole default table 52; ip rule add lookup 52 priority 50",
            "ip rule delete priority 50; ip route flush table 52",
            ("from this node to pod", "the rule is of another program: 50: lookup 52"),
            id="a rule before ours",
        ),
        pytest.param(
            "ip route add default via 192.0.2.100; ip route add default dev lo table 53;"
            "ip rule add iif lo priority 70 lookup main; ip rule add priority 71 to 203.0.113.0/24 lookup 53",
            "ip rule delete priority 71; ip rule delete priority 70; ip route flush table 53; ip route delete default",
            ("to beyond: the kernel says", "the rule is of another program: 71: lookup 53"),
            id="pods alone are led astray",
        ),
        pytest.param(
            "nft add table inet filter; nft add chain inet filter forward"
            " '{ type filter hook forward priority 0; policy drop; }'",
            "nft add rule inet filter forward ip saddr 10.244.0.0/16 accept;"
            "nft add rule inet filter forward ip daddr 10.244.0.0/16 accept",
            ("nft chain forward of table inet filter drops", "no rule there speaks of 10.244.1.0/24"),
            id="a chain that drops by policy",
        ),
        pytest.param(
            "nft add table inet firewalld; nft add chain inet firewalld filter_FORWARD"
            " '{ type filter hook forward priority 10; }';"
            "nft add rule inet firewalld filter_FORWARD ct state established accept;"
            "nft add rule inet firewalld filter_FORWARD reject with icmpx type admin-prohibited",
            "nft delete table inet firewalld",
            ("nft chain filter_FORWARD of table inet firewalld drops",),
            id="a chain that rejects the rest",
        ),
    ],
)
def test_what_really_happens_to_packets_is_told(words: str, mends: str, expected: tuple[str, ...]) -> None:
    """Nothing of ours was touched, and packets go elsewhere all the same: it says where, and who leads them there."""
    with built(nodes=2) as lab:
        with_one_pod_each(lab)
        spoils(lab, words, mends, expected)


def test_a_firewalls_own_source_check_is_told_where_it_drops_what_is_right() -> None:
    """In the overlay some packets come in by where the way back does not lead."""
    with built(backend="vxlan", family="dual", nodes=2) as lab:
        with_one_pod_each(lab)
        spoils(
            lab,
            "nft add table inet firewalld; nft add chain inet firewalld filter_PREROUTING"
            " '{ type filter hook prerouting priority -290; }';"
            "nft add rule inet firewalld filter_PREROUTING meta nfproto ipv6 fib saddr . mark . iif oif missing drop",
            "nft delete table inet firewalld",
            ("nft chain filter_PREROUTING of table inet firewalld", "IPv6_rpfilter=no"),
            is_hurried=False,
        )


def test_an_overlay_over_a_network_that_checks_sources() -> None:
    """As the sample has it, pods reach other nodes themselves, with their node's address, and pods with their own."""
    sample = tomllib.loads((Path(__file__).parents[2] / "conf" / "agent-medium-vxlan.toml").read_text())
    settings = {"masquerade": {**sample["masquerade"], "routable": sample["masquerade"]["routable"][:1]}}
    with built(backend="vxlan", nodes=2, is_routed=True, settings=settings) as lab:
        rules = "".join(f'iifname "port{one.number}" ip saddr != {one.addresses[0]} drop\n' for one in lab.nodes)
        chain = f"chain pre {{ type filter hook prerouting priority raw;\n{rules} }}"
        Place(f"{lab.name}-fabric").run("nft", "-f", "-", stdin=f"table ip guard {{\n{chain}\n}}")
        with_one_pod_each(lab)
        (node, one), (other, two) = lab.pods
        assert traffic.seen_by_tcp(one.place, two.place, two.address(4)) == one.address(4)
        assert traffic.seen_by_tcp(one.place, other.place, other.address(4)) == node.address(4)
        assert traffic.seen_by_tcp(node.place, two.place, two.address(4)) == "10.244.1.0"


def test_where_no_setting_can_be_written_the_right_ones_are_right() -> None:
    """An agent in a container has /proc/sys read-only: on a host that is set up, pods of both families work."""
    with built(family="dual", nodes=2, is_started=False) as lab:
        for node in lab.nodes:
            for path in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
                node.place.sysctl(path, "1")
            for name in ("all", "default", "eth0"):
                node.place.sysctl(f"net/ipv4/conf/{name}/rp_filter", "2")
            node.place.sysctl("net/ipv6/conf/eth0/accept_ra", "2")
            shell = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", f'{READ_ONLY} && exec "$@"', "sh"]
            node.launcher = shell
        with_pods(lab)
        assert [unreached(lab, family) for family in (4, 6)] == [[], []]
        assert [node.status()["problems"] for node in lab.nodes] == [[], []]


def test_settings_are_written_where_the_hosts_are_mounted_beside_read_only_ones() -> None:
    """As in a container that is not privileged: nothing is set up, and by `paths.sysctls` all is, pods' links, too."""
    with built(family="dual", nodes=2, is_started=False) as lab:
        for node in lab.nodes:
            beside = node.directory / "sys"
            (beside / "net").mkdir(parents=True)
            node.settings["paths"]["sysctls"] = str(beside)
            mounts = f"mount --bind /proc/sys/net {beside}/net && {READ_ONLY}"
            node.launcher = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", f'{mounts} && exec "$@"', "sh"]
        with_pods(lab)
        assert [unreached(lab, family) for family in (4, 6)] == [[], []]
        node = lab.nodes[0]
        link = node.pods[0].result["interfaces"][0]["name"]
        assert node.place.run("cat", f"/proc/sys/net/ipv6/conf/{link}/accept_ra").strip() == "0"
        node.place.sysctl("net/ipv4/ip_forward", "0")
        eventually("it is mended", lambda: node.place.run("cat", "/proc/sys/net/ipv4/ip_forward").strip() == "1")


@pytest.mark.parametrize(
    ("other", "remedy"),
    [
        ("id 4096 dstport 4789 local 192.0.2.1", "remove that device, or choose another vxlan.vni"),
        ("external dstport 4789", "choose another vxlan.port, on all nodes"),
    ],
)
def test_an_overlay_of_another_program_is_told_with_the_remedy(other: str, remedy: str) -> None:
    """Its device has our number or our port: it stays as it is, and status says what to do."""
    with built(backend="vxlan", nodes=1, is_started=False) as lab:
        (node,) = lab.nodes
        node.place.ip(f"link add other type vxlan {other}")
        node.place.ip("link set other up")
        before = node.place.ip("-d link show other")
        node.start()
        eventually("it is told", lambda: remedy in str(node.status()["problems"]))
        assert node.place.ip("-d link show other") == before


def test_a_pods_link_that_somebody_made_a_port_of_a_bridge_is_none_again() -> None:
    """By hand, or by a program that takes every new link: nothing of it would be routed. Nor of the overlay's."""
    with built(nodes=2, backend="vxlan") as lab:
        with_one_pod_each(lab)
        node = lab.nodes[0]
        node.place.ip("link add br9 type bridge")
        node.place.ip("link set br9 up")
        for link in (node.pods[0].result["interfaces"][0]["name"], "routable-vxlan"):
            node.place.ip(f"link set {link} master br9")
            eventually("it is free again", lambda one=link: "master" not in node.place.ip(f"link show {one}"))
            eventually("it is told", lambda one=link: is_told_of(node, one))
            assert unreached(lab) == []


def is_told_of(node: Node, link: str) -> bool:
    """Whether status says that the link was a port of another."""
    lines = node.ctl("status").splitlines()
    return any("as a port of another link" in line and f"link {link} " in line for line in lines)
