"""An API server for Nodes, over HTTP/1.1 and TLS: as strict as the real one, and as unfriendly as it may be.

It lists in pages and forgets them (410), watches with bookmarks and errors in the stream, patches Nodes and their
status, permits what the rules of a ClusterRole do, knows tokens and client certificates, and can be away, hang, answer
errors, or close in the middle of a line.
"""

from __future__ import annotations

import base64
import gzip
import json
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.cluster import patching, rbac
from tests.cluster.authority import Authority
from tests.cluster.store import Object, Store

NAME = "kubernetes.default.svc"
NODES = "/api/v1/nodes"
PATCH_TYPE = "application/strategic-merge-patch+json"
USER = "system:serviceaccount:kube-system:routable-agent"
_INSTEAD = {
    "garbage": b"<html>a proxy's page</html>",
    "another": b'{"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": {}}',
}
KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: here
contexts: [{{name: here, context: {{cluster: test, user: agent}}}}]
clusters:
- name: test
  cluster: {{server: "{server}", certificate-authority: ca.crt, tls-server-name: {name}}}
users:
- name: agent
  user: {{{user}}}
"""


class _Refused(Exception):
    def __init__(self, code: int, reason: str, message: str, after: int = 0) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.after = code, reason, message, after

    def status(self) -> Object:
        found: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        found |= {"message": self.message, "reason": self.reason, "code": self.code}
        return found | ({"details": {"retryAfterSeconds": self.after}} if self.after else {})


class ApiServer:
    """Serves *store* on *listener*, which is bound to *address*, until it is closed. Its certificates are in
    *directory*."""

    def __init__(self, listener: socket.socket, address: str, directory: Path, store: Store | None = None) -> None:
        self.store = store or Store()
        self.tokens = {"token-1"}
        self.rules: Sequence[Mapping[str, Any]] = rbac.ALL
        """What everybody is permitted: the rules of a ClusterRole, as parsed from YAML."""
        self.is_permitted = True
        """False: nothing is, whatever the rules say."""
        self.used: set[tuple[str, str, str]] = set()
        """What was asked for and permitted: verb, API group, resource."""
        self.patches: list[tuple[str, Object]] = []
        """What was patched: the path, and the patch, be it taken or refused."""
        self.before_patch: Callable[[], object] = lambda: None
        """What happens between the request and the change."""
        self.bookmarks = 0.05
        self.longest_watch = 3600.0
        self.is_gone_in_stream = True
        self.requests: list[str] = []
        """What was asked for, by all requests: path and query."""
        self.refusals: list[int] = []
        self.handshakes_failed = 0
        self.watching = 0
        """How many watches have begun."""
        self.faults: deque[str] = deque()
        """What happens to the next requests: "503", "429", "hang", "cut" (in the middle of the first line of a watch),
        "half" (in the middle of a list), "close", "garbage", "another" (object than was asked for), "trickle"; ""
        is nothing."""
        self._directory = directory
        self._address = address
        self._listener = listener
        self._is_away = self._is_closed = False
        self._streams: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.authority = self.clients = Authority()
        self.rotate(self.authority)
        listener.listen(64)
        listener.settimeout(0.2)
        self.port: int = listener.getsockname()[1]
        threading.Thread(target=self._accept, name="api server", daemon=True).start()

    @property
    def url(self) -> str:
        """Where it is."""
        host = f"[{self._address}]" if ":" in self._address else self._address
        return f"https://{host}:{self.port}"

    def kubeconfig(self, user: str = "tokenFile: token") -> str:
        """A kubeconfig for it; the file `ca.crt`, and what *user* names, are to lie beside it."""
        return KUBECONFIG.format(server=self.url, name=NAME, user=user)

    def rotate(self, authority: Authority, clients: Authority | None = None) -> None:
        """From the next connection on: a certificate by *authority*, and *clients* vouches for clients."""
        self.authority, self.clients = authority, clients or authority
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue(NAME, [self._address]).write(self._directory, "server"))
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=self.clients.pem)
        self._context = context

    def drop(self) -> None:
        """Close all connections, as an API server does that is replaced."""
        with self._lock:
            for stream in self._streams:
                with suppress(OSError):
                    socket.socket.shutdown(stream, socket.SHUT_RDWR)

    def leave(self) -> None:
        """Be away: every connection is closed, now and from now on."""
        self._is_away = True
        self.drop()

    def come_back(self) -> None:
        """Be there again."""
        self._is_away = False

    def close(self) -> None:
        """The end."""
        self._is_closed = True
        self.leave()
        self._listener.close()
        with self.store.changed:
            self.store.changed.notify_all()

    # --- connections ----------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                plain, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            if self._is_away:
                plain.close()
            else:
                threading.Thread(target=self._serve, args=(plain,), name="api connection", daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with plain:
            plain.settimeout(30.0)
            try:
                stream = self._context.wrap_socket(plain, server_side=True)
            except OSError:
                self.handshakes_failed += 1
                return
            with self._lock:
                self._streams.add(stream)
            try:
                with suppress(OSError, EOFError), stream, stream.makefile("rb") as lines:
                    while not self._is_away and self._answer(stream, lines):
                        pass
            finally:
                with self._lock:
                    self._streams.discard(stream)

    def _answer(self, stream: ssl.SSLSocket, lines: Any) -> bool:
        """One request; whether another may follow."""
        first = lines.readline()
        if not first:
            return False
        method, target, _ = first.decode().split()
        headers = {}
        while (line := lines.readline().decode().strip()) != "":
            key, _, value = line.partition(":")
            headers[key.lower()] = value.strip()
        body = lines.read(int(headers.get("content-length", "0")))
        self.requests.append(target)
        fault = self.faults.popleft() if self.faults else ""
        if fault == "hang":
            while not self._is_away and fault not in self.faults:
                time.sleep(0.02)
        if fault in ("hang", "close"):
            return False
        parts = urlsplit(target)
        asked = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        try:
            self._authenticate(headers, stream, fault)
            about = self._authorize(method, parts.path, asked)
            if fault in _INSTEAD:
                _send(stream, 200, _INSTEAD[fault])
            elif fault == "trickle":
                self._trickle(stream)
            elif about.verb == "watch":
                return self._watch(stream, asked, fault)
            elif about.verb in ("get", "patch"):
                changed = self._one(about, headers, body if about.verb == "patch" else None)
                _send(stream, 200, json.dumps(changed).encode(), headers)
            else:
                _send(stream, 200, json.dumps(self._list(asked)).encode(), headers, is_cut=fault == "half")
                if fault == "half":
                    raise EOFError
        except _Refused as refused:
            self.refusals.append(refused.code)
            _send(stream, refused.code, json.dumps(refused.status()).encode(), after=refused.after)
        return True

    def _trickle(self, stream: ssl.SSLSocket) -> None:
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
        while not self._is_away:
            stream.sendall(b" ")
            time.sleep(0.05)

    def _authenticate(self, headers: Mapping[str, str], stream: ssl.SSLSocket, fault: str) -> None:
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.tokens and not (stream.getpeercert() and not token):
            raise _Refused(401, "Unauthorized", "Unauthorized")
        if fault.isdecimal():
            after = 1 if fault in ("429", "503") else 0
            raise _Refused(int(fault), "TooManyRequests" if fault == "429" else "Unknown", "the test wants it", after)

    def _authorize(self, method: str, path: str, asked: Mapping[str, str]) -> rbac.Asked:
        """What the request is about. Refused: that is not permitted, or there is no such thing."""
        rest = path.removeprefix(NODES).strip("/") if path.startswith(NODES) else "?"
        name, _, subresource = unquote(rest).partition("/")
        if subresource not in ("", "status") or name == "?":
            raise _Refused(404, "NotFound", "the server could not find the requested resource")
        many = "watch" if asked.get("watch") in ("true", "1") else "list"
        verb = {"GET": "get" if name else many, "PATCH": "patch" if name else ""}.get(method, "")
        if not verb:
            raise _Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        resource = f"nodes/{subresource}" if subresource else "nodes"
        about = rbac.Asked(verb, "", resource, name or self._selected(asked))
        if not self.is_permitted or not rbac.permits(self.rules, about):
            shown = f'nodes "{name}"' if name else "nodes"
            raise _Refused(403, "Forbidden", f'{shown} is forbidden: User "{USER}" {about}')
        self.used.add(about[:3])
        return about

    @staticmethod
    def _selected(asked: Mapping[str, str]) -> str:
        """The one Node that a list or watch is of; '' for all."""
        key, equals, name = asked.get("fieldSelector", "").partition("=")
        if "fieldSelector" in asked and (key != "metadata.name" or not equals or "labelSelector" in asked):
            raise _Refused(400, "BadRequest", f"field label not supported: {key}")
        return name.removeprefix("=")

    # --- one Node -------------------------------------------------------------------------------------------------

    def _one(self, about: rbac.Asked, headers: Mapping[str, str], body: bytes | None) -> Object:
        """The Node, changed by the patch *body*, if there is one."""
        subresource = about.resource.partition("/")[2]
        if body is not None:
            self.before_patch()
            if headers.get("content-type") != PATCH_TYPE:
                raise _Refused(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
        with self.store.changed:
            now = self.store.get(about.name)
            if now is None:
                raise _Refused(404, "NotFound", f'nodes "{about.name}" not found')
            if body is not None:
                try:
                    patch = json.loads(body)
                    self.patches.append((f"{about.name}/{subresource}".rstrip("/"), patch))
                    made = patching.patched(now, patch, subresource)
                except ValueError as error:
                    raise _Refused(400, "BadRequest", f"error decoding patch: {error}") from None
                except patching.Invalid as invalid:
                    raise _Refused(invalid.code, invalid.reason, invalid.message) from None
                if made != now:  # what changes nothing is no new version
                    self.store.put(made)
                now = self.store.get(about.name)
        return {"kind": "Node", "apiVersion": "v1", **(now or {})}

    # --- list and watch -------------------------------------------------------------------------------------------

    def _list(self, asked: Mapping[str, str]) -> Object:
        at, after = None, ""
        if "continue" in asked:
            if "resourceVersion" in asked:
                raise _Refused(400, "BadRequest", "resourceVersion is forbidden with continue")
            at, after = json.loads(base64.b64decode(asked["continue"]))
        elif asked.get("resourceVersion", "0") != "0":
            raise _Refused(504, "Timeout", "Too large resource version")
        try:
            limit = int(asked.get("limit", "0"))
            version, found, next_after, left = self.store.page(at, after, limit, self._selected(asked))
        except KeyError:
            expired = "The provided continue parameter is too old to display a consistent list result."
            raise _Refused(410, "Expired", expired) from None
        about: Object = {"resourceVersion": str(version)}
        if next_after:
            token = base64.b64encode(json.dumps([version, next_after]).encode()).decode()
            about |= {"continue": token, "remainingItemCount": left}
        return {"kind": "NodeList", "apiVersion": "v1", "metadata": about, "items": found or None}

    def _watch(self, stream: ssl.SSLSocket, asked: Mapping[str, str], fault: str) -> bool:
        if not asked.get("resourceVersion", "").isdecimal():
            raise _Refused(400, "BadRequest", f"Invalid value: {asked.get('resourceVersion')!r}")
        since, expired = int(asked["resourceVersion"]), None
        if since < self.store.oldest:
            expired = _Refused(410, "Expired", f"too old resource version: {since} ({self.store.oldest})")
            if not self.is_gone_in_stream:
                raise expired
        until = time.monotonic() + min(float(asked.get("timeoutSeconds", "1800")), self.longest_watch)
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        if expired is not None:
            self.refusals.append(410)
            _chunk(stream, _line("ERROR", expired.status()))
        else:
            has_bookmarks = asked.get("allowWatchBookmarks") == "true"
            self._tell(stream, since, until, fault, self._selected(asked), has_bookmarks=has_bookmarks)
        if not self._is_away:
            stream.sendall(b"0\r\n\r\n")
        return True

    def _tell(
        self, stream: ssl.SSLSocket, since: int, until: float, fault: str, name: str, *, has_bookmarks: bool
    ) -> None:
        self.watching += 1
        while not self._is_away and time.monotonic() < until:
            with self.store.changed:
                if self.store.version <= since and not self._is_away:
                    self.store.changed.wait(min(self.bookmarks, until - time.monotonic()))
                found = [one for one in self.store.changes if one.version > since and name in ("", one.name)]
                version = self.store.version
            for change in found:
                line = _line(change.type, {"kind": "Node", "apiVersion": "v1", **change.object})
                if fault == "cut":
                    _chunk(stream, line[: len(line) // 2])
                    raise EOFError
                _chunk(stream, line)
                since = change.version
            if has_bookmarks and not found and version >= since and fault != "silent":
                about = {"resourceVersion": str(version), "creationTimestamp": None}
                empty: Object = {"kind": "Node", "apiVersion": "v1", "metadata": about, "spec": {}, "status": {}}
                _chunk(stream, _line("BOOKMARK", empty))
                since = version


def _line(kind: str, what: Object) -> bytes:
    return json.dumps({"type": kind, "object": what}).encode() + b"\n"


def _chunk(stream: ssl.SSLSocket, data: bytes) -> None:
    stream.sendall(b"%x\r\n%s\r\n" % (len(data), data))


def _send(
    stream: ssl.SSLSocket,
    code: int,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    after: int = 0,
    *,
    is_cut: bool = False,
) -> None:
    """As a server in Go has it: short answers with their length, long ones in chunks, longer ones compressed."""
    head = [f"HTTP/1.1 {code} whatever", "Content-Type: application/json"]
    if len(body) > 128 << 10 and "gzip" in (headers or {}).get("accept-encoding", ""):
        body = gzip.compress(body, 1)
        head.append("Content-Encoding: gzip")
    head += [f"Retry-After: {after}"] if after else []
    is_long = len(body) > 2048
    head.append("Transfer-Encoding: chunked" if is_long else f"Content-Length: {len(body)}")
    stream.sendall("\r\n".join([*head, "", ""]).encode())
    body = body[: len(body) // 2] if is_cut else body
    if not is_long:
        stream.sendall(body)
        return
    for start in range(0, len(body), 16384):
        _chunk(stream, body[start : start + 16384])
    if not is_cut:
        stream.sendall(b"0\r\n\r\n")
