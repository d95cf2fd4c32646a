"""Hostile input, from the bytes on the socket to the kernel and back: always one well-formed answer, and no change.

``make test`` tries a few thousand; FUZZ=100000 in the environment tries that many of each kind.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from agent import commands
from agent.keep.spool import Spool
from agent.serve.control import Control
from agent.serve.lane import Answer, Incoming
from agent.serve.verbs import Verbs
from agent.tell.metrics import Metrics, page
from agent.tell.status import Status
from backends.podcidrs import PodCidrs
from cni import errors, frame
from cni.errors import Failure, Unreadable
from cni.spec import VERSIONS, Attachment, Verb
from tests.fakes.world import World

EXAMPLES = int(os.environ.get("FUZZ") or 700)
CODES = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Failure)} - {999}
PODS = ("/run/netns/a", "/run/netns/b")
HELD = Attachment("pods", "held", "eth0")


class Agent:
    """Everything between the socket and the kernel, without threads; *bugs* are the tracebacks that were logged."""

    def __init__(self, directory: Path) -> None:
        self.world = World(directory)
        for netns in PODS:
            self.world.kernel.add_netns(netns)
        self.world.add(HELD, PODS[1])
        self.registry = CollectorRegistry()
        world = self.world
        spool = Spool(directory / "spool", "boot-1", lambda: world.now)
        spool.prepare()
        parts = world.node, world.survey, PodCidrs(), world.repair, spool, world.switch
        status = Status("node-a", "0", *parts, lambda: 0)
        self.verbs = Verbs(world.node, Metrics(self.registry), status.unable, PodCidrs().shortage)
        self.control = Control(status, world.node, world.survey, world.switch, self.verbs.serve)
        self.bugs: list[str] = []
        self.outcomes: set[str] = set()

    def happened(self, what: str) -> None:
        """Told by Hypothesis, and counted."""
        event(what)
        self.outcomes.add(what)

    def answer(self, request: frame.Request) -> Answer:
        """As the server has it served."""
        incoming = Incoming(request, self.world.node.ledger.sequence, lambda: False)
        together = {b"ADD": self.verbs.add_together, b"DEL": self.verbs.delete_together}
        serve = together.get(request.env.get("CNI_COMMAND", b""))
        (answer,) = serve([incoming])() if serve else [None]
        answer = answer or self.control.serve(incoming)
        assert answer is not None, "only a fabric that grows lets a request wait"
        return answer

    def state(self) -> object:
        """All that a refused request must not change."""
        store = self.world.store
        assert store is not None
        way = self.world.way.state
        return self.world.node.ledger.records(), self.world.kernel.ours(), store.load(), store.released(), way

    def growth(self) -> object:
        """All that must not grow with what is asked."""
        labels = {line.partition(" ")[0] for line in page(self.registry)[1].decode().splitlines()}
        return len(self.world.node._keys), threading.active_count(), len(labels) < 600


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """One agent for all inputs: nothing of one may be left for the next."""
    agent = Agent(tmp_path_factory.mktemp("hostile"))

    class Bugs(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info:
                agent.bugs.append(record.getMessage())

    handler = Bugs()
    logging.getLogger().addHandler(handler)
    yield agent
    logging.getLogger().removeHandler(handler)
    agent.world.close()


# --- what arrives -------------------------------------------------------------------------------------------

DEEP = 5_000
RAW = st.sampled_from(
    [
        b"",
        b"\xef\xbb\xbf{}",
        b"{}\0",
        b"[" * DEEP,
        b'{"a":' * DEEP,
        b'{"cniVersion": "1.0.0", "name": "pods", "name": "others", "type": "routable"}',
        b'{"cniVersion": 1e999, "name": "pods"}',
        b'{"cniVersion": NaN}',
        b'{"cniVersion": "\\ud800", "name": "\\udfff"}',
        b'{"cniVersion": "1.0.0", "name": "pods"',
        b'"' + b"x" * 1_000_000 + b'"',
        b'{"n": ' + b"9" * 5000 + b"}",
        "\u202e{}".encode("utf-16"),
        b"null",
        b"true",
        b"[]",
    ]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=12)
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
ADDRESSES = st.sampled_from(
    ["10.1.1.3", "10.1.1.0", "10.9.9.9", "2001:db8:1::7", "10.1.1.3/99", "::ffff:10.1.1.3", "x"]
)
INTERFACES = st.lists(st.dictionaries(st.sampled_from(["name", "mac", "sandbox", "mtu"]), JSON), max_size=3)
KEYS: dict[str, st.SearchStrategy[Any]] = {
    "cniVersion": st.sampled_from([*VERSIONS, "9.9.9", "1.0", "", "1.1.0 "]) | JSON,
    "name": st.sampled_from(["pods", "others", "", "../pods", "a" * 300, "p ods"]) | JSON,
    "type": st.sampled_from(["routable", "/bin/sh"]) | JSON,
    "ipam": JSON,
    "dns": st.dictionaries(st.sampled_from(["nameservers", "search"]), JSON, max_size=2) | JSON,
    "args": st.fixed_dictionaries({}, optional={"cni": st.fixed_dictionaries({}, optional={"ips": JSON})}) | JSON,
    "runtimeConfig": st.fixed_dictionaries(
        {}, optional={"ips": st.lists(ADDRESSES, max_size=3) | JSON, "mac": st.text(max_size=20) | JSON}
    ),
    "prevResult": st.fixed_dictionaries(
        {},
        optional={
            "cniVersion": JSON,
            "interfaces": INTERFACES,
            "ips": st.lists(st.fixed_dictionaries({}, optional={"address": ADDRESSES, "interface": JSON}), max_size=3),
            "routes": JSON,
        },
    )
    | JSON,
    "cni.dev/valid-attachments": st.lists(
        st.fixed_dictionaries({}, optional={"containerID": JSON, "ifname": JSON}), max_size=3
    )
    | JSON,
}
GOOD = {"cniVersion": "1.1.0", "name": "pods", "type": "routable"}
DOCUMENTS = st.fixed_dictionaries({}, optional=KEYS).map(lambda changes: json.dumps({**GOOD, **changes}).encode())
TORN = st.builds(lambda text, at: text[:at] + text[at + 1 :], DOCUMENTS, st.integers(0, 200))
ALMOST = st.sampled_from(sorted(KEYS)).flatmap(
    lambda key: KEYS[key].map(lambda value: json.dumps({**GOOD, key: value}).encode())
)
STDIN = st.one_of(st.just(json.dumps(GOOD).encode()), ALMOST, DOCUMENTS, TORN, RAW, st.binary(max_size=60))

COMMANDS = st.sampled_from([*(verb.encode() for verb in Verb), b"add", b"ADD ", b"", b"routablectl/none", b"\xff"])
VARIABLES: dict[str, st.SearchStrategy[bytes]] = {
    "CNI_CONTAINERID": st.sampled_from([b"a", b"held", b"../a", b"a/b", b"a" * 300, b" ", b"a\nb", b"\xff"]),
    "CNI_NETNS": st.sampled_from(
        [b"/run/netns/a", b"/run/netns/b", b"/proc/self/ns/net", b"/nowhere", b"rel", b"/a\0b"]
    ),
    "CNI_IFNAME": st.sampled_from([b"eth0", b"e" * 16, b"a/b", b"a:b", b"..", b"", b"a b", "é".encode(), b"%d"]),
    "CNI_ARGS": st.sampled_from([b"IP=10.1.1.5", b"IP=x", b"=", b";;;", b"K8S_POD_NAME=\n", b"A=" + b"x" * 9000])
    | st.binary(max_size=30),
    "CNI_PATH": st.binary(max_size=10),
    "CNI_" + "X" * 200: st.binary(max_size=10),
}
SECOND = {"CNI_CONTAINERID": b"a", "CNI_NETNS": b"/run/netns/b", "CNI_IFNAME": b"net1"}
USUAL = st.sampled_from([SECOND, {**SECOND, "CNI_CONTAINERID": b"held", "CNI_IFNAME": b"eth0"}])
"""Of the pod that is there, and of another network in it."""
CHANGED = st.sampled_from(sorted(VARIABLES)).flatmap(lambda name: VARIABLES[name].map(lambda value: {name: value}))
ALMOST_USUAL = st.builds(lambda usual, changed: {**usual, **changed}, USUAL, CHANGED)
ENVIRONMENTS = st.builds(
    lambda command, others: {"CNI_COMMAND": command, **others},
    st.sampled_from([verb.encode() for verb in Verb]) | COMMANDS,
    st.one_of(USUAL, USUAL, ALMOST_USUAL, st.fixed_dictionaries({}, optional=VARIABLES)),
)


def judge(agent: Agent, request: frame.Request) -> None:
    """Serve it; whatever it is, all is afterwards as it was, once what it added is deleted."""
    before, grown = agent.state(), agent.growth()
    answer = agent.answer(request)
    response = answer.response
    assert response.code in (0, 1)
    command = request.env.get("CNI_COMMAND", b"")
    if response.code:
        document = json.loads(response.stdout)
        assert set(document) <= {"cniVersion", "code", "msg", "details"}
        assert document["cniVersion"] in VERSIONS
        assert document["code"] in CODES
        assert document["msg"]
        assert "Traceback" not in response.stdout.decode()
        agent.happened(f"code {document['code']}")
        assert agent.state() == before
    elif command == b"ADD":
        agent.happened("added")
        json.loads(response.stdout)
        env = {**request.env, "CNI_COMMAND": b"DEL"}
        assert agent.answer(frame.Request(env, request.stdin)).response.code == 0
        agent.world.now += 31  # its addresses have cooled down
    elif command in (b"DEL", b"GC"):
        agent.happened("removed")
        if HELD not in agent.world.node.ledger.records():
            agent.world.now += 31
            agent.world.add(HELD, PODS[1])
    else:
        agent.happened("answered")
        json.loads(response.stdout or b"{}")
        assert agent.state() == before
    assert agent.world.problems() == []
    assert set(agent.world.node.ledger.records()) == {HELD}
    assert agent.growth() == grown
    assert agent.bugs == []


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(env=ENVIRONMENTS, stdin=STDIN)
def test_requests_of_any_form(agent: Agent, env: dict[str, bytes], stdin: bytes) -> None:
    """Variables and configurations that are right, nearly right and not at all."""
    judge(agent, frame.Request(env, stdin))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    command=st.sampled_from([commands.STATUS, commands.IP, commands.SWITCH, commands.PROGRESS]),
    stdin=st.one_of(
        st.fixed_dictionaries(
            {},
            optional={
                "address": ADDRESSES | JSON,
                "backend": st.sampled_from(["bgp", "", "../static"]) | JSON,
                "dry_run": JSON,
                "force": JSON,
            },
        ).map(lambda document: json.dumps(document).encode()),
        RAW,
        st.binary(max_size=40),
    ),
)
def test_commands_of_any_form(agent: Agent, command: str, stdin: bytes) -> None:
    """What routablectl never sends."""
    judge(agent, frame.Request({"CNI_COMMAND": command.encode()}, stdin))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    env=ENVIRONMENTS,
    stdin=STDIN,
    cuts=st.lists(st.integers(0, 400), max_size=4),
    change=st.none() | st.tuples(st.integers(0, 60), st.binary(min_size=1, max_size=4)),
)
def test_frames_of_any_form(
    agent: Agent, env: dict[str, bytes], stdin: bytes, cuts: list[int], change: tuple[int, bytes] | None
) -> None:
    """Bytes changed, cut anywhere: a request, an error in words, or the wait for more; never anything else."""
    try:
        raw = frame.encode(frame.Request(env, stdin))
    except Unreadable:
        return
    if change is not None:
        at, data = change
        raw = raw[:at] + data + raw[at + len(data) :]
    reader = frame.FrameReader()
    edges = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    try:
        for start, end in itertools.pairwise(edges):
            request = reader.feed(raw[start:end])
            if request is not None:
                judge(agent, request)
                return
    except Unreadable as failure:
        assert failure.message
        event("refused")
        return
    assert reader.eof().message
    event("cut off")


def test_it_went_all_the_ways(agent: Agent) -> None:
    """Inputs that are all refused at the door try nothing behind it."""
    assert agent.outcomes >= {"added", "removed", "answered", *(f"code {code}" for code in (1, 4, 6, 7))}


def test_a_bug_in_a_command_is_an_answer_too(agent: Agent) -> None:
    """Its thread goes on; the log has the traceback."""

    class Broken(Status):
        def document(self) -> dict[str, Any]:
            raise ZeroDivisionError("a bug")

    world = agent.world
    spool = Spool(Path("/nowhere"), "boot-1", time.time)
    broken = Broken("node-a", "0", world.node, world.survey, PodCidrs(), world.repair, spool, world.switch, lambda: 0)
    control = Control(broken, world.node, world.survey, world.switch, agent.verbs.serve)
    request = frame.Request({"CNI_COMMAND": commands.STATUS.encode()}, b"{}")
    answer = control.serve(Incoming(request, 0, lambda: False))
    assert answer is not None
    document = json.loads(answer.response.stdout)
    assert (answer.response.code, document["code"]) == (1, 999)
    assert "ZeroDivisionError: a bug" in document["details"]
    assert agent.bugs == ["a bug"]
    agent.bugs.clear()
