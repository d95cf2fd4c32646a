"""Where a node is: what every wiring is made for. Values alone."""

from __future__ import annotations

from dataclasses import dataclass

from netaddr import IPAddress, IPNetwork

from cluster.addresses import MTU_MIN
from cluster.peers import Peer
from cni.errors import ConfigInvalid
from dataplane.host import NOTHING, Facts
from dataplane.uplink import Uplink


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator chose for every backend: see ``agent.config.schema``.

    *mtu* 0 is the uplink's less the overhead; *masquerade* None is off, else the ranges where pods keep their own
    address; *kernel* is this machine's version, for what older ones do wrong.
    """

    mtu: int = 0
    masquerade: tuple[IPNetwork, ...] | None = None
    kernel: tuple[int, int] = (6, 1)


@dataclass(frozen=True, slots=True)
class Nic:
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
    interfaces: tuple[Nic, ...] = ()
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
