"""The instance metadata as it answers on a bad day, over HTTP: what is no answer is never taken for one, nor kept."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from netaddr import IPAddress, IPNetwork

from backends.aws.imds import Imds
from backends.cloud import web
from backends.cloud.failures import Lost

FIRST, SECOND = "02:00:00:00:00:01", "02:00:00:00:00:02"
MACS = "/latest/meta-data/network/interfaces/macs/"
DOCUMENT = "/latest/dynamic/instance-identity/document"
IDENTITY = {"instanceId": "i-1", "instanceType": "m5.large", "region": "eu-west-1", "availabilityZone": "eu-west-1a"}
PAGE = "<html><body>Service Unavailable</body></html>"


def interface(mac: str, values: dict[str, str]) -> dict[str, str]:
    """The paths of one interface."""
    return {f"{MACS}{mac}/{name}": value for name, value in values.items()}


PRIMARY = {
    "interface-id": "eni-1",
    "subnet-id": "subnet-1",
    "device-number": "0",
    "local-ipv4s": "10.0.0.5\n10.0.0.6",
    "ipv4-prefix": "10.0.0.16/28",
    "subnet-ipv4-cidr-block": "10.0.0.0/24",
    "security-group-ids": "sg-1\nsg-2",
    "vpc-id": "vpc-1",
    "vpc-ipv4-cidr-blocks": "10.0.0.0/16",
}


class Service:
    """A metadata service. *tree* is what there is by path; *wrong* are statuses and bodies that a path answers in its
    stead, one after the other; *cut* paths break off in the middle, *slow* ones send a byte and pause."""

    def __init__(self) -> None:
        self.tree = {DOCUMENT: json.dumps(IDENTITY), "/latest/meta-data/mac": FIRST, MACS: f"{FIRST}/"}
        self.tree |= interface(FIRST, PRIMARY)
        self.tokens: list[str] = []
        self.given = iter(f"token{number}==" for number in range(1000))
        self.wrong: dict[str, list[tuple[int, str]]] = {}
        self.cut: set[str] = set()
        self.slow: dict[str, float] = {}
        self.over = threading.Event()

    def answer(self, method: str, path: str, token: str) -> tuple[int, str]:
        if self.wrong.get(path):
            return self.wrong[path].pop(0)
        if method == "PUT":
            self.tokens.append(next(self.given))
            return 200, self.tokens[-1]
        if token not in self.tokens:
            return 401, ""
        return (200, self.tree[path]) if path in self.tree else (404, "not found")


def handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.reply(*service.answer("PUT", self.path, ""))

        def do_GET(self) -> None:
            self.reply(*service.answer("GET", self.path, self.headers.get("X-aws-ec2-metadata-token", "")))

        def reply(self, status: int, text: str) -> None:
            body = text.encode("latin-1")
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.path in service.cut:
                body = body[: len(body) // 2]
            if self.path in service.slow:
                for byte in body:
                    self.wfile.write(bytes((byte,)))
                    if service.over.wait(service.slow[self.path]):
                        return
            else:
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Nothing."""

    return Handler


@pytest.fixture
def service() -> Iterator[Service]:
    yield Service()


@pytest.fixture
def reader(service: Service) -> Iterator[Imds]:
    """What is tested, before *service*."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(service)) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield Imds(f"http://127.0.0.1:{server.server_port}")
        service.over.set()
        server.shutdown()
        thread.join()


def well(reader: Imds) -> None:
    """It reads all that there is."""
    seen = reader.look()
    assert (seen.instance, seen.type, seen.vpc, seen.groups) == ("i-1", "m5.large", "vpc-1", ("sg-1", "sg-2"))
    assert (seen.primary.id, seen.address) == ("eni-1", IPAddress("10.0.0.5"))
    assert seen.primary.blocks == {IPNetwork("10.0.0.6/32"), IPNetwork("10.0.0.16/28")}
    assert seen.subnets == {"subnet-1": IPNetwork("10.0.0.0/24")}


BAD = [(503, PAGE), (500, ""), (429, "slow down"), (403, ""), (404, PAGE), (302, ""), (200, PAGE), (200, "")]


@pytest.mark.parametrize(
    ("status", "body"), [*BAD, (200, "a\r\nb"), (200, "half\na token"), (200, "\xff\xfe"), (400, "")]
)
def test_what_is_no_token_is_not_kept(service: Service, reader: Imds, status: int, body: str) -> None:
    """Whatever the token's request answers, the next look asks for one anew, and all is well."""
    service.wrong["/latest/api/token"] = [(status, body)]
    with pytest.raises(Lost, match=r"latest/api/token|utf-8"):
        reader.look()
    well(reader)


