"""The real dataplane: reads what is ours from the kernel and applies changes to it.

Everything that can be said in one send is: an ADD is two sends on the host, so that no link comes up that would believe
what a pod says, and one in the pod's namespace. What a removed link takes along (its addresses, neighbours, routes, and
its other end) is not removed one by one. Any thread may call; a netlink socket is used by one thread at a time.
"""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from secrets import randbits
from socket import if_nameindex
from typing import Final, Protocol

from cni.errors import KernelRefused
from cni.spec import Identity
from dataplane import ethtool, linkmsg, observe, ours
from dataplane.batch import Batch
from dataplane.diff import Change
from dataplane.forward import Accept, Forward
from dataplane.items import HOST, Item, Key, Nexthop, NftTable, Place, Route, Sysctl, nexthop_key, plan
from dataplane.links import Port, Veth, Vxlan
from dataplane.netlink import Socket
from dataplane.netns import Netns
from dataplane.nft import Nft
from dataplane.observe import Device, Filter, OnHost, Pod, Scope, Settings, Strangers
from dataplane.refusal import ALREADY_GONE, refused, translated
from dataplane.settings import PROC_SYS, is_fixed

_NOT_WRITABLE: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_FIRST: Final = 1 << 24
"""Where the interface indexes of our links begin."""


class Dataplane(Protocol):
    """The seam: the kernel in earnest, a model of it in tests."""

    def identity(self, netns: str) -> Identity | None:
        """Which network namespace is at the path *netns*; None: nothing is there.

        Raises:
            EnvironmentInvalid: what is there is no network namespace, or it is the node's.
        """

    def leads_to(self, link: str, netns: str) -> bool:
        """Whether the other end of the host's *link* is in the namespace at the path *netns*."""

    def defaults(self, netns: str, ifname: str) -> frozenset[int]:
        """The families (4, 6) in which the namespace at *netns* has a default route by another link than *ifname*."""

    def observe(self, scopes: Collection[Scope]) -> dict[Key, Item]:
        """What is ours and there, within *scopes*; a namespace that is gone holds nothing, and neither does a link.

        Raises:
            EnvironmentInvalid: where a pod's namespace should be is none.
            KernelRefused, TryAgain: one of them cannot be looked at, which says nothing of the others.
        """

    def apply(self, changes: Sequence[Change]) -> None:
        """Make the changes, in their order within each namespace, the host's first.

        Raises:
            KernelRefused: a change was refused, and the message says which; others, before and after it, may have
                been made, so the caller observes again before it decides anything.
            TryAgain: the kernel, or this process, was short of something for the moment.
        """


