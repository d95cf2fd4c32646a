"""Google's metadata server, as it answers, and as something else answers in its place."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from netaddr import IPAddress, IPNetwork

from backends.cloud.failures import Lost
from backends.gcp.check import verdicts
from backends.gcp.metadata import PAUSE, Metadata, Waiting
from backends.gcp.table import GcpTable
from tests.fakes.descriptors import descriptors

INTERFACE = "instance/network-interfaces/0/"
DEADLINE = 60.0


class Server:
    """One metadata server; what it answers a test may change, and what *changed* lets who waits go on."""

    def __init__(self) -> None:
        self.interface: dict[str, Any] = {
            "ip": "10.0.0.2",
            "mac": "42:01:0a:00:00:02",
            "subnetmask": "255.255.240.0",
            "mtu": 1460,
            "ipAliases": ["10.4.0.0/28"],
            "gateway": "10.0.0.1",
        }
        self.tree = {
            "instance/id": "4711",
            "instance/name": "node-a",
            "project/project-id": "example.com:project-1",
            "instance/zone": "projects/123/zones/europe-west1-b",
        }
        self.flavor = "Google"
        self.status: dict[str, int] = {}
        self.tag = "t1"
        self.changed = threading.Event()
        self.asked: queue.Queue[str] = queue.Queue()

    def answer(self, path: str) -> str | None:
        at, query = urlsplit(path).path.removeprefix("/computeMetadata/v1/"), parse_qs(urlsplit(path).query)
        self.asked.put(path)
        if "wait_for_change" in query and query["last_etag"] == [self.tag]:
            self.changed.wait(DEADLINE)
        if at == INTERFACE:
            return json.dumps(self.interface)
        return self.tree.get(at)


@pytest.fixture
def server() -> Server:
    """As it should be."""
    return Server()


@pytest.fixture
def metadata(server: Server) -> Iterator[Metadata]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = server.answer(self.path) if self.headers["Metadata-Flavor"] == "Google" else None
            body = (text or "<html>").encode()
            self.send_response(server.status.get(self.path.partition("?")[0], 200 if text is not None else 404))
            if server.flavor:
                self.send_header("Metadata-Flavor", server.flavor)
            self.send_header("ETag", server.tag)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Not to the terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Metadata(f"127.0.0.1:{httpd.server_port}")
        server.changed.set()
        httpd.shutdown()
        thread.join()


def test_all_that_an_agent_wants_to_know_is_read(metadata: Metadata) -> None:
    """The machine's names, and its first interface."""
    seen = metadata.look()
    assert (seen.instance, seen.name, seen.project, seen.zone) == (
        "4711",
        "node-a",
        "example.com:project-1",
        "europe-west1-b",
    )
    assert (seen.address, seen.subnet, seen.mtu) == (IPAddress("10.0.0.2"), IPNetwork("10.0.0.0/20"), 1460)
    assert seen.blocks == {IPNetwork("10.4.0.0/28")}
    assert seen.where == {"project": "example.com:project-1", "zone": "europe-west1-b", "instance": "node-a"}


def test_an_interface_without_ranges_is_one(server: Server, metadata: Metadata) -> None:
    """The server leaves out what there is none of."""
    del server.interface["ipAliases"]
    assert metadata.look().blocks == frozenset()


@pytest.mark.parametrize("change", ["flavor", "status", "mac", "ip", "zone", "aliases", "missing", "page"])
def test_what_is_no_answer_is_never_taken_for_one(server: Server, metadata: Metadata, change: str) -> None:
    """A captive portal, an error page, words of another kind, and half of what should be there."""
    if change == "flavor":
        server.flavor = ""
    elif change == "status":
        server.status["/computeMetadata/v1/instance/id"] = 503
    elif change == "zone":
        server.tree["instance/zone"] = "<html>zone</html>"
    elif change == "missing":
        del server.interface["subnetmask"]
    elif change == "page":
        server.tree["instance/name"] = "Please log in!"
    elif change == "aliases":
        server.interface["ipAliases"] = ["10.4.0.0/28", "none"]
    else:
        server.interface[change] = "nonsense"
    with pytest.raises(Lost, match=r"metadata: .*127\.0\.0\.1"):
        metadata.look()


