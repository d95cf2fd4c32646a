"""The kernel's objects as values.

An item says what an object of ours looks like: its ``key`` is its identity in the kernel, its equality the whole
content. Addresses are text here, in the kernel's own canonical spelling, since items live at the edge: they are
compared with dumps of ten thousand objects, and text compares and hashes fast.

Whatever carries our mark is ours, and nothing else is: see `dataplane.ours`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal, NamedTuple, Protocol, TypeAlias

from cni.spec import Identity


class Here(enum.Enum):
    """Its one value is no path, so that no pod's namespace, known or not, can be taken for the node's."""

    HOST = "host"


HOST: Final = Here.HOST
"""The place of everything in the agent's own network namespace."""


class Space(str):
    """The path of a pod's network namespace, and which one is meant by it: what is at the path later may be another,
    and is not touched then. It equals the path, by which people, too, know it."""

    __slots__ = ("identity",)
    identity: Identity

    def __new__(cls, path: str, identity: Identity) -> Space:
        """The namespace *identity* at *path*."""
        space = super().__new__(cls, path)
        space.identity = identity
        return space


Place: TypeAlias = Literal[Here.HOST] | str
"""Where an object is: on the host, or in the namespace at a path."""

POD_LINK_PREFIX: Final = "rt"
"""First letters of the host link of every pod; 11 hexadecimal digits follow."""

POD_GROUP: Final = 82
"""The link group of the host link of every pod, so that one rule can tell the routes to pods from all others."""

PROTOCOL: Final = 82
"""``rtm_protocol``, ``nh_protocol`` and ``FRA_PROTOCOL`` of every route, nexthop and rule of ours ('R'; see
/etc/iproute2/rt_protos)."""

MAIN: Final = 254
"""The number of the main routing table (RT_TABLE_MAIN)."""

VXLAN_LINK: Final = "routable-vxlan"
"""The name of the VXLAN device."""

VXLAN_ALIAS: Final = "routable overlay"
"""What the VXLAN device says of itself."""


class Key(NamedTuple):
    """Identity of an object in the kernel: where it lives, what it is, and its name there."""

    place: Place
    kind: str
    name: str


class Item(Protocol):
    """What every kernel object has; *rank* is the order of creation, removal goes the other way."""

    @property
    def rank(self) -> int: ...

    @property
    def key(self) -> Key: ...

    @property
    def link(self) -> str:
        """The link (in the item's own place) without which it cannot exist, or ''."""


Plan: TypeAlias = Mapping[Key, Item]
"""A set of items by their identity: the whole state of some scope."""


@dataclass(frozen=True, slots=True)
class Veth:
    """The host's end of a pod's link; creating it creates the pod's end in the pod's namespace.

    *alias* carries the attachment, so that leases can be rebuilt from the kernel alone. It *is_guarded* if no router
    advertisement or redirect of the pod's is believed, and what the pod sends is routed. *is_ipv6_off*: IPv6 is
    switched off on it; never so where it could have none. *is_enslaved*: it is a port of somebody's bridge or the like,
    so that what comes in by it is not routed. The ``peer_*`` fields are needed for creating only and cannot be read
    back from this end: they take no part in equality.
    """

    rank: ClassVar[int] = 0
    name: str
    alias: str
    mtu: int
    mac: str
    up: bool = True
    peer_netns: str = field(default="", compare=False)
    peer_name: str = field(default="", compare=False)
    peer_mac: str = field(default="", compare=False)
    group: int = POD_GROUP
    is_guarded: bool = True
    is_ipv6_off: bool = False
    is_enslaved: bool = False

    @property
    def key(self) -> Key:
        return Key(HOST, "link", self.name)

    @property
    def link(self) -> str:
        return ""

    def __str__(self) -> str:
        words = [f"link {self.name} veth mtu {self.mtu} address {self.mac} {_state(self.up)}"]
        words += [f"group {self.group}"] if self.group != POD_GROUP else []
        words += _guard(self.is_guarded) + (["without IPv6"] if self.is_ipv6_off else [])
        words += ["as a port of another link"] if self.is_enslaved else []
        return " ".join([*words, f"alias '{self.alias}'"])


