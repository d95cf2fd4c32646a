"""The same behaviour of the fake and of the real kernel, so that tests on the fake mean something."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator
from typing import Protocol

import pytest

from backends.nodeplan import table
from cni.errors import EnvironmentInvalid, KernelRefused
from dataplane.diff import Change, diff, invert, render
from dataplane.items import HOST, LOCAL, MAIN, Addr, Item, Key, Neigh, Nexthop, Route, Rule, Sysctl, plan
from dataplane.kernel import Kernel
from dataplane.links import VXLAN_LINK, Fdb, Port, Veth, Vxlan
from dataplane.netns import Netns
from dataplane.nft import Nft
from dataplane.observe import Device, OnHost, Pod, PodLink, Scope, Settings
from dataplane.seam import Dataplane
from demo.place import Place, run
from tests.fakes.kernel import FakeKernel

HOST_MAC = "ee:ee:ee:ee:ee:ee"
POD_MAC = "0a:58:0a:01:01:05"
LINK = "rt0123456789a"
GATEWAYS = ("169.254.1.1", "fe80::1")
IPV6 = "net/ipv6/conf/eth0/disable_ipv6"
_NUMBERS = itertools.count(1)


class World(Protocol):
    """A kernel and the power to change what is around it."""

    dataplane: Dataplane

    def netns(self) -> str:
        """A new namespace's path."""

    def remove(self, path: str) -> None:
        """End it."""

    def foreign_interface(self, path: str, name: str) -> None:
        """An interface of somebody else's in a pod."""

    def vanish(self, item: Item) -> None:
        """Somebody removes an object of ours."""

    def interface(self, name: str, mac: str) -> None:
        """The machine has an interface that is down, with an address of its own."""


class FakeWorld:
    """In memory."""

    def __init__(self) -> None:
        self.fake = FakeKernel()
        self.dataplane: Dataplane = self.fake

    def netns(self) -> str:
        path = f"/run/netns/pod{next(_NUMBERS)}"
        self.fake.add_netns(path)
        return path

    def remove(self, path: str) -> None:
        self.fake.remove_netns(path)

    def foreign_interface(self, path: str, name: str) -> None:
        self.fake.add_foreign(Port(path, name, 1500, "0a:00:00:00:00:01"))

    def vanish(self, item: Item) -> None:
        self.fake.drift(item.key, None)

    def interface(self, name: str, mac: str) -> None:
        for item in (Port(HOST, name, 1400, mac, up=False), Addr(HOST, name, "192.0.2.1/24")):
            self.fake.add_foreign(item)


class RealWorld:
    """In the network namespace that the tests run in."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._own = Netns()
        self._kernel = Kernel(self._own, Nft())
        self.dataplane: Dataplane = self._kernel

    def netns(self) -> str:
        place = Place.make(f"contract{os.getpid()}-{next(_NUMBERS)}")
        self._places[str(place.path)] = place
        return str(place.path)

    def remove(self, path: str) -> None:
        self._places[path].remove()

    def foreign_interface(self, path: str, name: str) -> None:
        self._places[path].ip(f"link add {name} type veth peer name other0")

    def vanish(self, item: Item) -> None:
        if isinstance(item, Route):
            run("ip", "-6" if ":" in item.dst else "-4", "route", "del", *item.dst.split())
        elif isinstance(item, Neigh):
            run("ip", "neigh", "del", item.address, "dev", item.dev)
        else:
            run("ip", "link", "del", item.key.name)

    def interface(self, name: str, mac: str) -> None:
        run("ip", "link", "set", name, "down")
        run("ip", "link", "set", name, "mtu", "1400", "address", mac)

    def close(self) -> None:
        """Remove all that the test left."""
        changes = diff(self.dataplane.observe([OnHost(), Settings((), (("inet", "routable"),))]), {})
        self.dataplane.apply(changes)
        self._kernel.close()
        self._own.close()
        for place in self._places.values():
            place.remove()


@pytest.fixture(params=["fake", "kernel"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Both, one after the other."""
    if request.param == "fake":
        yield FakeWorld()
        return
    run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    for words in ("link set up0 up", "link set up1 up", "address add 192.0.2.1/24 dev up0"):
        run("ip", *words.split())
    run("ip", "address", "add", "2001:db8::1/64", "dev", "up0", "nodad")
    real = RealWorld()
    try:
        yield real
    finally:
        real.close()
        run("ip", "link", "del", "up0")


