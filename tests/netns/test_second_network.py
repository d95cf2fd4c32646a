"""A network beside another in one pod, as meta-plugins give it: attached without a default route, and reached."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from demo import traffic
from demo.lab import Lab, Node, built, eventually
from demo.place import Place
from demo.runtime import Pod, Refused

WITHOUT: Final = {"defaultRoute": False}
SECOND: Final = {"name": "second"}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two dual-stack nodes."""
    with built(backend="static", family="dual", nodes=2, settings={"ipam": {"cooldown": 0}}) as lab:
        yield lab


def defaults(place: Place) -> list[str]:
    """The default routes of both families: by which link each leads."""
    found = [json.loads(place.ip(f"-j -{family} route show default")) for family in (4, 6)]
    return [one["dev"] for of_family in found for one in of_family]


def rules(place: Place, *pods: Pod) -> list[str]:
    """The sources of the rules in a pod's namespace, less the kernel's; where *pods* are given, theirs alone."""
    found = [json.loads(place.ip(f"-j -{family} rule show")) for family in (4, 6)]
    sources = [rule["src"] for of_family in found for rule in of_family if rule["src"] != "all"]
    addresses = [address for pod in pods for address in pod.addresses]
    return sorted(source for source in sources if source in addresses or not pods)


def is_reached(pod: Pod, other: Pod) -> None:
    """By both families and both ways, and each sees the other's own address."""
    for address in pod.addresses:
        assert traffic.seen_by_tcp(other.place, pod.place, address) in other.addresses
    for address in other.addresses:
        own = pod.address(6 if ":" in address else 4)
        assert traffic.seen_by_tcp(pod.place, other.place, address, own) == own


def another_plugin(place: Place, metric: int) -> None:
    """What gives the pod its first interface, with a default route of that metric (0: the kernel's choice)."""
    more = f"metric {metric}" if metric else ""
    place.ip("link add eth0 type veth peer name elsewhere")
    for link in ("eth0", "elsewhere"):
        place.ip(f"link set {link} up")
    for address, gateway, flags in (("10.9.0.2/24", "10.9.0.1", ""), ("2001:db8:9::2/64", "2001:db8:9::1", "nodad")):
        place.ip(f"address add {address} dev eth0 {flags}")
        place.ip(f"route add default via {gateway} dev eth0 {more}")


def test_two_networks_of_ours(lab: Lab) -> None:
    """The first has the default routes; of each address the packets go by its own link, so none is taken for forged."""
    node, other = lab.nodes
    peer = other.add()
    one = node.add()
    two = node.runtime.add(one.container, one.place, ifname="net1", config=SECOND)
    three = node.runtime.add(one.container, one.place, ifname="net2", config={"name": "third"})
    assert len(one.result["routes"]) == 2
    assert [pod.result.get("routes", []) for pod in (two, three)] == [[], []]
    assert defaults(one.place) == ["eth0", "eth0"]
    for pod, config in ((one, {}), (two, SECOND), (three, {"name": "third"})):
        node.runtime.check(pod, config=config)
        is_reached(pod, peer)
    assert len(rules(one.place)) == 4
    node.runtime.delete(two, config=SECOND)
    assert rules(one.place) == rules(three.place, three)
    again = node.runtime.add(one.container, one.place, ifname="net1", config={**SECOND, **asking(two)})
    assert again.addresses == two.addresses
    for pod in (one, again, three):
        is_reached(pod, peer)
    end(node, one, two, three)
    other.delete(peer)


def asking(pod: Pod) -> dict[str, object]:
    """For the addresses that the pod had, in the namespace that lives on."""
    return {"capabilities": {"ips": True}, "runtimeConfig": {"ips": pod.addresses}}


def end(node: Node, first: Pod, *others: Pod) -> None:
    """All of a pod's attachments, and the pod."""
    for pod in others:
        node.runtime.delete(pod, config={"name": "second" if pod.ifname == "net1" else "third"})
    node.delete(first)


def test_two_networks_at_once(lab: Lab) -> None:
    """As a runtime with two configurations asks for them: whichever is first has the default routes, and both serve."""
    node, _ = lab.nodes
    place = node.pod_place()
    with ThreadPoolExecutor(2) as pool:
        for number in range(15):
            one = pool.submit(node.runtime.add, f"pod{number}", place)
            two = pool.submit(node.runtime.add, f"pod{number}", place, ifname="net1", config=SECOND)
            pods = [one.result(), two.result()]
            assert sorted(len(pod.result.get("routes", [])) for pod in pods) == [0, 2]
            assert len({*defaults(place)}) == 1
            node.runtime.delete(pods[0])
            node.runtime.delete(pods[1], config=SECOND)
    assert rules(place) == defaults(place) == []
    place.remove()


@pytest.mark.parametrize("metric", [0, 100])
def test_beside_another_plugins_network(lab: Lab, metric: int) -> None:
    """Its default routes stay the pod's, whatever their metric, also when our link is made again."""
    node, other = lab.nodes
    peer, place = other.add(), node.pod_place()
    another_plugin(place, metric)
    pod = node.runtime.add(place.name, place, ifname="net1")
    assert pod.result.get("routes", []) == []
    node.runtime.check(pod)
    is_reached(pod, peer)
    for step in ("the link is made again", "the agent starts anew"):
        if step == "the agent starts anew":
            node.stop()
            node.start()
        else:
            place.ip("link delete net1")
            eventually(step, lambda: "net1" in place.ip("link show") and "169.254" in place.ip("neigh show dev net1"))
            eventually("it is as it was", lambda: checked(node, pod))
        assert defaults(place) == ["eth0", "eth0"]
        node.runtime.check(pod)
        is_reached(pod, peer)
    node.runtime.delete(pod)
    place.remove()
    other.delete(peer)


def checked(node: Node, pod: Pod) -> bool:
    """Whether CHECK is content."""
    try:
        node.runtime.check(pod)
    except Refused:
        return False
    return True


def test_without_a_default_route_because_it_says_so(lab: Lab) -> None:
    """The key of the network's configuration; what the pod loses of it CHECK tells."""
    node, other = lab.nodes
    peer, pod = other.add(), node.add(config=WITHOUT)
    assert pod.result.get("routes", []) == []
    assert defaults(pod.place) == []
    is_reached(pod, peer)
    node.runtime.check(pod, config=WITHOUT)
    pod.place.ip(f"rule delete from {pod.address(4)}")
    with pytest.raises(Refused, match=f"rule ipv4 .* from {pod.address(4)}/32"):
        node.runtime.check(pod, config=WITHOUT)
    for one, where in ((pod, node), (peer, other)):
        where.delete(one)


def test_where_another_has_a_default_route_of_one_family_alone(lab: Lab) -> None:
    """The other family's is ours."""
    node, _ = lab.nodes
    place = node.pod_place()
    another_plugin(place, 0)
    place.ip("-6 route delete default")
    pod = node.runtime.add(place.name, place, ifname="net1")
    assert [route["dst"] for route in pod.result["routes"]] == ["::/0"]
    assert defaults(place) == ["eth0", "net1"]
    node.runtime.check(pod)
    node.runtime.delete(pod)
    place.remove()


@pytest.mark.parametrize("value", ["no", 0, [], {}])
def test_another_value_than_true_or_false_is_refused(lab: Lab, value: object) -> None:
    """By the key's name."""
    with pytest.raises(Refused, match="defaultRoute is") as refusal:
        lab.nodes[0].add(config={"defaultRoute": value})
    assert refusal.value.code == 7
