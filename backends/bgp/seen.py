"""What BIRD said last, and of what it was asked. Values alone."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from backends.bgp.replies import Heard, Shown
from backends.bgp.sessions import Speech
from cluster.peers import Peer
from cni.errors import Failure


class Md5(NamedTuple):
    """How many segments the kernel dropped because they had no digest, not the right one, or one where none is agreed
    (RFC 2385)."""

    unsigned: int = 0
    wrong: int = 0
    unexpected: int = 0


class Seen(NamedTuple):
    """All of one moment. *inside* are routes to parts of this node's own ranges, and *looped* such by whose path this
    node's AS number comes, neither of which are taken. *starts* is how often this process started BIRD; *problem* why
    it is not as it should be."""

    pid: int = 0
    speech: Speech | None = None
    peers: frozenset[Peer] = frozenset()
    sessions: Mapping[str, Shown] = MappingProxyType({})
    routes: tuple[Heard, ...] = ()
    inside: tuple[Heard, ...] = ()
    looped: tuple[Heard, ...] = ()
    is_drained: bool = False
    is_leaving: bool = False
    is_changing: bool = False
    md5: Md5 = Md5()
    starts: int = 0
    at: float = 0.0
    problem: Failure | None = None
