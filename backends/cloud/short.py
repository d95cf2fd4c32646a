"""What a pod is told for which there is no address, and what is told of pods whose address is not here. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from netaddr import IPAddress, IPNetwork, IPSet

from backends.fabric import Shortage
from cni.errors import Exhausted, Failure, TryAgain


def shortage(
    cloud: str, left: str, *, free: int, can_grow: bool, silence: str, obstacles: Sequence[Failure], remedy: str
) -> Shortage:
    """That there is none: *left* says how many there are; those that are *free* all the same are offered by the next
    pass. If it *can_grow*, the *cloud* will answer, unless there is *silence*; else one of the *obstacles* is the
    reason, which passes soon if none of them is somebody's to remove, or the end is reached, for which there is a
    *remedy*."""
    if can_grow and silence and not free:
        why = TryAgain(f"{left}, and {_silent(cloud)}", f"{silence}; the agent goes on asking")
        return Shortage(why, may_end=False)
    if can_grow:
        details = str(obstacles[0]) if obstacles else ""
        return Shortage(TryAgain(f"{left}, waiting for more of {cloud}", details), may_end=True)
    if obstacles:
        lasting = [one for one in obstacles if not isinstance(one, TryAgain)]
        first = (lasting or obstacles)[0]
        return Shortage(type(first)(f"{left}; {first.message}", first.details), may_end=not lasting)
    return Shortage(Exhausted(left, remedy), may_end=False)


def silent(cloud: str, silence: str) -> list[str]:
    """What there is to say of a *cloud* in whose answers' stead there is *silence*; nothing where that is ''."""
    return [f"{_silent(cloud)}: {silence}"] if silence else []


def _silent(cloud: str) -> str:
    return f"{cloud} gives no answers"


def undelivered(addresses: Collection[IPAddress], blocks: Iterable[IPNetwork]) -> tuple[str, ...]:
    """Those of pods' *addresses* that are in none of the *blocks* that the cloud delivers to this node."""
    here = IPSet(blocks)
    return tuple(str(one) for one in sorted(addresses) if one not in here)
