"""What the operator may say of BGP: the table [bgp], and whether it can be meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal

from msgspec import Meta
from netaddr import IPAddress, IPNetwork

from backends.descriptor import Wrong
from backends.section import Cidr, Flag, Section
from cluster.peers import ASN_MAX, Peer

Asn = Annotated[int, Meta(ge=0, le=ASN_MAX, description=f"0 (none) or a number from 1 to {ASN_MAX}")]
Path = Annotated[str, Meta(pattern=r'\A/[^\x00-\x1f\x7f"]*\Z', description="an absolute path")]
PathOrNone = Annotated[str, Meta(pattern=r'\A(/[^\x00-\x1f\x7f"]*)?\Z', description='an absolute path, or "" for none')]
Address = Annotated[IPAddress, Meta(description="an address such as 192.0.2.1 or 2001:db8::1")]
Where = Annotated[
    str,
    Meta(
        pattern=r"\A([!-<>-~]+=[!-~]*)?\Z",
        description='"" (every node), or a node\'s label with its value, such as "rack=r1"',
    ),
]
SOCKET_MAX: Final = 107 - len("/bird.ctl")
"""Bytes of the directory's path: sun_path less its NUL and the socket's name (unix(7))."""
_COMMUNITY: Final = re.compile(r"([0-9]{1,10}):([0-9]{1,10})(?::([0-9]{1,10}))?", re.ASCII)


class RouterTable(Section, frozen=True):
    """One [[bgp.router]]: a router of the network that nodes speak with."""

    address: Address
    asn: Annotated[int, Meta(ge=1, le=ASN_MAX, description=f"a number from 1 to {ASN_MAX}")]
    name: Annotated[
        str, Meta(pattern=r"\A[A-Za-z0-9._-]{0,50}\Z", description="at most 50 letters, digits, dots, dashes and _")
    ] = ""
    where: Where = ""
    local_asn: Asn = 0
    hops: Annotated[int, Meta(ge=1, le=255, description="1 (on a segment of the node's) to 255")] = 1
    password_file: PathOrNone = ""

    def is_for(self, node: Peer) -> bool:
        """Whether *node* speaks with it."""
        key, _, value = self.where.partition("=")
        return not self.where or (key, value) in node.labels


class BgpTable(Section, frozen=True):
    """The speaker, for backend = "bgp"."""

    topology: Annotated[
        Literal["mesh", "reflectors", "tor"], Meta(description='"mesh", "reflectors" or "tor"')
    ] = "mesh"
    asn: Asn = 0
    reflectors: Annotated[
        tuple[str, ...], Meta(description='a list of names of nodes or of addresses, such as "node-a" or "192.0.2.1"')
    ] = ()
    router: tuple[RouterTable, ...] = ()
    hops: Annotated[int, Meta(ge=2, le=255, description="2 to 255")] = 8
    accept: Annotated[tuple[Cidr, ...], Meta(description='a list of CIDRs, such as "10.0.0.0/8"')] = ()
    accept_default: Flag = True
    accept_own_asn: Flag = False
    announce: Annotated[tuple[Cidr, ...], Meta(description='a list of CIDRs, such as "10.96.0.0/12"')] = ()
    communities: Annotated[
        tuple[str, ...], Meta(description='a list of communities, such as "64512:100" or "4200000001:1:2"')
    ] = ()
    max_prefixes: Annotated[int, Meta(ge=1, le=10_000_000, description="1 to 10000000")] = 10000
    ecmp: Annotated[int, Meta(ge=1, le=256, description="1 (off) to 256")] = 8
    uplinks: Annotated[tuple[str, ...], Meta(description='a list of names of links, such as "eth1"')] = ()
    extended_next_hop: Flag = False
    password_file: PathOrNone = ""
    ttl_security: Flag = False
    hold_time: Annotated[int, Meta(ge=3, le=65535, description="seconds, 3 to 65535")] = 90
    graceful_restart: Flag = True
    restart_time: Annotated[int, Meta(ge=1, le=4095, description="seconds, 1 to 4095")] = 120
    bfd: Annotated[Literal["off", "on", "graceful"], Meta(description='"off", "on" or "graceful"')] = "off"
    bfd_interval: Annotated[int, Meta(ge=10, le=10000, description="milliseconds, 10 to 10000")] = 100
    bfd_multiplier: Annotated[int, Meta(ge=2, le=255, description="2 to 255")] = 3
    bird: Path = "/usr/sbin/bird"
    start_bird: Flag = True
    directory: Path = "/run/routable/bgp"


def contradictions(table: BgpTable) -> Iterator[Wrong]:
    """What the types cannot say."""
    if not table.accept:
        yield Wrong("bgp.accept", "is empty: list the ranges of pods, of every cluster that is to be reached")
    if table.topology == "tor":
        yield from _of_routers(table)
    elif not table.asn:
        yield Wrong("bgp.asn", f'must be given for topology = "{table.topology}": the number of the cluster\'s own')
    for key, topology in (("reflectors", "reflectors"), ("router", "tor")):
        if bool(getattr(table, key)) != (table.topology == topology):
            why = "is empty" if table.topology == topology else "is given"
            yield Wrong(f"bgp.{key}", f'{why}, and topology is "{table.topology}"; it goes with "{topology}"')
    for one in table.communities:
        if community(one) is None:
            yield Wrong("bgp.communities", 'allowed: "65000:100" of two numbers up to 65535, or of three', one)
    if table.bfd == "graceful" and not table.graceful_restart:
        yield Wrong("bgp.bfd", 'is for graceful_restart = true; allowed without: "off" or "on"', table.bfd)
    for name in table.uplinks:
        if not re.fullmatch(r"(?!rt)[!-.0-9;-~]{1,15}", name, re.ASCII) or name in (".", ".."):
            yield Wrong("bgp.uplinks", "allowed: names of links, which are not pods'", name)
    if len(table.directory.encode()) > SOCKET_MAX:
        yield Wrong("bgp.directory", f"allowed: an absolute path of at most {SOCKET_MAX} bytes", table.directory)


def _of_routers(table: BgpTable) -> Iterator[Wrong]:
    seen: dict[tuple[IPAddress, str], int] = {}
    names: dict[str, IPAddress] = {}
    for number, router in enumerate(table.router):
        if not (table.asn or router.local_asn):
            yield Wrong(f"bgp.router[{number}].local_asn", "must be given where bgp.asn is not")
        if router.address.version == 6 and router.address.is_link_local():
            why = "is link-local, and BIRD would not know on which link; allowed: one that the router alone has"
            yield Wrong(f"bgp.router[{number}].address", why, str(router.address))
        if seen.setdefault((router.address, router.where), number) != number:
            yield Wrong(f"bgp.router[{number}].address", "is that of another router, too", str(router.address))
        if router.name and names.setdefault(router.name, router.address) != router.address:
            yield Wrong(f"bgp.router[{number}].name", "is that of another router, too", router.name)


def community(text: str) -> tuple[int, ...] | None:
    """The numbers of a community (RFC 1997), or a large one (RFC 8092); None: it is neither."""
    found = _COMMUNITY.fullmatch(text)
    numbers = tuple(int(one) for one in found.groups() if one is not None) if found else ()
    most = {2: 65535, 3: (1 << 32) - 1}
    return numbers if numbers and max(numbers) <= most[len(numbers)] else None


def ranges(cidrs: tuple[IPNetwork, ...], family: int) -> tuple[IPNetwork, ...]:
    """Those of one family, in order."""
    return tuple(sorted(one for one in cidrs if one.version == family))


