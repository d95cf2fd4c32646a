"""Compute Engine's REST API of the emulated project, over HTTP."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from tests.cloud.refusals import NoAnswer, Refusal
from tests.cloud.serving import Endpoint, Handler
from tests.gcp.documents import Cut, page, refusal
from tests.gcp.project import Project
from tests.gcp.tokens import Tokens

_ZONE: Final = r"/compute/v1/projects/(?P<project>[^/]+)/zones/(?P<zone>[^/]+)"
_REGION: Final = r"/compute/v1/projects/(?P<project>[^/]+)/regions/(?P<region>[^/]+)"
ROUTES: Final[Mapping[tuple[str, str], str]] = {
    ("GET", rf"{_ZONE}/instances/(?P<instance>[^/]+)"): "instances.get",
    ("PATCH", rf"{_ZONE}/instances/(?P<instance>[^/]+)/updateNetworkInterface"): "instances.updateNetworkInterface",
    ("GET", rf"{_ZONE}/operations/(?P<operation>[^/]+)"): "zoneOperations.get",
    ("POST", rf"{_ZONE}/operations/(?P<operation>[^/]+)/wait"): "zoneOperations.wait",
    ("GET", rf"{_REGION}/subnetworks/(?P<subnetwork>[^/]+)"): "subnetworks.get",
}
"""As the discovery document has them."""
_SYSTEM: Final = {"alt", "$alt", "prettyPrint"}
"""Parameters of every method."""


class Compute(Endpoint):
    """The API of *project* for whoever has one of *tokens*; *delay* (seconds) is how long each answer takes, *agents*
    are what callers say that they are."""

    def __init__(self, project: Project, tokens: Tokens, listener: socket.socket | None = None) -> None:
        self.delay = 0.0
        self.agents: set[str] = set()

        def answered(handler: Handler, verb: str) -> dict[str, Any]:
            body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
            self.agents.add(handler.headers.get("User-Agent", ""))
            who = tokens.holder(handler.headers.get("Authorization", ""), is_change=verb == "PATCH")
            method, parameters = _read(verb, handler.path, body)
            time.sleep(self.delay + project.blocks(method, parameters))
            found = project.call(method, parameters, who)
            time.sleep(project.took)
            return found

        def serve(handler: Handler, verb: str) -> None:
            try:
                found = answered(handler, verb)
            except Refusal as error:
                kind, text = error.page or ("text/plain", error.message)
                handler.answer(error.status, text.encode(), kind)
            except Cut as cut:
                _cut(handler, cut)
            except NoAnswer:
                handler.close_connection = True
                handler.connection.shutdown(socket.SHUT_RDWR)
            else:
                handler.answer(200, json.dumps(found).encode(), "application/json; charset=UTF-8")

        class Asked(Handler):
            def do_GET(handler) -> None:  # noqa: N802, N805 - the base class's name; self is the endpoint's
                serve(handler, "GET")

            def do_PATCH(handler) -> None:  # noqa: N802, N805 - as above
                serve(handler, "PATCH")

            def do_POST(handler) -> None:  # noqa: N802, N805 - as above
                serve(handler, "POST")

        super().__init__(Asked, listener)


def _read(verb: str, path: str, body: bytes) -> tuple[str, dict[str, Any]]:
    """The method and its parameters. Refusal: there is no such one, or no such parameter."""
    url = urlsplit(path)
    for (wanted, pattern), method in ROUTES.items():
        match = re.fullmatch(pattern, url.path)
        if match is not None and verb == wanted:
            asked = {key: one for key, one in parse_qsl(url.query, keep_blank_values=True) if key not in _SYSTEM}
            found: dict[str, Any] = {**asked, **match.groupdict()}
            if verb == "PATCH":
                found["body"] = _document(body)
            elif body.strip() not in (b"", b"{}"):
                raise refusal(400, "badRequest", "The request body must be empty.")
            return method, found
    raise page(404, "text/html; charset=UTF-8", "<!DOCTYPE html>\n<title>Error 404 (Not Found)!!1</title>\n")


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        raise refusal(400, "parseError", "Parse Error") from None


def _cut(handler: Handler, cut: Cut) -> None:
    """The length of the whole, half of it, and the end; or all of it, with something in between."""
    body = json.dumps(cut.answer).encode()
    half = len(body) // 2
    if not cut.is_half:
        handler.answer(200, body[:half] + b"\0<" + body[half:], "application/json; charset=UTF-8")
        return
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json; charset=UTF-8")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[:half])
    handler.wfile.flush()
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)
