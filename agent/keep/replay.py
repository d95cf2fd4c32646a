"""DELs that waited in the spool: what they meant when they were written is done to the node."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from agent.keep.spool import Spooled, Written
from agent.node.node import Node, Removed
from agent.process import logs
from cni import frame
from cni.call import Call, parse
from cni.errors import Failure
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
            except Failure as failure:
                done[who] = Removed(False, failure)
        if done[who].was_attached:
            pod = known[who].called if who in known else str(who)
            log.info("detached by a DEL that waited in the spool", extra={"pod": pod})
    answers: list[Failure | None] = []
    for one in whos:
        error = done[one].error if one is not None else None
        if error is not None and not isinstance(error, Failure):
            raise error
        answers.append(error)
    return answers


def _spooled_del(request: frame.Request) -> Call | None:
    with logs.bound(**logs.request(request.env)):
        try:
            call = parse(request)
        except Failure as failure:
            log.error("a spooled DEL is not served: it would fail for ever", extra={"error": str(failure)})
            return None
    return call if call.verb is Verb.DEL else None
