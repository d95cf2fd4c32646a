"""The process that is BIRD, a real one: found, started, refused, ended; its files, and its passwords."""

from __future__ import annotations

import gc
import os
import signal
import socket
import stat
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import ExitStack
from pathlib import Path

import pytest
from netaddr import IPAddress, IPNetwork

import backends
from backends.bgp import live, replies
from backends.bgp.conf import MARK
from backends.bgp.drain import DRAIN
from backends.bgp.files import files
from backends.bgp.passwords import passwords
from backends.bgp.process import Bird, has_ended, line
from backends.bgp.seen import Md5
from backends.bgp.table import BgpTable, RouterTable
from cni.errors import ConfigInvalid, TryAgain
from demo.lab import eventually
from demo.place import run
from demo.speaking import BIRDS_POWER, program

GOOD = f'define {MARK} = "node-a 1";\nrouter id 192.0.2.1;\nprotocol device {{ }}\n'


@pytest.fixture
def table(tmp_path: Path) -> Iterator[BgpTable]:
    """With a BIRD, whose files are in a directory of its own; one that runs in the end is ended."""
    made = BgpTable(
        asn=64512,
        accept=(IPNetwork("10.244.0.0/16"),),
        bird=str(program(tmp_path)),
        directory=str(tmp_path / "bgp"),
    )
    yield made
    left = Bird(made, "node-a")
    if not left.has_ended():
        left.kill()


def started(table: BgpTable, text: str = GOOD) -> Bird:
    """One that runs and answers."""
    bird = Bird(table, "node-a")
    bird.write(text)
    bird.start(is_restart=False)

    def answers() -> bool:
        try:
            return bool(bird.mark())
        except TryAgain:
            return False

    eventually("it answers", answers)
    return bird


def test_what_is_written_is_checked_before(table: BgpTable) -> None:
    """BIRD says where it is wrong; what was there stays; all is for root alone."""
    bird = Bird(table, "node-a")
    bird.write(GOOD)
    path = files(table).configuration
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (GOOD, 0o600)
    with pytest.raises(ConfigInvalid, match=r"BIRD refuses its configuration: .*bird\.conf\.next:4:1 syntax error"):
        bird.write(f"{GOOD}nonsense;\n")
    assert path.read_text() == GOOD
    path.chmod(0o644)
    bird.write(GOOD)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_written_already_is_not_read_again(table: BgpTable, tmp_path: Path) -> None:
    """Each second it is asked for: without a BIRD it is still right."""
    Bird(table, "node-a").write(GOOD)
    gone = Bird(BgpTable(bird=str(tmp_path / "none"), directory=table.directory), "node-a")
    gone.write(GOOD)
    with pytest.raises(ConfigInvalid, match=r"none cannot be run: No such file .*: install BIRD 2"):
        gone.write(GOOD + "\n")
    with pytest.raises(ConfigInvalid, match="none cannot be run"):
        gone.start(is_restart=False)


def test_a_directory_that_cannot_be_is_told(tmp_path: Path) -> None:
    """By its path."""
    (tmp_path / "file").touch()
    bird = Bird(BgpTable(directory=str(tmp_path / "file" / "bgp")), "node-a")
    with pytest.raises(ConfigInvalid, match=r"bird\.conf\.next cannot be written: Not a directory"):
        bird.write(GOOD)


def test_what_somebody_made_of_its_file_is_written_over_or_told(table: BgpTable) -> None:
    """Text that is none is no reason to end; what cannot be written over is told by its path."""
    bird, path = Bird(table, "node-a"), files(table).configuration
    bird.write(GOOD)
    path.write_bytes(b"\xff\xfe\x00")
    bird.write(GOOD)
    assert path.read_text() == GOOD
    path.unlink()
    (path / "in").mkdir(parents=True)
    with pytest.raises(ConfigInvalid, match=r"bird\.conf cannot be written: Is a directory"):
        bird.write(GOOD)


