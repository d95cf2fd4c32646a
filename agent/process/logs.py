"""Structured logging on the standard library's ``logging``: one record is one line, whatever a caller puts into it.

What a request is about (attachment, verb, pod) is bound once and stands in every line that is logged while it is
served, from whichever module: ``logging.getLogger(__name__)`` is all that those need. Facts go into ``extra``, not
into the message: ``log.info("address given", extra={"address": address})``.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final, Literal

VALUE_MAX: Final = 4096
"""Characters of one value or message: a caller's standard input can be 1 MiB of anything. Tracebacks are whole."""

_NONE: Final[Mapping[str, object]] = MappingProxyType({})
_bound: Final[ContextVar[Mapping[str, object]]] = ContextVar("routable_log", default=_NONE)
_ATTRIBUTE: Final = "routable"
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", _ATTRIBUTE}
_BARE: Final = re.compile(r"[A-Za-z0-9_./:@%+,;\-\[\]]+", re.ASCII)
_KEY: Final = re.compile(r"[^A-Za-z0-9_.\-]", re.ASCII)


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Every line logged by this thread inside the block carries *fields*, over those of the blocks around it."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def current() -> Mapping[str, object]:
    """What is bound here and now, to be bound again (``bound(**current())``) in a thread that works for this one."""
    return _bound.get()


def pod(cni_args: str) -> str:
    """The pod that CNI_ARGS names, as "namespace/name" (CONVENTIONS.md, "CNI_ARGS"); "" when it names none."""
    pairs = dict(one.partition("=")[::2] for one in cni_args.split(";"))
    name = pairs.get("K8S_POD_NAME", "")
    return f"{pairs.get('K8S_POD_NAMESPACE', '')}/{name}".lstrip("/") if name else ""


def request(environment: Mapping[str, bytes]) -> dict[str, object]:
    """What the CNI_* variables alone say of a request: verb, container, ifname, pod; only what is there.

    The network is known, and ``attachment`` can be bound, once standard input has been read.
    """
    told = {name: value.decode("utf-8", "surrogateescape") for name, value in environment.items()}
    found = {
        "verb": told.get("CNI_COMMAND", ""),
        "container": told.get("CNI_CONTAINERID", ""),
        "ifname": told.get("CNI_IFNAME", ""),
        "pod": pod(told.get("CNI_ARGS", "")),
    }
    return {key: value for key, value in found.items() if value}


class Bind(logging.Filter):
    """Puts what is bound onto the record, in the thread that logs it."""

    def filter(self, record: logging.LogRecord) -> Literal[True]:
        """Let every record pass."""
        setattr(record, _ATTRIBUTE, _bound.get())
        return True


class _Formatter(logging.Formatter):
    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """What is bound, then ``extra``, then the traceback."""
        found: dict[str, object] = dict(getattr(record, _ATTRIBUTE, _NONE))
        found.update((key, value) for key, value in vars(record).items() if key not in _STANDARD)
        if record.exc_info:
            found["traceback"] = _Whole(self.formatException(record.exc_info))
        if record.stack_info:
            found["stack"] = _Whole(record.stack_info)
        return found


class Text(_Formatter):
    """``2026-01-02T03:04:05.678Z info address given address=10.1.0.2 verb=ADD``, for people and grep.

    A message or value with anything unusual in it is quoted and escaped as JSON, so that no value can look like a
    line, a field or a terminal's control sequence.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line, ASCII."""
        message = _cut(record.getMessage())
        if "=" in message or message[:1] in ('"', "") or not message.isascii() or not message.isprintable():
            message = json.dumps(message)
        pairs = (f" {_KEY.sub('_', key)}={_value(value)}" for key, value in self.fields(record).items())
        return f"{_time(record)} {record.levelname.lower()} {message}{''.join(pairs)}"


class Json(_Formatter):
    """One JSON object per line: time, level, logger, message, then the fields. A field of such a name gets a "_"."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, ASCII."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _cut(record.getMessage()),
        }
        for key, value in self.fields(record).items():
            line[f"{key}_" if key in line else key] = _plain(value)
        return json.dumps(line)


def install(level: str, form: str, handler: logging.Handler) -> None:
    """Log records of *level* ("debug" … "error") and above by *handler*, as "text" or "json".

    For the composition root: it replaces the root logger's handlers.
    """
    handler.setFormatter(Json() if form == "json" else Text())
    handler.addFilter(Bind())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class _Whole(str):
    """A text of ours that is not cut."""

    __slots__ = ()


def _time(record: logging.LogRecord) -> str:
    seconds, thousandths = divmod(round(record.created * 1e6) // 1000, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{thousandths:03d}Z"


def _cut(text: str) -> str:
    # Variables are bytes: what is not UTF-8 in them arrives as lone surrogates, which no JSON reader likes.
    whole = text.encode("utf-8", "backslashreplace").decode()
    if len(whole) <= VALUE_MAX or isinstance(text, _Whole):
        return whole
    return f"{whole[:VALUE_MAX]}... ({len(whole)} characters)"


def _plain(value: object) -> Any:
    """*value* as JSON can hold it: numbers, booleans and None as they are, everything else as its text."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _cut(value if isinstance(value, str) else str(value))


def _value(value: object) -> str:
    text = _plain(value)
    if not isinstance(text, str):
        return json.dumps(text)
    return text if _BARE.fullmatch(text) else json.dumps(text)
