"""Encapsulated packets come from peers, by the way to them: what others send does not come out of the overlay."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from netaddr import IPAddress

from backends.vxlan.wiring import vtep_mac
from demo import show, traffic
from demo.lab import Lab, Node, built, eventually
from demo.place import Place
from demo.runtime import Pod
from tests.netns.forging import in_fragments, in_vxlan, send, udp

VNI, PORT = 4096, 4789
INNER_PORT = 5300
UNDERLAYS = [pytest.param(4, id="over-ipv4"), pytest.param(6, id="over-ipv6")]


@contextmanager
def overlay(underlay: int, **settings: Any) -> Iterator[Lab]:
    """Three dual-stack nodes with a pod each."""
    vxlan = {"underlay": f"ipv{underlay}"}
    with built(backend="vxlan", family="dual", nodes=3, settings={"vxlan": vxlan, **settings}) as lab:
        for node in lab.nodes:
            node.add()
        yield lab


class Target:
    """A pod that says whose packets reach it."""

    def __init__(self, lab: Lab, underlay: int, node: Node) -> None:
        self._lab, self._underlay, self._node = lab, underlay, node
        self.address = node.address(underlay)
        """Of its node's VTEP."""
        (self._pod,) = (pod for one, pod in lab.pods if one is node)
        self._honest = next(pod for one, pod in lab.pods if one is not node)

    def forged(self, family: int, source: str) -> bytes:
        """What the VTEP has to be sent for a packet of *source*'s."""
        packet = udp(source, self._pod.address(family), (INNER_PORT, INNER_PORT), b"forged")
        return in_vxlan(VNI, vtep_mac(IPAddress(self.address)), packet)

    def heard(self, attack: Callable[[str, bytes], object]) -> list[str]:
        """The sources that reach the pod of those that *attack* forges, in either family, by sending the VTEP at an
        address what it is given: another node's pod, another node, the outside machine."""
        found: list[str] = []
        for family in (4, 6):
            pod, node = self._honest, self._lab.nodes[-1]
            others = pod.address(family), node.address(family), self._lab.outside_address(family)
            kind = traffic.family_of(self._pod.address(family))
            with closing(self._pod.place.socket(kind, socket.SOCK_DGRAM)) as receiver:
                receiver.bind((self._pod.address(family), INNER_PORT))
                for source in others:
                    attack(self.address, self.forged(family, source))
                with closing(self._honest.place.socket(kind, socket.SOCK_DGRAM)) as sender:
                    sender.sendto(b"honest", (self._pod.address(family), INNER_PORT))
                found += list(_arriving(receiver))
        return found


def _arriving(receiver: socket.socket) -> Iterator[str]:
    """The sources of forged packets, up to the honest one, and for a moment after it."""
    receiver.settimeout(traffic.PATIENCE)
    while True:
        try:
            data, peer = receiver.recvfrom(100)
        except TimeoutError:
            assert receiver.gettimeout() == 0.2, "the honest packet never came"
            return
        if data == b"honest":
            receiver.settimeout(0.2)
        else:
            yield peer[0]


def by_udp(place: Place) -> Callable[[str, bytes], object]:
    """As any process sends, without privileges."""

    def attack(target: str, payload: bytes) -> None:
        with closing(place.socket(traffic.family_of(target), socket.SOCK_DGRAM)) as sender:
            sender.sendto(payload, (target, PORT))

    return attack


def unreached(lab: Lab) -> list[str]:
    """Who does not reach whom, and why."""
    found = [one for family in (4, 6) for one in show.reachability(lab, family)]
    return [f"{one.sender.label} -> {one.receiver.label}: {one.fault}" for one in found if one.fault]


@pytest.mark.parametrize("underlay", UNDERLAYS)
def test_neither_pods_nor_machines_send_into_the_overlay(underlay: int) -> None:
    """A pod of the same node, of another, and the outside machine, as anybody may send: what a listed node sends so
    comes out, so the packets are right; and everybody reaches everybody."""
    with overlay(underlay) as lab:
        node, _, last = lab.nodes
        target = Target(lab, underlay, node)
        assert len(target.heard(by_udp(last.place))) == 6
        pods: list[Pod] = [pod for _, pod in lab.pods]
        for place in (pods[0].place, pods[1].place, lab.outside):
            assert target.heard(by_udp(place)) == []
        assert unreached(lab) == []


@pytest.mark.parametrize("underlay", UNDERLAYS)
def test_a_pod_does_not_send_as_its_node(underlay: int) -> None:
    """Where pods' packets to other nodes have the node's address, as in networks that check sources: what would be
    taken for the node's own does not leave it."""
    masquerade = {"enabled": True, "routable": ["10.244.0.0/16", "2001:db8::/46"]}
    with overlay(underlay, masquerade=masquerade) as lab:
        node, other, _ = lab.nodes
        (_, _), (_, pod), *_ = lab.pods
        seen = traffic.seen_by_udp(pod.place, node.place, node.address(underlay))
        assert seen == other.address(underlay)
        assert Target(lab, underlay, node).heard(by_udp(pod.place)) == []


