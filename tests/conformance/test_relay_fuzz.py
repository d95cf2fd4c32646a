"""Whatever a runtime passes and an agent answers: one well-formed answer, the same from both executables."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from cni.call import asked_version
from cni.frame import STDIN_MAX, STDOUT_MAX, Request, encode
from tests.conformance.executables import PATIENCE, Outcome, built, called
from tests.fakes.scripted import Script, ScriptedAgent, falls_silent, hangs_up, sends

STATIC_VERSION = b'{"cniVersion": "1.1.0", "supportedVersions":'


class Pair(NamedTuple):
    """The two executables that must not differ."""

    python: Path
    c: Path


class Seen(NamedTuple):
    """Everything that a call did: its outcome, the requests that arrived, the spool files."""

    outcome: Outcome
    requests: list[Request | None]
    spool: list[bytes]


class Behaviour(NamedTuple):
    """What the agent does (None: it is away), and the answer that it thereby gives whole, if it does."""

    script: Script | None
    timeout: str
    whole: tuple[int, bytes] | None


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Both executables, the C one with its sanitizers on."""
    directory = tmp_path_factory.mktemp("bin")
    return Pair(built("python", directory), built("c-sanitized", directory))


def whole(raw: bytes) -> tuple[int, bytes] | None:
    """The answer that a stream beginning with *raw* and then ending holds, by the protocol's text."""
    length = int.from_bytes(raw[1:5], "big")
    if len(raw) < 5 or length > STDOUT_MAX or len(raw) < 5 + length:
        return None
    return raw[0], raw[5 : 5 + length]


def sending(raw: bytes) -> Behaviour:
    """An agent that sends *raw* and closes."""
    return Behaviour(sends(raw), str(PATIENCE), whole(raw))


def answer(code: int, document: object, kept: int) -> Behaviour:
    """An agent whose answer of one JSON document ends after *kept* bytes."""
    out = json.dumps(document).encode() if document is not None else b""
    return sending((bytes([code]) + len(out).to_bytes(4, "big") + out)[:kept])


_no_nul = st.binary(max_size=30).map(lambda raw: raw.replace(b"\0", b"\x01"))
commands = st.sampled_from([b"ADD", b"DEL", b"CHECK", b"GC", b"STATUS", b"VERSION"]) | _no_nul
environments = st.dictionaries(
    st.builds(lambda prefix, raw: prefix + raw.replace(b"=", b"-"), st.sampled_from([b"CNI_", b"CNI_", b"X"]), _no_nul),
    _no_nul,
    max_size=5,
)
inputs = st.binary(max_size=200) | st.sampled_from([STDIN_MAX, STDIN_MAX + 1, 70_000]).map(lambda n: b" " * n)
documents = st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers(), max_size=4)
behaviours = st.one_of(
    st.just(Behaviour(None, str(PATIENCE), None)),
    st.just(Behaviour(hangs_up, str(PATIENCE), None)),
    st.just(Behaviour(falls_silent(b""), "0.05", None)),
    st.binary(max_size=12).map(sending),
    st.builds(answer, st.integers(0, 255), documents, st.just(STDOUT_MAX)),
    st.builds(answer, st.integers(0, 255), documents, st.integers(0, 60)),
)


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A directory for one call."""
    with tempfile.TemporaryDirectory(prefix="relay-") as name:
        yield Path(name)


def seen(executable: Path, environ: dict[bytes, bytes], stdin: bytes, behaviour: Behaviour) -> Seen:
    """Call *executable* against an agent that behaves so; the socket's path is the same for every call."""
    with place() as root:
        socket, spool = root / "agent.sock", root / "spool"
        environ = environ | {
            b"ROUTABLE_SOCKET": bytes(socket),
            b"ROUTABLE_SPOOL": bytes(spool),
            b"ROUTABLE_WAIT": b"0",
            b"ROUTABLE_TIMEOUT": behaviour.timeout.encode(),
        }
        scripts = [behaviour.script] if behaviour.script and len(stdin) <= STDIN_MAX else []
        requests: list[Request | None] = []
        if scripts:
            with ScriptedAgent(socket, *scripts) as agent:
                outcome = called(executable, environ, stdin)
            requests = agent.requests
        else:
            outcome = called(executable, environ, stdin)
        kept = [path.read_bytes() for path in spool.iterdir()] if spool.exists() else []
        out = outcome.out.replace(bytes(root), b"<place>")
        return Seen(outcome._replace(out=out), requests, kept)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(command=commands, environ=environments, stdin=inputs, behaviour=behaviours)
def test_every_call_has_one_well_formed_answer(
    pair: Pair, command: bytes, environ: dict[bytes, bytes], stdin: bytes, behaviour: Behaviour
) -> None:
    """The agent's whole answer as it is, or else one JSON object, or success with nothing for a DEL that is kept."""
    environ = environ | {b"CNI_COMMAND": command}
    python, c = (seen(executable, environ, stdin, behaviour) for executable in pair)
    assert python == c
    outcome, requests, spool = python
    request = Request(
        {k.decode("utf-8", "surrogateescape"): v for k, v in environ.items() if k.startswith(b"CNI_")}, stdin
    )
    assert outcome.err == b""
    assert [one for one in requests if one is not None] in ([], [request])
    if len(stdin) > STDIN_MAX:
        event("too large")
        assert (outcome.code, json.loads(outcome.out)["code"]) == (1, 6)
    elif behaviour.whole is not None:
        event("answered")
        assert outcome == Outcome(*behaviour.whole, b"")
    elif command == b"DEL":
        event("kept")
        assert outcome == Outcome(0, b"", b"")
        assert spool == [encode(request)]
        return
    elif command == b"VERSION":
        event("static")
        assert outcome.code == 0 and json.loads(outcome.out)["cniVersion"] == asked_version(stdin)
    else:
        event("refused")
        codes = {b"ADD": 11, b"CHECK": 11, b"GC": 11, b"STATUS": 50}
        assert (outcome.code, json.loads(outcome.out)["code"]) == (1, codes.get(command, 4))
    assert spool == []


_values = _no_nul | st.from_regex(r"[0-9]{1,5}(\.[0-9]{0,4})?", fullmatch=True).map(str.encode) | st.just(b"/x")


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from([b"ROUTABLE_WAIT", b"ROUTABLE_TIMEOUT", b"ROUTABLE_SOCKET", b"ROUTABLE_SPOOL"]),
    value=_values,
)
def test_every_setting_is_accepted_or_named(pair: Pair, name: bytes, value: bytes) -> None:
    """Any value of a ROUTABLE_* variable either works or is code 4 with the variable's name, in both executables."""
    environ = {b"CNI_COMMAND": b"VERSION", b"ROUTABLE_SOCKET": b"/dev/null/agent.sock", name: value}
    python, c = (called(executable, environ) for executable in pair)
    assert python == c
    document = json.loads(python.out)
    event(f"exit code {python.code}")
    if python.code == 0:
        assert python.out.startswith(STATIC_VERSION)
    else:
        assert (python.code, document["code"]) == (1, 4)
        assert document["msg"].startswith(f"{name.decode()} is ")
    assert python.err == b""
