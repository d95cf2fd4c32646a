"""Answers that no API server should give, over real TLS: each ends the connection with words for the operator."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agent.config import load
from agent.config.schema import Config
from agent.start import nodes
from cluster import apiserver
from cluster.access import Access, access, trust
from cluster.apiserver import Api, Unanswered
from cluster.kubeconfig import kubeconfig
from cluster.kubernetes import KubernetesNodes, Pace
from cni.errors import ConfigInvalid, Failure
from tests.cluster.authority import Authority

EMPTY = {"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": []}


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A whole answer, after which the connection ends."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


CLOSE = "Connection: close"
LIST = http(json.dumps(EMPTY).encode())
MORE = http(json.dumps({**EMPTY, "metadata": {"resourceVersion": "7", "continue": "there"}}).encode())
WATCH = b"HTTP/1.1 200 OK\r\n\r\n"


@contextmanager
def saying(directory: Path, *answers: bytes) -> Iterator[KubernetesNodes]:
    """The nodes of a server that gives these *answers*, one to a request, and listens to none of them. One that says
    that it closes the connection does."""
    authority = Authority()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("odd", ["127.0.0.1"]).write(directory, "odd"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20.0)  # where nobody comes for what is left

        def serve() -> None:
            left = list(answers)
            with suppress(OSError):
                serve_one(left)
                while left:
                    serve_one(left)

        def serve_one(left: list[bytes]) -> None:
            plain, _ = listener.accept()
            with context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as stream:
                stream.do_handshake()
                is_closed = False
                while left and not is_closed:
                    stream.recv(1 << 16)
                    is_closed = CLOSE.encode() in left[0]
                    stream.sendall(left.pop(0))

        server = threading.Thread(target=serve)
        server.start()
        believed = access(f"https://127.0.0.1:{listener.getsockname()[1]}", trust(authority.pem))
        try:
            yield KubernetesNodes(Api(lambda: believed), "odd", lambda: 0.0, lambda: 0.5, None, Pace(again=(1.0, 2.0)))
        finally:
            server.join()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """With the nodes from the API server of the pod's own service account."""
    path = tmp_path / "agent.toml"
    path.write_text('backend = "static"\n[nodes]\nsource = "kubernetes"\n')
    return load.load(str(path), hostname="n1")


def test_an_answer_may_be_compressed(tmp_path: Path) -> None:
    """As the agent says that it may."""
    body = json.dumps({**EMPTY, "items": [{"metadata": {"name": "n1"}}]}).encode()
    with saying(tmp_path, http(gzip.compress(body), "200 OK", "Content-Encoding: gzip")) as found:
        found.look()
    assert [one.name for one in found.nodes] == ["n1"]


def test_a_connection_need_not_last(tmp_path: Path) -> None:
    """A proxy may keep none for the next request: there is another for each, and what is said last counts."""
    pages = [
        {**EMPTY, "metadata": {"resourceVersion": "7", "continue": rest}, "items": [{"metadata": {"name": name}}]}
        for name, rest in (("n1", "n2"), ("n2", "n3"), ("n3", ""))
    ]
    answers = [http(json.dumps(page).encode(), "200 OK", CLOSE) for page in pages]
    with saying(tmp_path, *answers, WATCH + b'{"type": "ADD') as found:
        with pytest.raises(Unanswered, match="IncompleteRead"):
            found.listen(lambda: None)
        found.refresh()
    assert sorted(one.name for one in found.nodes) == ["n1", "n2", "n3"]


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ((http(gzip.compress(b" " * 70000), "200 OK", "Content-Encoding: gzip"),), "answers more than 0 MiB"),
        ((http(b" " * 70000),), "answers more than 0 MiB"),
        ((http(b"<html>Bad Gateway</html>", "502 Bad Gateway"),), "502 Bad Gateway"),
        ((http(b'{"kind": "Table", "metadata": {"resourceVersion": "7"}}'),), "it is a 'Table' of version '7'"),
        ((http(b'{"kind": "NodeList", "metadata": {}}'),), "it is a 'NodeList' of version ''"),
        ((LIST, WATCH + b"x" * 70000), "tells of more than 0 MiB at once"),
        ((LIST, WATCH + b"not JSON\n"), "a watch"),
        ((LIST, WATCH + b'{"type": "ADD'), "IncompleteRead"),
        ((LIST, WATCH), "ends every watch at once"),
        ((LIST, WATCH + b'{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "8"}}}\n'), "watch at once"),
        ((LIST, WATCH + b'{"type": "ADDED", "object": {"kind": "Status"}}\n'), "what was ADDED has no name"),
        ((http(b'{"kind": "NodeList", "metadata": {"resourceVersion": "7"}, "items": [{}]}'),), "an item has no name"),
        ((MORE, MORE), "a page is followed by itself"),
        ((http(b'{"x": ' + b"[" * 50000),), "it is nested too deeply"),
        ((LIST, WATCH + b'{"x": ' + b"[" * 50000 + b"\n"), "it is nested too deeply"),
    ],
)
def test_what_cannot_be_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: tuple[bytes, ...], words: str
) -> None:
    """Too much, of no use, or nothing at all: what was known stays, and the reason is given."""
    monkeypatch.setattr(apiserver, "BODY", 1 << 16)
    monkeypatch.setattr(apiserver, "LINE", 1 << 16)
    with saying(tmp_path, *answers) as found, pytest.raises(Unanswered) as caught:
        found.listen(lambda: None)
    assert words in str(caught.value.failure)


