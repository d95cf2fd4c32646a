"""What the speaker tells: complaints, the section "bgp" of status, metrics, and how a person is shown them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from netaddr import IPNetwork

from backends.bgp import overlaps
from backends.bgp.replies import Heard, Shown
from backends.bgp.seen import Seen
from backends.bgp.sessions import Session
from backends.bgp.table import BgpTable
from backends.descriptor import Around
from backends.told import Complaint, Measure, Table, Told
from backends.told import Shown as Printed
from cni.errors import Failure, Limited

PATIENCE: Final = 8.0
"""Seconds after a start for sessions to begin before their absence is told."""
_NAMED: Final = 5
_PORT: Final = "No listening socket"
"""BIRD's last error where it cannot listen (proto/bgp/bgp.c, BEM_NO_SOCKET)."""
_Number = Callable[[Shown], float]
_GAUGES: Final[Sequence[tuple[str, str, _Number]]] = (
    ("routable_bgp_session_up", "1 while routes are exchanged in the session.", lambda one: one.is_up),
    ("routable_bgp_session_since_seconds", "When it last went up or down, Unix time.", lambda one: one.since),
    ("routable_bgp_received_prefixes", "Routes that were heard and taken.", lambda one: _sum(one, "imported")),
    ("routable_bgp_filtered_prefixes", "Routes that were heard and not taken.", lambda one: _sum(one, "filtered")),
    ("routable_bgp_announced_prefixes", "Routes that are announced in it.", lambda one: _sum(one, "exported")),
)


def told(table: BgpTable, seen: Seen, age: float) -> Told:
    """All of it; *age* is for how long the speaker has been there, in seconds."""
    complaints = {
        "speaker": [Complaint(_limited(seen.problem))] if seen.problem is not None else [],
        "sessions": [*_sessions(table, seen), *_unheard(table, seen)] if age > PATIENCE else [],
        "prefixes": [*_prefixes(table, seen), *overlaps.complaints(table, seen)],
    }
    if seen.speech is None:
        return Told(complaints)
    return Told(complaints, {"bgp": _section(seen)}, _measures(seen))


def _limited(failure: Failure) -> Failure:
    return Limited(failure.message, failure.details)


def _sessions(table: BgpTable, seen: Seen) -> Iterator[Complaint]:
    """Sessions that are not there, each peer with the last error; a session is told once for all that it lacks."""
    missing = [one for one in _wanted(seen) if not _shown(seen, one).is_up]
    if not missing:
        return
    named = "; ".join(f"{one.peer} ({one.address}): {_why(_shown(seen, one))}" for one in missing[:_NAMED])
    more = f"; and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    hint = "see bird.log, and that the other end has this node as a neighbour"
    if any(_PORT in _shown(seen, one).error for one in missing):
        hint = "TCP port 179 is another's, as the package's own BIRD's (systemctl disable --now bird), or BIRD may not "
        hint += "have it: it needs CAP_NET_BIND_SERVICE"
    elif seen.md5.wrong and any(one.password_file for one in missing):
        hint = f"the kernel dropped {seen.md5.wrong} segments that were signed with another password: compare them"
    elif seen.md5.unexpected and not all(one.password_file for one in missing):
        hint = f"the kernel dropped {seen.md5.unexpected} signed segments: the other end has a password, this one none"
    elif seen.md5.unsigned:
        hint = f"the kernel dropped {seen.md5.unsigned} segments without a signature: have both ends a password?"
    yield Complaint(Limited(f"no BGP session with {named}{more}", hint), len(missing))


def _why(shown: Shown) -> str:
    return f"{shown.state or 'not there'}, " + (f"BIRD's last error: {shown.error}" if shown.error else "no answer")


def _prefixes(table: BgpTable, seen: Seen) -> Iterator[Complaint]:
    limited = sorted(name for name, one in seen.sessions.items() if any(channel.is_limited for channel in one.channels))
    if limited:
        failure = Limited(
            f"more than {table.max_prefixes} prefixes came from {', '.join(limited[:_NAMED])}: the rest is not taken",
            "does it announce what it should? Else raise bgp.max_prefixes",
        )
        yield Complaint(failure, len(limited))