def test_a_file_for_which_there_is_no_room_leaves_nothing(table: BgpTable) -> None:
    """Not the half of one, with passwords in it."""
    code = (
        "import resource, signal, sys\nfrom pathlib import Path\nfrom backends.bgp.files import Files\n"
        "from cni.errors import ConfigInvalid\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\nplace = Path(sys.argv[1])\n"
        "try:\n    Files(place).write(place / 'bird.conf', 'x' * 1000)\n"
        "except ConfigInvalid as failure:\n    print(failure)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, table.directory], capture_output=True, text=True, check=False)
    assert "bird.conf cannot be written: File too large" in done.stdout, done.stderr
    assert list(files(table).directory.iterdir()) == []


def test_one_that_was_ended_by_force_leaves_nothing_in_the_process(table: BgpTable) -> None:
    """Neither a dead child nor a descriptor, however often that is."""
    bird = started(table)
    gc.collect()  # what other tests left open would be closed at any moment
    before = len(list(Path("/proc/self/fd").iterdir()))
    dead = bird.pid
    bird.kill()
    bird.start(is_restart=True)
    assert not Path(f"/proc/{dead}").exists()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    bird.kill()
    assert bird.has_ended()


def test_one_whose_queue_is_full_has_not_ended(table: BgpTable) -> None:
    """Nobody can connect to it: a second one beside it would take its socket away, and leave it for ever."""
    os.kill(started(table).pid, signal.SIGSTOP)
    with ExitStack() as callers:
        with pytest.raises(BlockingIOError):
            while True:
                caller = callers.enter_context(socket.socket(socket.AF_UNIX))
                caller.settimeout(5)
                caller.connect(str(files(table).socket))
        bird = Bird(table, "node-a", patience=0.2)
        assert not bird.has_ended()
        bird.kill()
        assert bird.has_ended()


def test_who_cannot_be_asked_for_may_be_there(table: BgpTable) -> None:
    """Nothing is started beside it."""
    path = files(table).socket
    path.parent.mkdir()
    path.symlink_to(path)
    with pytest.raises(TryAgain, match="cannot be known: Too many levels"):
        Bird(table, "node-a").has_ended()
    path.unlink()


def test_one_that_may_not_be_ended_is_told(table: BgpTable, tmp_path: Path) -> None:
    """Where the kernel forbids signals to others, as in a container."""
    code = (
        "import os, sys\nfrom backends.bgp.process import Bird\nfrom backends.bgp.table import BgpTable\n"
        "from cni.errors import TryAgain\nbird = Bird(BgpTable(bird=sys.argv[1], directory=sys.argv[2]), 'node-a')\n"
        "bird.mark()\nos.setresuid(65534, 65534, 65534)\n"
        "try:\n    bird.kill()\nexcept TryAgain as failure:\n    print(failure)\n"
    )
    bird = started(table)
    words = [sys.executable, "-c", code, table.bird, table.directory]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert f"BIRD, process {bird.pid}, cannot be ended: Operation not permitted" in done.stdout, done.stderr


def test_one_that_runs_is_known_by_its_mark(table: BgpTable) -> None:
    """To whoever asks, by the socket alone; of another node it is none."""
    bird = started(table)
    assert bird.mark() == "node-a 1"
    next_ = Bird(table, "node-a")
    assert (next_.mark(), next_.pid) == ("node-a 1", bird.pid)
    with pytest.raises(ConfigInvalid, match=r"answers a BIRD whose configuration is marked 'node-a 1'"):
        Bird(table, "node-b").mark()


def test_one_that_is_told_anew_is_the_same(table: BgpTable) -> None:
    """A file that was broken by hand is refused, and changes nothing."""
    bird = started(table)
    pid = bird.pid
    bird.write(GOOD.replace("node-a 1", "node-a 2"))
    bird.configure()
    assert (bird.mark(), bird.pid) == ("node-a 2", pid)
    files(table).configuration.write_text("nonsense;")
    with pytest.raises(ConfigInvalid, match=r"BIRD refuses its configuration: .*syntax error"):
        bird.configure()
    assert bird.mark() == "node-a 2"


def test_it_is_ended_by_a_signal_though_the_agent_has_them_blocked(table: BgpTable) -> None:
    """Whoever looks after the machine can end it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        bird = started(table)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.kill(bird.pid, signal.SIGTERM)
    eventually("it has ended", bird.has_ended, 10)


def test_it_stops_and_is_gone(table: BgpTable) -> None:
    """As when it is asked to."""
    bird = started(table)
    assert not bird.has_ended()
    files(table).drained.touch()
    bird.stop()
    assert bird.has_ended()
    assert list(files(table).directory.iterdir()) == []


def test_one_that_hangs_is_found_by_another_process_and_ended(table: BgpTable) -> None:
    """By who listens at the socket and how it was started: its mark cannot be asked for."""
    pid = started(table).pid
    os.kill(pid, signal.SIGSTOP)
    bird = Bird(table, "node-a", patience=0.3)
    with pytest.raises(TryAgain, match="no whole answer"):
        bird.mark()
    assert not bird.has_ended()
    bird.stop()
    assert bird.has_ended()


def test_whoever_listens_there_and_was_started_otherwise_is_no_bird_of_ours(table: BgpTable) -> None:
    """It is never ended."""
    place = files(table)
    place.directory.mkdir()
    code = "import socket, sys, time\ns = socket.socket(1)\ns.bind(sys.argv[1])\ns.listen()\n"
    code += "print(flush=True)\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(place.socket)], stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        bird = Bird(table, "node-a")
        assert bird.has_ended()
        bird.kill()
        assert stranger.poll() is None
        stranger.kill()


def test_sessions_that_it_gave_up_can_be_had_again(table: BgpTable) -> None:
    """Where its port was another's it never tries again by itself."""
    session = (
        "protocol bgp 'node-b.v4' { local 127.0.0.1 as 64512; neighbor 127.0.0.2 as 64512; multihop; "
        "ipv4 { import none; export none; }; }\n"
    )
    with socket.create_server(("0.0.0.0", 179)):
        bird = started(table, GOOD + session)

        def shown() -> replies.Shown:
            return replies.sessions(bird.ask("show protocols all")[0])["node-b.v4"]

        eventually("it has given up", lambda: shown().is_given_up)
        assert "No listening socket" in shown().error
        bird.ask("enable 'node-b.v4'")
        eventually("it has given up again", lambda: shown().is_given_up)
    bird.ask("enable 'node-b.v4'")
    eventually("it tries", lambda: not shown().is_given_up)
    bird.ask("disable 'node-b.v4'")
    eventually("somebody has ended it", lambda: shown().state == "Down")
    assert not shown().is_given_up


def test_what_one_said_last_is_told(table: BgpTable) -> None:
    """Of what it says at its start, or in its log."""
    bird = Bird(table, "node-a")
    assert bird.last_words() == "it said nothing"
    files(table).directory.mkdir(exist_ok=True)
    files(table).log.write_text("one\ntwo\n")
    assert bird.last_words() == "two"
    files(table).configuration.write_text("nonsense;")
    bird.start(is_restart=True)
    eventually("it has ended", bird.has_ended)
    assert "syntax error" in bird.last_words()


def test_the_line_is_what_tells_it(table: BgpTable) -> None:
    """Configuration and socket are in it."""
    assert line(table)[1:] == ["-f", "-c", f"{table.directory}/bird.conf", "-s", f"{table.directory}/bird.ctl"]


def test_a_process_is_waited_for_by_its_descriptor() -> None:
    """For no longer than was said."""
    with subprocess.Popen(["sleep", "60"]) as process:
        pidfd = os.pidfd_open(process.pid)
        assert not has_ended(pidfd, 0.01)
        process.kill()
        assert has_ended(pidfd, 10)
        os.close(pidfd)


def test_removing_takes_a_bird_away_once(table: BgpTable) -> None:
    """And says so; where there is none it says nothing, and of another's that it was left."""
    bird = started(table)
    assert next(iter(live.remove(table, "node-b"))).startswith("left alone: at ")
    assert list(live.remove(table, "node-a")) == [f"ended BIRD, process {bird.pid}", "removed 0 routes of BIRD's"]
    assert list(live.remove(table, "node-a")) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "has no password"),
        (b"\nsecond", "has no password"),
        (b"x" * 81, "its first line is one of 1 to 80 characters"),
        (b'with "quotes"', "a character that BIRD cannot read"),
        ("schlüssel".encode(), "a character that BIRD cannot read"),
        (b"tab\there", "a character that BIRD cannot read"),
        (None, "no password can be read in"),
    ],
)
def test_what_cannot_be_a_password(content: bytes | None, why: str, tmp_path: Path) -> None:
    """It is told by the file, never by what is in it."""
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigInvalid, match=why) as caught:
        passwords([str(path)])
    assert not content or content.decode().split()[-1] not in str(caught.value)


