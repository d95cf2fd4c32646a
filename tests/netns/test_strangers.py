"""What is somebody else's, however much it looks like ours, stays as it is; what cannot be had for it is told."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from backends.nodeplan import nexthop_id
from backends.podlink import link_name
from cni.spec import Attachment
from demo import traffic
from demo.lab import Lab, Node, built, eventually
from demo.place import Failed
from demo.runtime import NETWORK, Pod, Refused

SOON = 20.0
"""Seconds, on a machine however busy, and sooner than the next whole pass."""
EXACT = "rt0123456789a"
VETHS = ["rtlab0", "rt-blue", EXACT, "rt0123456789ab"]
OTHERS = [
    "route add 203.0.113.0/24 via 192.0.2.77 proto 82",
    "route add 10.244.2.0/24 via 192.0.2.77 proto 82 metric 77",
    "-6 route add 2001:db8:2::/64 via 2001:db8:ffff::77 proto 82 metric 2048",
    "route add 203.0.113.1/32 via 192.0.2.77 table 99 proto 82",
    "rule add from 203.0.113.0/24 priority 99 table 99 protocol 82",
    "nexthop add id 82 via 192.0.2.77 dev eth0 proto 82",
    "nexthop add id 1073741900 via 192.0.2.77 dev eth0 proto zebra",
    "neigh add 192.0.2.77 lladdr 0a:00:00:00:00:77 dev eth0 nud permanent",
    "address add 203.0.113.77/32 dev eth0",
]

MARKS = ["192.0.2.77", "2001:db8:ffff::77", "203.0.113."]


@pytest.fixture(scope="module", params=["static", "vxlan"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Two dual-stack nodes, the first of which has all that might be taken for ours from before its agent starts."""
    with built(nodes=2, backend=request.param, family="dual", is_started=False) as lab:
        node, other = lab.nodes
        for number, name in enumerate(VETHS):
            node.place.ip(f"link add {name} type veth peer name peer{number}")
            node.place.ip(f"link set {name} up")
        node.place.ip("link set rtlab0 group 82")
        node.place.ip("link set rt0123456789ab group 1381253700")
        node.place.ip("link add routable0 type bridge")
        for words in OTHERS:
            node.place.ip(words)
        node.place.run("nft", "add table inet others { chain source { } ; }")
        for one in (node, other):
            one.start()
        yield lab


def strangers(node: Node) -> list[str]:
    """All that is not ours, as lines."""
    ours = [pod.result["interfaces"][0]["name"] for pod in node.pods]
    links = json.loads(node.place.ip("-d -j link show"))
    lines = [
        f"link {one['ifname']} {one['group']} {one['flags']}"
        for one in links
        if one["ifname"] not in (*ours, "routable-vxlan")
    ]
    for words in ("nexthop show", "rule show", "route show table all", "-6 route show table all", "address show"):
        lines += [line.strip() for line in node.place.ip(words).splitlines() if any(one in line for one in MARKS)]
    return [*lines, node.place.run("nft", "list", "table", "inet", "others")]


def is_reached(sender: Pod, receiver: Pod, family: int = 4, patience: float = 1.0) -> bool:
    """Whether a packet gets there and back."""
    try:
        seen = traffic.seen_by_udp(sender.place, receiver.place, receiver.address(family), patience=patience)
        return seen == sender.address(family)
    except OSError:
        return False


def test_strangers_stay_as_they_are(lab: Lab) -> None:
    """Whatever is done: requests, one by one and together, passes, restarts, a change of backend there and back."""
    node, other = lab.nodes
    before = strangers(node)
    assert len(before) > len(OTHERS)
    pods = [node.add() for _ in range(3)]
    guest = other.add()
    eventually("packets flow", lambda: is_reached(pods[0], guest) and is_reached(guest, pods[0], 6), SOON)
    assert strangers(node) == before
    for pod in pods[1:]:
        node.delete(pod)
    lab.write_nodes([node])
    eventually("the peer's routes are gone", lambda: not any(one["unserved"] for one in node.status()["peers"]))
    lab.write_nodes()
    eventually("the peer is back", lambda: is_reached(pods[0], guest))
    assert strangers(node) == before
    backend = node.status()["backend"]
    for wanted in ({"static": "vxlan", "vxlan": "static"}[backend], backend):
        begun = [one.ctl_begun("switch", wanted, "--wait", "180") for one in lab.nodes]
        for one in begun:
            _, errors = one.communicate(timeout=240)
            assert one.returncode == 0, errors
        assert strangers(node) == before
    node.stop()
    node.start()
    assert strangers(node) == before
    assert is_reached(pods[0], guest)
    node.delete(pods[0])
    other.delete(guest)


