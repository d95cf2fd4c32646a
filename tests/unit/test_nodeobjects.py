"""What Nodes of the Kubernetes API become: peers, each with its own flaws; and who has what two of them claim."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence

import pytest

from cluster.claims import settled
from cluster.nodeobjects import ANNOTATION, ASN, Described, NodeObject, Page, decoded, described
from cluster.peers import Peer
from tests.cluster.store import node


def read(
    name: str = "node-a",
    addresses: Sequence[str] = ("192.0.2.1",),
    pod_cidrs: Sequence[str] | None = ("10.1.0.0/24",),
    *,
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    created: str = "2026-01-01T00:00:00Z",
) -> Described:
    """A Node, through the API's JSON."""
    made = node(name, addresses, pod_cidrs, annotations=annotations, labels=labels, created=created)
    return described(decoded(json.dumps(made).encode(), NodeObject))


def shown(peer: Peer) -> str:
    """A peer in one line."""
    return " ".join(map(str, (peer.name, *peer.addresses, *peer.pod_cidrs)))


@pytest.mark.parametrize(
    ("addresses", "pod_cidrs", "line"),
    [
        (["192.0.2.1"], ["10.1.0.0/24"], "node-a 192.0.2.1 10.1.0.0/24"),
        (["2001:db8::1"], ["2001:db8:1::/64"], "node-a 2001:db8::1 2001:db8:1::/64"),
        (
            ["2001:db8::1", "192.0.2.1"],
            ["2001:db8:1::/64", "10.1.0.0/24"],
            "node-a 192.0.2.1 2001:db8::1 10.1.0.0/24 2001:db8:1::/64",
        ),
        (["192.0.2.1", "192.0.2.9", "2001:db8::1", "2001:db8::9"], ["10.1.0.0/24"],
         "node-a 192.0.2.1 2001:db8::1 10.1.0.0/24"),
    ],
)  # fmt: skip
def test_a_node_is_a_peer(addresses: list[str], pod_cidrs: list[str], line: str) -> None:
    """One family or both in any order, IPv4 first; of several addresses of a family the first."""
    peer = read("node-a", addresses, pod_cidrs).peer
    assert shown(peer) == line
    assert not peer.flaws


@pytest.mark.parametrize(
    ("addresses", "pod_cidrs", "flaw"),
    [
        ([], ["10.1.0.0/24"], "no InternalIP"),
        (["192.0.2.1"], None, f"neither spec.podCIDRs (yet) nor an annotation {ANNOTATION}"),
        (["node-a.example"], ["10.1.0.0/24"], "its InternalIP 'node-a.example' is not an IPv4 or IPv6 address"),
        (["127.0.0.1"], ["10.1.0.0/24"], "its InternalIP '127.0.0.1' lies in 127.0.0.0/8 (loopback)"),
        (["192.0.2.1"], ["10.1.0.1/24"], "its spec.podCIDRs has '10.1.0.1/24', which has host bits set"),
        (["192.0.2.1"], ["169.254.0.0/24"], "which lies in 169.254.0.0/16"),
    ],
)
def test_what_cannot_be_used_is_a_flaw_of_that_peer(
    addresses: list[str], pod_cidrs: list[str] | None, flaw: str
) -> None:
    """It is told in words, and is no error."""
    (told,) = read("node-a", addresses, pod_cidrs).peer.flaws
    assert flaw in told


def test_what_can_be_used_of_a_flawed_node_is_used() -> None:
    """A bad range of one family takes the other family's away from nobody."""
    peer = read(addresses=["192.0.2.1", "2001:db8::1"], pod_cidrs=["10.1.0.0/24", "2001:db8:1::1/64"]).peer
    assert shown(peer) == "node-a 192.0.2.1 2001:db8::1 10.1.0.0/24"
    assert len(peer.flaws) == 1


def test_a_range_that_a_node_has_twice_is_its_own() -> None:
    """The same again is no contradiction; one that lies in another is left out, and told."""
    twice = read(pod_cidrs=None, annotations={ANNOTATION: "10.9.0.0/24,2001:db8:9::/64,10.9.0.0/24"})
    assert shown(*settled([twice])) == "node-a 192.0.2.1 10.9.0.0/24 2001:db8:9::/64"
    within = read(pod_cidrs=None, annotations={ANNOTATION: "10.9.0.0/25,10.9.0.0/24,10.9.0.128/25,10.9.1.0/24"})
    (peer,) = settled([within])
    assert list(map(str, peer.pod_cidrs)) == ["10.9.0.0/24", "10.9.1.0/24"]
    assert [flaw.partition("has ")[2] for flaw in peer.flaws] == [
        "'10.9.0.0/25', which lies in 10.9.0.0/24 beside it",
        "'10.9.0.128/25', which lies in 10.9.0.0/24 beside it",
    ]


def test_the_annotation_stands_in_where_there_are_no_pod_cidrs() -> None:
    """Several with commas between them; where the Node has pod CIDRs of its own these count."""
    own = {ANNOTATION: "10.9.0.0/24, 2001:db8:9::/64"}
    assert shown(read(pod_cidrs=None, annotations=own).peer) == "node-a 192.0.2.1 10.9.0.0/24 2001:db8:9::/64"
    assert shown(read(annotations=own).peer) == "node-a 192.0.2.1 10.1.0.0/24"
    (flaw,) = read(pod_cidrs=None, annotations={ANNOTATION: "10.9.0.0"}).peer.flaws
    assert flaw.startswith(f"its annotation {ANNOTATION} has '10.9.0.0', which has no prefix length")


