"""What a backend is, as one value: all that the agent knows of it. Its own is in ``backends/FOLDER/descriptor.py``.

A descriptor is read where its backend is not the one in use, too: to check its table of the configuration, or for its
commands. So its module imports what the backend is made of, and the libraries of that, only in the functions that need
it.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from backends.section import Section
from backends.verdict import Verdict

if TYPE_CHECKING:  # who asks for a fact alone must not pay for what a wiring imports
    from backends.cloud.usage import Usage
    from backends.fabric import Fabric
    from backends.site import Site
    from backends.told import Shown, Told
    from backends.wiring import Wiring
    from cluster.peers import Peer, Source
    from dataplane.items import Item
    from dataplane.memory import Memory

S = TypeVar("S", bound=Section)
"""The type of a backend's table in the configuration."""


class Wrong(NamedTuple):
    """A dotted *key* of the configuration that cannot be, *why*, and its *value* where that says more."""

    key: str
    why: str
    value: object = None


@dataclass(frozen=True, slots=True)
class Means:
    """What the agent on *node* lends a fabric: see `agent.process.machine` for *uptime* and *boot*. What is in the
    *journal* outlives the agent."""

    node: str
    usage: Usage
    journal: Memory
    boot: str
    uptime: Callable[[], float]
    wall: Callable[[], float]
    random: Callable[[], float]
    environment: Mapping[str, str]


class Around(NamedTuple):
    """What surrounds the node now, and the names of the *backends* that wire it: one, or two while it changes."""

    site: Site
    peers: frozenset[Peer]
    backends: frozenset[str]


class Handles(NamedTuple):
    """What the agent does for a part of a backend's. Any thread may call.

    *settle* answers whether the kernel has what is wanted, once a pass has seen to it. *look* has a pass come now,
    which asks source and fabric what there is: who watches something calls it when that has changed. *on_death* is told
    the name of a thread that ends unasked, and what of. *around* answers None while nothing is known yet.
    """

    settle: Callable[[], bool]
    look: Callable[[], None]
    on_death: Callable[[str, BaseException], None]
    around: Callable[[], Around | None] = lambda: None


class Part(Protocol):
    """What has a life of its own: the agent begins it when its backend comes into use, watches it, and ends it; see
    `agent.process.life` and `agent.switch.lives`."""

    @property
    def name(self) -> str:
        """What it is called when it does not stop."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End, and return when it has."""

    def wake(self) -> None:
        """Pods wait for addresses. Any thread may call."""

    def told(self) -> Told:
        """See `backends.told.Teller`."""


class Provision(NamedTuple):
    """The addresses; the other nodes, where the backend itself knows them; and what makes the parts that live, as one
    that has more addresses come: new ones each time that nodes change to this backend under running pods."""

    fabric: Fabric
    source: Source | None = None
    parts: Callable[[Handles], Sequence[Part]] = lambda handles: ()


class Command(NamedTuple):
    """A command of ``routablectl``'s. It is *run* with its arguments, the backend's table, and for how many seconds an
    address cools down; the answer is the exit code."""

    name: str
    help: str
    description: str
    arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace, Any, float], int]


def pod_cidrs(table: Section, means: Means) -> Provision:
    """The addresses of a node whose ranges are in the list of nodes."""
    from backends.podcidrs import PodCidrs

    return Provision(PodCidrs())


def nothing(sections: Mapping[str, Any]) -> Shown:
    """What a backend shows that tells nothing."""
    from backends.told import Shown

    return Shown()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend(Generic[S]):
    """One backend.

    *table* is its table in the configuration, which is called as its folder; *contradictions* are what the types of
    that cannot say. *wiring* and *supply* make its two halves. *check* looks, changing nothing, at what a start needs
    besides a list of nodes. *remove* takes away what of it is not in a plan, from the node of that name, and says in
    lines what it did. *show* is what ``routablectl status`` prints of the sections that its parts told.

    Attributes:
        needs_nodes: it must be told the other nodes; else its fabric knows all that it needs.
        has_pod_cidrs: pods' addresses are of the pod CIDRs in the list of nodes, so that a node can go from one such
            backend to another under running pods.
        shows: whether an object of ours on the host shows that peers may be reached by this backend.
        has_nexthops: its peers are reached by nexthop objects of ours; else by another program's routes, so that a peer
            without such an object is one that may be reached by this backend.
        is_lasting: its parts live as long as the configuration has its table: others are told something by them, and
            use that for a while after this node has changed to another backend.
        instead_of_masquerade: what to use in the place of the table [masquerade], where that is not for it.
    """

    name: str
    wiring: Callable[[Site, S], Wiring]
    table: type[S]
    contradictions: Callable[[S], Iterator[Wrong]] = lambda table: iter(())
    supply: Callable[[S, Means], Provision] = pod_cidrs
    check: Callable[[S, Mapping[str, str]], Iterator[Verdict]] = lambda table, environment: iter(())
    commands: tuple[Command, ...] = ()
    remove: Callable[[S, str], Iterator[str]] = lambda table, node: iter(())
    show: Callable[[Mapping[str, Any]], Shown] = nothing
    needs_nodes: bool = True
    has_pod_cidrs: bool = True
    shows: Callable[[Item], bool] = lambda item: False
    has_nexthops: bool = True
    is_lasting: bool = False
    instead_of_masquerade: str = ""
