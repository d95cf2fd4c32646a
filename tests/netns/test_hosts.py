"""Hosts as people have them: hardened, with other programs' rules, with small links."""

from __future__ import annotations

import pytest
from netaddr import IPAddress

from cni.errors import ConfigInvalid
from dataplane import uplink
from demo import show, traffic
from demo.lab import Lab, built, eventually
from demo.place import Place


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


def test_a_host_that_knows_no_way_to_another_node_is_asked_for_its_uplink() -> None:
    """Its address is on the loopback alone, and nothing says which link is meant."""
    with pytest.raises(ConfigInvalid, match="address is on lo, and no route leads to another node") as refusal:
        uplink.find("", [IPAddress("127.0.0.1")], [IPAddress("198.51.100.7")])
    assert "set uplink" in refusal.value.details