@pytest.mark.parametrize(("status", "body"), BAD)
@pytest.mark.parametrize("path", sorted(Service().tree.keys() - {"/latest/meta-data/mac"}))
def test_what_is_no_answer_is_not_taken_for_one(
    service: Service, reader: Imds, path: str, status: int, body: str
) -> None:
    """At no path, in whatever form: it is said where, and the next look is well, with a token of its own; but what
    every interface need not have may not be there."""
    may_lack = path.rpartition("/")[2] in ("ipv4-prefix", "local-ipv4s", "subnet-ipv4-cidr-block", "security-group-ids")
    if may_lack and status == 404:
        status, body = 503, PAGE
    service.wrong[path] = [(status, body)]
    with pytest.raises(Lost):
        reader.look()
    well(reader)
    assert len(service.tokens) <= 2


def test_a_token_that_has_ended_is_replaced_once(service: Service, reader: Imds) -> None:
    """And one that is refused though it is new is not asked for again and again."""
    well(reader)
    service.tokens.clear()
    well(reader)
    assert len(service.tokens) == 1
    service.wrong[DOCUMENT] = [(401, "")] * 5
    with pytest.raises(Lost, match="answered 401"):
        reader.look()
    assert len(service.wrong[DOCUMENT]) == 3
    assert len(service.tokens) == 2
    service.wrong.clear()
    well(reader)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        "7",
        "{}",
        '{"instanceId": "i-1"',
        json.dumps(IDENTITY | {"region": 7}),
        json.dumps(IDENTITY | {"instanceType": None}),
    ],
)
def test_a_document_of_another_kind_is_no_answer(service: Service, reader: Imds, text: str) -> None:
    """JSON or not."""
    whole, service.tree[DOCUMENT] = service.tree[DOCUMENT], text
    with pytest.raises(Lost, match="the instance identity document"):
        reader.look()
    service.tree[DOCUMENT] = whole
    well(reader)


@pytest.mark.parametrize("path", [DOCUMENT, MACS, f"{MACS}{FIRST}/local-ipv4s", "/latest/api/token"])
def test_half_an_answer_is_none(service: Service, reader: Imds, path: str) -> None:
    """The connection breaks before all is there that was announced."""
    service.cut.add(path)
    with pytest.raises(Lost, match="IncompleteRead"):
        reader.look()
    service.cut.clear()
    well(reader)


def test_who_is_slow_is_not_waited_for(service: Service, reader: Imds) -> None:
    """Neither for a part that does not come, nor for parts that come one by one without end."""
    service.slow[DOCUMENT] = 60.0
    began = time.monotonic()
    with pytest.raises(Lost, match="timed out"):
        reader.look()
    assert time.monotonic() - began < web.WHOLE
    service.slow.clear()
    well(reader)
    ticks = iter(range(10_000))
    hurried = Imds(f"http://{reader._web.host}", clock=lambda: float(next(ticks)))
    service.slow[DOCUMENT] = 0.001
    with pytest.raises(Lost, match="without end"):
        hurried.look()


# --- interfaces of other kinds ------------------------------------------------------------------------------------


def test_an_interface_without_ipv4_is_no_hindrance(service: Service, reader: Imds) -> None:
    """One for EFA alone, or in a subnet that has IPv6 alone: it has no address, and its subnet no range."""
    service.tree[MACS] = f"{FIRST}/\n{SECOND}/"
    service.tree |= interface(SECOND, {"interface-id": "eni-2", "subnet-id": "subnet-2", "device-number": "1"})
    well(reader)
    (one,) = [one for one in reader.look().enis if not one.is_primary]
    assert (one.id, one.address, one.blocks, one.card) == ("eni-2", None, frozenset(), 0)


def test_the_primary_interface_is_the_first_of_the_first_card(service: Service, reader: Imds) -> None:
    """Another card has an interface of the same index; and the list has no order."""
    service.tree[MACS] = f"{SECOND}/\n{FIRST}/"
    other = PRIMARY | {"interface-id": "eni-2", "network-card": "1", "subnet-id": "subnet-2"}
    service.tree |= interface(SECOND, other | {"subnet-ipv4-cidr-block": "10.0.9.0/24"})
    seen = reader.look()
    assert (seen.primary.id, [one.card for one in seen.enis]) == ("eni-1", [1, 0])


def test_a_primary_interface_without_ipv4_is_told(service: Service, reader: Imds) -> None:
    """Pods would have nothing to live on."""
    del service.tree[f"{MACS}{FIRST}/local-ipv4s"]
    with pytest.raises(Lost, match="the primary interface has no IPv4 address"):
        reader.look()
