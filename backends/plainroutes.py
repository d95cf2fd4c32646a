"""Routes to a peer's pods by way of nexthop objects, and whether a peer is on this node's own segment. Pure."""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_ntop

from netaddr import IPAddress, IPNetwork

from backends.site import Site
from cluster.peers import Peer
from dataplane.items import HOST, Route


def routes(peer: Peer, family: int, nexthop: int) -> list[Route]:
    """The routes to a peer's pods of one family."""
    return [Route(HOST, _text(cidr), nhid=nexthop) for cidr in peer.pod_cidrs if cidr.version == family]


def _text(cidr: IPNetwork) -> str:
    """What ``str`` answers, in a third of the time: a node has thousands."""
    family, length = (AF_INET, 4) if cidr.version == 4 else (AF_INET6, 16)
    return f"{inet_ntop(family, int(cidr.first).to_bytes(length, 'big'))}/{cidr.prefixlen}"


def off_link(site: Site, peer: Peer, family: int) -> str:
    """Why no plain route to *peer* can be had for *family*; '' when it can."""
    address: IPAddress | None = peer.address(family)
    if address is None:
        return f"{peer.name} has IPv{family} pods but no IPv{family} address of its own; give it one in its list entry"
    if site.uplink.is_on_link(address):
        return ""
    networks = ", ".join(str(one) for one in site.uplink.connected if one.version == family) or "none"
    return (
        f"{peer.name} ({address}) is not on-link at {site.uplink.name} (IPv{family} networks there: {networks}); "
        "put it on that segment, or use backend vxlan"
    )