def pod(netns: str, number: int = 5) -> dict[Key, Item]:
    """A pod's plan, written out."""
    four, six = f"10.1.1.{number}", f"2001:db8:1::{number}"
    return plan(
        Veth(LINK, f"routable pods c{number} eth0 {netns}", 1450, HOST_MAC, True, netns, "eth0", POD_MAC),
        Neigh(HOST, LINK, four, POD_MAC),
        Neigh(HOST, LINK, six, POD_MAC),
        Route(HOST, f"{four}/32", LINK),
        Route(HOST, f"{six}/128", LINK),
        Port(netns, "eth0", 1450, POD_MAC),
        Sysctl(netns, IPV6, "0"),
        Addr(netns, "eth0", f"{four}/32"),
        Addr(netns, "eth0", f"{six}/128"),
        Neigh(netns, "eth0", "169.254.1.1", HOST_MAC),
        Neigh(netns, "eth0", "fe80::1", HOST_MAC),
        Route(netns, "0.0.0.0/0", "eth0", "169.254.1.1", onlink=True, mtu=1400),
        Route(netns, "::/0", "eth0", "fe80::1", onlink=True),
    )


def seen(world: World, netns: str) -> dict[Key, Item]:
    return world.dataplane.observe([PodLink(LINK), Pod(netns, "eth0", (IPV6,), GATEWAYS)])


NODE = plan(
    Route(HOST, "10.1.1.0/24", unreachable=True),
    Route(HOST, "2001:db8:1::/64", unreachable=True),
    Nexthop(0x40000001, "192.0.2.2", "up0"),
    Nexthop(0x40000002, "2001:db8::2", "up0"),
    Route(HOST, "10.1.2.0/24", nhid=0x40000001),
    Route(HOST, "2001:db8:2::/64", nhid=0x40000002),
)
VTEP_MAC = "02:52:c0:00:02:02"
OVERLAY = plan(
    Vxlan(VXLAN_LINK, 4096, 4789, "192.0.2.1", "02:52:c0:00:02:01", 1450),
    Addr(HOST, VXLAN_LINK, "10.1.1.0/32"),
    Neigh(HOST, VXLAN_LINK, "10.1.2.0", VTEP_MAC),
    Neigh(HOST, VXLAN_LINK, "fe80::52:c0ff:fe00:202", VTEP_MAC),
    Fdb(VXLAN_LINK, VTEP_MAC, "192.0.2.2"),
    Nexthop(0x40000001, "10.1.2.0", VXLAN_LINK, onlink=True),
    Nexthop(0x40000002, "fe80::52:c0ff:fe00:202", VXLAN_LINK, onlink=True),
    Route(HOST, "10.1.2.0/24", nhid=0x40000001),
    Route(HOST, "2001:db8:2::/64", nhid=0x40000002),
)

UPLINK_MAC = "0a:00:00:00:00:01"
INTERFACE = plan(
    Port(HOST, "up0", 1500, UPLINK_MAC),
    Addr(HOST, "up0", "192.0.2.9/32"),
    Sysctl(HOST, "net/ipv4/ip_forward", "1"),
)
TABLES = plan(
    Route(HOST, "192.0.2.0/24", "up0", table=8201),
    Route(HOST, "0.0.0.0/0", "up0", "192.0.2.254", onlink=True, table=8201),
    Route(HOST, "::/0", "up0", "2001:db8::ff", onlink=True, table=8201),
    Rule(4, 8210, MAIN, suppress=0),
    Rule(6, 8210, MAIN, suppress=0),
    Rule(4, 8220, 8201, mark=0x20, mask=0xF0),
    Rule(4, 8220, MAIN, mark=0x10, mask=0xF0),
    Rule(4, 8230, 8201, src="10.1.1.16/28"),
    Rule(4, 8230, 8201, src="10.1.1.5/32", dst="10.0.0.0/8"),
    Rule(6, 8230, 8201, src="2001:db8:1::/80"),
)


