"""The dataplane's seam in memory: what `dataplane.kernel.Kernel` does, as far as its callers can see.

Contract tests hold both to the same behaviour. Faults come at the n-th single change: before it takes effect or after.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from cni.errors import EnvironmentInvalid, KernelRefused
from cni.spec import Identity
from dataplane.diff import Change
from dataplane.forward import Accept
from dataplane.items import HOST, MAIN, Addr, Item, Key, Neigh, Nexthop, Place, Route, Rule, Space, Sysctl
from dataplane.links import VXLAN_LINK, Port, Veth, Vxlan
from dataplane.observe import Device, Filter, Pod, PodLink, Scope, Settings, Strangers
from dataplane.ours import has_our_name, has_pod_link_name, is_device, is_pod_link
from dataplane.refusal import refused

SYSCTLS = {
    "net/ipv4/ip_forward": "0",
    "net/ipv6/conf/all/forwarding": "0",
}


class Killed(BaseException):
    """The process dies here: nobody may catch it."""


class FakeKernel:
    """Namespaces and what is in them; paths below /proc name the agent's own."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._state: dict[Key, Item] = {}
        self._foreign: set[Key] = set()
        self._peer: dict[str, tuple[str, str]] = {}
        self._netns: dict[str, int] = {}
        self._made = 0
        self.has_cookies = True
        self.inode = 4_026_532_000
        """Of every namespace: the kernel gives it to another as soon as one is gone."""
        self._sysctls = dict(SYSCTLS)
        self.calls = 0
        """Single changes that were asked for so far."""
        self._fault: tuple[int, BaseException, bool] | None = None
        self._refusal: tuple[int, Exception] | None = None
        self.between: Callable[[], None] = lambda: None
        """Called before every single change: what else happens in the world meanwhile."""

    # --- the world's side -------------------------------------------------------------------------------------

    def add_netns(self, path: str) -> None:
        """A namespace appears."""
        with self._lock:
            self._made += 1
            self._netns[path] = self._made

    def remove_netns(self, path: str) -> None:
        """It vanishes, with all that is in it and the other ends of its links."""
        with self._lock:
            del self._netns[path]
            for name in [name for name, (netns, _) in self._peer.items() if netns == path]:
                self._drop_link(name)
            for key in [key for key in self._state if key.place == path]:
                del self._state[key]

    def add_foreign(self, item: Item) -> None:
        """Something that is not ours, which we must see the effects of and never touch."""
        with self._lock:
            self._state[item.key] = item
            self._foreign.add(item.key)

    def remove_foreign(self, key: Key) -> None:
        """It is there no more."""
        with self._lock:
            self._foreign.discard(key)
            del self._state[key]

    def drift(self, key: Key, item: Item | None) -> None:
        """Somebody changes or removes one of our objects."""
        with self._lock:
            if item is not None:
                self._state[key] = item
            elif isinstance(self._state[key], Veth | Vxlan):
                self._drop_link(key.name)
            else:
                self._state.pop(key)

    def ours(self) -> dict[Key, Item]:
        """Everything of ours, everywhere, less what belongs to no single owner."""
        with self._lock:
            return {
                key: item
                for key, item in self._state.items()
                if key not in self._foreign and not isinstance(item, Sysctl)
            }

    def foreign(self) -> dict[Key, Item]:
        """What is not ours."""
        with self._lock:
            return {key: self._state[key] for key in self._foreign if key in self._state}

    def fail_at(self, number: int, error: BaseException, *, after: bool = False) -> None:
        """The *number*-th change from now fails with *error*, before or after it took effect."""
        with self._lock:
            self._fault = (self.calls + number, error, after)

    def forgive(self) -> None:
        """What was to fail does not, unless it has."""
        with self._lock:
            self._fault = self._refusal = None

    def refuse_at(self, number: int, error: Exception) -> None:
        """The *number*-th call from now fails with *error*: a look at one place or path, or a change."""
        with self._lock:
            self._refusal = number, error

    @property
    def consumed(self) -> bool:
        """Whether the fault has happened."""
        return self._fault is None and self._refusal is None

    def _called(self) -> None:
        if self._refusal is not None:
            number, error = self._refusal
            self._refusal = (number - 1, error) if number > 1 else None
            if number <= 1:
                raise error

    # --- the seam ---------------------------------------------------------------------------------------------

    def identity(self, netns: str) -> Identity | None:
        """See `dataplane.seam.Dataplane.identity`."""
        if netns.startswith("/proc/"):
            raise EnvironmentInvalid(f"CNI_NETNS is the node's own network namespace: {netns!r}")
        with self._lock:
            self._called()
            number = self._netns.get(netns)
        return None if number is None else Identity(0, self.inode, number if self.has_cookies else 0)

    def leads_to(self, link: str, netns: str) -> bool:
        """See `dataplane.seam.Dataplane.leads_to`."""
        with self._lock:
            return netns in self._netns and self._peer.get(link, ("", ""))[0] == netns

    def defaults(self, netns: str, ifname: str) -> frozenset[int]:
        """See `dataplane.seam.Dataplane.defaults`."""
        with self._lock:
            self._called()
            return frozenset(
                6 if ":" in item.dst else 4
                for item in self._state.values()
                if isinstance(item, Route) and item.place == netns and item.dst.endswith("/0") and item.table == MAIN
                if item.dev != ifname
            )

    def _is_there(self, place: str) -> bool:
        number = self._netns.get(place)
        return number is not None and (not isinstance(place, Space) or place.identity.cookie in (0, number))

    def observe(self, scopes: Collection[Scope]) -> dict[Key, Item]:
        """See `dataplane.seam.Dataplane.observe`."""
        with self._lock:
            found = [item for scope in scopes for item in self._looked(scope)]
        return {item.key: _plain(item) for item in found}

    def apply(self, changes: Sequence[Change]) -> None:
        """See `dataplane.seam.Dataplane.apply`."""
        host = [change for change in changes if change.item.key.place == HOST]
        pods = [change for change in changes if change.item.key.place != HOST]
        gone = [change for change in host if change.new is None]
        for change in [*(change for change in host if change.new is not None), *gone, *pods]:
            self.between()
            with self._lock:
                self._called()
                self._one(change)

    # --- how it behaves ---------------------------------------------------------------------------------------

    def _one(self, change: Change) -> None:
        self.calls += 1
        fault = self._fault if self._fault is not None and self._fault[0] == self.calls else None
        if fault is not None:
            self._fault = None
            if not fault[2]:
                raise fault[1]
        if change.new is None:
            self._remove(change.item)
        else:
            self._put(change, change.new)
        if fault is not None:
            raise fault[1]

    def _put(self, change: Change, item: Item) -> None:
        key, place = item.key, item.key.place
        if place is not HOST and not self._is_there(place):
            raise KernelRefused(f"the pod's network namespace is gone: {place}", "", errno.ENOENT)
        if isinstance(item, Veth) and change.old is None:
            self._create(change, item)
            return
        if isinstance(item, Port):
            if key not in self._state:
                raise refused(change, errno.ENODEV)
            self._state[key] = item
            return
        if item.link and Key(place, "link", item.link) not in self._state and has_our_name(item.link):
            raise refused(change, errno.ENOENT if isinstance(item, Sysctl) else errno.ENODEV)
        if isinstance(item, Sysctl):
            self._sysctls[item.path] = item.value
        if isinstance(item, Route) and item.nhid and Key(HOST, "nexthop", str(item.nhid)) not in self._state:
            raise refused(change, errno.EINVAL)
        if isinstance(item, Route) and item.nhid and Key(HOST, "nexthop", str(item.nhid)) in self._foreign:
            raise refused(change, errno.EEXIST)
        if isinstance(item, Nexthop) and key in self._foreign:
            raise refused(change, errno.EEXIST)
        if change.old is None and key in self._state and not isinstance(item, Neigh | Sysctl | Rule):
            raise refused(change, errno.EEXIST)
        self._state[key] = item

    def _create(self, change: Change, veth: Veth) -> None:
        if not self._is_there(veth.peer_netns):
            raise KernelRefused(f"the pod's network namespace is gone: {veth.peer_netns}", "", errno.ENOENT)
        port = Key(veth.peer_netns, "link", veth.peer_name)
        if veth.key in self._state or port in self._state:
            raise refused(change, errno.EEXIST)
        self._state[veth.key] = veth
        self._state[port] = Port(veth.peer_netns, veth.peer_name, veth.mtu, veth.peer_mac, up=False)
        self._peer[veth.name] = veth.peer_netns, veth.peer_name

    def _remove(self, item: Item) -> None:
        if isinstance(item, Veth | Vxlan):
            there = self._state.get(item.key)
            if isinstance(there, Veth | Vxlan) and _is_ours(there):
                self._drop_link(item.name)
            return
        if item.key in self._foreign or isinstance(item, Port | Sysctl):
            return
        self._state.pop(item.key, None)
        if isinstance(item, Nexthop):
            self._drop_routes_by(item.id)

    def _drop_link(self, name: str) -> None:
        """A link goes with its other end, and with all that hangs on either."""
        ends: list[tuple[Place, str]] = [(HOST, name)]
        if name in self._peer:
            ends.append(self._peer.pop(name))
        self._sysctls = {path: value for path, value in self._sysctls.items() if Sysctl(HOST, path, "").link != name}
        for place, link in ends:
            self._state.pop(Key(place, "link", link), None)
            for key in [key for key, item in self._state.items() if key.place == place and item.link == link]:
                item = self._state.pop(key)
                if isinstance(item, Nexthop):
                    self._drop_routes_by(item.id)

    def _drop_routes_by(self, nexthop: int) -> None:
        for key in [key for key, item in self._state.items() if isinstance(item, Route) and item.nhid == nexthop]:
            del self._state[key]

    def _looked(self, scope: Scope) -> Iterable[Item]:
        self._called()
        return self._seen(scope)

    def _seen(self, scope: Scope) -> Iterable[Item]:
        if isinstance(scope, Settings):
            yield from (Sysctl(HOST, path, self._sysctls[path]) for path in scope.sysctls if path in self._sysctls)
            names = {Key(HOST, "nft", f"{family} {name}") for family, name in scope.tables}
            yield from (item for key, item in self._state.items() if key in names)
            return
        if isinstance(scope, Filter):
            yield from (item for item in self._state.values() if isinstance(item, Accept))
            return
        if isinstance(scope, Device):
            keys = {Key(HOST, "link", scope.name), *(Addr(HOST, scope.name, one).key for one in scope.addresses)}
            yield from (item for key, item in self._state.items() if key in keys)
            return
        if isinstance(scope, Strangers):
            yield from (_port(item) for item in self._state.values() if _is_stranger(item))
            return
        if isinstance(scope, Pod) and not self._is_there(scope.netns):
            return
        for key, item in self._state.items():
            if key in self._foreign and key.kind != "link":
                continue
            if _in_scope(scope, key, item):
                yield item


