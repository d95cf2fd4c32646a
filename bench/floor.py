"""The kernel's floor: one process with prepared netlink messages makes the same links, addresses and routes."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from socket import if_nametoindex

from netaddr import IPAddress, IPNetwork

from backends import podlink
from backends.site import Options, Site
from cluster.peers import Peer
from cni.spec import Attachment, Identity
from dataplane import linkmsg, routemsg
from dataplane.items import HOST, Item
from dataplane.links import Port, Veth
from dataplane.netlink import Socket
from dataplane.netns import Netns
from dataplane.uplink import Uplink
from demo.place import Place
from ipam.lease import Block, Lease, Leased
from ipam.moment import Moment
from ipam.store import Record

_INDEXES = itertools.count(1 << 25)
_SITE = Site(Peer("floor", (), ()), Uplink("lo", 1500, ()), Options())


def pods(places: Sequence[Place]) -> list[list[Item]]:
    """The plans of one IPv4 pod per place."""
    block = Block(IPNetwork("10.98.0.0/16"), "bench")
    found = []
    for number, place in enumerate(places):
        address = IPAddress(int(block.network.first) + 1 + number)
        who = Attachment("floor", place.name, "eth0")
        lease = Lease(who, (Leased(address, block),))
        space = Identity(4, 4026532000, 7)  # nobody looks: what is measured here goes to the kernel by itself
        record = Record(lease, str(place.path), podlink.pod_mac([address]), 1500, "", Moment(0.0, 0.0), space)
        found.append(list(podlink.pod(record, 1500, _SITE).values()))
    return found


def add(sock: Socket, netns: Netns, items: Sequence[Item]) -> float:
    """Make one pod's objects; the answer is the seconds that it took, encoding not counted."""
    (veth,) = (item for item in items if isinstance(item, Veth))
    (port,) = (item for item in items if isinstance(item, Port))
    descriptor = os.open(veth.peer_netns, os.O_RDONLY | os.O_CLOEXEC)
    index = next(_INDEXES)
    outside = [linkmsg.create_veth(veth, index, descriptor, port.mtu), linkmsg.finish_link(veth, index)]
    outside += [routemsg.put(item, index, False) for item in _rest(items, HOST)]
    inside = [linkmsg.set_link(port, None)]
    started = time.perf_counter()
    sock.transact(outside)
    with netns.inside(descriptor):
        inner = Socket()
        index = if_nametoindex(port.name)
    took = time.perf_counter() - started
    inside += [routemsg.put(item, index, False) for item in _rest(items, port.place)]
    started = time.perf_counter()
    inner.transact(inside)
    took += time.perf_counter() - started
    inner.close()
    os.close(descriptor)
    return took


def delete(sock: Socket, names: Sequence[str]) -> float:
    """Delete links together; the answer is the seconds."""
    indexes = [if_nametoindex(name) for name in names]
    messages = [*(linkmsg.set_group(index, 77) for index in indexes), linkmsg.delete_group(77)]
    if len(indexes) == 1:
        messages = [linkmsg.delete_link(indexes[0])]
    started = time.perf_counter()
    sock.transact(messages)
    return time.perf_counter() - started


def _rest(items: Sequence[Item], place: object) -> list[Item]:
    return [item for item in items if item.key.place == place and not isinstance(item, Veth | Port)]


def cpu(pid: int) -> float:
    """CPU seconds of all threads of a process so far, by the scheduler's own count (nanoseconds)."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except FileNotFoundError:
            continue
    return total / 1e9


def resident(pid: int) -> float:
    """Megabytes of memory that are the process's (VmRSS)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0