def test_what_does_not_concern_us_is_not_looked_at() -> None:
    """Fields that a newer API has, nulls where nothing is, a list without items."""
    raw = {"metadata": {"name": "node-a", "managedFields": [{"new": 1}], "creationTimestamp": None}, "spec": {"x": {}}}
    assert described(decoded(json.dumps(raw).encode(), NodeObject)).peer.name == "node-a"
    empty = {"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": None}
    assert decoded(json.dumps(empty).encode(), Page).items is None


OLD, NEW = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
CONTRADICTIONS = [
    pytest.param(
        [
            read("a", ["192.0.2.1"], ["10.1.0.0/24"], created=OLD),
            read("b", ["192.0.2.1"], ["10.2.0.0/24"], created=NEW),
        ],
        ["a 10.1.0.0/24", "b 192.0.2.1 10.2.0.0/24"],
        "a: its InternalIP 192.0.2.1 is also that of b, which is newer",
        id="an address belongs to the newest, as of a machine that was renamed",
    ),
    pytest.param(
        [
            read("a", ["192.0.2.1"], ["10.1.0.0/16"], created=OLD),
            read("b", ["192.0.2.2"], ["10.1.9.0/24"], created=NEW),
        ],
        ["a 192.0.2.1 10.1.0.0/16", "b 192.0.2.2"],
        "b: its pod CIDR 10.1.9.0/24 overlaps that of a, which is older",
        id="a range belongs to the oldest",
    ),
    pytest.param(
        [
            read("a", ["192.0.2.1"], ["10.1.9.0/24"], created=OLD),
            read("b", ["192.0.2.2"], ["10.1.0.0/16"], created=NEW),
        ],
        ["a 192.0.2.1 10.1.9.0/24", "b 192.0.2.2"],
        "b: its pod CIDR 10.1.0.0/16 overlaps that of a, which is older",
        id="a wider one, too",
    ),
    pytest.param(
        [read("a", ["192.0.2.1"], ["10.1.0.0/24"], created=OLD), read("b", ["10.1.0.9"], ["10.2.0.0/24"], created=NEW)],
        ["a 192.0.2.1 10.1.0.0/24", "b 10.2.0.0/24"],
        "b: its InternalIP 10.1.0.9 lies in a pod CIDR of a",
        id="a new node in the pods' range of an old one takes nothing from that",
    ),
    pytest.param(
        [read("a", ["10.2.0.9"], ["10.1.0.0/24"], created=OLD), read("b", ["192.0.2.2"], ["10.2.0.0/24"], created=NEW)],
        ["a 10.2.0.9 10.1.0.0/24", "b 192.0.2.2"],
        "b: its pod CIDR 10.2.0.0/24 contains the address of a",
        id="a new range around an old node is nobody's",
    ),
    pytest.param(
        [read("b", ["192.0.2.2"], ["10.1.0.0/24"]), read("a", ["192.0.2.1"], ["10.1.0.0/24"])],
        ["a 192.0.2.1 10.1.0.0/24", "b 192.0.2.2"],
        "b: its pod CIDR 10.1.0.0/24 overlaps that of a, which is older",
        id="of the same age, the names decide",
    ),
]


@pytest.mark.parametrize(("nodes", "lines", "flaw"), CONTRADICTIONS)
def test_two_nodes_that_contradict_each_other(nodes: list[Described], lines: list[str], flaw: str) -> None:
    """One of them has it, whatever the order, the other tells; a third node is not touched."""
    third = read("z", ["192.0.2.99"], ["10.99.0.0/24"])
    for order in itertools.permutations([*nodes, third]):
        peers = sorted(settled(order), key=lambda one: one.name)
        assert [shown(one) for one in peers] == [*lines, "z 192.0.2.99 10.99.0.0/24"]
        assert [f"{one.name}: {told}" for one in peers for told in one.flaws] == [flaw]


def test_ranges_of_many_nodes_are_apart() -> None:
    """Where nobody contradicts anybody all are as they say of themselves."""
    many = [
        read(f"n{n}", [f"192.0.2.{n}"], [f"10.1.{n}.0/24"], created=f"2026-01-01T00:00:{n % 60:02}Z")
        for n in range(1, 250)
    ]
    assert settled(many) == {one.peer for one in many}


def test_a_node_has_a_number_and_labels_of_where_it_is() -> None:
    """The annotation says which autonomous system it is in; of its labels those are known that tell of the network."""
    labels = {"topology.kubernetes.io/zone": "z1", "routable.io/rack": "r1"}
    peer = read(annotations={ASN: "4200000001"}, labels={**labels, "app": "x"}).peer
    assert peer.asn == 4200000001
    assert peer.labels == (("routable.io/rack", "r1"), ("topology.kubernetes.io/zone", "z1"))
    assert read().peer.asn == 0


@pytest.mark.parametrize("text", ["0", "4294967295", "65001.5", "-1", "٣", "9" * 5000])
def test_a_number_that_is_none_is_a_flaw(text: str) -> None:
    """It is told, and takes nothing else away."""
    peer = read(annotations={ASN: text}).peer
    assert peer.asn == 0
    assert len(peer.flaws) == 1
    assert f"its annotation {ASN} is {text[:20]!r}"[:30] in peer.flaws[0]
    assert shown(peer) == "node-a 192.0.2.1 10.1.0.0/24"