def _in_scope(scope: Scope, key: Key, item: Item) -> bool:
    if isinstance(scope, Pod):
        is_on_link = scope.ifname in (item.link, key.name)
        if key.place != scope.netns or not (is_on_link or isinstance(item, Rule)):
            return False
        if isinstance(item, Neigh):
            return item.address in scope.neighbours
        if isinstance(item, Rule):
            return scope.has_rules
        wanted = key.kind != "sysctl" or key.name in scope.sysctls
        return wanted and (key.kind == "link" or not scope.is_link_alone)
    if key.place != HOST or key.kind in ("sysctl", "nft"):
        return False
    if isinstance(item, Port) or (isinstance(item, Addr) and item.dev != VXLAN_LINK):
        return False  # of an interface that is not ours
    if isinstance(item, Veth | Vxlan) and not _is_ours(item):
        return False
    if isinstance(scope, PodLink):
        return item.link == scope.name or (key.kind == "link" and key.name == scope.name)
    return True


def _is_ours(item: Veth | Vxlan) -> bool:
    if isinstance(item, Veth):
        return is_pod_link(item.name, "veth", item.alias, item.group)
    return is_device(item.name, "vxlan", item.alias, item.mac)


def _is_stranger(item: Item) -> bool:
    return (
        isinstance(item, Veth | Vxlan | Port)
        and item.key.place == HOST
        and has_pod_link_name(item.name)
        and not (isinstance(item, Veth) and _is_ours(item))
    )


def _port(item: Item) -> Port:
    assert isinstance(item, Veth | Vxlan | Port)
    return Port(HOST, item.name, item.mtu, item.mac, item.up)


def _plain(item: Item) -> Item:
    """As it can be read back."""
    return replace(item, peer_netns="", peer_name="", peer_mac="") if isinstance(item, Veth) else item
