"""A data centre: two racks with a router each, which are an FRR and a BIRD, below a spine, which is an FRR.

    outside -- spine (AS 65100) -- tor1 (FRR, AS 65001) -- node-a, node-c
                                -- tor2 (BIRD, AS 65002) -- node-b, node-c

All sessions are eBGP, those of nodes with BFD. node-c has an uplink to each rack and knows nothing but what both tell
it; node-a and node-b have a default route of their own. The racks' routers take the end of a BIRD on node-a or node-b
for a restart; for node-c, which can do without either of them, a link that is dead is dead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from demo import lab as labs
from demo.frr import PROFILE, Frr
from demo.lab import Lab
from demo.place import Place
from demo.runtime import Pod
from demo.speaking import ASN, Router, finished, program, speaks

SPINE: Final = 65100
TORS: Final = (65001, 65002)
OUTSIDE: Final = "203.0.113.9"
PODS: Final = "10.244.0.0/16"
_LINKS: Final = {"a": ((1, 0),), "b": ((2, 1),), "c": ((3, 0), (4, 1))}
"""The uplinks of each node: the third number of its addresses, and the router."""
_GRACEFUL: Final = ("a", "b")
_WRONG: Final = ("0.0.0.0/1", "172.16.0.0/12", "10.244.2.128/25")
"""What tor2 announces to node-b, and must not: more than half of the Internet, what nobody is to believe, and a part of
the node's own pods."""


@dataclass(frozen=True, slots=True)
class Fabric:
    """All of it; the agents are not started."""

    lab: Lab
    spine: Frr
    tor1: Frr
    tor2: Router

    @property
    def outside(self) -> Pod:
        """The outside machine, as an end of traffic."""
        return Pod("outside", self.lab.outside, {"ips": [{"address": f"{OUTSIDE}/24"}]})

    def cut(self, link: str) -> None:
        """Have *link* of node-c lose all that it is given, which neither of its ends notices by itself."""
        self.lab.nodes[2].place.run("nft", "-f", "-", stdin=_cut(link))

    def mend(self) -> None:
        """Undo that."""
        self.lab.nodes[2].place.run("nft", "delete", "table", "inet", "cut")


def _cut(link: str) -> str:
    chains = (("prerouting", "iifname"), ("postrouting", "oifname"))
    lines = (
        f"chain {hook} {{ type filter hook {hook} priority -500; {which} {link} drop; }}" for hook, which in chains
    )
    return f"table inet cut {{\n{chr(10).join(lines)}\n}}"