def test_a_link_of_exactly_our_form_is_told(lab: Lab) -> None:
    """By its name, with what to do; those whose names only begin so concern nobody."""
    node = lab.nodes[0]
    told = [one for one in node.status()["events"] if "neither our alias nor our link group" in one["text"]]
    assert any(EXACT in one["text"] for one in told)
    assert not any("rtlab0" in one["text"] or "rt-blue" in one["text"] for one in told)


def test_a_link_that_takes_a_pods_name_first(lab: Lab) -> None:
    """The ADD is refused and says why; the link stays."""
    node = lab.nodes[0]
    place = node.pod_place()
    name = link_name(Attachment(NETWORK, place.name, "eth0"))
    node.place.ip(f"link add {name} type veth peer name taken0")
    try:
        with pytest.raises(Refused, match="something that is not ours stands in its place"):
            node.runtime.add(place.name, place)
        assert name in node.place.ip("link show")
    finally:
        node.place.ip(f"link delete {name}")
        place.remove()


def test_one_of_ours_that_lost_its_alias_is_told_and_not_deleted(lab: Lab) -> None:
    """Without a lease nobody knows whose it is; with one the alias is put back."""
    node = lab.nodes[0]
    pod = node.add()
    link = pod.result["interfaces"][0]["name"]
    node.place.ip(f"link set {link} alias changed")
    eventually("its alias is back", lambda: "routable pods" in node.place.ip(f"link show {link}"))
    node.delete(pod)
    node.place.ip("link add rtfedcba98765 group 82 type veth peer name nobody0")
    try:
        node.place.ip("link set eth0 down")
        node.place.ip("link set eth0 up")
        eventually("it is told", lambda: "does not say whose it is" in str(node.status()["events"]))
        assert "rtfedcba98765" in node.place.ip("link show")
    finally:
        node.place.ip("link delete rtfedcba98765")


def test_one_of_ours_that_somebody_renamed_is_told_until_it_has_its_name_again(lab: Lab) -> None:
    """As by a rule of udev's: another cannot be made while the pod's end is there, and what to do is said."""
    node, other = lab.nodes
    pod, guest = node.add(), other.add()
    link = pod.result["interfaces"][0]["name"]
    node.place.ip(f"link set {link} down")
    node.place.ip(f"link set {link} name renamed0")
    told = f"eth0 in {pod.place.path} leads elsewhere: give its other end the name {link} again"
    eventually("it is told", lambda: told in str(node.status()["problems"]))
    node.place.ip(f"link set renamed0 name {link}")
    eventually("it is told no more", lambda: told not in str(node.status()["problems"]))
    assert is_reached(pod, guest)
    node.delete(pod)
    other.delete(guest)


def test_links_of_an_older_agent_are_checked_from_the_start(lab: Lab) -> None:
    """They are in no link group yet; the nft table, which goes by it, comes after they are."""
    node, other = lab.nodes
    pod, guest = node.add(), other.add()
    link = pod.result["interfaces"][0]["name"]
    node.stop()
    node.place.ip(f"link set {link} group 0")
    node.start()
    assert "group 82" in node.place.ip(f"-d link show {link}")
    pod.place.ip("address add 10.244.1.99/32 dev eth0")
    with pytest.raises(OSError, match="timed out"):
        traffic.seen_by_udp(pod.place, guest.place, guest.address(4), source="10.244.1.99", patience=0.5)
    assert is_reached(pod, guest, patience=traffic.PATIENCE)
    node.delete(pod)
    other.delete(guest)


def test_a_strangers_packets_are_not_checked(lab: Lab) -> None:
    """A link called rt… is its owner's: what comes in by it may go back by another way."""
    node = lab.nodes[0]
    for name in ("all", "rt-blue"):
        node.place.sysctl(f"net/ipv4/conf/{name}/rp_filter", "0")
    node.place.run("nft", "add table inet seen { chain c { type filter hook input priority 0 ; } ; }")
    node.place.run("nft", "add rule inet seen c ip saddr 198.51.100.9 counter")
    guest = node.pod_place()
    try:
        node.place.ip(f"link set peer1 netns {guest.name}")
        node.place.ip("address add 172.30.0.1/24 dev rt-blue")
        for address in ("172.30.0.2/24", "198.51.100.9/32"):
            guest.ip(f"address add {address} dev peer1")
        guest.ip("link set peer1 up")
        node.place.ip("route add 198.51.100.0/24 via 192.0.2.78")

        def came_in() -> bool:  # the link may be about to come up when the first is sent
            with pytest.raises(OSError):  # the way back leads elsewhere
                traffic.seen_by_udp(guest, node.place, "172.30.0.1", source="198.51.100.9", patience=0.5)
            return "packets 0 " not in node.place.run("nft", "list", "table", "inet", "seen")

        eventually("a packet comes in", came_in)
    finally:
        node.place.ip("route del 198.51.100.0/24")
        node.place.run("nft", "delete", "table", "inet", "seen")
        guest.remove()
        # The kernel takes a namespace apart when it comes to that.
        eventually("its link has gone with it", lambda: "rt-blue" not in node.place.ip("link show"))


