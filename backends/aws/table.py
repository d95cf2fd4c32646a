"""What the operator may say of ENIs and their addresses: the table [aws]."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta
from netaddr import IPNetwork

from backends.aws.options import EniOptions
from backends.descriptor import Wrong
from backends.section import Cidr, Flag, Section
from ipam.warmpool import Targets

SPARE: Final = 4
"""Free addresses kept ready in mode "address" where nothing is said: without any, every pod would wait for EC2."""
_GROUPS_MAX: Final = 16
_GROUPS: Final = f'a list of at most {_GROUPS_MAX} security group ids, such as "sg-0123456789abcdef0"'

Count = Annotated[int, Meta(ge=0, le=4096, description="a number from 0 to 4096")]
Tags = Annotated[dict[str, str], Meta(description='a table of tags, such as { "kubernetes.io/role/cni" = "1" }')]


class AwsTable(Section, frozen=True):
    """ENIs and their addresses, for backend = "aws-eni"."""

    mode: Annotated[Literal["prefix", "address"], Meta(description='"prefix" or "address"')] = "prefix"
    warm_prefixes: Count = 1
    warm_enis: Count = 0
    warm_addresses: Count = 0
    minimum_addresses: Count = 0
    max_enis: Annotated[int, Meta(ge=1, le=15, description="a number from 1 to 15")] = 15
    reserved_enis: Annotated[int, Meta(ge=0, le=14, description="a number from 0 to 14")] = 0
    shrink_delay: Annotated[float, Meta(ge=0, le=86400, description="seconds, 0 to 86400")] = 60.0
    cluster: Annotated[
        str, Meta(pattern=r"\A[ -~]{1,255}\Z", description="1 to 255 printable ASCII characters")
    ] = "routable"
    subnets: Annotated[
        tuple[str, ...], Meta(description='a list of subnet ids, such as "subnet-0123456789abcdef0"')
    ] = ()
    subnet_tags: Tags = msgspec.field(default_factory=dict)
    security_groups: Annotated[tuple[str, ...], Meta(description=_GROUPS)] = ()
    security_group_tags: Tags = msgspec.field(default_factory=dict)
    foreign_addresses: Annotated[
        tuple[Cidr, ...], Meta(description='a list of addresses and CIDRs, such as "10.0.0.9/32"')
    ] = ()
    ipv6: Flag = False
    snat: Annotated[Literal["none", "external"], Meta(description='"none" or "external"')] = "none"
    snat_exclude: Annotated[tuple[Cidr, ...], Meta(description='a list of CIDRs, such as "10.0.0.0/8"')] = ()

    @property
    def untranslated(self) -> tuple[IPNetwork, ...] | None:
        """Where, outside of the VPC, pods keep their own address; None where they do everywhere."""
        return self.snat_exclude if self.snat == "external" else None


def contradictions(aws: AwsTable) -> Iterator[Wrong]:
    """What the types cannot say."""
    if len(aws.security_groups) > _GROUPS_MAX:
        yield Wrong("aws.security_groups", f"allowed: {_GROUPS}")
    if aws.reserved_enis >= aws.max_enis:
        why = f"allowed: fewer than aws.max_enis, {aws.max_enis}, or none is left for pods"
        yield Wrong("aws.reserved_enis", why, aws.reserved_enis)
    for names, tags in (("subnets", "subnet_tags"), ("security_groups", "security_group_tags")):
        if getattr(aws, names) and getattr(aws, tags):
            yield Wrong(f"aws.{tags}", f"is given together with aws.{names}; allowed: one of the two")


def wanted(aws: AwsTable) -> EniOptions:
    """The table as the fabric wants to know it."""
    has_nothing_warm = aws.mode == "address" and not (aws.minimum_addresses or aws.warm_enis)
    return EniOptions(
        cluster=aws.cluster,
        warm=Targets(
            is_prefix_mode=aws.mode == "prefix",
            warm_addresses=aws.warm_addresses or (SPARE if has_nothing_warm else None),
            minimum_addresses=aws.minimum_addresses or None,
            warm_prefixes=aws.warm_prefixes,
            warm_interfaces=aws.warm_enis,
            delay=aws.shrink_delay,
        ),
        interfaces=aws.max_enis,
        reserved=aws.reserved_enis,
        subnets=aws.subnets,
        subnet_tags=aws.subnet_tags,
        groups=aws.security_groups,
        group_tags=aws.security_group_tags,
        ipv6=aws.ipv6,
        foreign=aws.foreign_addresses,
    )
