"""BIRD's control socket: the protocol, every odd answer, and what the answers mean."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from backends.bgp import control, replies
from backends.bgp.control import Conversation, Line
from backends.bgp.replies import Abilities, Channel, Heard
from cni.errors import TryAgain
from tests.fakes.descriptors import descriptors

SESSIONS = """\
Name       Proto      Table      State  Since         Info
1002-device1    Device     ---        up     1795713047
1006-
1002-own4       Static     master4    up     1795713047
1006-  Channel ipv4
     State:          UP
     Routes:         1 imported, 0 exported, 1 preferred

1002-node-b.v4  BGP        ---        up     1795713048    Established
1006-  BGP state:          Established
     Neighbor address: 192.0.2.2
     Neighbor AS:      64512
     Local capabilities
       Multiprotocol
         AF announced: ipv4 ipv6
       Graceful restart
         Restart time: 120
         Restart recovery
         AF supported: ipv4 ipv6
         AF preserved:
       4-octet AS numbers
       Long-lived graceful restart
         LL stale time: 0
         AF supported:
     Neighbor capabilities
       Multiprotocol
         AF announced: ipv4 ipv6
       Graceful restart
         Restart time: 60
         Restart recovery
         AF supported: ipv4
         AF preserved: ipv4
       Long-lived graceful restart
         LL stale time: 1
         AF supported: ipv4 ipv6
     Session:          internal route-reflector AS4
   Channel ipv4
     State:          UP
     Import limit:   10
       [HIT] Action: block
     Import limit:   10 [HIT]
     Routes:         5 imported, 3 filtered, 2 exported, 5 preferred
   Channel ipv6
     State:          UP
     Routes:         1 imported, 1 exported, 1 preferred

1002-node-c.v4  BGP        ---        start  1795713000.5  Active        Socket: Connection refused
1006-  BGP state:          Active
     Neighbor address: 192.0.2.3
     Neighbor graceful restart active
     Last error:       Socket: Connection refused
   Channel ipv4
     State:          DOWN

1002-router.2001:db8:ffff::fe BGP        ---        down   then
0000
"""

ROUTES = """\
1007-Table master4:
 10.244.1.0/24        unreachable [own4 1795713047] * (200)
 10.244.2.0/24        unicast [node-b.v4 1795713048] * (100) [i]
 \tvia 192.0.2.2 on eth0
                      unicast [node-c.v4 1795713048] (100) [i]
 \tvia 192.0.2.3 on eth0

1007-Table master6:
 2001:db8:2::/64      unicast [node-b.v6 1795713048] * (100) [i]
 \tvia 2001:db8:ffff::2 on eth0
0000
"""


class Listener:
    """Answers what it is told to: *says* is sent to whoever connects, one part after each line that comes."""

    def __init__(self, path: Path, says: Sequence[bytes], *, hangs_up: bool = False) -> None:
        self._says, self._hangs_up = says, hangs_up
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self.heard: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            stream, _ = self._listening.accept()
            with stream:
                for part in self._says:
                    stream.sendall(part)
                    if part is self._says[-1] and self._hangs_up:
                        return
                    self.heard.append(stream.recv(1 << 16))

    def close(self) -> None:
        self._listening.close()
        self._thread.join(10)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Where BIRD would be."""
    yield tmp_path / "bird.ctl"


GREETING = b"0001 BIRD 2.0.12 ready.\n"


def answered(
    path: Path, *says: bytes, hangs_up: bool = False, patience: float = 5.0, most: int = control.ANSWER_MAX
) -> Sequence[Line]:
    """What is read of a listener that says that."""
    listener = Listener(path, [GREETING, *says], hangs_up=hangs_up)
    try:
        with Conversation(str(path), patience, most=most) as bird:
            assert bird.pid == os.getpid()
            return bird.ask("show status")
    finally:
        listener.close()


def test_lines_go_on_until_the_last_code(path: Path) -> None:
    """A dash and a space in front continue; what comes of itself is no answer."""
    said = b"1000-BIRD 2.0.12\n1011-Router ID is 192.0.2.1\n more\n+ by itself\n0013 Daemon is up and running\n"
    assert answered(path, said) == [
        (1000, "BIRD 2.0.12"),
        (1011, "Router ID is 192.0.2.1"),
        (1011, "more"),
        (13, "Daemon is up and running"),
    ]


def test_an_answer_may_come_in_pieces_and_an_error_is_one(path: Path) -> None:
    """Whatever the stream does to it."""
    assert answered(path, b"9001 syntax error\n") == [(9001, "syntax error")]


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ([b"\xff\xfe\n"], "which is nothing that BIRD says"),
        ([b" goes on with nothing\n"], "which is nothing that BIRD says"),
        ([b"0001\n"], "which is nothing that BIRD says"),
        ([b"1000-and no end\n"], "no whole answer within"),
        ([b"half a line"], "no whole answer within"),
    ],
)
def test_what_is_no_answer_is_told(path: Path, says: list[bytes], why: str) -> None:
    """And nobody waits for more."""
    with pytest.raises(TryAgain, match=why):
        answered(path, *says, patience=0.2)


def test_who_hangs_up_is_told(path: Path) -> None:
    """In the middle of an answer."""
    with pytest.raises(TryAgain, match=r"hung up|reset"):
        answered(path, b"1000-one\n", hangs_up=True)


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\n", b"0013 hello\n"])
def test_who_is_no_bird_is_told(path: Path, greeting: bytes) -> None:
    """By the greeting."""
    listener = Listener(path, [greeting])
    with pytest.raises(TryAgain, match=r"no BIRD|nothing that BIRD says"):
        Conversation(str(path), 0.5)
    listener.close()


