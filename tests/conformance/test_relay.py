"""The executable, in each of its forms, against an agent that behaves well, badly or not at all."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cni.relay
from agent.process.machine import boot_id
from cni import frame
from cni.call import asked_version
from cni.frame import ENV_MAX, STDIN_MAX, STDOUT_MAX, Request, decode, encode
from cni.spec import VERSIONS, Verb
from tests.conformance.executables import FORMS, PATIENCE, PYTHON, SOURCE, Outcome, built, called, error
from tests.fakes.scripted import (
    Script,
    ScriptedAgent,
    answers,
    answers_unread,
    falls_silent,
    hangs_up,
    sends,
)

CONF = b'{"cniVersion": "1.1.0", "name": "pods", "type": "routable"}'
RESULT = b'{"cniVersion": "1.1.0", "interfaces": []}'
STATIC = {"cniVersion": "1.1.0", "supportedVersions": list(VERSIONS)}


@pytest.fixture(scope="module")
def executables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The executable in each of its forms."""
    return {form: built(form, tmp_path_factory.mktemp("bin")) for form in FORMS}


@pytest.fixture(scope="module", params=FORMS)
def executable(request: pytest.FixtureRequest, executables: dict[str, Path]) -> Path:
    """The executable in one of its forms."""
    return executables[request.param]


class Site:
    """A node as the executable sees it: a socket's path, a spool directory's, and short waits."""

    def __init__(self, root: Path) -> None:
        self.socket = root / "agent.sock"
        self.spool = root / "lib" / "spool"

    def environ(self, command: str | None, **more: str) -> dict[bytes, bytes]:
        """The environment of a call."""
        given = {
            "ROUTABLE_SOCKET": str(self.socket),
            "ROUTABLE_SPOOL": str(self.spool),
            "ROUTABLE_WAIT": "0",
            "ROUTABLE_TIMEOUT": str(PATIENCE),
            **({} if command is None else {"CNI_COMMAND": command}),
            **more,
        }
        return {os.fsencode(name): os.fsencode(value) for name, value in given.items()}

    def spooled(self) -> list[bytes]:
        """The content of every spool file."""
        return [path.read_bytes() for path in sorted(self.spool.iterdir())] if self.spool.exists() else []


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A fresh site."""
    return Site(tmp_path)


class Failing(NamedTuple):
    """A way in which an agent fails to answer, how the error describes it, and ROUTABLE_TIMEOUT for the call."""

    script: Script
    reason: str
    timeout: str = str(PATIENCE)


FAILURES = {
    "hangs up": Failing(hangs_up, "closed the connection after 0 bytes of an answer"),
    "no answer": Failing(sends(b""), "closed the connection after 0 bytes of an answer"),
    "cut header": Failing(sends(b"\0\0\0"), "closed the connection after 3 bytes of an answer"),
    "cut output": Failing(sends(b"\0\0\0\0\x09{}"), "closed the connection after 7 bytes of an answer"),
    "hostile length": Failing(
        sends(b"\0\xff\xff\xff\xff"), f"announces 4294967295 bytes, and the limit is {STDOUT_MAX}"
    ),
    "silent": Failing(falls_silent(b""), "only 0 bytes of an answer within 0.1 s (ROUTABLE_TIMEOUT)", "0.1"),
    "silent half-way": Failing(
        falls_silent(b"\0\0\0\0\x09{}"), "bytes of an answer within 0.1 s (ROUTABLE_TIMEOUT)", "0.1"
    ),
}


def each_at_once(executables: dict[str, Path], root: Path, do: Callable[[Path, Site], None]) -> None:
    """*do* with each of the *executables* and a site of its own: what waits for seconds waits but once."""
    sites = {form: Site(root / form) for form in executables}
    for site in sites.values():
        site.socket.parent.mkdir()
    with ThreadPoolExecutor(len(sites)) as pool:
        list(pool.map(do, executables.values(), sites.values()))


@pytest.fixture(params=FAILURES)
def failing(request: pytest.FixtureRequest) -> Failing:
    """Each way in which an agent fails to answer."""
    return FAILURES[request.param]


# The agent answers


@pytest.mark.parametrize("command", [*Verb, "FROB", "", None])
def test_every_command_is_forwarded(executable: Path, site: Site, command: str | None) -> None:
    """The agent judges the command: it gets all six verbs, unknown ones, and calls without one."""
    with ScriptedAgent(site.socket, answers(0, RESULT)) as agent:
        assert called(executable, site.environ(command), CONF) == Outcome(0, RESULT, b"")
    env = {} if command is None else {"CNI_COMMAND": command.encode()}
    assert agent.requests == [Request(env, CONF)]
    assert site.spooled() == []


@pytest.mark.parametrize("answer", [(0, b""), (1, b'{"code": 7}'), (255, b"\0\xff not even JSON"), (3, b"")])
def test_output_and_exit_code_are_the_agents(executable: Path, site: Site, answer: tuple[int, bytes]) -> None:
    """The answer is relayed byte for byte, without being read."""
    with ScriptedAgent(site.socket, answers(*answer)):
        assert called(executable, site.environ("ADD"), CONF) == Outcome(*answer, b"")


def test_only_cni_variables_travel_with_their_bytes_as_they_are(executable: Path, site: Site) -> None:
    """Variables that begin with CNI_ arrive in any encoding; all others stay here."""
    environ = site.environ("ADD") | {b"CNI_ARGS": b"\xff=\x01\n", b"CNI_": b"", b"XCNI_A": b"1", b"cni_b": b"2"}
    with ScriptedAgent(site.socket, answers(0, RESULT)) as agent:
        called(executable, environ, b"\0\xff")
    assert agent.requests == [Request({"CNI_COMMAND": b"ADD", "CNI_ARGS": b"\xff=\x01\n", "CNI_": b""}, b"\0\xff")]


def test_of_a_variable_given_twice_the_first_is_sent(executable: Path, site: Site) -> None:
    """Both the executable and the agent see a repeated name's first value."""
    entries = [name + b"=" + value for name, value in site.environ("ADD").items()]
    program = (
        "import ctypes, sys; a = [s.encode() for s in sys.argv[1:]];"
        "t = ctypes.c_char_p * 2; e = ctypes.c_char_p * len(a);"
        "ctypes.CDLL(None).execve(a[0], t(a[0], None), e(*a[1:], None))"
    )
    arguments = [str(executable), *(entry.decode() for entry in entries), "CNI_COMMAND=DEL", "CNI_COMMAND=GC"]
    with ScriptedAgent(site.socket, raw_env := RawEnv()) as _:
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], input=b"", capture_output=True, timeout=PATIENCE
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert raw_env.received == b"CNI1\0\0\0\x10\0\0\0\0CNI_COMMAND=ADD\0"


