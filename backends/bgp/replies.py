"""What BIRD's answers mean: sessions with their state, what both ends can, and routes. Pure.

The words are BIRD's (proto/bgp/bgp.c, nest/proto.c). What cannot be understood is left out: a field that is missing is
unknown, never an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from backends.bgp.control import Line
from cluster import addresses

ESTABLISHED: Final = "Established"
_FAMILIES: Final = {"ipv4": 4, "ipv6": 6}
_ROUTES: Final = re.compile(r"\b([0-9]{1,18}) (imported|filtered|exported|preferred)", re.ASCII)
_NETWORK: Final = re.compile(r"([0-9a-fA-F.:]+/[0-9]+)\s+(?:\S+\s+)?(?:\[|unicast|unreachable|blackhole)", re.ASCII)
_BY: Final = re.compile(r"\[(\S+) ")
_SECONDS: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Abilities:
    """What one end said of itself when the session began. *restarts* are the families of which it keeps forwarding
    while it restarts; *is_aware* means that it waits for others that do."""

    is_aware: bool = False
    restarts: frozenset[int] = frozenset()
    restart_time: int = 0


@dataclass(frozen=True, slots=True)
class Channel:
    """The routes of one *family* with one neighbour. *is_limited*: it has sent more than is taken."""

    family: int
    imported: int = 0
    filtered: int = 0
    exported: int = 0
    is_limited: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """One session as BIRD shows it. *since* is in seconds since the epoch, 0 where that is not known. *error* is the
    last one, '' for none. *is_restarting* is the neighbour; *is_reflecting*: to it everything is passed on."""

    name: str
    state: str = ""
    since: float = 0.0
    address: str = ""
    error: str = ""
    is_restarting: bool = False
    is_reflecting: bool = False
    local: Abilities = Abilities()
    neighbour: Abilities = Abilities()
    channels: tuple[Channel, ...] = field(default=())

    @property
    def is_up(self) -> bool:
        """Whether routes are exchanged."""
        return self.state == ESTABLISHED

    @property
    def is_given_up(self) -> bool:
        """Whether BIRD tries it no more, by itself: it could not even begin, as where the port is another's. One that
        somebody disabled has no such error (proto/bgp/bgp.c, BE_MISC)."""
        return self.state == "Down" and self.error.startswith("Error: ")

    def channel(self, family: int) -> Channel:
        """That of *family*; an empty one where there is none."""
        return next((one for one in self.channels if one.family == family), Channel(family))


class Heard(NamedTuple):
    """A route that was heard of the neighbour of the session *session*."""

    network: str
    session: str


def sessions(lines: Iterable[Line]) -> dict[str, Shown]:
    """The BGP sessions in the answer to ``show protocols all``, by their names."""
    found: dict[str, Shown] = {}
    for head, body in _blocks(lines):
        words = head.split(None, 5)
        if len(words) >= 5 and words[1] == "BGP":
            since = float(words[4]) if _SECONDS.fullmatch(words[4]) else 0.0
            found[words[0]] = _session(Shown(words[0], since=since), body)
    return found


def _blocks(lines: Iterable[Line]) -> Iterator[tuple[str, list[str]]]:
    head = ""
    body: list[str] = []
    for code, text in lines:
        if code == 1002:
            if head:
                yield head, body
            head, body = text, []
        elif code == 1006:
            body.append(text)
    if head:
        yield head, body


_BELOW: Final = 8 * " "
"""Before what is said of an ability: not all of it has a value, as "Restart recovery" has none."""


def _session(one: Shown, body: Sequence[str]) -> Shown:
    place = heading = ""
    channels: list[Channel] = []
    for text in body:
        key, _, value = (part.strip() for part in text.partition(":"))
        heading = heading if text.startswith(_BELOW) else key
        if key in ("Local capabilities", "Neighbor capabilities"):
            place = key
        elif text.startswith("  Channel "):
            place = "channel"
            channels.append(Channel(_FAMILIES.get(text[10:].strip(), 0)))
        elif key == "BGP state":
            one = replace(one, state=value)
        elif key.startswith("Neighbor address"):
            one = replace(one, address=value)
        elif key == "Neighbor graceful restart active":
            one = replace(one, is_restarting=True)
        elif key == "Session":
            one = replace(one, is_reflecting="route-reflector" in value)
        elif key == "Last error":
            one = replace(one, error=value)
        elif place == "channel":
            channels[-1] = _channel(channels[-1], key, value, text)
        elif place == "Local capabilities":
            one = replace(one, local=_ability(one.local, heading, key, value))
        elif place:
            one = replace(one, neighbour=_ability(one.neighbour, heading, key, value))
    return replace(one, channels=tuple(channel for channel in channels if channel.family))


def _ability(one: Abilities, heading: str, key: str, value: str) -> Abilities:
    if heading != "Graceful restart":  # what is indented below "Long-lived graceful restart" has the same words
        return one
    if key == "Restart time" and _SECONDS.fullmatch(value):
        return replace(one, restart_time=int(float(value)))
    if key == "AF supported":
        return replace(one, restarts=frozenset(_FAMILIES[word] for word in value.split() if word in _FAMILIES))
    return replace(one, is_aware=True)


def _channel(one: Channel, key: str, value: str, text: str) -> Channel:
    if key == "Routes":
        numbers = {what: int(number) for number, what in _ROUTES.findall(value)}
        return replace(
            one,
            imported=numbers.get("imported", 0),
            filtered=numbers.get("filtered", 0),
            exported=numbers.get("exported", 0),
        )
    if key == "Import limit":
        return replace(one, is_limited="[HIT]" in text)
    return one


def routes(lines: Iterable[Line]) -> list[Heard]:
    """The routes in the answer to ``show route``, each by the session that it was heard in."""
    found = []
    network = ""
    for code, text in lines:
        if code != 1007:
            continue
        named = _NETWORK.match(text)
        network = _range(named[1]) if named else network
        by = _BY.search(text)
        if network and by:
            found.append(Heard(network, by[1]))
    return found


def _range(text: str) -> str:
    """A range as it is written; '' where it is none."""
    try:
        return str(addresses.cidr(text))
    except ValueError:
        return ""


def constant(lines: Sequence[Line]) -> str:
    """The text in the answer to ``eval`` of a constant; '' where there is none of that name."""
    return lines[-1].text.strip().strip('"') if lines and lines[-1].code == 23 else ""