def test_nobody_there_is_told(path: Path) -> None:
    """By the reason: no such socket, nobody who listens, no greeting."""
    with pytest.raises(TryAgain, match="No such file"):
        Conversation(str(path))
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        with pytest.raises(TryAgain, match="refused"):
            Conversation(str(path))
        bound.listen()
        with pytest.raises(TryAgain, match="no whole answer"):
            Conversation(str(path), 0.1)


def test_an_answer_without_an_end_ends(path: Path) -> None:
    """By its size, in lines or in one."""
    for number, said in enumerate((b"1000-" + b"x" * 2000 + b"\n", b"1000-x\n" * 300, b"x" * 5000)):
        with pytest.raises(TryAgain, match="longer than"):
            answered(path.with_name(f"{number}"), said, patience=2.0, most=1000)


def test_one_that_is_gone_when_it_is_asked_is_told(path: Path) -> None:
    """As the socket says it."""
    listener = Listener(path, [GREETING], hangs_up=True)
    bird = Conversation(str(path))
    listener.close()
    with bird, pytest.raises(TryAgain):
        bird.ask("show status")
        bird.ask("show status")


def read(text: str) -> list[Line]:
    """The lines of an answer, as they come out of a conversation."""
    lines: list[Line] = []
    for raw in text.splitlines():
        if raw[:4].isdigit():
            lines.append(Line(int(raw[:4]), raw[5:]))
        else:
            lines.append(Line(lines[-1].code if lines else 2002, raw.removeprefix(" ")))
    return lines


def test_sessions_are_read_whole() -> None:
    """State, since when, both ends' abilities by family, though both were just restarted, and channels."""
    found = replies.sessions(read(SESSIONS))
    assert set(found) == {"node-b.v4", "node-c.v4", "router.2001:db8:ffff::fe"}
    up = found["node-b.v4"]
    assert (up.is_up, up.since, up.address, up.error) == (True, 1795713048.0, "192.0.2.2", "")
    assert up.local == Abilities(is_aware=True, restarts=frozenset({4, 6}), restart_time=120)
    assert up.neighbour == Abilities(is_aware=True, restarts=frozenset({4}), restart_time=60)
    assert up.channels == (Channel(4, 5, 3, 2, is_limited=True), Channel(6, 1, 0, 1))
    assert up.channel(4).imported == 5
    assert up.is_reflecting
    assert found["node-c.v4"].channel(6) == Channel(6)
    down = found["node-c.v4"]
    assert (down.is_up, down.state, down.since, down.is_restarting) == (False, "Active", 1795713000.5, True)
    assert down.error == "Socket: Connection refused"
    assert found["router.2001:db8:ffff::fe"].since == 0.0


def test_routes_are_read_with_whom_they_were_heard_of() -> None:
    """Each way of a range is one."""
    assert replies.routes(read(ROUTES)) == [
        Heard("10.244.1.0/24", "own4"),
        Heard("10.244.2.0/24", "node-b.v4"),
        Heard("10.244.2.0/24", "node-c.v4"),
        Heard("2001:db8:2::/64", "node-b.v6"),
    ]


def test_a_constant_is_read() -> None:
    """With or without its quotation marks; what is none is nothing."""
    assert replies.constant([Line(23, 'node-a 0123')]) == "node-a 0123"
    assert replies.constant([Line(23, '"node-a 0123"')]) == "node-a 0123"
    assert replies.constant([Line(9001, "syntax error")]) == ""
    assert replies.constant([]) == ""


@pytest.mark.parametrize(
    "garbage",
    [
        "1002-x BGP --- up \u00b2",
        "1002-x BGP --- up 9999999999999999999999",
        "1002-x BGP --- up 1\n1006-  Channel \n1006-    Routes: 1 imported",
        "1002-x BGP --- up 1\n1006-  Neighbor capabilities\n1006-    Graceful restart\n1006-      Restart time: "
        + "9" * 5000,
        "1002-x BGP --- up 1\n1006-  Channel ipv4\n1006-    Routes: " + "9" * 5000 + " imported",
    ],
)
def test_what_no_bird_shows_of_a_session_is_unknown(garbage: str) -> None:
    """Whoever writes it: it is left out, and never an error."""
    shown = replies.sessions(read(garbage))["x"]
    assert shown.since in (0.0, 1.0)
    assert not shown.neighbour.restart_time
    assert not any(one.imported for one in shown.channels)


@pytest.mark.parametrize("text", ["1:2/99", "10.0.0.0/33", "1.2.3/24", "10.0.0.1/24", "10.0.0.0/" + "9" * 5000])
def test_what_is_no_range_is_no_route(text: str) -> None:
    """It would be compared with ranges."""
    assert replies.routes(read(f"1007-{text} unicast [x 1] * (100)")) == []


def test_a_process_without_a_descriptor_left_hears_so(tmp_path: Path) -> None:
    """As of a BIRD that is silent: the next round may have one."""
    code = (
        "import os, resource, sys\n"
        "from backends.bgp.control import Conversation\n"
        "from cni.errors import TryAgain\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "try:\n    Conversation(sys.argv[1])\n"
        "except TryAgain as failure:\n    print(failure)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "Too many open files" in done.stdout, done.stderr


def test_without_a_descriptor_left_bird_cannot_be_asked(tmp_path: Path) -> None:
    """It is no silence of BIRD's, and passes."""
    with descriptors(0), pytest.raises(TryAgain, match="Too many open files"):
        Conversation(str(tmp_path / "bird.ctl"))
