"""The six verbs of the CNI specification 1.1.0, from the request to the answer.

What always holds: whatever arrives, one answer goes back: the verb's result or one error document.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Final

from netaddr import IPNetwork

from agent.node.ledger import Asked
from agent.node.node import Node
from agent.process import logs
from agent.serve.lane import Answer, Incoming
from agent.tell.metrics import Metrics
from backends.fabric import Shortage
from backends.podlink import GATEWAYS, HOST_MAC, link_name
from cni import frame, result
from cni.call import Call, parse, version_for_error
from cni.errors import Drifted, Failure, TryAgain, bug
from cni.result import Interface, Ip, Result, Route
from cni.spec import Attachment, Verb
from ipam.allocator import NoneLeft, NoneYet
from ipam.store import Record

log = logging.getLogger(__name__)

_DEFAULT: Final = {4: IPNetwork("0.0.0.0/0"), 6: IPNetwork("::/0")}


class Parked(Exception):
    """The request is not answered now."""


class Verbs:
    """Serves requests with *node*. *unable* answers what STATUS has to tell; *shortage* what it means that there is no
    address."""

    def __init__(
        self,
        node: Node,
        metrics: Metrics,
        unable: Callable[[], Shortage | None],
        shortage: Callable[[Failure], Shortage],
    ) -> None:
        self._node = node
        self._shortage = shortage
        self._metrics = metrics
        self._unable = unable
        self._told: set[tuple[str, tuple[str, ...]]] = set()

    def serve(self, incoming: Incoming) -> Answer | None:
        """The answer to a request; every failure becomes one error document. None: it is better served later."""
        try:
            return self._guarded(
                incoming.request, lambda call: self._answer(call, incoming), started=incoming.arrived
            )
        except Parked:
            return None

    def add_together(self, incomings: Sequence[Incoming]) -> Callable[[], list[Answer | None]]:
        """Begin many ADDs; what is returned finishes them and gives the answers. None: better served alone."""
        started = perf_counter()
        calls = [_parsed(incoming.request) for incoming in incomings]
        asked: dict[Attachment, Asked] = {}
        for call, incoming in zip(calls, incomings, strict=True):
            if call is not None and not incoming.is_gone():
                asked.setdefault(call.attachment, _asked(call))
        addition = self._node.begin_addition(asked)

        def finish() -> list[Answer | None]:
            done = addition()
            answers: list[Answer | None] = []
            for call, incoming in zip(calls, incomings, strict=True):
                record = done.pop(call.attachment, None) if call is not None else None
                if record is None:
                    answers.append(None)
                else:
                    attached = partial(self._attached, record)
                    answers.append(self._guarded(incoming.request, attached, call, incoming.arrived or started))
            return answers

        return finish

    def delete_together(self, incomings: Sequence[Incoming]) -> Callable[[], list[Answer | None]]:
        """Begin many DELs; what is returned finishes them and gives the answers. None: better served alone."""
        started = perf_counter()
        calls = [_parsed(incoming.request) for incoming in incomings]
        whos = [call.attachment for call in calls if call is not None]
        removal = self._node.begin_removal(whos)

        def finish() -> list[Answer | None]:
            done = removal()

            def deleted(call: Call) -> Answer:
                removed = done[call.attachment]
                if removed.error is not None:
                    raise removed.error
                _tell_detached(removed.was_attached)
                return Answer(frame.Response(0, b""))

            return [
                self._guarded(incoming.request, deleted, call, started)
                if call is not None and call.attachment in done
                else None
                for incoming, call in zip(incomings, calls, strict=True)
            ]

        return finish

    def _guarded(
        self,
        request: frame.Request,
        body: Callable[[Call], Answer],
        call: Call | None = None,
        started: float | None = None,
    ) -> Answer:
        """What *body* answers, or what went wrong as an error document; logged and counted."""
        started = started or perf_counter()
        code = 0
        with logs.bound(**logs.request(request.env)):
            try:
                call = call or parse(request)
                with logs.bound(attachment=call.attachment):
                    answer = body(call)
            except Parked:
                raise
            except Failure as failure:
                code = failure.code
                log.warning("refused", extra={"code": code, "error": str(failure)})
                answer = _failed(request, failure)
            except Exception as error:
                code = Failure.code
                log.exception("a bug")
                answer = _failed(request, bug(error))
        verb = request.env.get("CNI_COMMAND", b"").decode("utf-8", "replace")
        self._metrics.request(verb, code, perf_counter() - started)
        return answer

    def _answer(self, call: Call, incoming: Incoming) -> Answer:
        if call.verb is Verb.ADD:
            return self._add(call, incoming)
        if call.verb is Verb.DEL:
            _tell_detached(self._node.delete(call.attachment))
        elif call.verb is Verb.CHECK:
            self._check(call)
        elif call.verb is Verb.GC:
            known = self._node.ledger.records()
            gone = self._node.collect(call.network, call.valid or (), incoming.sequence)
            if gone:
                pods = ", ".join(known[who].called if who in known else str(who) for who in gone)
                log.warning("collected what the runtime does not know", extra={"pods": pods})
        elif call.verb is Verb.STATUS:
            self._status(incoming)
        else:
            return Answer(frame.Response(0, result.versions(call.version)))
        return Answer(frame.Response(0, b""))

    def _status(self, incoming: Incoming) -> None:
        unable = self._unable()
        if unable is None:
            return
        if unable.may_end and incoming.has_patience:
            raise Parked from unable.failure
        raise unable.failure

    def _add(self, call: Call, incoming: Incoming) -> Answer:
        if incoming.is_gone():
            # Its DEL may have been served before: what is added now nobody would remove.
            raise TryAgain("the runtime ended its call before the ADD began", "nothing was done")
        try:
            record = self._node.add(call.attachment, _asked(call))
        except Failure as failure:
            if not isinstance(failure, NoneYet | NoneLeft) and self._node.wiring is not None:
                raise
            shortage = self._shortage(failure)
            if shortage.may_end and incoming.has_patience:
                raise Parked from failure
            if shortage.failure is failure:
                raise
            raise shortage.failure from failure
        return self._attached(record, call)

    def _attached(self, record: Record, call: Call) -> Answer:
        bound = logs.current()

        def afterwards(is_delivered: bool) -> None:
            if is_delivered:
                self._node.ledger.answered(call.attachment)
            with logs.bound(**bound):  # the runtime need not wait for this line
                log.info("attached", extra={"addresses": " ".join(map(str, record.lease.addresses))})
                self._tell_ignored(call)

        return Answer(frame.Response(0, result.encode(added(record, call), call.version, call.prev)), afterwards)

    def _tell_ignored(self, call: Call) -> None:
        """Once: the configuration is the same for every pod."""
        if call.ignored and (call.network, call.ignored) not in self._told:
            self._told.add((call.network, call.ignored))
            keys = ", ".join(call.ignored)
            log.warning(
                "keys of the network configuration change nothing", extra={"network": call.network, "keys": keys}
            )

    def _check(self, call: Call) -> None:
        believed = _pod_end(call)
        record = self._node.check(call.attachment, call.netns, believed.mac, believed.mtu)
        assert call.prev is not None, "without it there is no CHECK: see cni.call"
        listed = {ip.address.ip for ip in call.prev.ips}
        missing = [str(address) for address in record.lease.addresses if address not in listed]
        if missing:
            raise Drifted(
                f"prevResult of {call.attachment} lacks {', '.join(missing)}",
                "the runtime's cached result is not that of this attachment's ADD",
            )


def added(record: Record, call: Call) -> Result:
    """The result of an ADD: both ends of the link, the addresses on the pod's end, the default routes that it has."""
    ends = (
        Interface(link_name(record.lease.who), HOST_MAC, record.mtu),
        Interface(record.lease.who.ifname, record.mac, record.mtu, record.netns),
    )
    addresses = record.lease.addresses
    ips = (Ip(IPNetwork(address), GATEWAYS[address.version], 1) for address in addresses)
    families = (address.version for address in addresses if address.version not in record.beside)
    routes = (Route(_DEFAULT[family], GATEWAYS[family]) for family in families)
    return Result(ends, tuple(ips), tuple(routes), call.dns)


def _asked(call: Call) -> Asked:
    beside = frozenset() if call.has_default_route else frozenset((4, 6))
    return Asked(call.netns, call.ips, call.mac, call.pod, beside=beside, uid=call.uid)


def _pod_end(call: Call) -> Interface:
    """The pod's end as the runtime believes it to be, with '' and 0 for what it does not say."""
    for interface in call.prev.interfaces if call.prev is not None else ():
        if interface.name == call.ifname and interface.sandbox:
            return interface
    return Interface(call.ifname, "")


def _tell_detached(was_attached: bool) -> None:
    """Once for what was attached, however often the runtime asks."""
    if was_attached:
        log.info("detached")
    else:
        log.debug("there was nothing to detach")


def _parsed(request: frame.Request) -> Call | None:
    """None: it is better served alone, where what is wrong with it is told."""
    try:
        return parse(request)
    except Failure:
        return None


def _failed(request: frame.Request, failure: Failure) -> Answer:
    return Answer(frame.Response(1, result.error(failure, version_for_error(request))))
