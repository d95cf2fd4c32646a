"""The commands of ``routablectl``, from the request to the answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import commands
from agent.serve.control import Control
from agent.serve.lane import Answer, Incoming
from agent.tell.status import Status
from cni import frame
from cni.errors import Failure, TryAgain, Unreadable
from tests.fakes.scripted import ScriptedAgent, answers, sends
from tests.fakes.world import World
from tests.unit.test_status import told


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A node without pods."""
    made = World(tmp_path)
    yield made
    made.close()


def answered(world: World, command: str, stdin: bytes, status: Status | None = None) -> tuple[int, Any]:
    """The exit code and the document that a command ends with."""

    def otherwise(incoming: Incoming) -> Answer:
        return Answer(frame.Response(7, b'"of another kind"'))

    control = Control(status or told(world), world.node, world.survey, world.switch, otherwise)
    request = frame.Request({"CNI_COMMAND": command.encode()}, stdin)
    answer = control.serve(Incoming(request, 0, lambda: False))
    assert answer is not None
    return answer.response.code, json.loads(answer.response.stdout)


def test_what_is_no_command_of_ours_is_otherwises(world: World) -> None:
    """The six verbs, and whatever else there may be."""
    assert answered(world, "ADD", b"") == (7, "of another kind")


@pytest.mark.parametrize(
    ("command", "stdin", "words"),
    [
        (commands.STATUS, b"{", "the command's arguments are not JSON"),
        (commands.STATUS, b"\xff", "the command's arguments are not JSON"),
        (commands.STATUS, b"[" * 100_000, "the command's arguments are not JSON"),
        (commands.IP, b'{"address": "ten"}', "'ten' is no IP address"),
        (commands.IP, b"[]", "None is no IP address"),
        (commands.SWITCH, b"{}", "the command's arguments are not those of switch"),
        (commands.SWITCH, b'{"backend": "vxlna"}', "there is no backend 'vxlna'"),
    ],
)
def test_arguments_that_are_none_are_refused_in_words(world: World, command: str, stdin: bytes, words: str) -> None:
    """Whoever wrote to the socket by hand, or has another version, is told what is wrong."""
    code, document = answered(world, command, stdin)
    assert code == 1
    assert document["msg"] == words
    assert document["details"]


def test_an_answer_that_is_too_large_is_told(world: World) -> None:
    """The protocol carries none that is larger than it says; who asks is told, and the agent goes on."""
    findings = [Failure("x" * frame.STDOUT_MAX)]
    code, document = answered(world, commands.STATUS, b"", told(world, findings=lambda: findings))
    assert code == 1
    assert str(frame.STDOUT_MAX) in document["msg"]
    assert document["details"]


def test_a_bug_in_a_command_is_answered(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The log has where it is; the agent goes on."""

    def broken() -> int:
        raise ZeroDivisionError("a bug")

    code, document = answered(world, commands.STATUS, b"", told(world, waiting=broken))
    assert (code, document["code"]) == (1, 999)
    assert "ZeroDivisionError" in caplog.text
    assert answered(world, commands.STATUS, b"")[0] == 0


def test_a_bad_answer_is_told(tmp_path: Path) -> None:
    """None at all, as from an agent that ends or serves another user; half of one; the agent's own refusal."""
    path = tmp_path / "agent.sock"
    refusal = json.dumps({"code": 7, "msg": "no such backend", "details": "choose another"}).encode()
    for script, kind, words in (
        (sends(b""), TryAgain, "hung up without an answer: it answers its own user alone"),
        (sends(b"\0\0\0"), Unreadable, "the response frame is cut off"),
        (answers(1, refusal), Failure, "no such backend: choose another"),
    ):
        with ScriptedAgent(path, script), pytest.raises(kind, match=words):
            commands.ask(str(path), commands.STATUS, {})


ASKS = """
import sys
from agent import commands
from cni.errors import Failure
try:
    commands.ask(sys.argv[1], commands.STATUS, {})
except Failure as failure:
    print(failure)
"""


def test_another_users_socket_is_told(tmp_path: Path) -> None:
    """Only who may do anything on the node may ask its agent: here a process without any power, and a mode."""
    path = tmp_path / "agent.sock"
    with ScriptedAgent(path):
        path.chmod(0)
        powerless = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", sys.executable]
        done = subprocess.run([*powerless, "-c", ASKS, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"the agent's socket {path} is for root alone: run this command as root\n"