@pytest.mark.parametrize("after", ["99999999999", "9" * 400])
def test_nobody_waits_for_as_long_as_a_server_likes(tmp_path: Path, after: str) -> None:
    """Not longer than the clock can count, nor for ever."""
    answer = http(b"", "429 Too Many Requests", f"Retry-After: {after}")
    with saying(tmp_path, answer) as found, pytest.raises(Unanswered) as caught:
        found.listen(lambda: None)
    assert caught.value.after == apiserver.AFTER


@pytest.mark.parametrize(
    "server",
    [f"https://{'a' * 64}.example", "https://127.0.0.1:{port}/\u00e4"],
)
def test_a_name_that_cannot_be_asked_is_told(tmp_path: Path, server: str) -> None:
    """Of the server, or in the path: the file was read a moment ago, and is read again."""
    authority = Authority()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("odd", ["127.0.0.1"]).write(tmp_path, "odd"))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                plain, _ = listener.accept()
                with context.wrap_socket(plain, server_side=True) as stream:
                    stream.recv(1)

        threading.Thread(target=serve, daemon=True).start()
        port = listener.getsockname()[1]
        asked = access(server.replace("{port}", str(port)), trust(authority.pem))
        found = KubernetesNodes(Api(lambda: asked), "odd", lambda: 0.0, lambda: 0.5, None)
        with pytest.raises(Unanswered, match="cannot be asked"):
            found.listen(lambda: None)


def test_an_agent_that_ends_asks_nobody(tmp_path: Path) -> None:
    """Also where it ends between two connections."""
    with saying(tmp_path) as found:
        found.end()
        with pytest.raises(Unanswered, match="the agent ends"):
            found.listen(lambda: None)


@pytest.mark.parametrize("server", ["https://[192.0.2.1", "https://192.0.2.1:99999", "https://", "192.0.2.1:6443"])
def test_an_address_that_is_none_is_refused(server: str) -> None:
    """Whatever is wrong with it."""
    with pytest.raises(ConfigInvalid, match="is not a URL such as"):
        access(server, ssl.create_default_context())


@pytest.mark.parametrize("data", ["%%%", "/w=="])
def test_what_is_not_base64_of_text_is_refused(tmp_path: Path, data: str) -> None:
    """By the key in the kubeconfig that has it."""
    path = tmp_path / "config"
    path.write_text(
        f"""{{"current-context": "c", "contexts": [{{"name": "c", "context": {{"cluster": "k", "user": "u"}}}}],
        "clusters": [{{"name": "k", "cluster":
            {{"server": "https://192.0.2.1", "certificate-authority-data": "{data}"}}}}],
        "users": [{{"name": "u", "user": {{}}}}]}}"""
    )
    with pytest.raises(ConfigInvalid, match=r"certificate-authority-data.*is not base64 of PEM"):
        kubeconfig(path)()


def test_without_the_library_a_kubeconfig_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is said."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigInvalid, match=r"install routable\[kubernetes\]"):
        kubeconfig(tmp_path / "config")


@pytest.mark.parametrize(
    ("environment", "origin"),
    [
        ({"KUBERNETES_SERVICE_HOST": "192.0.2.1", "KUBERNETES_SERVICE_PORT": "6443"}, "https://192.0.2.1:6443"),
        ({"KUBERNETES_SERVICE_HOST": "2001:db8::1"}, "https://[2001:db8::1]:443"),
    ],
)
def test_in_a_pod_the_service_account_is_taken(config: Config, environment: dict[str, str], origin: str) -> None:
    """Where no kubeconfig is named."""
    assert nodes.source(config, environment).origin == f"the Kubernetes API ({origin})"


def test_outside_a_pod_there_is_no_service_account(config: Config) -> None:
    """What else can be configured is said."""
    with pytest.raises(ConfigInvalid, match=r"give nodes\.kubeconfig"):
        nodes.source(config, {})


def test_what_lasts_is_told_all_the_while() -> None:
    """To whoever reads, as Prometheus does, at the moment at which it is found to be so still."""
    seen: list[Failure | None] = []

    class Met(ConfigInvalid):
        def __str__(self) -> str:
            seen.append(source.error)
            return "there is no token"

    def none() -> Access:
        raise Met("there is no token")

    source = KubernetesNodes(Api(none), "nowhere", lambda: 0.0, lambda: 0.5, None)
    with pytest.raises(Unanswered) as found:
        source.listen(lambda: None)
    source._failed(found.value)
    source.refresh()
    seen.clear()
    assert not source.refresh()
    assert seen
    assert all(seen)