def _unheard(table: BgpTable, seen: Seen) -> Iterator[Complaint]:
    """Nodes with whom all is well but that nothing is heard of their pods. Below a router a default route may do."""
    up = {one.peer: one for one in _wanted(seen) if _shown(seen, one).is_up}
    if table.topology == "tor" or not up or seen.speech is None or seen.is_changing or seen.is_leaving:
        return
    heard = {one.network for one in seen.routes}
    wider = [network for network in map(IPNetwork, heard) if network.prefixlen]
    lost = {}
    for peer in seen.peers:
        asked = peer.name in up if table.topology == "mesh" else peer.name != seen.speech.node
        missing = [cidr for cidr in peer.pod_cidrs if asked and str(cidr) not in heard]
        missing = [cidr for cidr in missing if cidr.version in seen.speech.families]
        missing = [cidr for cidr in missing if not any(cidr in one for one in wider if one.version == cidr.version)]
        if missing:
            lost[peer.name] = f"{peer.name} ({', '.join(map(str, missing))})"
    if lost:
        named = ", ".join(lost[name] for name in sorted(lost)[:_NAMED])
        hint = "are their ranges within bgp.accept of this node? Are they drained, or do they not speak yet?"
        yield Complaint(Limited(f"nothing is heard of pods of these nodes: {named}", hint), len(lost))


def reached(routes: Iterable[Heard], around: Around) -> set[str]:
    """The nodes whose pods' ranges are among *routes*."""
    ranges = {str(cidr): peer.name for peer in around.peers for cidr in peer.pod_cidrs}
    return {ranges[one.network] for one in routes if one.network in ranges} - {around.site.here.name}


def _wanted(seen: Seen) -> tuple[Session, ...]:
    return seen.speech.sessions if seen.speech is not None else ()


def _shown(seen: Seen, one: Session) -> Shown:
    return seen.sessions.get(one.name, Shown(one.name))


def _section(seen: Seen) -> Mapping[str, Any]:
    said = seen.speech
    assert said is not None
    return {
        "pid": seen.pid,
        "router_id": said.router_id,
        "asn": said.asn,
        "starts": seen.starts,
        "drained": seen.is_drained,
        "leaving": seen.is_leaving,
        "announced": [] if seen.is_drained else [str(one) for one in (*said.own, *said.announced)],
        "sessions": [_told_session(one, _shown(seen, one)) for one in said.sessions],
    }


def _told_session(one: Session, shown: Shown) -> Mapping[str, Any]:
    return {
        "name": one.name,
        "peer": one.peer,
        "address": str(one.address),
        "asn": one.asn,
        "state": shown.state or "not there",
        "up": shown.is_up,
        "since": shown.since,
        "error": shown.error,
        "restarting": shown.is_restarting,
        "received": {f"ipv{channel.family}": channel.imported for channel in shown.channels},
        "filtered": {f"ipv{channel.family}": channel.filtered for channel in shown.channels},
        "announced": {f"ipv{channel.family}": channel.exported for channel in shown.channels},
    }


def _measures(seen: Seen) -> Sequence[Measure]:
    rows = [_shown(seen, one) for one in _wanted(seen)]
    return [
        *(
            Measure(name, help_text, [((one.name,), float(number(one))) for one in rows], ("session",))
            for name, help_text, number in _GAUGES
        ),
        Measure("routable_bgp_starts", "Starts of BIRD by the agent.", [((), float(seen.starts))], is_counter=True),
        Measure("routable_bgp_drained", "1 while nothing is announced.", [((), float(seen.is_drained))]),
    ]


def _sum(one: Shown, what: str) -> int:
    return sum(getattr(channel, what) for channel in one.channels)


def show(sections: Mapping[str, Any], now: float) -> Printed:
    """What ``routablectl status`` prints of the section at *now* (seconds since the epoch)."""
    bgp = sections.get("bgp")
    if not bgp:
        return Printed()
    state = f"BIRD {bgp['pid'] or 'elsewhere'}, AS {bgp['asn']}, router ID {bgp['router_id']}"
    lines = [f"{state}, announces {', '.join(bgp['announced']) or 'nothing'}"]
    lines += ["drained: `routablectl drain --undo` has it announce its pods again"] if bgp["drained"] else []
    lines += ["BIRD goes on for nodes that are reached by BGP still"] if bgp["leaving"] else []
    rows = [
        (
            one["peer"],
            one["address"],
            str(one["asn"]),
            one["state"],
            _age(now - one["since"]) if one["since"] else "",
            _numbers(one["received"]),
            _numbers(one["announced"]),
            one["error"],
        )
        for one in bgp["sessions"]
    ]
    head = ("PEER", "ADDRESS", "AS", "STATE", "SINCE", "RECEIVED", "ANNOUNCED", "LAST ERROR")
    return Printed(lines, [Table("BGP SESSIONS", head, rows)])


def _numbers(by_family: Mapping[str, int]) -> str:
    return " ".join(f"{number} {family}" for family, number in sorted(by_family.items())) or "0"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