def same(have: dict[Key, Item], want: dict[Key, Item]) -> None:
    """Fail with the difference in words."""
    assert render(diff(have, want)) == ""


def test_a_pod_appears_whole_and_goes_whole(world: World) -> None:
    """What was applied is what is seen; removing its link, by name alone, leaves nothing on either side, and again is
    no error."""
    netns = world.netns()
    want = pod(netns)
    world.dataplane.apply(diff({}, want))
    same(seen(world, netns), want)
    same(world.dataplane.observe([OnHost()]), {key: item for key, item in want.items() if key.place == HOST})
    gone = diff(plan(Veth(LINK, "", 0, "")), {})
    world.dataplane.apply(gone)
    same(seen(world, netns), {})
    world.dataplane.apply(gone)


@pytest.mark.parametrize("count", range(14))
def test_any_prefix_of_the_changes_can_be_undone(world: World, count: int) -> None:
    """So a failure at any change leaves nothing behind."""
    netns = world.netns()
    changes = diff({}, pod(netns))[:count]
    world.dataplane.apply(changes)
    world.dataplane.apply(invert(changes))
    same(seen(world, netns), {})


def test_an_interface_that_exists_is_refused_and_left_alone(world: World) -> None:
    """EEXIST, about a link; nothing of the plan is there afterwards."""
    netns = world.netns()
    world.foreign_interface(netns, "eth0")
    before = seen(world, netns)
    with pytest.raises(KernelRefused) as caught:
        world.dataplane.apply(diff({}, pod(netns)))
    assert (caught.value.errno, caught.value.kind) == (errno.EEXIST, "link")
    same(seen(world, netns), before)
    assert world.dataplane.observe([PodLink(LINK)]) == {}


def test_a_link_that_exists_on_the_host_is_refused(world: World) -> None:
    """The same from the other side: the first pod keeps it."""
    first, second = world.netns(), world.netns()
    world.dataplane.apply(diff({}, pod(first)))
    with pytest.raises(KernelRefused) as caught:
        world.dataplane.apply(diff({}, pod(second)))
    assert (caught.value.errno, caught.value.kind) == (errno.EEXIST, "link")
    same(seen(world, first), pod(first))
    world.dataplane.apply(diff(pod(first), {}))


def test_a_namespace_that_is_gone(world: World) -> None:
    """It holds nothing, adding to it is refused as ENOENT, removing from it is no error."""
    netns = world.netns()
    world.remove(netns)
    assert world.dataplane.identity(netns) is None
    assert world.dataplane.observe([Pod(netns, "eth0")]) == {}
    with pytest.raises(KernelRefused) as caught:
        world.dataplane.apply(diff({}, pod(netns)))
    assert caught.value.errno == errno.ENOENT
    world.dataplane.apply(diff(pod(netns), {}))
    assert world.dataplane.observe([PodLink(LINK)]) == {}


def test_a_namespaces_identity(world: World) -> None:
    """Stable for one, different for two, and our own is refused by the variable's name."""
    first, second = world.netns(), world.netns()
    assert world.dataplane.identity(first) == world.dataplane.identity(first) is not None
    assert world.dataplane.identity(first) != world.dataplane.identity(second)
    with pytest.raises(EnvironmentInvalid, match="CNI_NETNS"):
        world.dataplane.identity("/proc/self/ns/net")


@pytest.mark.parametrize("want", [NODE, OVERLAY, TABLES], ids=["static", "vxlan", "tables"])
def test_a_nodes_part(world: World, want: dict[Key, Item]) -> None:
    """Applied, seen, removed."""
    world.dataplane.apply(diff({}, want))
    same(world.dataplane.observe([OnHost()]), want)
    world.dataplane.apply(diff(world.dataplane.observe([OnHost()]), {}))
    same(world.dataplane.observe([OnHost()]), {})


@pytest.mark.parametrize(("old", "new"), [(NODE, OVERLAY), (OVERLAY, NODE)], ids=["to-vxlan", "to-static"])
def test_one_plan_becomes_another(world: World, old: dict[Key, Item], new: dict[Key, Item]) -> None:
    """By the difference alone; a nexthop moves to another device and family under its routes."""
    world.dataplane.apply(diff({}, old))
    world.dataplane.apply(diff(world.dataplane.observe([OnHost()]), new))
    same(world.dataplane.observe([OnHost()]), new)


