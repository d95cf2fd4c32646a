"""The real dataplane: reads what is ours from the kernel and applies changes to it.

Everything that can be said in one send is: an ADD is two sends on the host, so that no link comes up that would believe
what a pod says, and one in the pod's namespace. What a removed link takes along (its addresses, neighbours, routes, and
its other end) is not removed one by one. Any thread may call; a netlink socket is used by one thread at a time.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from secrets import randbits

from cni.errors import KernelRefused
from cni.spec import Identity
from dataplane import observe
from dataplane.batch import Batch
from dataplane.diff import Change
from dataplane.forward import Accept, Forward
from dataplane.items import HOST, Item, Key, Nexthop, NftTable, Place, Route, Sysctl, nexthop_key, plan
from dataplane.linking import Linking
from dataplane.links import Port, Veth, Vxlan
from dataplane.netlink import Socket
from dataplane.netns import Netns, Opened
from dataplane.nft import Nft
from dataplane.observe import Device, Filter, OnHost, Pod, Scope, Settings, Strangers
from dataplane.refusal import refused, translated
from dataplane.settings import PROC_SYS, is_fixed, put
from dataplane.sockets import Sockets


class Kernel:
    """`dataplane.seam.Dataplane` by rtnetlink, /proc/sys and nft. *connect* opens a socket in the calling thread's
    namespace; below *settings* the sysctls are; *random* answers a number of so many bits; *forward* speaks of
    iptables' chain."""

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
        self._nft = nft
        self._forward = forward or Forward()
        self._settings = settings
        self._sockets = Sockets(connect)
        # In a container nothing may be written there. Pods' links are as the host has new links then, and what a router
        # or a redirect would say is dropped by the table of nft's all the same.
        self._is_fixed = is_fixed(settings)
        self._linking = Linking(self._sockets, settings, random, is_fixed=self._is_fixed)

    def close(self) -> None:
        """Close the idle sockets."""
        self._sockets.close()

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
                with self._sockets.host() as sock:
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
                sock = self._sockets.connect()
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
            with self._sockets.host() as sock:
                return observe.host(sock)
        if isinstance(scope, Strangers):
            with self._sockets.host() as sock:
                return observe.strangers(sock)
        if isinstance(scope, Device):
            with self._sockets.host() as sock:
                return observe.device(sock, scope)
        with self._sockets.host() as sock, self._sockets.turn:
            return observe.pod_link(sock, scope)

    def _observe_pod(self, scope: Pod) -> list[Item]:
        try:
            descriptor = self._netns.open(scope.netns)
        except FileNotFoundError:
            return []
        with ExitStack() as parts:
            try:
                with self._netns.inside(descriptor):
                    sock = self._sockets.connect()
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
        opened = Opened(self._netns)
        try:
            if on_host:
                with translated("change the node's links, routes and rules"), self._sockets.host() as sock:
                    self._apply_on_host(Batch(sock, self._sockets.turn), on_host, ports, opened)
            for netns, inside in places.items():
                assert netns is not HOST
                with translated(f"change what is in {netns}"):
                    self._apply_in_pod(netns, inside, opened)
        finally:
            opened.close()

    def _apply_on_host(
        self, batch: Batch, changes: Sequence[Change], ports: Mapping[Key, Port], opened: Opened
    ) -> None:
        changes = self._founded(changes)
        gone = [change for change in changes if change.new is None]
        self._linking.create_veths(batch, [change for change in changes if _is_new_veth(change)], ports, opened)
        for change in changes:
            if change.new is not None and not _is_new_veth(change):
                self._apply_one(batch, change)
        for change in gone:
            if not _is_link(change.item):
                self._apply_one(batch, change)
        batch.send()
        links = [change.item.key.name for change in gone if _is_link(change.item)]
        if links:
            self._linking.delete(links)

    def _apply_one(self, batch: Batch, change: Change) -> None:
        _, new = change
        if isinstance(new, Vxlan):
            self._linking.put_vxlan(batch, change, new)
        elif isinstance(new, Veth):
            batch.add(change)
            self._linking.guard(change, new)
        elif isinstance(new, Route) and new.nhid:
            # The kernel goes on after a refusal, and a route would lead through whatever has the id that was refused.
            batch.send_first(Nexthop)
            batch.add(change)
        elif isinstance(change.item, Sysctl):
            batch.send()
            put(self._settings, change)
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
        with self._sockets.host() as sock:
            foreign = observe.foreign_nexthops(sock, asked)
        for number in foreign:
            if asked[number].new is not None:
                words = f"nexthop object {number} is another program's"
                raise refused(asked[number], errno.EEXIST, words)
        return [change for change in changes if not (change.new is None and _nexthop_relied_on(change) in foreign)]

    def _apply_in_pod(self, netns: str, changes: Sequence[Change], opened: Opened) -> None:
        try:
            descriptor = opened.open(netns)
        except KernelRefused:
            if all(change.new is None for change in changes):
                return  # it went, and everything in it
            raise
        with ExitStack() as parts:
            with self._netns.inside(descriptor):
                sock = self._sockets.connect()
                parts.callback(sock.close)
                for change in changes:
                    if isinstance(change.item, Sysctl):
                        put(self._settings, change)
            batch = Batch(sock, self._sockets.turn)
            for change in changes:
                if not isinstance(change.item, Sysctl):
                    batch.add(change)
            batch.send()

def _nexthop_relied_on(change: Change) -> int:
    """The id of the nexthop object that is taken to be there, and ours, by a change; 0 for most."""
    if isinstance(change.new, Route):
        return change.new.nhid
    return change.item.id if isinstance(change.item, Nexthop) and change.old is not None else 0


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