class RawEnv:
    """A script that keeps the request's bytes as they came and answers success."""

    def __init__(self) -> None:
        self.received = b""

    def __call__(self, connection: socket.socket) -> None:
        """Serve one connection."""
        self.received = connection.recv(65536)
        connection.sendall(b"\0\0\0\0\0")


def test_the_largest_request_and_answer_pass(executable: Path, site: Site) -> None:
    """Variables, standard input and output exactly at their limits are relayed, however slowly they are read."""
    largest = Request(
        {"CNI_COMMAND": b"ADD", "CNI_ARGS": b"x" * (ENV_MAX - len("CNI_COMMAND=ADD") - len("CNI_ARGS=") - 2)},
        b"y" * STDIN_MAX,
    )
    output = b"z" * STDOUT_MAX

    environ = site.environ("ADD") | {b"CNI_ARGS": largest.env["CNI_ARGS"]}
    with ScriptedAgent(site.socket, answers(0, output, reading=999)) as agent:
        assert called(executable, environ, largest.stdin) == Outcome(0, output, b"")
    assert agent.requests == [largest]


def test_an_answer_in_single_bytes_is_assembled(executable: Path, site: Site) -> None:
    """An answer may arrive in pieces of any size."""
    with ScriptedAgent(site.socket, answers(0, RESULT, writing=1)):
        assert called(executable, site.environ("ADD"), CONF) == Outcome(0, RESULT, b"")


def test_an_answer_that_comes_before_the_request_was_read_counts(executable: Path, site: Site) -> None:
    """An agent may refuse a request without reading it; its answer is relayed instead of a broken pipe."""
    refusal = b'{"code": 5}'
    with ScriptedAgent(site.socket, answers_unread(1, refusal)):
        assert called(executable, site.environ("DEL"), b"x" * STDIN_MAX) == Outcome(1, refusal, b"")
    assert site.spooled() == []


# The agent is away


