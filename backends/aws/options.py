"""What the operator chose for ``aws-eni``: see `backends.aws.table`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from netaddr import IPNetwork

from ipam.warmpool import Targets

MOST: int = 15
"""Interfaces that can be told apart by the bits of a packet's mark that are ours; more than any network card has."""


@dataclass(frozen=True, slots=True)
class EniOptions:
    """*cluster* is the value of the tag of every interface that is made; *warm* what is kept ready.

    Interfaces are made in one of *subnets*, or in one that has all of *subnet_tags*, or else in the instance's own;
    with the security *groups*, or those that have all of *group_tags*, or else the primary interface's. At most
    *interfaces* are attached, counting the primary one; the first *reserved* are not for pods. With *ipv6* every pod
    has an address of each family.
    """

    cluster: str = "routable"
    warm: Targets = field(default_factory=Targets)
    interfaces: int = MOST
    reserved: int = 0
    subnets: tuple[str, ...] = ()
    subnet_tags: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    group_tags: Mapping[str, str] = field(default_factory=dict)
    ipv6: bool = False
    foreign: tuple[IPNetwork, ...] = ()