@pytest.mark.parametrize(
    "changed",
    [
        lambda netns: Veth(LINK, f"routable pods c5 eth0 {netns}", 1400, HOST_MAC),
        lambda netns: Veth(LINK, f"routable pods c5 eth0 {netns}", 1450, HOST_MAC, up=False),
        lambda netns: Veth(LINK, "routable pods other eth0 /x", 1450, HOST_MAC),
        lambda netns: Veth(LINK, f"routable pods c5 eth0 {netns}", 1450, HOST_MAC, group=0),
        lambda netns: Veth(LINK, f"routable pods c5 eth0 {netns}", 1450, HOST_MAC, is_ipv6_off=True),
        lambda netns: Port(netns, "eth0", 1400, POD_MAC),
        lambda netns: Neigh(HOST, LINK, "10.1.1.5", "0a:58:00:00:00:01"),
        lambda netns: Neigh(netns, "eth0", "169.254.1.1", "0a:58:00:00:00:01"),
        lambda netns: Route(netns, "0.0.0.0/0", "eth0", "169.254.1.1", onlink=True),
    ],
    ids=["mtu", "down", "alias", "group", "ipv6-off", "port-mtu", "neigh", "gateway", "route-mtu"],
)
def test_an_object_changes_in_place(world: World, changed: object) -> None:
    """What else there is stays as it is; and back again."""
    assert callable(changed)
    netns = world.netns()
    want = pod(netns)
    world.dataplane.apply(diff({}, want))
    item = changed(netns)
    other = {**want, item.key: item}
    if isinstance(item, Veth) and (not item.up or item.is_ipv6_off):
        # The kernel takes a link's routes and permanent neighbours with it when it goes down, or IPv6's when that does.
        world.dataplane.apply([Change(want[item.key], item)])
        world.dataplane.apply([Change(item, want[item.key])])
        world.dataplane.apply(diff(seen(world, netns), want))
    else:
        world.dataplane.apply(diff(want, other))
        same(seen(world, netns), other)
        world.dataplane.apply(diff(other, want))
    same(seen(world, netns), want)


def test_a_network_beside_another(world: World) -> None:
    """Which default routes a pod has by another link is told; a rule of ours with its table is made, seen and removed,
    and one that is there already is no error."""
    netns = world.netns()
    assert world.dataplane.defaults(netns, "eth0") == frozenset()
    world.dataplane.apply(diff({}, pod(netns)))
    assert world.dataplane.defaults(netns, "eth0") == frozenset()
    assert world.dataplane.defaults(netns, "net1") == {4, 6}
    usual = Route(netns, "::/0", "eth0", "fe80::1", onlink=True)
    rule = Rule(6, 8200, 0x40000007, src="2001:db8:1::5/128", place=netns)
    beside = {key: item for key, item in pod(netns).items() if item != usual}
    beside |= plan(usual._replace(table=rule.table), rule)
    world.dataplane.apply(diff(pod(netns), beside))
    assert world.dataplane.defaults(netns, "net1") == {4}
    whole: list[Scope] = [PodLink(LINK), Pod(netns, "eth0", (IPV6,), GATEWAYS, has_rules=True)]
    same(world.dataplane.observe(whole), beside)
    world.dataplane.apply([Change(None, rule)])
    same(world.dataplane.observe(whole), beside)
    world.dataplane.apply(diff(beside, pod(netns)))
    same(world.dataplane.observe(whole), pod(netns))
    assert world.dataplane.defaults("/run/netns/nothing", "eth0") == frozenset()


def test_an_interface_of_the_machine(world: World) -> None:
    """It is brought to what it should be and given an address of ours; others that it has are not seen, and it is
    never removed."""
    world.interface("up0", UPLINK_MAC)
    scope = Device("up0", ("192.0.2.9/32",))
    have = world.dataplane.observe([scope])
    world.dataplane.apply(diff(have, {key: item for key, item in INTERFACE.items() if key.kind != "sysctl"}))
    same(world.dataplane.observe([scope]), {key: item for key, item in INTERFACE.items() if key.kind != "sysctl"})
    world.dataplane.apply(diff(world.dataplane.observe([scope]), {}))
    assert [key.kind for key in world.dataplane.observe([scope])] == ["link"]
    assert world.dataplane.observe([Device("up7")]) == {}


