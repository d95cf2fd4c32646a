"""The seams of a backend: a fabric (where addresses come from: all the I/O) and a wiring (how packets get there: pure).

What always holds of a wiring: the same arguments give the same plan; a peer is served wholly or named among the
unserved with the reason, never routed the wrong way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from netaddr import IPAddress, IPNetwork

from cluster.addresses import MTU_MIN
from cluster.peers import Peer
from cni.errors import ConfigInvalid, Failure
from dataplane.host import NOTHING, Facts
from dataplane.items import Item, Key
from dataplane.uplink import Uplink
from ipam.lease import Block
from ipam.store import Record


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator chose: see ``agent.schema``.

    *mtu* 0 is the uplink's less the overhead; *masquerade* None is off, else the ranges where pods keep their own
    address; *kernel* is this machine's version, for what older ones do wrong.
    """

    mtu: int = 0
    masquerade: tuple[IPNetwork, ...] | None = None
    vni: int = 4096
    port: int = 4789
    direct: bool = False
    underlay: Literal["auto", "ipv4", "ipv6"] = "auto"
    kernel: tuple[int, int] = (6, 1)


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface that a cloud gave this machine, for pods' addresses.

    *device* is its name here; *index* its number on the machine, 0 for the primary one; *address* its own, within
    *subnet*; *blocks* are the addresses that the cloud delivers to it, for pods.
    """

    device: str
    index: int
    mac: str
    address: IPAddress
    subnet: IPNetwork
    blocks: frozenset[IPNetwork] = frozenset()


@dataclass(frozen=True, slots=True)
class Site:
    """Where the agent is: *here* is its own node in the list, *uplink* the link that leads to the others.

    Where a cloud gives the addresses, *interfaces* are those that pods use, *networks* the ranges that the network
    around them routes without translation. *taken* are ids of our range that other programs' nexthop objects have,
    *host* is what else others made of this machine.
    """

    here: Peer
    uplink: Uplink
    options: Options
    interfaces: tuple[Interface, ...] = ()
    networks: tuple[IPNetwork, ...] = ()
    taken: frozenset[int] = frozenset()
    host: Facts = NOTHING

    @property
    def links(self) -> frozenset[str]:
        """The links that lead out of this node."""
        return frozenset((self.uplink.name, *(one.device for one in self.interfaces)))

    @property
    def families(self) -> tuple[int, ...]:
        """The families of this node's pods: 4, 6."""
        blocks = (block for one in self.interfaces for block in one.blocks)
        return tuple(sorted({cidr.version for cidr in (*self.here.pod_cidrs, *blocks)}))


class Unserved(NamedTuple):
    """A peer that the backend cannot reach, and why, in words for the operator."""

    peer: str
    why: str


class Wired(NamedTuple):
    """The node's own part of the kernel: all but what belongs to single pods."""

    plan: dict[Key, Item]
    unserved: tuple[Unserved, ...]


class Wiring(Protocol):
    """How packets get to and from pods."""

    @property
    def mtu(self) -> int:
        """The MTU of a new pod's link, in bytes."""

    def pod(self, record: Record) -> dict[Key, Item]:
        """Everything that one pod needs, on the host and in its namespace."""

    def node(self, peers: Collection[Peer]) -> Wired:
        """Everything else, for the whole set of nodes, this one among them."""


class Supplied(NamedTuple):
    """What a fabric gives to a node: see `Site` for *interfaces* and *networks*; *blocks* are all that pods may have
    addresses of now."""

    interfaces: tuple[Interface, ...]
    networks: tuple[IPNetwork, ...]
    blocks: frozenset[Block]


class Shortage(NamedTuple):
    """What to tell a pod for which there is no address, and whether that *may_end* by itself soon, so that it waits."""

    failure: Failure
    may_end: bool


class Report(NamedTuple):
    """What a cloud gives and refuses: *interfaces* of *most* are attached, *obstacles* stand in the way of more,
    *under_way* are changes whose end is not known; *calls* are counted by action and error, '' for none. *undelivered*
    are pods' addresses that the cloud does not deliver to this node any more."""

    cloud: str
    interfaces: int
    most: int
    obstacles: tuple[str, ...]
    under_way: tuple[str, ...]
    calls: Mapping[tuple[str, str], int]
    undelivered: tuple[str, ...] = ()


class Fabric(Protocol):
    """Where addresses come from."""

    def supplied(self, here: Peer) -> Supplied:
        """What there is for the node *here* now."""

    def shortage(self, failure: Failure) -> Shortage:
        """What *failure*, that there is no address, means here."""

    def report(self) -> Report | None:
        """How the cloud is doing; None where there is none."""


def pod_mtu(site: Site, overhead: int) -> int:
    """What the operator chose, or the uplink's MTU less *overhead* (bytes).

    ConfigInvalid: more than the way can carry, or less than a family of the pods needs.
    """
    most = site.uplink.mtu - overhead
    mtu = site.options.mtu or most
    least = max((MTU_MIN[family] for family in site.families), default=MTU_MIN[4])
    carries = f"{site.uplink.name} carries {site.uplink.mtu}, less {overhead} of overhead"
    if mtu > most:
        raise ConfigInvalid(f"mtu is {mtu}", f"at most {most}: {carries}")
    if mtu < least:
        raise ConfigInvalid(f"the pods' mtu would be {mtu}", f"at least {least} for their families; {carries}")
    return mtu
