"""What a pod says about the network is not believed: it is a host among others, and none of its neighbours is a router
but the node."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from typing import Literal

import pytest

from demo import traffic
from demo.lab import Lab, Node, built, eventually
from demo.runtime import Pod
from tests.netns.forging import (
    ALL_NODES,
    ECHO,
    MLD_REPORT,
    REDIRECT,
    ROUTER_ADVERTISEMENT,
    SOLICITATION,
    advertisement,
    hardware_address,
    icmpv6,
    send_icmpv6,
)

EVIL = "fe80::bad"
PREFIX = "2001:db8:bad::"
GUARD = {
    "ipv4": {"accept_redirects": "0", "forwarding": "1"},
    "ipv6": {"accept_ra": "0", "accept_redirects": "0", "autoconf": "0", "disable_ipv6": "0"},
}


def link(node: Node) -> str:
    """The host's end of the one pod's link."""
    (name,) = (one["ifname"] for one in json.loads(node.place.ip("-j link")) if one["ifname"].startswith("rt"))
    return str(name)


def settings(node: Node, name: str) -> dict[str, dict[str, str]]:
    """Those of `GUARD`, as they are."""
    return {
        family: {one: node.place.run("cat", f"/proc/sys/net/{family}/conf/{name}/{one}").strip() for one in wanted}
        for family, wanted in GUARD.items()
    }


def advertise(pod: Pod) -> None:
    """The pod says that it is a router."""
    pod.place.ip(f"address add {EVIL}/64 dev eth0 nodad")
    send_icmpv6(pod.place, "eth0", EVIL, ALL_NODES, advertisement(PREFIX, hardware_address(pod.place, "eth0")))


def heard(node: Node, pod: Pod, sent: list[tuple[int, str, int]]) -> list[int]:
    """The kinds of the ICMPv6 messages of (kind, target, hop limit) from the pod that the node took, up to an honest
    one that comes last."""
    with closing(node.place.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)) as listener:
        listener.settimeout(traffic.PATIENCE)
        for kind, target, hops in sent:
            send_icmpv6(pod.place, "eth0", EVIL, target, icmpv6(kind), hops)
        send_icmpv6(pod.place, "eth0", EVIL, ALL_NODES, icmpv6(SOLICITATION, "fe80::1bad"))
        kinds: list[int] = []
        while True:
            message, peer = listener.recvfrom(1500)
            if peer[0].partition("%")[0] == EVIL:
                kinds.append(message[0])
                if message[8:24] == socket.inet_pton(socket.AF_INET6, "fe80::1bad"):
                    return kinds[:-1]


@pytest.mark.parametrize("family", ["v4", "dual"])
def test_a_pod_is_no_router_for_its_node(family: Literal["v4", "dual"]) -> None:
    """Its advertisement gives the node neither a route nor an address: not on one that takes advertisements everywhere,
    and not with the nft table away, as after somebody flushed all rules."""
    with built(backend="static", family=family, nodes=1, is_started=False) as lab:
        (node,) = lab.nodes
        for name, value in (("accept_ra", "2"), ("accept_redirects", "1"), ("autoconf", "1")):
            node.place.sysctl(f"net/ipv6/conf/default/{name}", value)
        node.place.sysctl("net/ipv4/conf/default/accept_redirects", "1")
        node.start()
        pod = node.add()
        assert settings(node, link(node)) == GUARD
        before = node.place.ip("-6 route show"), node.place.ip("-6 -o address show")
        node.place.run("nft", "delete", "table", "inet", "routable")
        advertise(pod)
        heard(node, pod, [])
        assert (node.place.ip("-6 route show"), node.place.ip("-6 -o address show")) == before


def test_of_link_local_packets_only_neighbour_discovery_is_taken() -> None:
    """Not from farther away than the link, and nothing else: no advertisement, redirect, report or echo is heard."""
    with built(backend="static", family="dual", nodes=1) as lab:
        (node,) = lab.nodes
        pod = node.add()
        pod.place.ip(f"address add {EVIL}/64 dev eth0 nodad")
        others = [(kind, ALL_NODES, 255) for kind in (ROUTER_ADVERTISEMENT, REDIRECT, MLD_REPORT, ECHO)]
        assert heard(node, pod, [*others, (SOLICITATION, ALL_NODES, 64)]) == []
        assert heard(node, pod, [(SOLICITATION, ALL_NODES, 255)]) == [SOLICITATION]


def test_what_others_change_on_a_pods_link_is_mended() -> None:
    """As a tool that sets all links' sysctls does: within a pass, and the pod keeps its ways, both families'."""
    with built(backend="static", family="dual", nodes=2) as lab:
        node, other = lab.nodes
        pod, peer = node.add(), other.add()
        name = link(node)
        changes = [("ipv4", "accept_redirects", "1"), ("ipv4", "forwarding", "0"), ("ipv6", "accept_ra", "2")]
        changes += [("ipv6", "accept_redirects", "1"), ("ipv6", "autoconf", "1"), ("ipv6", "disable_ipv6", "1")]
        for family, key, value in changes:
            node.place.sysctl(f"net/{family}/conf/{name}/{key}", value)
            eventually(f"{family} {key} is mended", lambda: settings(node, name) == GUARD)
        for address in peer.addresses:
            assert traffic.seen_by_tcp(pod.place, peer.place, address) in pod.addresses
        assert node.status()["problems"] == []


@pytest.mark.parametrize("which", ["default", "all"])
def test_dual_stack_pods_on_hosts_that_switch_ipv6_off_on_new_links(which: str) -> None:
    """A pod with an IPv6 address has it at once; the setting stays as it is for all other links."""
    with built(backend="static", family="dual", nodes=2, is_started=False) as lab:
        node, other = lab.nodes
        node.place.sysctl("net/ipv6/conf/default/disable_ipv6", "1")
        if which == "all":
            node.place.sysctl("net/ipv6/conf/all/disable_ipv6", "1")
            node.place.sysctl("net/ipv6/conf/eth0/disable_ipv6", "0")
            restore(lab, node)
        for one in lab.nodes:
            one.start()
        pod, peer = node.add(), other.add()
        for address in peer.addresses:
            assert traffic.seen_by_tcp(pod.place, peer.place, address) in pod.addresses
        assert node.place.run("cat", "/proc/sys/net/ipv6/conf/default/disable_ipv6").strip() == "1"


def restore(lab: Lab, node: Node) -> None:
    """The node's IPv6 address, which the sysctl took."""
    (address,) = (one for one in node.addresses if ":" in one)
    node.place.ip(f"address add {address}/64 dev eth0 nodad")


def test_hosts_without_ipv6_keep_it_off_on_the_links_of_ipv4_pods() -> None:
    """What the host's operator chose holds for what needs no exception."""
    with built(backend="static", family="v4", nodes=1, is_started=False) as lab:
        (node,) = lab.nodes
        node.place.sysctl("net/ipv6/conf/all/disable_ipv6", "1")
        node.start()
        node.add()
        assert settings(node, link(node))["ipv6"]["disable_ipv6"] == "1"
        assert node.status()["problems"] == []