class Kernel:
    """`Dataplane` by rtnetlink, /proc/sys and nft. *connect* opens a socket in the calling thread's namespace; below
    *settings* the sysctls are; *random* answers a number of so many bits; *forward* speaks of iptables' chain."""

    def __init__(
        self,
        netns: Netns,
        nft: Nft,
        connect: Callable[[], Socket] = Socket,
        settings: Path = PROC_SYS,
        random: Callable[[int], int] = randbits,
        forward: Forward | None = None,
    ) -> None:
        self._netns = netns
        self._random = random
        self._nft = nft
        self._forward = forward or Forward()
        self._connect = connect
        self._settings = settings
        self._idle: deque[Socket] = deque()
        # The kernel makes one change of links and routes at a time (rtnl_mutex), and who waits for it there burns a
        # processor; here it sleeps.
        self._turn = threading.Lock()
        self._has_ipv6 = (settings / "net/ipv6").exists()  # not so after ipv6.disable=1 on the kernel's command line
        # In a container nothing may be written there. Pods' links are as the host has new links then, and what a router
        # or a redirect would say is dropped by the table of nft's all the same.
        self._is_fixed = is_fixed(settings)
        # Links get indexes of our choice, so that all of a pod's objects on the host can go out in one send. Nobody
        # else counts up here: the kernel's own choice starts at 1.
        with translated("list the links"):
            self._indexes = itertools.count(max(_FIRST, *(index + 1 for index, _ in if_nameindex())))

    def close(self) -> None:
        """Close the idle sockets."""
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _host(self) -> Iterator[Socket]:
        try:
            sock = self._idle.pop()
        except IndexError:
            sock = self._connect()
        try:
            yield sock
        except BaseException:
            sock.close()  # an answer may still be under way in it
            raise
        self._idle.append(sock)

    def identity(self, netns: str) -> Identity | None:
        """See `Dataplane.identity`."""
        with translated(f"look at {netns}"):
            try:
                descriptor = self._netns.open(netns)
            except FileNotFoundError:
                return None
            try:
                return self._netns.identity(descriptor)
            finally:
                os.close(descriptor)

    def leads_to(self, link: str, netns: str) -> bool:
        """See `Dataplane.leads_to`."""
        with translated(f"look where {link} leads to"):
            try:
                descriptor = self._netns.open(netns)
            except FileNotFoundError:
                return False
            try:
                with self._host() as sock:
                    return observe.leads_to(sock, link, descriptor)
            finally:
                os.close(descriptor)

    def defaults(self, netns: str, ifname: str) -> frozenset[int]:
        """See `Dataplane.defaults`."""
        with translated(f"look at the routes in {netns}"), ExitStack() as parts:
            try:
                descriptor = self._netns.open(netns)
            except FileNotFoundError:
                return frozenset()
            parts.callback(os.close, descriptor)
            with self._netns.inside(descriptor):
                sock = self._connect()
            parts.callback(sock.close)
            return observe.defaults(sock, ifname)

    # --- observing ------------------------------------------------------------------------------------------

    def observe(self, scopes: Collection[Scope]) -> dict[Key, Item]:
        """See `Dataplane.observe`."""
        found: list[Item] = []
        for scope in scopes:
            with translated(f"look at {scope}"):
                found += self._observe(scope)
        return plan(*(map(_as_guarded, found) if self._is_fixed else found))

    def _observe(self, scope: Scope) -> list[Item]:
        if isinstance(scope, Pod):
            return self._observe_pod(scope)
        if isinstance(scope, Settings):
            tables = (self._nft.read(family, name) for family, name in scope.tables)
            return [
                *observe.sysctls(self._settings, HOST, scope.sysctls),
                *(table for table in tables if table is not None),
            ]
        if isinstance(scope, Filter):
            return list(self._forward.look().accepts)
        if isinstance(scope, OnHost):
            with self._host() as sock:
                return observe.host(sock)
        if isinstance(scope, Strangers):
            with self._host() as sock:
                return observe.strangers(sock)
        if isinstance(scope, Device):
            with self._host() as sock:
                return observe.device(sock, scope)
        with self._host() as sock, self._turn:
            return observe.pod_link(sock, scope)

    def _observe_pod(self, scope: Pod) -> list[Item]:
        try:
            descriptor = self._netns.open(scope.netns)
        except FileNotFoundError:
            return []
        with ExitStack() as parts:
            try:
                with self._netns.inside(descriptor):
                    sock = self._connect()
                    parts.callback(sock.close)
                    values = observe.sysctls(self._settings, scope.netns, scope.sysctls)
            finally:
                os.close(descriptor)
            return [*observe.pod(sock, scope), *values]

    # --- applying -------------------------------------------------------------------------------------------

    def apply(self, changes: Sequence[Change]) -> None:
        """See `Dataplane.apply`."""
        places: dict[Place, list[Change]] = {HOST: []}
        ports: dict[Key, Port] = {}
        for change in _without_implied(changes):
            key = change.item.key
            places.setdefault(key.place, []).append(change)
            if isinstance(change.item, Port):
                ports[key] = change.item
        on_host = places.pop(HOST)
        doors = Doors(self._netns)
        try:
            if on_host:
                with translated("change the node's links, routes and rules"), self._host() as sock:
                    self._apply_on_host(Batch(sock, self._turn), on_host, ports, doors)
            for netns, inside in places.items():
                assert netns is not HOST
                with translated(f"change what is in {netns}"):
                    self._apply_in_pod(netns, inside, doors)
        finally:
            doors.close()

    def _apply_on_host(
        self, batch: Batch, changes: Sequence[Change], ports: Mapping[Key, Port], doors: Doors
    ) -> None:
        changes = self._founded(changes)
        gone = [change for change in changes if change.new is None]
        self._create_veths(batch, [change for change in changes if _is_new_veth(change)], ports, doors)
        for change in changes:
            if change.new is not None and not _is_new_veth(change):
                self._apply_one(batch, change)
        for change in gone:
            if not _is_link(change.item):
                self._apply_one(batch, change)
        batch.send()
        links = [change.item.key.name for change in gone if _is_link(change.item)]
        if links:
            self._delete_links(links)

    def _apply_one(self, batch: Batch, change: Change) -> None:
        _, new = change
        if isinstance(new, Vxlan):
            self._put_vxlan(batch, change, new)
        elif isinstance(new, Veth):
            batch.add(change)
            self._guard(change, new)
        elif isinstance(new, Route) and new.nhid:
            # The kernel goes on after a refusal, and a route would lead through whatever has the id that was refused.
            batch.send_first(Nexthop)
            batch.add(change)
        elif isinstance(change.item, Sysctl):
            batch.send()
            self._write_sysctl(change)
        elif isinstance(change.item, NftTable):
            batch.send()
            (self._nft.write if new is not None else self._nft.delete)(change.item)
        elif isinstance(change.item, Accept):
            batch.send()
            (self._forward.put if new is not None else self._forward.drop)(change.item)
        else:
            batch.add(change)

    def _founded(self, changes: Sequence[Change]) -> Sequence[Change]:
        """The changes less removals of nexthop objects that are not ours any more: the kernel knows them by id alone.

        KernelRefused: one is to be replaced, or a route is to lead through one, that is another program's.
        """
        made = {change.item.key for change in changes if isinstance(change.new, Nexthop) and change.old is None}
        asked: dict[int, Change] = {}
        for change in changes:
            number = _nexthop_relied_on(change)
            if number and nexthop_key(number) not in made:
                asked.setdefault(number, change)
        if not asked:
            return changes
        with self._host() as sock:
            foreign = observe.foreign_nexthops(sock, asked)
        for number in foreign:
            if asked[number].new is not None:
                words = f"nexthop object {number} is another program's"
                raise refused(asked[number], errno.EEXIST, words)
        return [change for change in changes if not (change.new is None and _nexthop_relied_on(change) in foreign)]

    def _create_veths(
        self, batch: Batch, changes: Sequence[Change], ports: Mapping[Key, Port], doors: Doors
    ) -> None:
        """All of them in one send; what brings them up waits for the next, when they are guarded."""
        made: list[tuple[Change, Veth, int]] = []
        for change in changes:
            assert isinstance(change.new, Veth)
            veth, index = change.new, next(self._indexes)
            port = ports.get(Key(veth.peer_netns, "link", veth.peer_name))
            netns, mtu = doors.open(veth.peer_netns), port.mtu if port else veth.mtu
            batch.say(change, linkmsg.create_veth(veth, index, netns, mtu))
            made.append((change, veth, index))
        batch.send()
        for change, veth, index in made:
            self._guard(change, veth)
            batch.know(veth.name, index)
            batch.say(change, linkmsg.finish_link(veth, index, self._has_ipv6))

    def _guard(self, change: Change, link: Veth | Vxlan) -> None:
        """The half of `Veth.is_guarded` that is IPv6's, and whether there is any on the link: files alone say it."""
        if not self._has_ipv6 or link.mtu < linkmsg.IPV6_MTU_MIN or self._is_fixed:
            return
        conf = f"{self._settings}/net/ipv6/conf/{link.name}"
        try:
            for name in linkmsg.GUARD6:
                _write(f"{conf}/{name}", b"0")
            off = b"1" if isinstance(link, Veth) and link.is_ipv6_off else b"0"
            if isinstance(link, Veth) and _read(f"{conf}/disable_ipv6") != off:
                with self._turn:  # for that one the kernel spins until it has rtnl_mutex
                    _write(f"{conf}/disable_ipv6", off)
        except FileNotFoundError:
            return  # the link has gone, as the next message will tell, or it has been smaller so far
        except OSError as error:
            raise refused(change, error.errno or errno.EIO, "its IPv6 settings") from error

    def _put_vxlan(self, batch: Batch, change: Change, vxlan: Vxlan) -> None:
        old = change.old
        if isinstance(old, Vxlan) and (old.vni, old.port, old.local) == (vxlan.vni, vxlan.port, vxlan.local):
            self._guard(change, vxlan)
            batch.add(change)
        else:  # the kernel cannot change these on a living device
            if old is not None:
                self._delete_links([vxlan.name])
            index = next(self._indexes)
            batch.say(change, linkmsg.create_vxlan(vxlan, index))
            batch.send()
            self._guard(change, vxlan)
            batch.say(change, linkmsg.finish_link(vxlan, index, self._has_ipv6))
        batch.send()
        try:
            with self._host() as sock:
                ethtool.set_tx_checksum(sock, vxlan.name, vxlan.tx_checksum)
        except OSError as error:
            raise refused(change, error.errno or errno.EIO, "its checksum offload") from error

    def _apply_in_pod(self, netns: str, changes: Sequence[Change], doors: Doors) -> None:
        try:
            descriptor = doors.open(netns)
        except KernelRefused:
            if all(change.new is None for change in changes):
                return  # it went, and everything in it
            raise
        with ExitStack() as parts:
            with self._netns.inside(descriptor):
                sock = self._connect()
                parts.callback(sock.close)
                for change in changes:
                    if isinstance(change.item, Sysctl):
                        self._write_sysctl(change)
            batch = Batch(sock, self._turn)
            for change in changes:
                if not isinstance(change.item, Sysctl):
                    batch.add(change)
            batch.send()

    def _delete_links(self, names: Sequence[str]) -> None:
        """Delete links, with one wait for all of them; what is gone already, or not ours, is left out.

        By their indexes, of which no two links of a namespace have the same one after the other: a link that takes the
        name meanwhile is another. All at once by a link group that nobody else can know.
        """
        with self._host() as sock:
            found = observe.links(sock, names)
            indexes = [link.ifindex for link in found if link is not None and observe.is_ours(link)]
            messages = [linkmsg.delete_link(indexes[0])] if len(indexes) == 1 else []
            if len(indexes) > 1:
                group = ours.DYING | self._random(ours.DYING_BITS)
                messages = [*(linkmsg.set_group(index, group) for index in indexes), linkmsg.delete_group(group)]
            for refusal in sock.transact(messages):
                if refusal.errno not in ALREADY_GONE:
                    why = f"{os.strerror(refusal.errno)} {refusal.words}"
                    raise KernelRefused(f"the kernel refused to delete {' '.join(names)}", why, refusal.errno)


    def _write_sysctl(self, change: Change) -> None:
        """Set a value; one that is not wanted any more keeps what it has: others may rely on it by now. Where nothing
        can be written, the right value is right."""
        if not isinstance(change.new, Sysctl):
            return
        file = self._settings / change.new.path
        try:
            file.write_text(change.new.value)
        except OSError as error:
            with suppress(OSError):
                if file.read_text().strip() == change.new.value:
                    return
            raise refused(change, error.errno or errno.EIO) from error