def test_fragments_hide_nothing() -> None:
    """Over IPv6 fragments are put together behind the filter: a first one that is too short to show the VNI."""
    with overlay(6) as lab:
        node, _, last = lab.nodes
        target = Target(lab, 6, node)

        def attack(place: Place, source: str) -> Callable[[str, bytes], object]:
            def cut(address: str, payload: bytes) -> None:
                for part in in_fragments(udp(source, address, (INNER_PORT, PORT), payload), 8):
                    send(place, part, address)

            return cut

        assert target.heard(attack(lab.outside, lab.outside_address(6))) == []
        assert target.heard(attack(last.place, last.address(6))) != []


@pytest.mark.parametrize("underlay", UNDERLAYS)
def test_a_peers_address_does_not_help_by_another_link(underlay: int) -> None:
    """As on a container's bridge beside us, whose own plugin checks no sources."""
    with overlay(underlay) as lab:
        node, _, last = lab.nodes
        place = lab.outside.make(f"{lab.name}-beside")
        try:
            node.place.ip(f"link add beside type veth peer name eth0 netns {place.path}")
            node.place.sysctl("net/ipv4/conf/beside/rp_filter", "2")
            beside = {4: ("10.99.0.1", "10.99.0.2", 24), 6: ("2001:db8:99::1", "2001:db8:99::2", 64)}[underlay]
            flags = "nodad" if underlay == 6 else ""
            node.place.ip(f"address add {beside[0]}/{beside[2]} dev beside {flags}")
            node.place.ip("link set beside up")
            place.ip(f"address add {beside[1]}/{beside[2]} dev eth0 {flags}")
            place.ip("link set eth0 up")
            place.ip(f"-{underlay} route add default via {beside[0]}")
            assert traffic.seen_by_udp(place, node.place, node.address(underlay)) == beside[1]
            target = Target(lab, underlay, node)

            def attack(address: str, payload: bytes) -> None:
                send(place, udp(last.address(underlay), address, (INNER_PORT, PORT), payload), address)

            assert target.heard(attack) == []
            assert target.heard(by_udp(place)) == []
        finally:
            place.remove()


@pytest.mark.parametrize("underlay", UNDERLAYS)
def test_the_list_of_nodes_says_who_is_a_peer(underlay: int) -> None:
    """One that is listed no more is heard no more, and one that is listed again is."""
    with overlay(underlay) as lab:
        node, other, last = lab.nodes
        target = Target(lab, underlay, node)
        assert target.heard(by_udp(last.place)) != []
        for listed, is_heard in (([node, other], False), (lab.nodes, True)):
            lab.write_nodes(listed)
            routes = last.pod_cidrs[0]
            eventually(
                "the list is followed",
                lambda routes=routes, is_heard=is_heard: (routes in node.place.ip("route show")) is is_heard
                and (last.address(underlay) in table(node)) is is_heard,
            )
            assert (target.heard(by_udp(last.place)) != []) is is_heard


def test_another_programs_vxlan_on_the_same_port_is_its_own() -> None:
    """With a VNI of its own and a machine that is no node."""
    with overlay(4) as lab:
        node, *_ = lab.nodes
        for place, here, there, number in (
            (node.place, node.address(4), lab.outside_address(4), 1),
            (lab.outside, lab.outside_address(4), node.address(4), 2),
        ):
            place.ip(
                f"link add other-vxlan address 02:00:00:00:77:0{number} "
                f"type vxlan id 7 dstport {PORT} local {here} remote {there}"
            )
            place.ip(f"address add 10.77.0.{number}/24 dev other-vxlan")
            place.ip("link set other-vxlan up")
            place.ip(f"neigh add 10.77.0.{3 - number} lladdr 02:00:00:00:77:0{3 - number} dev other-vxlan")
        assert traffic.seen_by_udp(lab.outside, node.place, "10.77.0.1") == "10.77.0.2"
        assert traffic.seen_by_tcp(node.place, lab.outside, "10.77.0.2") == "10.77.0.1"
        assert unreached(lab) == []


def test_what_others_change_of_it_is_mended_and_nothing_is_left_of_it() -> None:
    """An address that is added to the set, a rule that is flushed; after ``switch`` and ``uninstall`` it is gone."""
    with overlay(4) as lab:
        node, *others = lab.nodes
        before = table(node)
        for words in (
            "add element inet routable-overlay peers { 203.0.113.7 }",
            "flush chain inet routable-overlay encapsulated",
            "delete table inet routable-overlay",
        ):
            node.place.run("nft", words)
            eventually(f"{words}: mended", lambda: table(node) == before)
        for one in lab.nodes:
            one.ctl_begun("switch", "static").communicate()
        for one in lab.nodes:
            eventually("the overlay is gone", lambda one=one: "routable-overlay" not in tables(one), 60.0)
        for one in others:
            assert "inet routable" in tables(one)
        node.ctl_begun("switch", "vxlan").communicate()
        eventually("the overlay is back", lambda: "routable-overlay" in tables(node))
        node.stop()
        node.ctl("uninstall", "--yes")
        assert tables(node) == ""


def tables(node: Node) -> str:
    """All of nft's."""
    return node.place.run("nft", "list", "tables")


def table(node: Node) -> str:
    """The overlay's, as people see it."""
    if "routable-overlay" not in tables(node):
        return ""
    return node.place.run("nft", "list", "table", "inet", "routable-overlay")