def test_a_change_is_told_at_once(server: Server, metadata: Metadata) -> None:
    """The server answers when there is one, and is asked again for the next."""
    changes: queue.Queue[None] = queue.Queue()
    deaths: list[str] = []
    waiting = Waiting(metadata, lambda: changes.put(None), lambda name, error: deaths.append(name))
    waiting.start()
    server.asked.get(timeout=DEADLINE)
    assert "last_etag=t1" in server.asked.get(timeout=DEADLINE)
    assert changes.empty()
    server.tag = "t2"
    server.changed.set()
    changes.get(timeout=DEADLINE)
    waiting.wake()
    waiting.stop()
    assert waiting.told().complaints == {}
    assert deaths == []


def test_what_goes_wrong_with_the_waiting_is_a_death(metadata: Metadata) -> None:
    """A bug is nothing to be passed over; a server that does not answer is no bug."""
    deaths: queue.Queue[str] = queue.Queue()

    class Broken(Metadata):
        def changed(self, tag: str) -> str:
            raise ZeroDivisionError

    waiting = Waiting(Broken(), lambda: None, lambda name, error: deaths.put(name))
    waiting.start()
    assert deaths.get(timeout=DEADLINE) == "metadata"


def test_a_server_that_does_not_answer_is_asked_again() -> None:
    """Nothing is told, and nobody dies."""
    asked: queue.Queue[str] = queue.Queue()

    class Silent(Metadata):
        def changed(self, tag: str) -> str:
            asked.put(tag)
            raise Lost("metadata", "OSError", "no route")

    waiting = Waiting(Silent(), lambda: None, lambda name, error: None)
    waiting.start()
    assert asked.get(timeout=DEADLINE) == ""
    waiting.stop()


def test_a_server_that_does_not_wait_keeps_nobody_busy() -> None:
    """Something that stands in its place, and knows nothing of waiting."""
    asked: queue.Queue[str] = queue.Queue()

    class Hasty(Metadata):
        def changed(self, tag: str) -> str:
            asked.put(tag)
            return "t1"

    waiting = Waiting(Hasty(), lambda: None, lambda name, error: None)
    waiting.start()
    assert [asked.get(timeout=DEADLINE) for _ in range(2)] == ["", "t1"]
    with pytest.raises(queue.Empty):
        asked.get(timeout=PAUSE / 2)
    waiting.stop()


def test_silence_is_lost() -> None:
    """For who waits, too."""
    nobody = Metadata("127.0.0.1:1")
    with pytest.raises(Lost):
        nobody.look()
    with pytest.raises(Lost):
        nobody.changed("")


# --- what --check says of it ----------------------------------------------------------------------------------------


def told(environment: dict[str, str], **keys: object) -> list[str]:
    """The verdicts."""
    return [" ".join(str(one).split()) for one in verdicts(GcpTable(**keys), environment)]  # type: ignore[arg-type]


def test_a_check_without_metadata_says_so() -> None:
    """It is no VM of Google's, or cannot reach it."""
    last = told({"GCE_METADATA_HOST": "127.0.0.1:1"})[-1]
    assert last.startswith("WRONG metadata: ")
    assert last.endswith("is this a VM on Compute Engine?")


def test_a_check_elsewhere_than_in_the_nodes_own_namespace_says_so(metadata: Metadata) -> None:
    """The machine's interface is not there; with fixed ranges neither library nor API is spoken of."""
    lines = told({"GCE_METADATA_HOST": metadata._web.host}, fixed=True)
    assert lines[0] == "ok metadata: node-a in europe-west1-b, alias ranges: 10.4.0.0/28"
    assert lines[1].startswith("WRONG uplink: no link here has the hardware address 42:01:0a:00:00:02 of nic0")
    assert len(lines) == 2


def test_a_check_that_cannot_look_says_so(metadata: Metadata) -> None:
    """As for want of descriptors."""
    found = verdicts(GcpTable(fixed=True), {"GCE_METADATA_HOST": metadata._web.host})
    assert next(found).what == "metadata"
    with descriptors(0):
        (last,) = found
    assert str(last).startswith("WRONG uplink:")


def test_a_check_without_the_library_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install, or how to do without."""
    monkeypatch.setattr("backends.gcp.remote.LIBRARY", "google-cloud-none")
    (only,) = told({})
    assert only.startswith("WRONG library: Google's library, google-cloud-none, is not installed")
