"""What the demo claims, and how it finds out: reachability, paths, and what is left of all that."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from demo import traffic
from demo.lab import Lab, Node
from demo.place import Place
from demo.runtime import Pod
from demo.text import Printer


class End(NamedTuple):
    """Something that sends or receives: where it is, its address, and what the table calls it."""

    label: str
    place: Place
    address: str


class Reach(NamedTuple):
    """What came of a packet each way by TCP and by UDP: '' if the receiver saw the sender's own address."""

    sender: End
    receiver: End
    fault: str


def ends(lab: Lab, family: int) -> tuple[list[End], list[End]]:
    """Who sends (pods, nodes, the outside machine) and who receives (pods)."""
    pods = [
        End(f"{node.name}/pod{number}", pod.place, pod.address(family))
        for node in lab.nodes
        for number, pod in enumerate(node.pods, 1)
    ]
    nodes = [End(node.name, node.place, node.address(family)) for node in lab.nodes]
    return [*pods, *nodes, End("outside", lab.outside, lab.outside_address(family))], pods


def reachability(lab: Lab, family: int) -> Iterator[Reach]:
    """Every sender to every pod, by TCP and UDP."""
    addresses = {node.name: node_addresses(node, family) for node in lab.nodes}
    return reached(*ends(lab, family), addresses)


def reached(senders: Sequence[End], receivers: Sequence[End], allowed: Mapping[str, list[str]]) -> Iterator[Reach]:
    """Each of *senders* to each of *receivers*, which may see one of the addresses that are *allowed* by the sender's
    label, or else the sender's own."""
    for sender in senders:
        for receiver in receivers:
            if sender.address != receiver.address:
                seen = allowed.get(sender.label, [sender.address])
                yield Reach(sender, receiver, fault(sender, receiver, seen))


def matrix(out: Printer, senders: Sequence[End], receivers: Sequence[End], found: Iterable[Reach]) -> list[str]:
    """Print who sends (rows) to whom (columns), and how that went; the faults are the answer."""
    faults = {(one.sender, one.receiver): one.fault for one in found}
    marks = {"": "ok", None: "-"}
    rows = [(a.label, *(marks.get(faults.get((a, b)), "FAILS") for b in receivers)) for a in senders]
    out.table(("", *(one.label.replace("node-", "") for one in receivers)), rows)
    return [f"{a.label} -> {b.label}: {fault}" for (a, b), fault in faults.items() if fault]


def fault(sender: End, receiver: End, allowed: list[str]) -> str:
    """Why *receiver* does not get what *sender* sends, or whom it sees instead; '' if all is well."""
    for name, seen_by in (("TCP", traffic.seen_by_tcp), ("UDP", traffic.seen_by_udp)):
        try:
            seen = seen_by(sender.place, receiver.place, receiver.address)
        except OSError as error:
            return f"{name}: {error}"
        if seen not in allowed:
            return f"{name}: the receiver sees {seen}"
    return ""


def node_addresses(node: Node, family: int) -> list[str]:
    """All of a node's addresses: it may send from the overlay's."""
    shown: list[dict[str, Any]] = json.loads(node.place.ip(f"-j -{family} address show"))
    return [one["local"] for link in shown for one in link["addr_info"]]


def hops(source: tuple[Node, Pod], target: tuple[Node, Pod], family: int) -> Iterator[tuple[str, str]]:
    """The way of a packet between pods of two nodes: where it is, and the route that it takes there."""
    (first, sender), (last, receiver) = source, target
    dst, src = receiver.address(family), sender.address(family)
    yield sender.place.name.rpartition("-")[2], _got(sender.place, f"{dst}")
    way = _got(first.place, f"{dst} from {src} iif {sender.result['interfaces'][0]['name']}")
    yield first.name, way
    route = next(
        line for line in first.place.ip(f"-{family} route show proto 82").splitlines() if _covers(line, last, family)
    )
    yield "", f"by the route: {route.strip()}"
    entry = "eth0"
    if "routable-vxlan" in way:
        entry = "routable-vxlan"
        for line in first.place.run("bridge", "fdb", "show", "dev", entry).splitlines():
            if last.addresses[0] in line.split():
                yield "", f"wrapped for: {line.strip()}"
    yield last.name, _got(last.place, f"{dst} from {src} iif {entry}")
    yield receiver.place.name.rpartition("-")[2], f"has {dst}"


def _covers(line: str, node: Node, family: int) -> bool:
    return any(line.startswith(cidr) for cidr in node.pod_cidrs if (":" in cidr) == (family == 6))


def _got(place: Place, words: str) -> str:
    return " ".join(place.ip(f"route get {words}").split("\n")[0].split())


KINDS = ("links", "addresses", "routes", "rules", "neighbours", "nexthops", "tables", "leases")


def census(node: Node) -> dict[str, int]:
    """How many objects of each kind a node has: of routes those of the main table, of neighbours the permanent ones,
    since the kernel keeps others of its own."""

    def listed(words: str) -> int:
        return len(json.loads(node.place.ip(words) or "[]"))

    nft = json.loads(node.place.run("nft", "-j", "list", "tables"))["nftables"]
    return {
        "links": listed("-j link show"),
        "addresses": sum(len(one["addr_info"]) for one in json.loads(node.place.ip("-j address show"))),
        "routes": listed("-j -4 route show") + listed("-j -6 route show"),
        "rules": listed("-j -4 rule show") + listed("-j -6 rule show"),
        "neighbours": listed("-j neigh show nud permanent") + _fdb(node),
        "nexthops": listed("-j nexthop show"),
        "tables": len([one for one in nft if "table" in one]),
        "leases": len(node.status()["leases"]) if node.agent is not None else 0,
    }


def _fdb(node: Node) -> int:
    return sum("dst" in line.split() for line in node.place.run("bridge", "fdb", "show").splitlines())


def calls(out: Printer, counted: Mapping[tuple[str, str], int]) -> None:
    """What a cloud was asked, *counted* by action and error, and the claim that there was no error."""
    rows = sorted((f"{action} {error}".strip(), str(count)) for (action, error), count in counted.items())
    out.table(("ACTION", "CALLS"), rows)
    out.claim("every call succeeded", [f"{action}: {error}" for action, error in counted if error])
