"""What the agent takes of its machine at the start: descriptors, and a lock beside its journal."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent.process.machine import FEW, descriptors, exclusive, hostname, room
from cni.errors import ConfigInvalid

ASKS = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
from agent.process.machine import descriptors
print(descriptors(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_a_node_is_called_as_its_environment_says_and_else_as_the_machine_is() -> None:
    """In a pod the machine's name need not be its Node's."""
    assert hostname({"ROUTABLE_NODE": "ip-192-0-2-1.example"}) == "ip-192-0-2-1.example"
    assert hostname({"ROUTABLE_NODE": ""}) == hostname({}) == socket.gethostname()


@pytest.mark.parametrize(("soft", "hard", "then"), [(256, 4096, 4096), (4096, 4096, 4096), (512, 1024, 1024)])
def test_the_agent_takes_the_descriptors_that_it_may_have(soft: int, hard: int, then: int) -> None:
    """What systemd allows is the hard limit; the soft one is for programs that do not know better."""
    done = subprocess.run(
        [sys.executable, "-c", ASKS, str(soft), str(hard)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(then), str(then), str(hard)]


def test_some_descriptors_are_for_the_work() -> None:
    """However few there are."""
    assert room(FEW) < FEW
    assert 0 < room(100) < 100
    assert descriptors() >= 100


def test_a_lock_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """By the key of the configuration that says where the journal is."""
    (tmp_path / "file").write_text("")
    told = r"state\.db\.lock cannot be made: File exists.*paths\.state"
    with pytest.raises(ConfigInvalid, match=told), exclusive(tmp_path / "file" / "state.db"):
        raise AssertionError("it was not to be had")


def test_what_cannot_be_locked_is_told(tmp_path: Path) -> None:
    """No file, or on a file system without locks; no descriptor is kept."""
    os.mkfifo(tmp_path / "state.db.lock")
    before = len(list(Path("/proc/self/fd").iterdir()))
    told = r"state\.db\.lock cannot be locked: Illegal seek: set paths\.state"
    with pytest.raises(ConfigInvalid, match=told), exclusive(tmp_path / "state.db"):
        raise AssertionError("it was not to be had")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_two_on_one_journal_or_in_one_network_namespace(tmp_path: Path) -> None:
    """The second is told who the first is, and the first goes on."""
    with exclusive(tmp_path / "one.db"):
        with pytest.raises(ConfigInvalid, match=r"is locked: an agent runs on"), exclusive(tmp_path / "one.db"):
            raise AssertionError("it was not to be had")
        running = r"an agent runs in this network namespace already: process [0-9]+ of"
        with pytest.raises(ConfigInvalid, match=running), exclusive(tmp_path / "other.db"):
            raise AssertionError("it was not to be had")
    with exclusive(tmp_path / "other.db"):
        pass


LOCKS = """
import sys
from pathlib import Path
from agent.process.machine import exclusive
from cni.errors import ConfigInvalid
from tests.fakes.descriptors import descriptors
for more in (2, 1, 2):
    try:
        with descriptors(more), exclusive(Path(sys.argv[1])):
            print("had")
    except ConfigInvalid as failure:
        print(failure)
"""


def test_a_namespace_that_cannot_be_locked_is_told(tmp_path: Path) -> None:
    """As for want of a descriptor; one that was had before is given back. In a process without other threads."""
    script = [sys.executable, "-c", LOCKS, str(tmp_path / "state.db")]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    first, second, third = done.stdout.splitlines()
    assert (first, third) == ("had", "had")
    assert "cannot be locked: [Errno 24] Too many open files" in second


def test_few_descriptors_are_few_connections_and_told() -> None:
    """systemd gives a service 1,024 unless it is told otherwise."""
    script = "import logging, resource; logging.basicConfig(); from agent.main import connections\n"
    script += "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)); print(connections())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 200
    assert "few descriptors: set LimitNOFILE=" in done.stderr