@pytest.mark.parametrize("family", [4, 6])
def test_a_nexthop_id_that_another_program_has(family: int) -> None:
    """Its object stays, no route of ours leads through it, packets reach the right node from the start; and again when
    somebody replaces an object of ours while the agent runs."""
    with built(nodes=3, backend="static", family="dual", is_started=False) as lab:
        node, second, third = lab.nodes
        wrong = third.address(family)
        number = nexthop_id(second.name, family)
        foreign = f"id {number} via {wrong} dev eth0 proto zebra"
        node.place.ip(f"nexthop add {foreign}")
        for one in lab.nodes:
            one.start()
        pod, guest = node.add(), second.add()
        eventually("packets reach the right node", lambda: is_reached(pod, guest, family), SOON)
        assert f"nhid {number} " not in node.place.ip("route show") + node.place.ip("-6 route show")
        assert f"via {wrong}" in node.place.ip(f"nexthop show id {number}")
        before = node.place.ip("nexthop show")
        lab.write_nodes([node, second])
        eventually("the third is gone", lambda: third.pod_cidrs[0] not in node.place.ip("route show"))
        lab.write_nodes()
        eventually("and back", lambda: third.pod_cidrs[0] in node.place.ip("route show"))
        assert sorted(node.place.ip("nexthop show").splitlines()) == sorted(before.splitlines())
        node.stop()
        node.start()
        assert is_reached(pod, guest, family, traffic.PATIENCE)
        eventually("all is well", lambda: not node.status()["problems"], SOON)
        chosen = next(
            int(line.split()[1])
            for line in node.place.ip("nexthop show").splitlines()
            if f"via {second.address(family)} " in line
        )
        node.place.ip(f"nexthop replace id {chosen} via {wrong} dev eth0 proto zebra")
        eventually("the right node again", lambda: is_reached(pod, guest, family), SOON)
        assert f"via {wrong}" in node.place.ip(f"nexthop show id {chosen}")


@pytest.mark.parametrize(
    "kind", ["type bridge", "type vxlan id 7 dstport 4790 local 192.0.2.1", "type veth peer name overlay0"]
)
def test_the_overlays_name_is_anothers(kind: str) -> None:
    """The agent serves and says what to do; the device keeps what it has; when it is gone, packets flow."""
    with built(nodes=2, backend="vxlan", is_started=False) as lab:
        node, other = lab.nodes
        node.place.ip(f"link add routable-vxlan {kind}")
        before = node.place.ip("-d address show dev routable-vxlan")
        for one in lab.nodes:
            one.start()
        pod, guest = node.add(), other.add()
        eventually("it is told", lambda: "ip link set routable-vxlan name" in str(node.status()["problems"]), SOON)
        assert node.place.ip("-d address show dev routable-vxlan") == before
        assert node.place.ip("neigh show dev routable-vxlan nud permanent") == ""
        assert other.pod_cidrs[0] not in node.place.ip("route show")
        node.place.ip("link set routable-vxlan name theirs0")
        eventually("packets flow", lambda: is_reached(pod, guest), SOON)
        assert "theirs0" in node.place.ip("link show")


def test_the_nft_table_is_anothers() -> None:
    """It stays, and status says what to do; when it is gone, ours comes."""
    with built(nodes=1, is_started=False) as lab:
        node = lab.nodes[0]
        node.place.run("nft", "add table inet routable { chain mine { type filter hook input priority 5 ; } ; }")
        before = node.place.run("nft", "list", "table", "inet", "routable")
        node.start()
        told = eventually("it is told", lambda: str(node.status()["problems"]), SOON)
        assert "nft delete table inet routable" in told
        node.stop()
        node.ctl("uninstall", "--yes")
        assert node.place.run("nft", "list", "table", "inet", "routable") == before
        node.start()
        node.place.run("nft", "delete", "table", "inet", "routable")
        eventually("ours is there", lambda: _has_our_table(node), SOON)


def _has_our_table(node: Node) -> bool:
    try:
        return "chain source" in node.place.run("nft", "list", "table", "inet", "routable")
    except Failed:
        return False


def test_uninstall_takes_what_is_ours_alone(lab: Lab) -> None:
    """Of the pods' links, tables and routes nothing is left; of the others' everything."""
    node = lab.nodes[0]
    node.add()
    node.stop()
    before = strangers(node)
    said = node.ctl("uninstall", "--yes")
    assert f"left alone, it has no mark of ours: link {EXACT} " in said
    node.pods.clear()
    assert strangers(node) == before
    assert "inet routable" not in node.place.run("nft", "list", "tables")
    assert "removed 0 objects" in node.ctl("uninstall")
    node.start()
