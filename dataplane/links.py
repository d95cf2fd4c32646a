"""Links as values: both ends of a pod's, an overlay's device and what it forwards, what the machine was given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final, NamedTuple

from dataplane.items import HOST, POD_GROUP, Key, Place, within

VXLAN_LINK: Final = "routable-vxlan"
"""The name of the VXLAN device."""

VXLAN_ALIAS: Final = "routable overlay"
"""What the VXLAN device says of itself."""


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
        words += _enslaved(self.is_enslaved)
        return " ".join([*words, f"alias '{self.alias}'"])


@dataclass(frozen=True, slots=True)
class Vxlan:
    """The VXLAN device (RFC 7348) of this node: no flooding, no learning; *local* is the VTEP's address.

    *tx_checksum* off avoids stalls of NAT with offload on kernels before 5.7. *is_guarded* and *is_enslaved* as of a
    `Veth`.
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
    is_enslaved: bool = False

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
            + "".join(f" {word}" for word in (*_guard(self.is_guarded), *_enslaved(self.is_enslaved)))
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
        return f"{within(self.place)}link {self.name} mtu {self.mtu} address {self.mac} {_state(self.up)}"


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


def _guard(is_guarded: bool) -> list[str]:
    return [] if is_guarded else ["accepting advertisements or redirects, or not forwarding"]


def _enslaved(is_enslaved: bool) -> list[str]:
    return ["as a port of another link"] if is_enslaved else []


def _state(up: bool) -> str:
    return "up" if up else "down"
