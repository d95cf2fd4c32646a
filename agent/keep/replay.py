"""DELs that waited in the spool: what they meant when they were written is done to the node."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from agent.keep.spool import Spooled, Written
from agent.node.node import Node, Removed
from agent.process import logs
from cni import frame
from cni.call import Call, parse
from cni.errors import Failure, bug
from cni.spec import Attachment, Verb
from ipam.store import Record

log = logging.getLogger(__name__)


def delete_spooled(node: Node, spooled: Sequence[Spooled]) -> list[Failure | None]:
    """Serve DELs that waited in the spool, together; the answers say why one must come again."""
    whos: list[Attachment | None] = []
    written: dict[Attachment, list[Written]] = {}
    known = node.ledger.records()
    for request, time in spooled:
        call = _spooled_del(request)
        whos.append(call.attachment if call is not None else None)
        if call is not None:
            written.setdefault(call.attachment, []).append(time)

    def is_meant(record: Record) -> bool:
        return any(time.is_after(record.since) for time in written[record.lease.who])

    done = node.begin_removal(written, lambda held: held is None or is_meant(held.record))()
    for who in written:
        if who not in done:  # added later, or with a request under way
            try:
                done[who] = Removed(node.delete(who, is_meant))
            except Exception as error:  # noqa: BLE001 - told below
                done[who] = Removed(False, error)
        if done[who].was_attached:
            pod = known[who].called if who in known else str(who)
            log.info("detached by a DEL that waited in the spool", extra={"pod": pod})
    failures = {who: _told(who, one.error) for who, one in done.items() if one.error is not None}
    return [failures.get(one) if one is not None else None for one in whos]


def _told(who: Attachment, error: Exception) -> Failure:
    """Why it must come again. A bug, too, stays with the pod that brings it out: each start would meet it and end."""
    if isinstance(error, Failure):
        return error
    log.error("a bug", exc_info=error, extra={"attachment": str(who)})
    return bug(error)


def _spooled_del(request: frame.Request) -> Call | None:
    with logs.bound(**logs.request(request.env)):
        try:
            call = parse(request)
        except Failure as failure:
            log.error("a spooled DEL is not served: it would fail for ever", extra={"error": str(failure)})
            return None
    return call if call.verb is Verb.DEL else None
