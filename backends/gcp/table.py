"""What the operator may say of alias ranges: the table [gcp]."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from msgspec import Meta

from backends.descriptor import Wrong
from backends.gcp.options import BITS, AliasOptions
from backends.section import Cidr, Flag, Section
from ipam.warmpool import Targets

Count = Annotated[int, Meta(ge=0, le=4096, description="a number from 0 to 4096")]
Prefix = Annotated[int, Meta(ge=20, le=30, description="a prefix length from 20 to 30")]
_NAME: Final = r"\A([a-z]([a-z0-9\-]{0,61}[a-z0-9])?)?\Z"
"""What the API takes for the name of a range (RFC 1035)."""


class GcpTable(Section, frozen=True):
    """Alias IP ranges, for backend = "gcp-alias"."""

    range: Annotated[
        str, Meta(pattern=_NAME, description='the name of a secondary range of the subnet, such as "pods"')
    ] = ""
    prefix: Prefix = 28
    largest_prefix: Prefix = 24
    max_ranges: Annotated[int, Meta(ge=1, le=150, description="a number from 1 to 150")] = 150
    warm_ranges: Count = 1
    warm_addresses: Count = 0
    minimum_addresses: Count = 0
    shrink_delay: Annotated[float, Meta(ge=0, le=86400, description="seconds, 0 to 86400")] = 300.0
    fixed: Flag = False
    foreign_ranges: Annotated[
        tuple[Cidr, ...], Meta(description='a list of addresses and CIDRs, such as "10.0.0.9/32"')
    ] = ()
    guest_routes: Annotated[Literal["tell", "override"], Meta(description='"tell" or "override"')] = "tell"
    endpoint: Annotated[
        str, Meta(pattern=r"\A(https?://[!-~]+)?\Z", description="a URL such as https://compute-pods.p.googleapis.com")
    ] = ""


def contradictions(gcp: GcpTable) -> Iterator[Wrong]:
    """What the types cannot say."""
    if gcp.largest_prefix > gcp.prefix:
        why = f"allowed: at most gcp.prefix, {gcp.prefix}: the largest range that is asked for is no smaller"
        yield Wrong("gcp.largest_prefix", why, gcp.largest_prefix)


def wanted(gcp: GcpTable) -> AliasOptions:
    """The table as the fabric wants to know it."""
    return AliasOptions(
        range=gcp.range,
        warm=Targets(
            warm_addresses=gcp.warm_addresses or None,
            minimum_addresses=gcp.minimum_addresses or None,
            warm_prefixes=gcp.warm_ranges,
            delay=gcp.shrink_delay,
            prefix_size=1 << BITS - gcp.prefix,
            largest_size=1 << BITS - gcp.largest_prefix,
        ),
        most=gcp.max_ranges,
        foreign=gcp.foreign_ranges,
        is_fixed=gcp.fixed,
    )
