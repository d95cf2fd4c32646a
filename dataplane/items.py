"""The kernel's objects as values; the links among them are in `dataplane.links`.

An item says what an object of ours looks like: its ``key`` is its identity in the kernel, its equality the whole
content. Addresses are text here, in the kernel's own canonical spelling, since items live at the edge: they are
compared with dumps of ten thousand objects, and text compares and hashes fast.

Whatever carries our mark is ours, and nothing else is: see `dataplane.ours`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

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
LOCAL: Final = 255
"""… of the one that says what the host itself answers for (RT_TABLE_LOCAL)."""

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
        return f"{within(self.place)}sysctl {self.path} = {self.value}"


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
        return f"{within(self.place)}addr {self.address} dev {self.dev}"


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
        return f"{within(self.place)}neigh {self.address} dev {self.dev} lladdr {self.mac} nud permanent"


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
    """A route in *table*: by nexthop object, through a gateway, on a link, or ``unreachable``; in the table `LOCAL` to
    the node itself, which has the address by that alone, or ``throw``: as if the table had none.

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
    local: bool = False
    throw: bool = False

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
        words = [within(self.place) + "route"]
        words += ["unreachable"] if self.unreachable else ["throw"] if self.throw else []
        words += ["local"] if self.local else []
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
        words = [f"{within(self.place)}rule ipv{self.family} {self.priority}: from {self.src or 'all'}"]
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


def within(place: Place) -> str:
    """What an object in *place* is written after."""
    return "" if place is HOST else f"[{place}] "