@dataclass(frozen=True, slots=True)
class Vxlan:
    """The VXLAN device (RFC 7348) of this node: no flooding, no learning; *local* is the VTEP's address.

    *tx_checksum* off avoids stalls of NAT with offload on kernels before 5.7. *is_guarded* as of a `Veth`.
    """

    rank: ClassVar[int] = 0
    name: str
    vni: int
    port: int
    local: str
    mac: str
    mtu: int
    tx_checksum: bool = True
    up: bool = True
    alias: str = VXLAN_ALIAS
    is_guarded: bool = True

    @property
    def key(self) -> Key:
        return Key(HOST, "link", self.name)

    @property
    def link(self) -> str:
        return ""

    def __str__(self) -> str:
        return (
            f"link {self.name} vxlan id {self.vni} local {self.local} dstport {self.port} mtu {self.mtu} "
            f"address {self.mac} {_state(self.up)} tx-checksum {'on' if self.tx_checksum else 'off'}"
            + "".join(f" {word}" for word in _guard(self.is_guarded))
            + (f" alias '{self.alias}'" if self.alias != VXLAN_ALIAS else "")
        )


@dataclass(frozen=True, slots=True)
class Port:
    """A link that is there, as it should be: the pod's end of its link, which appears with its `Veth` and goes with it;
    on the host an interface that the machine was given, which is never removed."""

    rank: ClassVar[int] = 1
    place: Place
    name: str
    mtu: int
    mac: str
    up: bool = True

    @property
    def key(self) -> Key:
        return Key(self.place, "link", self.name)

    @property
    def link(self) -> str:
        return self.name

    def __str__(self) -> str:
        return f"{_in(self.place)}link {self.name} mtu {self.mtu} address {self.mac} {_state(self.up)}"


class Sysctl(NamedTuple):
    """A value under /proc/sys of a namespace; *path* uses slashes, since interface names may contain dots."""

    place: Place
    path: str
    value: str

    @property
    def rank(self) -> int:
        return 2

    @property
    def key(self) -> Key:
        return Key(self.place, "sysctl", self.path)

    @property
    def link(self) -> str:
        """The link of ``net/ipv4/conf/LINK/…``, with which the value goes."""
        words = self.path.split("/")
        return words[3] if words[2:3] == ["conf"] and words[3] not in ("all", "default") else ""

    def __str__(self) -> str:
        return f"{_in(self.place)}sysctl {self.path} = {self.value}"


class Addr(NamedTuple):
    """An address with its prefix length, as ``10.1.2.3/32``; IPv6 without duplicate address detection."""

    place: Place
    dev: str
    address: str

    @property
    def rank(self) -> int:
        return 3

    @property
    def key(self) -> Key:
        return Key(self.place, "addr", f"{self.address} dev {self.dev}")

    @property
    def link(self) -> str:
        return self.dev

    def __str__(self) -> str:
        return f"{_in(self.place)}addr {self.address} dev {self.dev}"


class Neigh(NamedTuple):
    """A permanent neighbour entry."""

    place: Place
    dev: str
    address: str
    mac: str

    @property
    def rank(self) -> int:
        return 4

    @property
    def key(self) -> Key:
        return Key(self.place, "neigh", f"{self.address} dev {self.dev}")

    @property
    def link(self) -> str:
        return self.dev

    def __str__(self) -> str:
        return f"{_in(self.place)}neigh {self.address} dev {self.dev} lladdr {self.mac} nud permanent"


class Fdb(NamedTuple):
    """A permanent entry of the VXLAN device's forwarding database: frames for *mac* go to VTEP *dst*."""

    dev: str
    mac: str
    dst: str

    @property
    def rank(self) -> int:
        return 4

    @property
    def key(self) -> Key:
        return Key(HOST, "fdb", f"{self.mac} dev {self.dev}")

    @property
    def link(self) -> str:
        return self.dev

    def __str__(self) -> str:
        return f"fdb {self.mac} dev {self.dev} dst {self.dst}"


