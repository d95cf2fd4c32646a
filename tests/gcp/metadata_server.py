"""The metadata server of one emulated instance, over HTTP."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from tests.cloud.serving import HANG, Endpoint, Handler, Pages
from tests.gcp import leaves
from tests.gcp.project import Project
from tests.gcp.tokens import Tokens

ROOT: Final = "/computeMetadata/v1/"
PAGES: Pages = {
    "text503": (503, b"Service Unavailable\n", "text/plain"),
    "html500": (500, b"<!DOCTYPE html>\n<html lang=en>\n<title>Error 500 (Server Error)!!1</title>\n", "text/html"),
    "empty503": (503, b"", "text/plain"),
    "empty200": (200, b"", "text/plain"),
    "hang": (0, b"", ""),
}
"""What it may answer instead."""
_LOOK: Final = 0.02
"""Seconds between looks for a change."""


class Metadata(Endpoint):
    """Of *instance* in *project*. *is_down*: 503, as when a machine starts; *faults* are beginnings of paths, and the
    kind of `PAGES` with which the next request below is answered; *asked* are the paths that were asked for."""

    def __init__(self, project: Project, instance: str, tokens: Tokens, listener: socket.socket | None = None) -> None:
        self.is_down = False
        self.faults: list[tuple[str, str]] = []
        self.asked: list[str] = []
        self._project, self._instance, self._tokens = project, instance, tokens
        self._is_over = False

        class Asked(Handler):
            def do_GET(handler) -> None:  # noqa: N802, N805 - the base class's name; self is the endpoint's
                self._serve(handler)

        super().__init__(Asked, listener)

    def __exit__(self, *error: object) -> None:
        self._is_over = True  # nobody waits for changes any more
        super().__exit__(*error)

    @property
    def host(self) -> str:
        """For GCE_METADATA_HOST."""
        return self.url.removeprefix("http://")

    def _serve(self, handler: Handler) -> None:
        url = urlsplit(handler.path)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        self.asked.append(handler.path)
        time.sleep(self._project.drawn(self._project.unkind.metadata_taking))
        if kind := self._fault(url.path):
            handler.page(PAGES, kind)
        elif self.is_down:
            handler.page(PAGES, "text503")
        elif url.path == "/":
            _answer(handler, 200, "0.1/\ncomputeMetadata/\n", "application/text", "")
        elif handler.headers.get("Metadata-Flavor") != "Google" or "X-Forwarded-For" in handler.headers:
            handler.answer(
                403, b"<!DOCTYPE html>\n<html lang=en>\n<title>Error 403 (Forbidden)!!1</title>\n", "text/html"
            )
        elif not url.path.startswith(ROOT):
            _answer(handler, 404, "Not found\n", "text/html", "")
        else:
            self._tell(handler, url.path.removeprefix(ROOT), query)

    def _fault(self, path: str) -> str:
        planned = next((one for one in self.faults if path.startswith(one[0])), None)
        if planned is not None:
            self.faults.remove(planned)
            return planned[1]
        chance = self._project.unkind.metadata_failing
        return (
            list(PAGES)[int(self._project.chance() * len(PAGES))] if chance and self._project.chance() < chance else ""
        )

    def _tell(self, handler: Handler, path: str, query: Mapping[str, str]) -> None:
        instance = self._project.instances[self._instance]
        if instance.account and path.startswith("instance/service-accounts/") and path.endswith("/token"):
            token, seconds = self._tokens.issue(instance.account, instance.scopes)
            found = {"access_token": token, "expires_in": int(seconds), "token_type": "Bearer"}
            _answer(handler, 200, json.dumps(found), "application/json", "")
            return
        try:
            at = self._awaited(path, query)
        except KeyError:
            _answer(handler, 404, "<!DOCTYPE html>\n<title>Error 404 (Not Found)!!1</title>\n", "text/html", "")
            return
        except TimeoutError:
            time.sleep(HANG)
            handler.close_connection = True
            return
        if leaves.is_directory(path, at) and path and not path.endswith("/"):
            handler.send_response(301)
            handler.send_header("Location", f"{ROOT}{path}/{'?' if query else ''}{urlsplit(handler.path).query}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            handler.wfile.flush()
            return
        is_deep = query.get("recursive", "").lower() == "true"
        is_json = query.get("alt", "json" if is_deep else "text") == "json"
        text = leaves.written(at) if is_json else leaves.lines("", at) if is_deep else leaves.listed(path, at)
        _answer(handler, 200, text, "application/json" if is_json else "application/text", leaves.etag(at))

    def _awaited(self, path: str, query: Mapping[str, str]) -> Any:
        """What is at *path*, at once or when it is not what it was. TimeoutError: nothing is to come."""
        at = self._at(path)
        if query.get("wait_for_change", "").lower() != "true":
            return at
        unkind, last = self._project.unkind, query.get("last_etag") or leaves.etag(at)
        deadline = time.monotonic() + float(query.get("timeout_sec", "inf"))
        if unkind.poll_early and self._project.chance() < unkind.poll_early:
            return at
        is_hanging = unkind.poll_hanging and self._project.chance() < unkind.poll_hanging
        while leaves.etag(at) == last and time.monotonic() < deadline and not self._is_over:
            time.sleep(_LOOK)
            at = self._at(path)
        if is_hanging:
            raise TimeoutError
        return at

    def _at(self, path: str) -> Any:
        return leaves.found(self._project.metadata(self._instance), path)


def _answer(handler: Handler, status: int, text: str, kind: str, etag: str) -> None:
    handler.send_response(status)
    handler.send_header("Metadata-Flavor", "Google")
    handler.send_header("Content-Type", kind)
    if etag:
        handler.send_header("ETag", etag)
    handler.send_header("Content-Length", str(len(text.encode())))
    handler.end_headers()
    handler.wfile.write(text.encode())
    handler.wfile.flush()