@contextmanager
def fabric(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[Fabric]:
    """With *settings* of [bgp] besides, by the last letter of the node's name."""
    with ExitStack() as cleanup:
        directory, executable = labs.home(cleanup)
        name = labs.unused()
        spine, tor1, tor2, outside = (
            labs.place(cleanup, f"{name}-{one}") for one in ("spine", "tor1", "tor2", "outside")
        )
        lab = Lab(name, [], outside, [OUTSIDE], (4,), directory, spine)
        for place in (spine, tor1, tor2):
            labs.route(place, (4,))
        _wire(spine, "out", outside, "eth0", "203.0.113.1", OUTSIDE)
        outside.ip("route add default via 203.0.113.1")
        for number, tor in enumerate((tor1, tor2), 1):
            _wire(spine, f"tor{number}", tor, "spine", f"198.51.10{number}.1", f"198.51.10{number}.2")
        tors = tor1, tor2
        for number, name in enumerate(_LINKS, 1):
            _node(cleanup, lab, tors, executable, number, {**_bgp(name), **settings.get(name, {})})
        lab.write_nodes()
        made = Fabric(lab, Frr(spine, directory / "s"), Frr(tor1, directory / "t"), _bird(tor2, directory))
        for router in (made.spine, made.tor1, made.tor2):
            cleanup.callback(router.end)
        made.spine.start(_of_spine())
        made.tor1.start(_of_tor1())
        made.tor2.start(_of_tor2())
        yield made


def _bird(place: Place, directory: Path) -> Router:
    return Router(place, directory / "u", program(directory))


def _node(
    cleanup: ExitStack, lab: Lab, tors: Sequence[Place], executable: Path, number: int, bgp: Mapping[str, Any]
) -> None:
    settings = {"backend": "bgp", "nodes": {"file": str(lab.directory / "nodes.toml")}, "bgp": bgp}
    node = labs.node_at(cleanup, lab.name, number, lab.directory, executable, settings)
    links = _LINKS[node.name[-1]]
    node.addresses, node.pod_cidrs = [f"198.51.{links[0][0]}.2"], [f"10.244.{number}.0/24"]
    for index, (subnet, tor) in enumerate(links):
        _wire(tors[tor], node.name, node.place, f"eth{index}", f"198.51.{subnet}.1", f"198.51.{subnet}.2")
    if len(links) == 1:
        node.place.ip(f"route add default via 198.51.{links[0][0]}.1")
    speaks(node, program(lab.directory))
    cleanup.callback(finished, node)
    lab.nodes.append(node)


def _wire(near: Place, port: str, far: Place, link: str, address: str, other: str) -> None:
    near.ip(f"link add {port} type veth peer name {link} netns {far.name}")
    for place, name, one in ((near, port, address), (far, link, other)):
        place.ip(f"link set {name} up")
        place.ip(f"address add {one}/24 dev {name}")


def _bgp(name: str) -> dict[str, Any]:
    links = _LINKS[name]
    return {
        "topology": "tor", "asn": ASN, "accept": [PODS], "accept_own_asn": True,
        "bfd": "graceful" if name in _GRACEFUL else "on", "uplinks": [f"eth{index}" for index in range(len(links))],
        "router": [{"address": f"198.51.{subnet}.1", "asn": TORS[tor]} for subnet, tor in links],
    }  # fmt: skip


def _frr(asn: int, router_id: str, neighbours: Mapping[str, int], said: Sequence[str] = ()) -> list[str]:
    lines = [f"router bgp {asn}", f" bgp router-id {router_id}", " bgp graceful-restart"]
    lines += [" no bgp ebgp-requires-policy", " bgp bestpath as-path multipath-relax"]
    for address, other in neighbours.items():
        lines += [f" neighbor {address} remote-as {other}", f" neighbor {address} timers connect 1"]
        # BFD finds what is dead; a BIRD that hangs has seconds to be ended by its agent, and started again.
        lines += [f" neighbor {address} timers 10 30"]
        # What is between routers is not looked at, and shall not end where a machine has no time for them for a moment.
        lines += [] if SPINE in (asn, other) else [f" neighbor {address} bfd profile {PROFILE}"]
    lines += [*said, " address-family ipv4 unicast", "  redistribute connected", "  maximum-paths 4"]
    return lines


def _of_spine() -> str:
    tors = {f"198.51.10{number}.2": asn for number, asn in enumerate(TORS, 1)}
    lines = _frr(SPINE, "198.51.101.1", tors)
    return "\n".join([*lines, *(f"  neighbor {one} default-originate" for one in tors), ""])


def _of_tor1() -> str:
    nodes = {f"198.51.{links[0][0]}.2": ASN for name, links in _LINKS.items() if links[0][1] == 0}
    graceful = [f" neighbor 198.51.{_LINKS[name][0][0]}.2 bfd check-control-plane-failure" for name in _GRACEFUL]
    lines = _frr(TORS[0], "198.51.101.2", {**nodes, "198.51.101.1": SPINE}, graceful[:1])
    lines += [f"  neighbor {one} prefix-list pods in" for one in nodes]
    return "\n".join([*lines, "exit", f"ip prefix-list pods permit {PODS} ge 24 le 32", ""])


def _of_tor2() -> str:
    def neighbour(address: str, asn: int, bfd: str, taken: str, said: str) -> str:
        return (
            f"protocol bgp {{ local as {TORS[1]}; neighbor {address} as {asn}; graceful restart on; bfd {bfd}; "
            f"connect delay time 1; error wait time 1, 2; ipv4 {{ import {taken}; export {said}; }}; }}"
        )

    usual, pods = 'where proto != "wrong"', f"where net ~ [ {PODS}{{24,32}} ]"
    return "\n".join([
        "router id 198.51.102.2;",
        "protocol device { }",
        "protocol direct { ipv4; }",
        'protocol bfd { interface "*" { interval 100 ms; multiplier 3; }; }',
        "protocol kernel { scan time 2; persist; graceful restart; merge paths on; "
        "ipv4 { import none; export where source = RTS_BGP; }; }",
        f"protocol static wrong {{ ipv4; {' '.join(f'route {one} unreachable;' for one in _WRONG)} }}",
        neighbour("198.51.102.1", SPINE, "off", "all", usual),
        neighbour("198.51.2.2", ASN, "graceful", pods, "all"),
        neighbour("198.51.4.2", ASN, "on", pods, usual),
        "",
    ])  # fmt: skip
