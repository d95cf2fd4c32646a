"""How many addresses to keep ready where they come from interfaces in small blocks: a function from counts to actions.

Pure: no clock, no cloud. A pod that waits comes first, then what is kept warm, then giving back. What always holds:
doing what is answered leads to rest, so a pool never swings between growing and shrinking; an interface never gets
more chunks than it has slots; nothing that is used or cools down is given back; no interface stays for the sake of
warm addresses that others have room for.

The words of the settings are those of the Amazon VPC CNI (WARM_IP_TARGET, MINIMUM_IP_TARGET, WARM_PREFIX_TARGET,
WARM_ENI_TARGET, MAX_ENI), whose meaning they have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

PREFIX_SIZE = 16
"""Addresses in an IPv4 prefix that an interface is given (/28)."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What takes one slot of an interface: a prefix or a single address, *size* addresses in all.

    Of these *used* are held by pods and *cooling* released too lately; *idle* is for how many seconds neither has been
    so for any of them.
    """

    name: str
    size: int
    used: int = 0
    cooling: int = 0
    idle: float = 0.0

    @property
    def free(self) -> int:
        """How many addresses a pod could get now."""
        return self.size - self.used - self.cooling

    @property
    def is_empty(self) -> bool:
        return not self.used and not self.cooling


@dataclass(frozen=True, slots=True)
class Pooled:
    """An interface as the pool counts it: *slots* for chunks, besides its own address. A *fixed* one came with the
    machine and stays; a *barred* one can have no more chunks now, whatever its slots."""

    name: str
    slots: int
    chunks: tuple[Chunk, ...] = ()
    is_fixed: bool = False
    is_barred: bool = False

    @property
    def room(self) -> int:
        """Slots that can be filled."""
        return 0 if self.is_barred else self.slots - len(self.chunks)

    @property
    def used(self) -> int:
        return sum(chunk.used + chunk.cooling for chunk in self.chunks)


@dataclass(frozen=True, slots=True)
class Pool:
    """What there is. *interfaces* are those that pods may use: reserved ones are not among them.

    *waiting* pods have no address; *coming* addresses were asked for and have not arrived; a further interface would
    have *slots_of_new* slots, and *interfaces_left* more can be had; *has_prefixes*: prefixes can be had now.
    """

    interfaces: tuple[Pooled, ...]
    waiting: int = 0
    coming: int = 0
    slots_of_new: int = 0
    interfaces_left: int = 0
    has_prefixes: bool = True

    @property
    def chunks(self) -> Iterator[Chunk]:
        return (chunk for interface in self.interfaces for chunk in interface.chunks)

    @property
    def free(self) -> int:
        return sum(chunk.free for chunk in self.chunks)

    @property
    def used(self) -> int:
        return sum(chunk.used for chunk in self.chunks)


@dataclass(frozen=True, slots=True)
class Targets:
    """What the operator wants ready. *warm_addresses* and *minimum_addresses*, if one is set, stand in for the others;
    *warm_prefixes* are whole ones; *warm_interfaces* as many addresses as that many further interfaces have.

    With *is_prefix_mode* chunks are prefixes, of *prefix_size* addresses, as long as these can be had; of twice as many
    and more, up to *largest_size*, where it is slots that run out. *delay*: seconds for which a chunk must have been
    idle before it is given back. ValueError: a number is negative.
    """

    is_prefix_mode: bool = True
    warm_addresses: int | None = None
    minimum_addresses: int | None = None
    warm_prefixes: int = 1
    warm_interfaces: int = 0
    delay: float = 60.0
    prefix_size: int = PREFIX_SIZE
    largest_size: int = 0

    def __post_init__(self) -> None:
        for name in ("warm_addresses", "minimum_addresses", "warm_prefixes", "warm_interfaces", "delay"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} is {value}: it cannot be negative")


class Assign(NamedTuple):
    """Give *interface* that many chunks of *size* more, in one call."""

    interface: str
    chunks: int
    size: int


class Create(NamedTuple):
    """Make an interface that has that many chunks of *size* from the start."""

    chunks: int
    size: int


class Unassign(NamedTuple):
    """Take these chunks from *interface*, in one call."""

    interface: str
    chunks: tuple[str, ...]


class Delete(NamedTuple):
    """Remove an interface, with all that it has."""

    interface: str


Action: TypeAlias = Assign | Create | Unassign | Delete


def actions(pool: Pool, targets: Targets) -> list[Action]:
    """What to do now: more, or less, or nothing."""
    growing = list(_growth(pool, targets))
    if pool.waiting or pool.coming:
        return growing
    growing = growing or list(_moving(pool, targets))
    return growing + list(_shrinking(pool, targets, growing))


def shortfall(pool: Pool, attached: int, interfaces_max: int) -> str:
    """Why no more can be had, in numbers, for whoever waits; *attached* are all interfaces, those not for pods, too."""
    slots = sum(interface.slots for interface in pool.interfaces)
    taken = sum(len(interface.chunks) for interface in pool.interfaces)
    total = sum(chunk.size for chunk in pool.chunks)
    return (
        f"{pool.used} of {total} addresses in use, {taken} of {slots} slots taken, "
        f"{attached} of {interfaces_max} interfaces attached"
    )


def capacity(slots: int, targets: Targets) -> int:
    """How many addresses an interface of so many slots has when one chunk after another has filled it."""
    chunks: tuple[Chunk, ...] = ()
    for number in range(slots):
        pool = Pool((Pooled("", slots, chunks),), waiting=1)
        size = _size(pool, targets)
        chunks += (Chunk(str(number), size, used=size),)
    return sum(chunk.size for chunk in chunks)


# --- what is wanted -------------------------------------------------------------------------------------------


def _warm(pool: Pool, targets: Targets) -> int:
    """How many free addresses are wanted besides those for pods that wait."""
    warm, least = targets.warm_addresses, targets.minimum_addresses
    if warm is not None or least is not None:
        return max(warm or 0, (least or 0) - pool.used - pool.waiting)
    size = targets.prefix_size if targets.is_prefix_mode else 1
    prefixes = targets.warm_prefixes * targets.prefix_size if targets.is_prefix_mode else 0
    return max(prefixes, targets.warm_interfaces * pool.slots_of_new * size)


def _counts_whole(targets: Targets) -> bool:
    """Whether a prefix counts as warm only while it is whole."""
    is_by_address = targets.warm_addresses is not None or targets.minimum_addresses is not None
    return targets.is_prefix_mode and not is_by_address


def _is_stopgap(chunk: Chunk, pool: Pool, targets: Targets) -> bool:
    """Whether it was taken only because there was no prefix, and now there are some."""
    return _counts_whole(targets) and pool.has_prefixes and chunk.size < targets.prefix_size


def _ready(pool: Pool, targets: Targets) -> int:
    """How many free addresses count as warm."""
    if _counts_whole(targets):
        return sum(one.size for one in pool.chunks if one.is_empty and not _is_stopgap(one, pool, targets))
    return pool.free


def _spare(pool: Pool, targets: Targets) -> int:
    """How many addresses count as warm beyond those wanted; less than 0: too few do."""
    return _ready(pool, targets) - _warm(pool, targets)


def _missing(pool: Pool, targets: Targets) -> int:
    """How many more addresses are wanted. Pods that wait take the broken chunks' free addresses first."""
    free, ready = pool.free, _ready(pool, targets)
    for_waiting = pool.waiting - (free - ready)
    return max(0, pool.waiting - free, max(0, for_waiting) + _warm(pool, targets) - ready) - pool.coming