@pytest.mark.parametrize("command", ["ADD", "CHECK", "GC"])
def test_without_an_agent_a_change_is_to_be_tried_again(executable: Path, site: Site, command: str) -> None:
    """ADD, CHECK and GC end in code 11 with what, where, why and what to do."""
    document = error(called(executable, site.environ(command), CONF))
    assert document["code"] == 11
    assert document["msg"] == f"{command} was not served: no answer from routable-agent on {site.socket}"
    assert document["details"] == (
        "connecting failed: No such file or directory (errno 2); "
        "see that routable-agent runs on this node and what its log says"
    )
    assert site.spooled() == []


@pytest.mark.parametrize("command", ["ADD", "CHECK", "GC"])
def test_a_change_waits_for_the_agent_as_long_as_it_is_told(executable: Path, site: Site, command: str) -> None:
    """Before giving up, ROUTABLE_WAIT seconds pass, and the error says so."""
    start = time.monotonic()
    document = error(called(executable, site.environ(command, ROUTABLE_WAIT="0.3"), CONF))
    assert time.monotonic() - start >= 0.28  # less the 10 ms of its clock at either end
    assert "connecting failed for 0.3 s (ROUTABLE_WAIT): No such file" in str(document["details"])


@pytest.mark.parametrize("is_refused", [False, True])
def test_an_agent_that_comes_while_add_waits_serves_it(executable: Path, site: Site, is_refused: bool) -> None:
    """ADD connects again until the agent listens, whether its socket is missing or a dead agent's."""
    if is_refused:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(site.socket))
    environ = site.environ("ADD", ROUTABLE_WAIT=str(PATIENCE))
    with subprocess.Popen([str(executable)], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        process.stdin.write(CONF)
        process.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        site.socket.unlink(missing_ok=True)
        with ScriptedAgent(site.socket, answers(0, RESULT)):
            assert process.stdout.read() == RESULT
    assert process.returncode == 0


@pytest.mark.parametrize("command", ["DEL", "VERSION", "FROB"])
def test_what_need_not_wait_does_not(executable: Path, site: Site, command: str) -> None:
    """With an hour to wait, these are answered at once all the same (the call's own time limit is shorter)."""
    outcome = called(executable, site.environ(command, ROUTABLE_WAIT="3600"), CONF)
    assert outcome.code == (0 if command in ("DEL", "VERSION") else 1)


def test_status_without_an_agent_is_not_ready(executable: Path, site: Site) -> None:
    """STATUS is code 50: a pod could not be added now."""
    document = error(called(executable, site.environ("STATUS"), CONF))
    assert document["code"] == 50
    assert document["msg"] == f"no pod can be added: no answer from routable-agent on {site.socket}"


def test_status_waits_for_an_agent_that_is_starting(executable: Path, site: Site) -> None:
    """A restart of the agent is not told to a runtime, which would make the node NotReady for it."""
    environ = site.environ("STATUS", ROUTABLE_WAIT="3600")
    with subprocess.Popen([str(executable)], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        process.stdin.write(CONF)
        process.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        with ScriptedAgent(site.socket, answers(0, b"")):
            assert process.stdout.read() == b""
    assert process.returncode == 0


def test_status_is_asked_again_where_an_agent_ends(executable: Path, site: Site) -> None:
    """One that is stopped closes connections that it has not answered; the next one answers. ADD is the runtime's to
    try again."""
    with ScriptedAgent(site.socket, hangs_up, sends(b"\0\0"), answers(0, b"")) as agent:
        assert called(executable, site.environ("STATUS", ROUTABLE_WAIT="3600"), CONF) == Outcome(0, b"", b"")
    assert len(agent.requests) == 3
    with ScriptedAgent(site.socket, hangs_up):
        assert error(called(executable, site.environ("ADD", ROUTABLE_WAIT="3600"), CONF))["code"] == 11


def test_status_of_an_agent_that_hangs_ends_soon(executables: dict[str, Path], tmp_path: Path) -> None:
    """A runtime that is not answered for 30 s is taken for dead itself."""

    def ends_soon(executable: Path, site: Site) -> None:
        start = time.monotonic()
        with ScriptedAgent(site.socket, falls_silent(b"")):
            document = error(called(executable, site.environ("STATUS", ROUTABLE_WAIT="3600"), CONF))
        assert 7.9 < time.monotonic() - start < 20
        assert document["code"] == 50
        assert "only 0 bytes of an answer within 8 s" in str(document["details"])

    each_at_once(executables, tmp_path, ends_soon)


def test_version_needs_no_agent(executable: Path, site: Site) -> None:
    """VERSION lists every version that this project speaks."""
    code, out, err = called(executable, site.environ("VERSION"))
    assert (code, json.loads(out), err) == (0, STATIC, b"")


@pytest.mark.parametrize(
    ("stdin", "version"),
    [
        (b'{"cniVersion": "0.4.0"}', "0.4.0"),
        (b'{"name": "x",\n "cniVersion"\t:\r\n"9.9.9", "type": "routable"}', "9.9.9"),
        (b'{"cniVersion": "1.1.0-12345678901"}', "1.1.0"),
        (b'{"cniVersion": "1111111111111111"}', "1" * 16),
        (b'{"cniVersion": "11111111111111111"}', "1.1.0"),
        *((text, "1.1.0") for text in (b"", b"{}", b"\xff", b'{"cniVersion"', b'{"cniVersion":', b'{"cniVersion": "')),
        *((text, "1.1.0") for text in (b'{"cniVersion": 4}', b'{"cniVersion": ""}', b'"cniVersion": "0.4.0')),
        (b'{"a": "cniVersion", "b": "0.4.0"}', "1.1.0"),
    ],
)
def test_version_answers_with_the_version_that_it_was_given(
    executable: Path, site: Site, stdin: bytes, version: str
) -> None:
    """Exactly as the agent would, whatever the input is: who probes for versions must not depend on one."""
    code, out, err = called(executable, site.environ("VERSION"), stdin)
    assert (code, json.loads(out), err) == (0, {**STATIC, "cniVersion": version}, b"")
    assert asked_version(stdin) == version


@given(stdin=st.binary() | st.from_regex(rb'.?"cniVersion"[ \t\n:x]{0,3}"?[0-9.x]{0,18}"?.?', fullmatch=True))
def test_executable_and_agent_find_the_same_version(stdin: bytes) -> None:
    """The two forms of the search agree."""
    assert cni.relay.version(stdin).decode() == asked_version(stdin)


@pytest.mark.parametrize("command", ["FROB", "", "add", "ADD ", None])
def test_an_unknown_command_without_an_agent_is_named(executable: Path, site: Site, command: str | None) -> None:
    """A command that is none of the six is code 4, and the message names the variable and its value."""
    document = error(called(executable, site.environ(command), CONF))
    given = "not set" if command is None else f'"{command}"'
    assert (document["code"], document["msg"]) == (4, f"CNI_COMMAND is {given}")
    assert site.spooled() == []


@pytest.mark.parametrize("umask", [0, 0o777])
def test_del_without_an_agent_is_kept_for_it(executable: Path, site: Site, umask: int) -> None:
    """DEL succeeds, and its request is one private file, whatever the umask, whose name tells when it came,
    by the wall clock and by the one that nobody sets, and during which boot."""
    before, up = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    done = subprocess.run(
        [str(executable)],
        env=site.environ("DEL", CNI_CONTAINERID="c1"),
        input=CONF,
        capture_output=True,
        timeout=PATIENCE,
        umask=umask,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    (path,) = site.spool.iterdir()
    assert path.read_bytes() == encode(Request({"CNI_COMMAND": b"DEL", "CNI_CONTAINERID": b"c1"}, CONF))
    named = re.fullmatch(r"del-([0-9]{19})-[0-9]+\.([0-9]+)\.([0-9a-f]{32})", path.name)
    assert named
    assert before <= int(named[1]) <= time.time_ns()
    assert up <= int(named[2]) <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert named[3] == boot_id().replace("-", "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(site.spool.stat().st_mode) == 0o700


def test_every_del_is_kept(executable: Path, site: Site) -> None:
    """A directory that exists is used as it is, and no file replaces another."""
    site.spool.mkdir(parents=True, mode=0o750)
    for container in "abc":
        assert called(executable, site.environ("DEL", CNI_CONTAINERID=container)) == Outcome(0, b"", b"")
    assert {decode(raw).env["CNI_CONTAINERID"] for raw in site.spooled()} == {b"a", b"b", b"c"}
    assert stat.S_IMODE(site.spool.stat().st_mode) == 0o750


def test_del_that_cannot_be_kept_fails(executable: Path, site: Site) -> None:
    """If the spool cannot be written, DEL is code 11 and names the directory and the system's reason."""
    site.spool.parent.write_bytes(b"")
    document = error(called(executable, site.environ("DEL"), CONF))
    assert document["code"] == 11
    assert f"writing to {site.spool} failed: Not a directory (errno 20)" in str(document["msg"])
    assert "ROUTABLE_SPOOL" in str(document["details"])


@pytest.mark.parametrize("spool", ["/proc/none/spool", "/proc"])
def test_a_spool_that_cannot_be_made_or_written_in_is_named(executable: Path, site: Site, spool: str) -> None:
    """Neither a directory that cannot be made nor one that takes no file is passed over in silence."""
    document = error(called(executable, site.environ("DEL", ROUTABLE_SPOOL=spool), CONF))
    assert document["code"] == 11
    assert str(document["msg"]).startswith(f"DEL could be neither served nor kept: writing to {spool} failed: ")
    assert re.search(r" \(errno [0-9]+\)$", str(document["msg"]))


def test_a_full_disk_leaves_no_half_a_request(executable: Path, site: Site) -> None:
    """If the file cannot be written whole, it is taken away and DEL fails."""
    done = subprocess.run(
        [str(executable)],
        env=site.environ("DEL"),
        input=b"x" * 50_000,
        capture_output=True,
        timeout=PATIENCE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    document = error(Outcome(done.returncode, done.stdout, done.stderr))
    assert document["code"] == 11
    assert "File too large (errno 27)" in str(document["msg"])
    assert list(site.spool.iterdir()) == []


def test_what_is_not_set_is_as_documented(executable: Path) -> None:
    """Without ROUTABLE_SOCKET and ROUTABLE_SPOOL the agent's own defaults hold, in a /var/lib of this test's own."""
    script = 'mount -t tmpfs none /var/lib && "$0"; echo; cd /var/lib/routable/spool && ls'
    environ = {"CNI_COMMAND": "DEL", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, str(executable)],
        env=environ,
        input=CONF,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.fullmatch(rb"\ndel-\S+\n", done.stdout)
    status = error(called(executable, {b"CNI_COMMAND": b"STATUS", b"ROUTABLE_WAIT": b"0"}, CONF))
    assert status["msg"] == "no pod can be added: no answer from routable-agent on /run/routable/agent.sock"


def test_an_agent_has_ten_seconds_to_start(executables: dict[str, Path], tmp_path: Path) -> None:
    """One that does within that time costs no ADD, unless that is told otherwise, and STATUS says no sooner than an ADD
    would be refused, and no later, whatever it is told."""

    def waits(executable: Path, site: Site) -> None:
        unasked = site.environ("ADD")
        del unasked[b"ROUTABLE_WAIT"], unasked[b"ROUTABLE_TIMEOUT"]
        environs = unasked, site.environ("STATUS", ROUTABLE_WAIT="3600")
        start = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            outcomes = list(pool.map(lambda environ: called(executable, environ, CONF), environs))
        assert 9.9 < time.monotonic() - start < 20
        for outcome, code in zip(outcomes, (11, 50), strict=True):
            document = error(outcome)
            assert document["code"] == code
            assert "connecting failed for 10 s (ROUTABLE_WAIT): No such file" in str(document["details"])

    each_at_once(executables, tmp_path, waits)


# The agent fails half-way


def test_del_that_is_not_answered_whole_is_kept(executable: Path, site: Site, failing: Failing) -> None:
    """However the agent fails, DEL succeeds and is replayed later."""
    with ScriptedAgent(site.socket, failing.script):
        outcome = called(executable, site.environ("DEL", ROUTABLE_TIMEOUT=failing.timeout), CONF)
    assert outcome == Outcome(0, b"", b"")
    assert site.spooled() == [encode(Request({"CNI_COMMAND": b"DEL"}, CONF))]


@pytest.mark.parametrize(("command", "code"), [("ADD", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50), ("FROB", 4)])
def test_a_call_that_is_not_answered_whole_fails(
    executable: Path, site: Site, failing: Failing, command: str, code: int
) -> None:
    """However the agent fails, nothing of its half answer is printed; the error says what happened."""
    with ScriptedAgent(site.socket, failing.script):
        document = error(called(executable, site.environ(command, ROUTABLE_TIMEOUT=failing.timeout), CONF))
    assert document["code"] == code
    assert command == "FROB" or failing.reason in str(document["details"])
    assert site.spooled() == []


def test_version_survives_any_agent(executable: Path, site: Site, failing: Failing) -> None:
    """VERSION is answered whatever the agent does, and soon though the timeout be long."""
    with ScriptedAgent(site.socket, failing.script):
        code, out, err = called(executable, site.environ("VERSION", ROUTABLE_TIMEOUT="3600"))
    assert (code, json.loads(out), err) == (0, STATIC, b"")


def test_a_full_backlog_is_an_agent_that_is_away(executable: Path, site: Site) -> None:
    """An agent that accepts nobody does not hang its callers: DEL is kept."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(site.socket))
        listener.listen(0)
        first.connect(str(site.socket))
        assert called(executable, site.environ("DEL"), CONF) == Outcome(0, b"", b"")
    assert len(site.spooled()) == 1


# What cannot be forwarded


def test_too_much_input_is_undecodable(executable: Path, site: Site) -> None:
    """Standard input of one byte more than the limit is code 6 and the message says the limit."""
    document = error(called(executable, site.environ("ADD"), b"x" * (STDIN_MAX + 1)))
    assert (document["code"], document["msg"]) == (6, f"standard input has more than {STDIN_MAX} bytes")


def test_too_many_variables_are_refused(executable: Path, site: Site) -> None:
    """CNI_* variables beyond the limit are code 4; the message names the largest."""
    value = "x" * (ENV_MAX - len("CNI_COMMAND=ADD") - len("CNI_ARGS=") - 1)
    document = error(called(executable, site.environ("ADD", CNI_ARGS=value), CONF))
    assert document["code"] == 4
    assert document["msg"] == (f"the CNI_* variables have {ENV_MAX + 1} bytes, {len(value) + 10} of them in CNI_ARGS")
    assert str(ENV_MAX) in str(document["details"])


BAD_SECONDS = ["", "x", "-1", "1e3", " 1", "1 ", ".5", "1.", "1.2345", "1.2.3", "3600.001", "3601", "00010", "²"]


@pytest.mark.parametrize("name", ["ROUTABLE_WAIT", "ROUTABLE_TIMEOUT"])
@pytest.mark.parametrize("value", BAD_SECONDS)
def test_malformed_seconds_are_refused_by_name(executable: Path, site: Site, name: str, value: str) -> None:
    """A duration that is not plain seconds within its range is code 4 naming the variable."""
    document = error(called(executable, site.environ("VERSION", **{name: value})))
    assert document["code"] == 4
    assert str(document["msg"]).startswith(f"{name} is ")
    assert "to 3600" in str(document["details"])


def test_no_time_to_answer_is_refused(executable: Path, site: Site) -> None:
    """A timeout of zero, which for a socket would mean for ever, is malformed."""
    document = error(called(executable, site.environ("VERSION", ROUTABLE_TIMEOUT="0")))
    assert document["details"] == ("expected seconds from 0.001 to 3600 with at most three decimals, such as 10 or 0.5")


@pytest.mark.parametrize("value", ["3600", "0.001", "0010", "7.5", "3600.000"])
def test_seconds_within_their_range_are_accepted(executable: Path, site: Site, value: str) -> None:
    """Whole seconds and up to three decimals are understood."""
    environ = site.environ("VERSION", ROUTABLE_WAIT=value, ROUTABLE_TIMEOUT=value)
    assert called(executable, environ).code == 0


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        ("ROUTABLE_SOCKET", "", 107),
        ("ROUTABLE_SOCKET", "agent.sock", 107),
        ("ROUTABLE_SOCKET", "/" + "s" * 107, 107),
        ("ROUTABLE_SPOOL", "", 4000),
        ("ROUTABLE_SPOOL", "spool", 4000),
        ("ROUTABLE_SPOOL", "/" + "s" * 4000, 4000),
    ],
)
def test_malformed_paths_are_refused_by_name(executable: Path, site: Site, name: str, value: str, limit: int) -> None:
    """A path that is relative, or longer than the kernel takes, is code 4 naming the variable and the limit."""
    document = error(called(executable, site.environ("DEL", **{name: value}), CONF))
    assert document["code"] == 4
    assert str(document["msg"]).startswith(f'{name} is "{value[:200]}')
    assert document["details"] == f"expected an absolute path of at most {limit} bytes"


def test_a_socket_path_of_the_longest_length_works(executable: Path, site: Site) -> None:
    """107 bytes are still connected to."""
    room = 107 - len(os.fsencode(site.socket.parent)) - 1
    site.socket = site.socket.parent / ("s" * room)
    with ScriptedAgent(site.socket, answers(0, RESULT)):
        assert called(executable, site.environ("ADD"), CONF) == Outcome(0, RESULT, b"")


def test_hostile_bytes_in_a_message_stay_json(executable: Path, site: Site) -> None:
    """Quotes, control characters and bytes that are not ASCII are escaped in the error, and a long value is cut."""
    environ = site.environ("x") | {b"CNI_COMMAND": b'"\\\n\x7f\xff\xc3\xa4' + b"y" * 300}
    document = error(called(executable, environ))
    assert document["msg"] == 'CNI_COMMAND is ""\\\n\x7f\\xff\\xc3\\xa4' + "y" * 193 + '..."'


def test_without_a_descriptor_left_the_call_says_so(executable: Path, site: Site) -> None:
    """A limit that is reached in the middle of a call is told as what it is, at once, and a DEL is not lost unsaid."""
    with ScriptedAgent(site.socket), awaiting(executable, site, "DEL", subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(b" " * 200_000)  # more than a pipe holds: it has begun to read
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, 3))
        out, _ = process.communicate(timeout=PATIENCE)
    document = error(Outcome(process.returncode, out, b""))
    assert document["code"] == 11
    assert "failed: Too many open files (errno 24)" in str(document["msg"])
    assert "connecting failed: Too many open files (errno 24)" in str(document["details"])


# Standard streams and signals


def redirected(executable: Path, site: Site, redirection: str, command: str = "ADD") -> Outcome:
    """Call through a shell that arranges the standard streams."""
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" {redirection}', str(executable)],
        env=site.environ(command),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_closed_input_is_empty_input(executable: Path, site: Site) -> None:
    """Without standard input the agent gets an empty one to judge."""
    with ScriptedAgent(site.socket, answers(0, RESULT)) as agent:
        assert redirected(executable, site, "<&-") == Outcome(0, RESULT, b"")
    assert [request and request.stdin for request in agent.requests] == [b""]


def test_a_closed_stream_that_cannot_be_occupied_is_told(executable: Path, site: Site) -> None:
    """Without a /dev/null, as in a bare root directory, nothing may be written where an answer does not belong."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(site.socket))
        script = f'mount --bind {site.socket} /dev/null && exec "$0" <&-'
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script, str(executable)],
            env=site.environ("ADD", PATH=os.environ["PATH"]),
            capture_output=True,
            timeout=PATIENCE,
        )
    document = error(Outcome(done.returncode, done.stdout, done.stderr))
    assert document["code"] == 5
    assert document["msg"] == "/dev/null cannot be opened: No such device or address (errno 6)"


def test_with_all_streams_closed_only_the_request_travels(executable: Path, site: Site) -> None:
    """Nothing is printed into the agent's connection, which may have a standard descriptor's number."""
    late: list[bytes] = []

    def listens_on(connection: socket.socket) -> None:
        answers(0, RESULT)(connection)
        late.append(connection.recv(100))

    with ScriptedAgent(site.socket, listens_on):
        assert redirected(executable, site, "<&- >&- 2>&-").code == 1
    assert late == [b""]


def test_input_that_cannot_be_read_is_an_io_failure(executable: Path, site: Site) -> None:
    """A standard input that is not open for reading is code 5 with the system's reason."""
    document = error(redirected(executable, site, "0>/dev/null"))
    assert document["code"] == 5
    assert document["msg"] == "standard input cannot be read: Bad file descriptor (errno 9)"


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full", "1</dev/null"])
def test_output_that_cannot_be_written_is_a_failure(executable: Path, site: Site, redirection: str) -> None:
    """If the result cannot be printed, the exit code is not zero and nothing else is said."""
    with ScriptedAgent(site.socket, answers(0, RESULT)):
        assert redirected(executable, site, redirection) == Outcome(1, b"", b"")


def test_output_to_nobody_is_a_failure(executable: Path, site: Site) -> None:
    """A broken pipe neither kills the executable by a signal nor shows a traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    with ScriptedAgent(site.socket, answers(0, RESULT)), os.fdopen(writer, "wb") as pipe:
        done = subprocess.run(
            [str(executable)],
            env=site.environ("ADD"),
            input=CONF,
            stdout=pipe,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
        )
    assert (done.returncode, done.stderr) == (1, b"")


def test_pipes_that_do_not_block_are_read_and_written_whole(executable: Path, site: Site) -> None:
    """A caller's non-blocking pipes, empty or full for a while, lose nothing."""
    (its_stdin, stdin), (stdout, its_stdout) = os.pipe(), os.pipe()
    os.set_blocking(its_stdin, False)
    os.set_blocking(its_stdout, False)
    output = b"z" * STDOUT_MAX
    with ScriptedAgent(site.socket, answers(0, output)) as agent:
        process = subprocess.Popen([str(executable)], env=site.environ("ADD"), stdin=its_stdin, stdout=its_stdout)
        os.close(its_stdin)
        os.close(its_stdout)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        os.write(stdin, CONF)
        os.close(stdin)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        with os.fdopen(stdout, "rb") as pipe:
            assert pipe.read() == output
        assert process.wait(PATIENCE) == 0
    assert agent.requests == [Request({"CNI_COMMAND": b"ADD"}, CONF)]


def test_being_stopped_and_continued_loses_nothing(executable: Path, site: Site) -> None:
    """System calls that a stop interrupts are taken up again."""
    with listening(site.socket) as listener, awaiting(executable, site) as process:
        connection, _ = listener.accept()
        with connection:
            for _ in range(5):
                process.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, process.pid, os.WSTOPPED)
                process.send_signal(signal.SIGCONT)
            answers(0, RESULT, writing=9)(connection)
        assert process.communicate(timeout=PATIENCE) == (RESULT, b"")
        assert process.returncode == 0


def test_an_interrupt_shows_no_traceback(executable: Path, site: Site) -> None:
    """Ctrl-C while the answer is awaited ends the process, silently and not with success."""
    with listening(site.socket) as listener, awaiting(executable, site) as process:
        connection, _ = listener.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=PATIENCE) == (b"", b"")
        assert process.returncode in (130, -signal.SIGINT)


def listening(path: Path) -> socket.socket:
    """A socket that listens on *path*."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    listener.settimeout(PATIENCE)
    return listener


def awaiting(
    executable: Path, site: Site, command: str = "ADD", stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """The executable, started for *command*, without standard input unless there is a pipe for it."""
    return subprocess.Popen(
        [str(executable)],
        env=site.environ(command),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


# The Python form alone


REPORTS_MODULES = """
import sys, posix
source = sys.argv.pop()
leave = posix._exit
def report(code):
    posix.write(2, " ".join(sorted(sys.modules)).encode())
    leave(code)
posix._exit = report
exec(compile(open(source, "rb").read(), source, "exec"), {"__name__": "__main__"})
"""


def modules(program: str, environ: dict[bytes, bytes]) -> set[str]:
    """The names in sys.modules that *program* leaves on stderr, run as the executable is."""
    done = subprocess.run(
        [str(PYTHON), "-I", "-S", "-c", program, str(SOURCE)],
        env=environ,
        input=CONF,
        capture_output=True,
        timeout=PATIENCE,
    )
    return set(done.stderr.decode().split())


@pytest.mark.parametrize("script", [answers(0, b"ok"), answers(1, b"{}"), hangs_up])
@pytest.mark.parametrize("command", ["ADD", "DEL", "STATUS", "VERSION"])
def test_the_python_form_imports_nothing_but_builtin_modules(site: Site, command: str, script: Script) -> None:
    """At the end of a real run sys.modules holds what a bare interpreter's does, and _socket."""
    environ = site.environ(command)
    bare = modules("import sys; sys.stderr.write(' '.join(sys.modules))", environ)
    with ScriptedAgent(site.socket, script) as agent:
        loaded = modules(REPORTS_MODULES, environ)
    assert len(agent.requests) == 1
    assert loaded - bare == {"_socket"}
    assert not loaded & {"os", "site", "socket", "struct", "json"}


def test_the_python_form_has_the_protocols_limits() -> None:
    """The executable, which cannot import the protocol's module, agrees with it."""
    limits = ("ENV_MAX", "STDIN_MAX", "STDOUT_MAX")
    assert [getattr(cni.relay, name) for name in limits] == [getattr(frame, name) for name in limits]
