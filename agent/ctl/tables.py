"""What ``routablectl`` prints for people: documents of the agent as aligned text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from agent.commands import AT_REST, FINISHING, PREPARING
from backends.told import Shown

_SHOWN: Final = 50
"""Rows of one table; a cluster has thousands of peers, and ``--json`` has them all."""

Document = Mapping[str, Any]


def status(document: Document, now: float, of_backends: Sequence[Shown] = ()) -> str:
    """The agent's whole status at *now* (seconds since the epoch), with what there is to show *of_backends*."""
    parts = [_head(document, [line for shown in of_backends for line in shown.lines])]
    parts += _section("POOL", ("BLOCK", "TOTAL", "USED", "COOLING", "FREE"), map(_pool, document["pool"]))
    parts += _section(
        "LEASES", ("ADDRESS", "POD", "CONTAINER", "IFNAME", "AGE"), (_lease(one, now) for one in document["leases"])
    )
    # Whom the backend cannot reach comes first: that is what somebody looks for.
    peers = sorted(document["peers"], key=lambda one: (not one["unserved"], one["name"]))
    parts += _section("PEERS", ("NODE", "ADDRESSES", "POD CIDRS", "STATE"), map(_peer, peers))
    for one in (table for shown in of_backends for table in shown.tables):
        parts += _section(one.title, one.head, one.rows)
    if document["repairs"]:
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(document["repairs"].items()))
        parts.append(f"mended since the start: {kinds}")
    if document["events"]:
        parts.append("last events:\n" + "\n".join(_event(one) for one in document["events"]))
    return "\n\n".join(parts)


def dry_run(document: Document) -> str:
    """What a change of backend would do."""
    mtu = document["pod_mtu"]
    lines = [f"from {document['from']} to {document['to']}; nothing was changed"]
    lines.append(f"MTU of new pods {mtu['then']} instead of {mtu['now']}; running pods keep addresses and links")
    lines += ["on this node (- goes when every peer has moved, + comes before the first moves):", *document["changes"]]
    if document["more"]:
        lines.append(f"and {document['more']} more; --json has the first {len(document['changes'])}")
    return "\n".join(lines)


def progress(document: Document) -> str:
    """One line: how far a change of backend is."""
    if document["phase"] == AT_REST:
        return f"{document['to']}: at rest"
    if document["phase"] == FINISHING:
        return f"{document['to']}: every peer has moved, here and there; the old way is taken away"
    way = f"{document['from']} -> {document['to']}: {document['phase']}"
    return way if document["phase"] == PREPARING else f"{way}, {document['moved']} of {document['peers']} peers moved"


def left(document: Document) -> str:
    """Which peers are not ready for the new backend, and what that means."""
    rows = sorted(document["waiting"].items())
    names = table(("NODE", "WHY"), rows[:_SHOWN])
    more = f"\nand {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return f"{names}{more}\nBoth ways stay programmed, and these are tried again every few seconds: switch them, too."


def history(wanted: str, tenures: Sequence[Document]) -> str:
    """Who has and who had an address, or which addresses a pod has and had: *wanted*."""
    if not tenures and "/" in wanted:
        return f"{wanted} never had an address on this node, or so long ago that it is forgotten"
    if not tenures:
        return f"{wanted} was never given to a pod of this node, or so long ago that it is forgotten"
    is_of_pod = tenures[0]["pod"] == wanted
    head = ("SINCE", "UNTIL", *(("ADDRESS",) if is_of_pod else ()), "POD", "CONTAINER", "IFNAME", "MAC")
    rows = [
        (
            when(one["since"]),
            when(one["until"]) if one["until"] else "now",
            *((one["address"],) if is_of_pod else ()),
            _pod(one),
            one["container"],
            one["ifname"],
            one["mac"],
        )
        for one in tenures
    ]
    return table(head, rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns under their heads, as wide as their widest cell."""
    lines = [tuple(head), *(tuple(map(visible, row)) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def visible(text: str, besides: str = "") -> str:
    """*text* with what is no sign, and not *besides*, written out: a name that somebody else chose shall neither break
    a line nor tell a terminal anything."""
    return "".join(one if one.isprintable() or one in besides else repr(one)[1:-1] for one in text)


def when(seconds: float) -> str:
    """A time, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}Z"


def age(seconds: float) -> str:
    """A length of time, in its largest unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def _head(document: Document, of_backends: Sequence[str]) -> str:
    site = document["site"]
    lines = [f"node {document['node']}, backend {document['backend']}, version {document['version']}"]
    if site:
        lines.append(
            f"uplink {site['uplink']} mtu {site['uplink_mtu']} ({', '.join(site['addresses'])}), "
            f"pods' mtu {site['pod_mtu']}"
        )
    switch = document["switch"]
    if switch["phase"] != AT_REST:
        lines.append(progress(switch))
        lines += [f"  {peer}: {why}" for peer, why in sorted(switch["waiting"].items())[:_SHOWN]]
    elif switch["configured"] != switch["to"]:
        lines.append(f"the configuration still says {switch['configured']}: set backend to {switch['to']} there")
    lines += of_backends
    lines += [f"{document['waiting']} pods wait for an address"] if document["waiting"] else []
    lines += [f"peers are of {document['nodes_source']}"] if document.get("nodes_source") else []
    lines += _problems(document["problems"])
    lines += [f"{document['spooled']} DELs wait in the spool"] if document["spooled"] else []
    return "\n".join(lines)


def _problems(problems: Sequence[Document]) -> list[str]:
    """What CNI STATUS tells comes first: for that the node is NotReady."""
    if not problems:
        return ["ready, no problems"]
    is_ready = not any(one["by_status"] for one in problems)
    lines = ["ready, CNI STATUS succeeds; but" if is_ready else "not ready, CNI STATUS fails"]
    return lines + [
        visible(": ".join(filter(None, (f"problem {one['code']}", one["msg"], one["details"]))), "\n")
        for one in problems
    ]


def _section(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    everything = list(rows)
    if not everything:
        return [f"{title}: none"]
    rest = len(everything) - _SHOWN
    more = f"\n… and {rest} more: see --json" if rest > 0 else ""
    return [f"{title} ({len(everything)})\n{table(head, everything[:_SHOWN])}{more}"]


def _pool(one: Document) -> tuple[str, ...]:
    return one["block"], *(str(one[name]) for name in ("total", "used", "cooling", "free"))


def _lease(one: Document, now: float) -> tuple[str, ...]:
    return " ".join(one["addresses"]), _pod(one), one["container"][:13], one["ifname"], age(now - one["since"])


def _peer(one: Document) -> tuple[str, ...]:
    state = "; ".join(one["unserved"]) or "reachable"
    return one["name"], " ".join(one["addresses"]), " ".join(one["pod_cidrs"]), state


def _event(one: Document) -> str:
    text = visible(str(one["text"]), "\n").replace("\n", "\n      ")
    return f"  {when(one['time'])}  {text}"


def _pod(one: Document) -> str:
    return str(one["pod"] or "-")