def test_a_password_is_the_first_line(tmp_path: Path) -> None:
    """Whatever its end; and no file is no password."""
    path = tmp_path / "password"
    path.write_bytes(b"x" * 80 + b"\r\nand more\n")
    assert passwords(["", str(path), str(path)]) == {str(path): "x" * 80}


def looked(table: BgpTable) -> list[str]:
    """What --check says."""
    return [str(one) for one in backends.load("bgp").check(table, {})]


def test_check_looks_at_bird_and_passwords(table: BgpTable, tmp_path: Path) -> None:
    """Each is good, worth a note, or wrong with a remedy."""
    assert "BIRD version 2.0" in looked(table)[0]
    assert looked(table)[0].startswith("ok")
    none = looked(BgpTable(bird=str(tmp_path / "none")))[0]
    assert none.startswith("WRONG BIRD:")
    assert "install bird2" in none
    assert "it is no BIRD 2" in looked(BgpTable(bird="/bin/true"))[0]
    assert looked(BgpTable(start_bird=False))[0].startswith("note  BIRD:")
    path = tmp_path / "password"
    router = RouterTable(address=IPAddress("192.0.2.9"), asn=1, password_file=str(path))
    with_password = BgpTable(start_bird=False, router=(router,))
    assert looked(with_password)[1].startswith("WRONG password:")
    path.write_text("secret")
    path.chmod(0o644)
    assert looked(with_password)[1].endswith(f"chmod 600 {path}")
    path.chmod(0o600)
    assert looked(with_password)[1] == f"ok    password:      {path} can be used"