# --- more -----------------------------------------------------------------------------------------------------


def _growth(pool: Pool, targets: Targets) -> Iterator[Action]:
    size = _size(pool, targets)
    left = -(-max(0, _missing(pool, targets)) // size)
    for assign in _assigns(pool.interfaces, left, size):
        yield assign
        left -= assign.chunks
    for _ in range(pool.interfaces_left):
        chunks = min(left, pool.slots_of_new)
        if chunks > 0:
            yield Create(chunks, size)
            left -= chunks


def _moving(pool: Pool, targets: Targets) -> Iterator[Assign]:
    """What the interface that is to go next has warm, on others: then the next turn takes it away."""
    order = _by_use(pool)
    if (targets.is_prefix_mode and not pool.has_prefixes) or not order or order[0].is_fixed:
        return
    leaving, *others = order
    if len(_idlest(leaving.chunks, targets.delay)) < len(leaving.chunks):
        return
    held = sum(chunk.size for chunk in leaving.chunks if not _is_stopgap(chunk, pool, targets))
    missed = held - _spare(pool, targets)
    size = _size(pool, targets)
    chunks = -(-missed // size)
    if 0 < chunks <= sum(interface.room for interface in others):
        yield from _assigns(others, chunks, size)


def _size(pool: Pool, targets: Targets) -> int:
    """How many addresses a new chunk has: as many that the slots that are left can double what there is."""
    if not (targets.is_prefix_mode and pool.has_prefixes):
        return 1
    size, slots = targets.prefix_size, sum(interface.room for interface in pool.interfaces)
    wanted = sum(chunk.size for chunk in pool.chunks) + _missing(pool, targets)
    while size * 2 <= targets.largest_size and size * slots < wanted:
        size *= 2
    return size


def _assigns(interfaces: Sequence[Pooled], chunks: int, size: int) -> Iterator[Assign]:
    """As many of *chunks* as there is room for, the roomiest first: fewest calls."""
    for interface in sorted(interfaces, key=lambda one: -one.room):
        share = min(chunks, interface.room)
        if share > 0:
            yield Assign(interface.name, share, size)
            chunks -= share


# --- less -----------------------------------------------------------------------------------------------------


def _shrinking(pool: Pool, targets: Targets, growing: Sequence[Action]) -> Iterator[Action]:
    """Where more is wanted, nothing is spare, and only interfaces go that have no chunk and get none."""
    used = {action.interface for action in growing if isinstance(action, Assign)}
    spare = _spare(pool, targets)
    for interface in _by_use(pool):
        if interface.name in used:
            continue
        gone: list[Chunk] = []
        for chunk in _idlest(interface.chunks, targets.delay):
            if _is_stopgap(chunk, pool, targets):
                if not growing:
                    gone.append(chunk)
            elif chunk.size <= spare:
                gone.append(chunk)
                spare -= chunk.size
        if len(gone) == len(interface.chunks) and not interface.is_fixed:
            yield Delete(interface.name)
        elif gone:
            yield Unassign(interface.name, tuple(chunk.name for chunk in gone))


def _by_use(pool: Pool) -> list[Pooled]:
    """In which order they give back: the least used first, of unused ones those that can go before those that stay."""
    return sorted(pool.interfaces, key=lambda one: (one.used, one.is_fixed, len(one.chunks), one.name))


def _idlest(chunks: Sequence[Chunk], delay: float) -> list[Chunk]:
    """Those that may go, the longest idle first."""
    return sorted((one for one in chunks if one.is_empty and one.idle >= delay), key=lambda one: -one.idle)
