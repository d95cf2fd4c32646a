"""The agent's side of the commands of ``routablectl``: see ``agent.commands``."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from netaddr import AddrFormatError, IPAddress

import backends
from agent import commands
from agent.keep.survey import Survey
from agent.node.node import Node
from agent.serve.lane import Answer, Incoming
from agent.switch.switch import Switch
from agent.tell import plain
from agent.tell.status import Status
from cni import frame, result
from cni.errors import ConfigInvalid, Failure, Undecodable, bug

log = logging.getLogger(__name__)

_POD: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
"""A pod by its namespace and name (RFC 1123)."""

Serve = Callable[[Incoming], Answer | None]


class Switching(msgspec.Struct, frozen=True):
    """The arguments of `commands.SWITCH`."""

    backend: str
    dry_run: bool = False
    force: bool = False


class Control:
    """Serves the commands; every other request is *otherwise*'s."""

    def __init__(self, status: Status, node: Node, survey: Survey, switch: Switch, otherwise: Serve) -> None:
        self._status = status
        self._node = node
        self._survey = survey
        self._switch = switch
        self._otherwise = otherwise
        self._commands: Mapping[bytes, Callable[[Any], object]] = {
            commands.STATUS.encode(): lambda _: self._status.document(),
            commands.IP.encode(): self._history,
            commands.SWITCH.encode(): self._ask,
            commands.PROGRESS.encode(): lambda _: self._switch.progress(),
        }

    def serve(self, incoming: Incoming) -> Answer | None:
        """The answer to a request; None: it is better served later."""
        command = self._commands.get(incoming.request.env.get("CNI_COMMAND", b""))
        if command is None:
            return self._otherwise(incoming)
        try:
            body = _encoded(command(_arguments(incoming.request.stdin)))
        except Failure as failure:
            return Answer(frame.Response(1, result.error(failure, "1.1.0")))
        except Exception as error:
            log.exception("a bug")
            return Answer(frame.Response(1, result.error(bug(error), "1.1.0")))
        return Answer(frame.Response(0, body))

    def _ask(self, arguments: Any) -> object:
        try:
            asked = msgspec.convert(arguments, Switching)
        except msgspec.ValidationError as error:
            raise Undecodable("the command's arguments are not those of switch", str(error)) from error
        if asked.backend not in backends.BACKENDS:
            choice = ", ".join(sorted(backends.BACKENDS))
            raise ConfigInvalid(f"there is no backend {asked.backend!r}", f"choose one of {choice}")
        return self._switch.ask(asked.backend, self._survey.now, is_dry=asked.dry_run, is_forced=asked.force)

    def _history(self, arguments: Any) -> object:
        text = arguments.get("address") if isinstance(arguments, dict) else None
        if isinstance(text, str) and _POD.fullmatch(text):
            return plain.history(self._node.ledger.history_of(text))
        try:
            address = IPAddress(str(text))
        except (AddrFormatError, ValueError, TypeError) as error:
            allowed = "for example 10.244.1.7 or 2001:db8::7; or a pod's name, as default/web-0"
            raise ConfigInvalid(f"{text!r} is no IP address", allowed) from error
        return plain.history(self._node.ledger.history(address))


def _encoded(document: object) -> bytes:
    """The document of an answer. Failure: no answer is as large as that."""
    body = msgspec.json.encode(document)
    if len(body) > frame.STDOUT_MAX:
        what = f"the answer would have {len(body)} bytes, more than the {frame.STDOUT_MAX} that one may have"
        raise Failure(what, "the numbers are in /metrics, and the log has what was told of single pods and peers")
    return body


def _arguments(stdin: bytes) -> Any:
    try:
        return msgspec.json.decode(stdin or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Undecodable("the command's arguments are not JSON", str(error)) from error