def test_one_that_reads_for_ever_is_not_waited_for(tmp_path: Path) -> None:
    """It is tried again."""
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    bird = Bird(BgpTable(bird=str(slow), directory=str(tmp_path / "bgp")), "node-a", reading=0.1)
    with pytest.raises(TryAgain, match=r"for longer than 0\.1 s"):
        bird.write(GOOD)


def drained(table: BgpTable, *words: str) -> int:
    """``routablectl drain WORDS``."""
    parser = ArgumentParser()
    DRAIN.arguments(parser)
    return DRAIN.run(parser.parse_args(words), table, 0.0)


def test_a_drain_says_what_is_announced_still(table: BgpTable) -> None:
    """And where there is no BIRD, that there is none; it can be taken back at any time."""
    with pytest.raises(TryAgain, match="does the agent run here"):
        drained(table)
    started(table, f"{GOOD}protocol static own4 {{ ipv4; route 10.244.1.0/24 unreachable; }}\n")
    assert drained(table, "--wait", "0.3") == 3
    assert files(table).drained.exists()
    assert drained(table, "--undo") == 0
    assert not files(table).drained.exists()


def test_routes_of_one_that_is_gone_are_removed(table: BgpTable) -> None:
    """Whoever ended it."""
    run("ip", "route", "add", "unreachable", "10.99.0.0/16", "proto", "12", "metric", "8282")
    assert list(live.remove(table, "node-a")) == ["removed 1 routes of BIRD's"]
    assert run("ip", "route", "show", "proto", "12") == ""


def test_it_runs_in_a_container_of_its_own(table: BgpTable, tmp_path: Path) -> None:
    """It waits for what it is to be told, and ends with whoever wants it to."""
    config = tmp_path / "agent.toml"
    config.write_text(
        f'backend = "bgp"\nnode = "node-a"\n[nodes]\nfile = "/n"\n[bgp]\nasn = 1\naccept = ["10.0.0.0/8"]\n'
        f'bird = "{table.bird}"\ndirectory = "{table.directory}"\nstart_bird = false\n'
    )
    words = [sys.executable, "-m", "agent.ctl", "--config", str(config), "bgp", "run"]
    with subprocess.Popen(words, cwd=Path(__file__).parents[2]) as beside:
        with pytest.raises(subprocess.TimeoutExpired):
            beside.wait(1.5)
        bird = Bird(table, "node-a")
        bird.write(GOOD)
        eventually("it runs", files(table).socket.exists)
        beside.terminate()
        assert beside.wait(10) == 0
    assert bird.has_ended()


def test_the_unit_leaves_bird_alone_and_gives_it_its_port() -> None:
    """By a drop-in, since no other backend needs either; the labs' agents have the same power."""
    unit, more = ConfigParser(strict=False, interpolation=None), ConfigParser(strict=False, interpolation=None)
    deploy = Path(__file__).parents[2] / "deploy"
    assert unit.read(deploy / "routable-agent.service")
    assert more.read(deploy / "routable-agent-bgp.conf")
    assert more["Service"]["KillMode"] == "process"
    power = f"{unit['Service']['CapabilityBoundingSet']} {more['Service']['CapabilityBoundingSet']}"
    assert set(BIRDS_POWER.split(",")) == {"-all", *(f"+{one.removeprefix('CAP_').lower()}" for one in power.split())}


def test_the_kernels_counters_are_read() -> None:
    """By their names; where there are none, nothing was dropped."""
    text = "TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure\nTcpExt: 1 2 3 4\nIpExt: A\nIpExt: 1\n"
    assert live.md5(text) == Md5(unsigned=2, wrong=4, unexpected=3)
    assert live.md5("") == Md5()
