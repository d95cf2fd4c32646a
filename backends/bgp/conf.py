"""The configuration of BIRD 2, as text: what follows from a node's `Speech` and the table [bgp]. Pure.

What always holds: only what this node says is announced, never what it heard, but by a reflector; nothing is accepted
of its own pods' ranges; what goes to the kernel has a metric of its own, higher than our routes' in both families, and
stays there whatever becomes of BIRD (`persist`, `graceful restart`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from netaddr import IPNetwork

from backends.bgp.sessions import Session, Speech
from backends.bgp.table import BgpTable, community, ranges
from dataplane.learned import METRIC

MARK: Final = "routable"
"""The constant in the configuration that says whose it is, and which: see `mark`."""
ACCEPTED: Final = "accepted"
"""The constants with what is believed of others, by family, in the configuration: a question to BIRD is short."""
BETWEEN: Final = 8282
"""The table in which BIRD has its routes besides while the node changes from or to another backend."""
LEAVING: Final = "8282, 1"
"""The last two numbers of the large community that says: this node reaches the others otherwise by now."""
RECOVERY: Final = 30
"""Seconds at most for which a BIRD that was restarted waits for what its neighbours say, before it goes by what they
said so far: one that is not there any more must not keep it from the news of the others. Sessions begin within a few.
"""
SCAN: Final = 1
"""Seconds between BIRD's looks at the kernel: what it lost of BIRD's routes comes back then."""
_WORD: Final = {4: "ipv4", 6: "ipv6"}
_ANY: Final = {4: "0.0.0.0/0", 6: "::/0"}
_LOG_MAX: Final = 1 << 20


class Mood(NamedTuple):
    """What is said differently for a while. *is_draining*: nothing is announced. *is_changing*: another backend has
    peers, too. *is_leaving*: it has them all, and what is announced is for nodes that are not there yet."""

    is_draining: bool = False
    is_changing: bool = False
    is_leaving: bool = False


USUAL: Final = Mood()


def configuration(table: BgpTable, speech: Speech, passwords: Mapping[str, str], mood: Mood = USUAL) -> str:
    """The whole file. *passwords* are by the file that they are of."""
    body = "\n".join(_body(table, speech, passwords, mood)) + "\n"
    return f'# Written by routable-agent: what is changed here is lost.\n{_marked(mark(speech.node, body))}\n{body}'


def mark(node: str, body: str) -> str:
    """What tells this configuration from every other node's, and from that of any other moment."""
    return f"{node} {hashlib.sha256(body.encode()).hexdigest()[:24]}"


def mark_of(text: str) -> str:
    """The mark that a `configuration` has."""
    line = next(one for one in text.splitlines() if one.startswith(f"define {MARK} "))
    return line.split('"')[1]


def _marked(words: str) -> str:
    return f'define {MARK} = "{words}";'


def _body(table: BgpTable, speech: Speech, passwords: Mapping[str, str], mood: Mood) -> Iterator[str]:
    families = tuple(sorted(speech.families))
    yield f'log "{table.directory}/bird.log" {_LOG_MAX} "{table.directory}/bird.log.1" all;'
    yield 'timeformat protocol "%s";'
    yield f"router id {speech.router_id};"
    yield f"graceful restart wait {RECOVERY};"
    yield ""
    yield "protocol device {\n\tscan time 10;\n}"
    if any(one.hops > 1 for one in speech.sessions):
        yield "\n# By what next hops that others name are reached."
        yield 'protocol direct {\n\tinterface "-rt*", "*";\n\tipv4;\n\tipv6;\n}'
    if table.bfd != "off":
        yield from _bfd(table)
    yield from _to_kernel()
    for family in families:
        yield from _of_family(table, speech, family, mood)
    for one in speech.sessions:
        yield ""
        yield from _session(table, one, passwords.get(one.password_file, ""))


def _bfd(table: BgpTable) -> Iterator[str]:
    every = f"{table.bfd_interval} ms"
    yield "\nprotocol bfd {"
    for kind in ('interface "*"', "multihop"):
        yield f"\t{kind} {{\n\t\tinterval {every};\n\t\tmultiplier {table.bfd_multiplier};\n\t}};"
    yield "}"


def _to_kernel() -> Iterator[str]:
    yield "\n# What was heard of others; nothing whose next hop cannot be reached."
    yield "filter to_kernel {"
    yield "\tif source != RTS_BGP || dest = RTD_UNREACHABLE then reject;\n\taccept;\n}"


