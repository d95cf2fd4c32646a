"""A machine's metadata server, asked by plain HTTP: one whole answer within bounds, or an error.

It stands on the machine's own link, and whatever stands in its place may answer anything: without end, by halves, with
a page of its own.
"""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

TIMEOUT: Final = 2.0
"""Seconds for a connection, and for each part of an answer."""
WHOLE: Final = 10.0
"""Seconds for all of an answer."""
MOST: Final = 1 << 16
"""Bytes of an answer: the longest, a list of addresses, has some hundreds."""


class Reply(NamedTuple):
    """What came, whatever it is; the names of *headers* are in lower case."""

    status: int
    text: str
    headers: Mapping[str, str] = {}


class Web:
    """At *host*, which may have a port; *clock* answers seconds. Any thread may call."""

    def __init__(self, host: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.host = host
        self._clock = clock

    def ask(self, method: str, path: str, headers: Mapping[str, str], patience: float = 0.0) -> Reply:
        """The answer to one request, which may keep us waiting for *patience* seconds on purpose.

        OSError, HTTPException, ValueError: there was no whole one.
        """
        deadline = self._clock() + WHOLE + patience
        connection = http.client.HTTPConnection(self.host, timeout=TIMEOUT + patience)
        try:
            connection.request(method, f"/{path}", headers=dict(headers))
            answer = connection.getresponse()
            body = b""
            while part := answer.read1(MOST):
                body += part
                if len(body) > MOST or self._clock() > deadline:
                    raise ValueError(f"/{path} answers without end")
            if answer.length:
                raise http.client.IncompleteRead(body, answer.length)
            return Reply(answer.status, body.decode(), {name.lower(): value for name, value in answer.getheaders()})
        finally:
            connection.close()


def fit(form: re.Pattern[str], word: str, what: str) -> str:
    """*word*, if it has that form: an error page may come with the status of an answer. ValueError: it has not."""
    if form.fullmatch(word) is None:
        raise ValueError(f"{what} says {word[:80]!r}")
    return word