class Nexthop(NamedTuple):
    """A nexthop object (Linux 5.3): one per peer and family, so that one message moves all of a peer's routes."""

    id: int
    via: str
    dev: str
    onlink: bool = False

    @property
    def rank(self) -> int:
        return 5

    @property
    def key(self) -> Key:
        return Key(HOST, "nexthop", str(self.id))

    @property
    def link(self) -> str:
        return self.dev

    def __str__(self) -> str:
        return f"nexthop id {self.id} via {self.via} dev {self.dev}{' onlink' if self.onlink else ''}"


class Route(NamedTuple):
    """A route in *table*: by nexthop object, through a gateway, on a link, or ``unreachable``.

    *mtu* (bytes) is the way's where it is less than the link's, else 0; *src* the source of what the host itself sends,
    where that is not the kernel's choice.
    """

    place: Place
    dst: str
    dev: str = ""
    via: str = ""
    nhid: int = 0
    onlink: bool = False
    unreachable: bool = False
    mtu: int = 0
    table: int = MAIN
    src: str = ""

    @property
    def rank(self) -> int:
        return 6

    @property
    def key(self) -> Key:
        return Key(self.place, "route", self.dst if self.table == MAIN else f"{self.dst} table {self.table}")

    @property
    def link(self) -> str:
        return self.dev

    def __str__(self) -> str:
        words = [_in(self.place) + "route"]
        words += ["unreachable"] if self.unreachable else []
        words += [self.dst]
        words += ["nhid", str(self.nhid)] if self.nhid else []
        words += ["via", self.via] if self.via else []
        words += ["dev", self.dev] if self.dev else []
        words += ["onlink"] if self.onlink else []
        words += ["src", self.src] if self.src else []
        words += ["mtu", str(self.mtu)] if self.mtu else []
        words += ["table", str(self.table)] if self.table != MAIN else []
        return " ".join(words)


class Rule(NamedTuple):
    """A rule: a packet of the family, from *src*, to *dst* and with *mark* under *mask*, where these are
    given, is looked up in *table*; a route found there by a link of the group *suppress* counts as none.

    It is its whole content, so a change is another rule beside the old one, and then the old one's end.
    """

    family: int
    priority: int
    table: int
    src: str = ""
    dst: str = ""
    mark: int = 0
    mask: int = 0
    suppress: int | None = None
    place: Place = HOST

    @property
    def rank(self) -> int:
        return 7

    @property
    def key(self) -> Key:
        return Key(self.place, "rule", str(self))

    @property
    def link(self) -> str:
        return ""

    def __str__(self) -> str:
        words = [f"{_in(self.place)}rule ipv{self.family} {self.priority}: from {self.src or 'all'}"]
        words += [f"to {self.dst}"] if self.dst else []
        words += [f"fwmark {self.mark:#x}/{self.mask:#x}"] if self.mask else []
        words += [f"lookup {'main' if self.table == MAIN else self.table}"]
        words += [f"suppress_ifgroup {self.suppress}"] if self.suppress is not None else []
        return " ".join(words)


class NftTable(NamedTuple):
    """One whole nftables table; *text* is everything between its braces."""

    family: str
    name: str
    text: str

    @property
    def rank(self) -> int:
        return 8

    @property
    def key(self) -> Key:
        return Key(HOST, "nft", f"{self.family} {self.name}")

    @property
    def link(self) -> str:
        return ""

    def __str__(self) -> str:
        return f"nft table {self.family} {self.name}"


def plan(*items: Item) -> dict[Key, Item]:
    """The items by their keys."""
    return {item.key: item for item in items}


def nexthop_key(number: int) -> Key:
    """The key of a nexthop object."""
    return Key(HOST, "nexthop", str(number))


def needs(item: Item) -> Iterator[Key]:
    """What *item* stands on, if anything: its link, and a route's nexthop object."""
    if item.link and item.key.kind != "link":
        yield Key(item.key.place, "link", item.link)
    if isinstance(item, Route) and item.nhid:
        yield nexthop_key(item.nhid)


def _in(place: Place) -> str:
    return "" if place is HOST else f"[{place}] "


def _guard(is_guarded: bool) -> list[str]:
    return [] if is_guarded else ["accepting advertisements or redirects, or not forwarding"]


def _state(up: bool) -> str:
    return "up" if up else "down"