class Doors:
    """Descriptors of the pods' namespaces that one `Kernel.apply` is about, each opened once."""

    def __init__(self, netns: Netns) -> None:
        self._netns = netns
        self._open: dict[str, int] = {}

    def open(self, netns: str) -> int:
        """KernelRefused: the namespace is gone."""
        descriptor = self._open.get(netns)
        if descriptor is None:
            try:
                descriptor = self._open[netns] = self._netns.open(netns)
            except FileNotFoundError as error:
                message = f"the pod's network namespace is gone: {netns}"
                raise KernelRefused(message, "the runtime removed it during the request", errno.ENOENT) from error
        return descriptor

    def close(self) -> None:
        """Close them all."""
        for descriptor in self._open.values():
            os.close(descriptor)


def _nexthop_relied_on(change: Change) -> int:
    """The id of the nexthop object that is taken to be there, and ours, by a change; 0 for most."""
    if isinstance(change.new, Route):
        return change.new.nhid
    return change.item.id if isinstance(change.item, Nexthop) and change.old is not None else 0


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 32).strip()
    finally:
        os.close(descriptor)


def _write(path: str, value: bytes) -> None:
    """Have *value* in the file, which may be read-only where it has that already. An ADD waits for this: `pathlib`
    takes twice as long."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NOT_WRITABLE and _read(path) == value:
            return
        raise
    try:
        os.write(descriptor, value)
    finally:
        os.close(descriptor)


def _is_new_veth(change: Change) -> bool:
    return isinstance(change.new, Veth) and change.old is None


def _as_guarded(item: Item) -> Item:
    return replace(item, is_guarded=True) if isinstance(item, Veth | Vxlan) else item


def _is_link(item: Item) -> bool:
    return isinstance(item, Veth | Vxlan)


def _without_implied(changes: Sequence[Change]) -> list[Change]:
    """The changes less the removals that the removal of a link brings about by itself, at both of its ends."""
    lost = {change.item.key.name for change in changes if change.new is None and _is_link(change.item)}
    if not lost:
        return list(changes)
    ends = {(veth.peer_netns, veth.peer_name) for veth, new in changes if isinstance(veth, Veth) and new is None}

    def is_implied(change: Change) -> bool:
        item = change.item
        if change.new is not None or not item.link:
            return False
        return item.link in lost if item.key.place == HOST else (item.key.place, item.link) in ends

    return [change for change in changes if not is_implied(change)]