def test_a_rule_changes_by_another_that_comes_first(world: World) -> None:
    """No packet is without one: the new is there before the old goes."""
    old, new = Rule(4, 8230, 8201, src="10.1.1.16/28"), Rule(4, 8230, 8202, src="10.1.1.16/28")
    world.dataplane.apply(diff({}, plan(old)))
    changes = diff(plan(old), plan(new))
    assert [str(change) for change in changes] == [f"+ {new}", f"- {old}"]
    world.dataplane.apply(changes)
    same(world.dataplane.observe([OnHost()]), plan(new))


def test_what_somebody_removed_is_missed_and_put_back(world: World) -> None:
    """A route, a neighbour, the whole link: the difference names it, applying it mends it."""
    netns = world.netns()
    want = pod(netns)
    world.dataplane.apply(diff({}, want))
    for key in (Key(HOST, "route", "10.1.1.5/32"), Key(HOST, "neigh", f"10.1.1.5 dev {LINK}")):
        world.vanish(want[key])
        missing = diff(seen(world, netns), want)
        assert [change.item.key for change in missing] == [key]
        world.dataplane.apply(missing)
        same(seen(world, netns), want)
    world.vanish(want[Key(HOST, "link", LINK)])
    same(seen(world, netns), {})
    world.dataplane.apply(diff({}, want))
    same(seen(world, netns), want)


def test_a_nexthop_takes_its_routes_along(world: World) -> None:
    """The difference afterwards is the routes, and they can be put back."""
    world.dataplane.apply(diff({}, NODE))
    nexthop = NODE[Key(HOST, "nexthop", str(0x40000001))]
    world.dataplane.apply([Change(nexthop, None)])
    missing = {change.item.key for change in diff(world.dataplane.observe([OnHost()]), NODE)}
    assert missing == {nexthop.key, Key(HOST, "route", "10.1.2.0/24")}
    world.dataplane.apply(diff(world.dataplane.observe([OnHost()]), NODE))
    same(world.dataplane.observe([OnHost()]), NODE)


def test_settings_are_read_and_written(world: World) -> None:
    """A sysctl takes its value and keeps it when it is wanted no more; the table is replaced and removed whole."""
    scope = Settings(("net/ipv4/ip_forward",), (("inet", "routable"),))
    nft = table((), None)
    want = plan(Sysctl(HOST, "net/ipv4/ip_forward", "1"), nft)
    world.dataplane.apply(diff(world.dataplane.observe([scope]), want))
    same(world.dataplane.observe([scope]), want)
    other = plan(Sysctl(HOST, "net/ipv4/ip_forward", "1"), type(nft)(nft.family, nft.name, "chain other { }"))
    world.dataplane.apply(diff(want, other))
    same(world.dataplane.observe([scope]), other)
    world.dataplane.apply(diff(other, {}))
    left = world.dataplane.observe([scope])
    assert list(left.values()) == [Sysctl(HOST, "net/ipv4/ip_forward", "1")]


def test_an_address_may_be_the_nodes_own_by_a_route_alone(world: World) -> None:
    """Beside the one that comes with an address on a link, whichever is first; and it goes alone, too."""
    want = plan(
        Route(HOST, "10.1.1.0/32", "lo", table=LOCAL, local=True),
        Route(HOST, "2001:db8:1::/128", "lo", table=LOCAL, local=True),
    )
    overlay = plan(
        Vxlan(VXLAN_LINK, 4096, 4789, "192.0.2.1", "02:52:c0:00:02:01", 1450), Addr(HOST, VXLAN_LINK, "10.1.1.0/32")
    )
    for first, second in ((want, overlay), (overlay, want)):
        world.dataplane.apply(diff({}, first))
        world.dataplane.apply(diff(first, {**first, **second}))
        same(world.dataplane.observe([OnHost()]), {**first, **second})
        world.dataplane.apply(diff({**first, **second}, overlay))
        same(world.dataplane.observe([OnHost()]), overlay)
        world.dataplane.apply(diff(overlay, {}))
