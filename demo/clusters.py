"""Two clusters behind one spine, which is an FRR: each has a segment, nodes, ranges of pods and an ASN of its own.

The first cluster's nodes tell the spine of their pods by BGP. The other's do, too, or have static routes there, of
which the spine tells the first. Outside is a machine that knows nothing but its way to the spine.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from demo import lab as labs
from demo.frr import PROFILE, Frr
from demo.lab import Family, Lab
from demo.place import Place
from demo.speaking import finished, program, speaks

NAMES: Final = ("east", "west")
NODES: Final = 2
SPINE: Final = 65000
ASNS: Final = (64601, 64602)
PODS: Final = ({4: "10.1.0.0/16", 6: "2001:db8:1::/48"}, {4: "10.2.0.0/16", 6: "2001:db8:2::/48"})
OUTSIDE: Final = {4: "203.0.113.9", 6: "2001:db8:fffe::9"}
"""The addresses of the outside machine."""
Other = Literal["bgp", "static"]


@dataclass(frozen=True, slots=True)
class Cluster:
    """One of them."""

    name: str
    backend: str
    asn: int
    lab: Lab


@dataclass(frozen=True, slots=True)
class Clusters:
    """All of it; the agents are not started."""

    clusters: Sequence[Cluster]
    spine: Frr
    outside: Place
    families: tuple[int, ...]
    directory: Path


@contextmanager
def clusters(other: Other = "static", family: Family = "v4") -> Iterator[Clusters]:
    """The first cluster with bgp, and one with *other*."""
    families = labs.FAMILIES[family]
    with ExitStack() as cleanup:
        directory, executable = labs.home(cleanup)
        common = labs.unused()
        spine = labs.place(cleanup, f"{common}-spine")
        labs.route(spine, families)
        outside = labs.place(cleanup, f"{common}-outside")
        for place in (spine, outside):
            place.sysctl("net/ipv6/conf/all/accept_dad", "0")
        _wire(spine, "out", outside, families, {4: "203.0.113.1/24", 6: "2001:db8:fffe::1/64"}, OUTSIDE)
        for one, gateway in ((4, "203.0.113.1"), (6, "2001:db8:fffe::1")):
            if one in families:
                outside.ip(f"-{one} route add default via {gateway}")
        made = []
        for number, (name, backend) in enumerate(zip(NAMES, ("bgp", other), strict=True)):
            own = directory / name
            own.mkdir()
            spine.ip(f"link add {name} type bridge")
            spine.ip(f"link set {name} up")
            for one in families:
                spine.ip(f"address add {_gateway(number, one)}{_LENGTH[one]} dev {name}")
            lab = Lab(common, [], outside, [OUTSIDE[one] for one in families], families, own, spine)
            cluster = Cluster(name, backend, ASNS[number], lab)
            for index in range(1, NODES + 1):
                _node(cleanup, cluster, number, index, executable)
            lab.write_nodes()
            made.append(cluster)
        router = Frr(spine, directory / "spine")
        cleanup.callback(router.end)
        router.start(_told(made, families))
        yield Clusters(made, router, outside, families, directory)


_LENGTH: Final = {4: "/24", 6: "/64"}


def _gateway(cluster: int, family: int) -> str:
    return f"198.51.{cluster + 1}.1" if family == 4 else f"2001:db8:ffff:{cluster + 1}::1"


def _wire(
    spine: Place, port: str, place: Place, families: Sequence[int], near: dict[int, str], far: dict[int, str]
) -> None:
    """A link of *place* to the spine."""
    spine.ip(f"link add {port} type veth peer name eth0 netns {place.name}")
    spine.ip(f"link set {port} up")
    place.ip("link set eth0 up")
    for one in families:
        if near:
            spine.ip(f"address add {near[one]} dev {port}")
        place.ip(f"address add {far[one]}{_LENGTH[one]} dev eth0")


def _node(cleanup: ExitStack, cluster: Cluster, number: int, index: int, executable: Path) -> None:
    lab, spine = cluster.lab, cluster.lab.fabric
    bgp = {
        "topology": "tor", "asn": cluster.asn, "accept_own_asn": True, "bfd": "graceful",
        "accept": [PODS[one][family] for one in range(len(NAMES)) for family in lab.families],
        "router": [{"address": _gateway(number, one), "asn": SPINE} for one in lab.families],
    }  # fmt: skip
    # As clusters are that reach the Internet: everything but what is here is masqueraded.
    masquerade = {"enabled": True, "routable": ["10.0.0.0/8", "198.51.0.0/16", "203.0.113.0/24", "2001:db8::/32"]}
    settings: dict[str, Any] = {
        "backend": cluster.backend,
        "nodes": {"file": str(lab.directory / "nodes.toml")},
        "masquerade": masquerade,
    }
    if cluster.backend == "bgp":
        settings["bgp"] = bgp
    node = labs.node_at(cleanup, lab.name, NODES * number + index, lab.directory, executable, settings)
    own = {4: f"198.51.{number + 1}.{10 + index}", 6: f"2001:db8:ffff:{number + 1}::{10 + index}"}
    cidrs = {4: f"10.{number + 1}.{index}.0/24", 6: f"2001:db8:{number + 1}:{index}::/64"}
    node.addresses, node.pod_cidrs = [own[one] for one in lab.families], [cidrs[one] for one in lab.families]
    port = f"{cluster.name}{index}"
    _wire(spine, port, node.place, lab.families, {}, own)
    spine.ip(f"link set {port} master {cluster.name}")
    for one in lab.families:
        node.place.ip(f"-{one} route add default via {_gateway(number, one)}")
        if cluster.backend == "static":
            spine.ip(f"-{one} route add {cidrs[one]} via {own[one]}")
    if cluster.backend == "bgp":
        speaks(node, program(lab.directory))
        cleanup.callback(finished, node)
    lab.nodes.append(node)


def _told(made: Sequence[Cluster], families: Sequence[int]) -> str:
    """What the spine is told: it takes of each cluster what is that cluster's, and passes it on, static routes too."""
    peers = [(node, index, one) for index, one in enumerate(made) if one.backend == "bgp" for node in one.lab.nodes]
    lines = [f"router bgp {SPINE}", " bgp router-id 203.0.113.1", " bgp graceful-restart"]
    lines += [" no bgp ebgp-requires-policy", " no bgp default ipv4-unicast"]
    for node, _, cluster in peers:
        for address in node.addresses:
            lines += [f" neighbor {address} remote-as {cluster.asn}", f" neighbor {address} timers connect 1"]
            lines += [f" neighbor {address} bfd profile {PROFILE}"]
            lines += [f" neighbor {address} bfd check-control-plane-failure"]
    for family in families:
        lines += [f" address-family ipv{family} unicast", "  redistribute kernel route-map pods"]
        for node, index, _ in peers:
            address = node.address(family)
            lines += [f"  neighbor {address} activate", f"  neighbor {address} prefix-list {NAMES[index]} in"]
            lines += [f"  neighbor {address} prefix-list pods out"]
        lines.append(" exit-address-family")
    lines.append("exit")
    for family in families:
        word, most = ("ip", 32) if family == 4 else ("ipv6", 128)
        for index, name in enumerate(NAMES):
            length = ipaddress.ip_network(PODS[index][family]).prefixlen
            for chosen in (name, "pods"):
                lines.append(f"{word} prefix-list {chosen} permit {PODS[index][family]} ge {length} le {most}")
        lines += [f"route-map pods permit {family}", f" match {word} address prefix-list pods", "exit"]
    return "\n".join([*lines, ""])