def _of_family(table: BgpTable, speech: Speech, family: int, mood: Mood) -> Iterator[str]:
    word, own = _WORD[family], ranges(speech.own, family)
    paths = f"\tmerge paths on limit {table.ecmp};\n" if table.ecmp > 1 else ""
    yield f"\nprotocol kernel kernel{family} {{"
    yield f"\tmetric {METRIC};\n\tpersist;\n\tgraceful restart;\n\tscan time {SCAN};"
    yield f"{paths}\t{word} {{\n\t\timport none;\n\t\texport filter to_kernel;\n\t}};\n}}"
    if mood.is_changing:
        yield f"\n{word} table between{family};"
        yield f"\nprotocol pipe aside{family} {{\n\ttable master{family};\n\tpeer table between{family};"
        yield "\texport filter to_kernel;\n\timport none;\n}"
        yield f"\nprotocol kernel between_kernel{family} {{\n\tkernel table {BETWEEN};\n\tmetric {METRIC};"
        yield f"\tscan time {SCAN};\n{paths}\t{word} {{\n\t\ttable between{family};"
        yield "\t\timport none;\n\t\texport all;\n\t};\n}"
    yield f"\nprotocol static own{family} {{\n\t{word};"
    for cidr in () if mood.is_draining else (*own, *ranges(speech.announced, family)):
        yield f"\troute {cidr} unreachable;"
    yield "}"
    accepted = ranges(table.accept, family)
    if accepted:
        yield f"\ndefine {ACCEPTED}{family} = {within(accepted)};"
    yield f"\nfilter heard{family} {{"
    if own:
        yield f"\tif net ~ {within(own)} then reject;  # our own pods are nowhere else"
    if not table.accept_own_asn:
        yield from (f"\tif bgp_path ~ {through(asn)} then reject;" for asn in speech.asns)
    if accepted:
        yield f"\tif net ~ {ACCEPTED}{family} then accept;"
    if table.accept_default:
        yield f"\tif net = {_ANY[family]} then accept;"
    yield "\treject;\n}"
    is_reflector = any(one.is_client for one in speech.sessions)
    yield f"\nfilter said{family} {{"
    if is_reflector:
        yield "\tif source = RTS_BGP then accept;  # as a reflector does"
    yield "\tif source != RTS_STATIC then reject;"
    yield from (f"\t{_adding(one)}" for one in table.communities)
    if mood.is_leaving:
        yield f"\tbgp_large_community.add(({speech.asn}, {LEAVING}));"
    yield "\taccept;\n}"


def through(asn: int) -> str:
    """The paths through that system."""
    return f"[= * {asn} * =]"


def within(cidrs: Iterable[IPNetwork]) -> str:
    """The ranges that are *cidrs* or parts of these."""
    return f"[ {', '.join(f'{cidr}+' for cidr in cidrs)} ]"


def _adding(text: str) -> str:
    numbers = community(text) or ()
    attribute = "bgp_community" if len(numbers) == 2 else "bgp_large_community"
    return f"{attribute}.add(({', '.join(map(str, numbers))}));"


def _session(table: BgpTable, one: Session, password: str) -> Iterator[str]:
    yield f"# {' '.join(one.peer.split())}"  # a comment ends with its line
    yield f"protocol bgp '{one.name}' {{"
    source = f" {one.source}" if one.source is not None else ""
    yield f"\tlocal{source} as {one.local_asn};"
    yield f"\tneighbor {one.address} as {one.asn};"
    yield "\tdirect;" if one.hops == 1 else f"\tmultihop {one.hops};"
    if password:
        yield f"\tpassword {quoted(password)};"
    if table.ttl_security:
        yield "\tttl security on;"
    if one.is_client:
        yield "\trr client;"
    if not one.is_internal:
        yield "\tallow local as;"  # else BIRD would drop it unseen: what is heard decides
    yield f"\thold time {table.hold_time};"
    yield "\tconnect delay time 1;\n\tconnect retry time 5;\n\terror wait time 1, 5;"
    if table.graceful_restart:
        yield f"\tgraceful restart on;\n\tgraceful restart time {table.restart_time};"
    else:
        yield "\tgraceful restart off;"
    if table.bfd != "off":
        yield f"\tbfd {table.bfd};"
    for family in one.channels:
        yield from _channel(table, one, family)
    yield "}"


def _channel(table: BgpTable, one: Session, family: int) -> Iterator[str]:
    yield f"\t{_WORD[family]} {{"
    yield f"\t\timport filter heard{family};\n\t\timport keep filtered;"
    yield f"\t\timport limit {table.max_prefixes} action block;"
    yield f"\t\texport filter said{family};"
    if family == 4 and one.address.version == 6:
        yield "\t\textended next hop on;"
    yield "\t};"


def quoted(text: str) -> str:
    """A word as BIRD reads it; a quotation mark is nothing that it can read (see `backends.bgp.passwords`)."""
    return f'"{text}"'
