"""What the verbs answer where something is wrong: each request with an answer, and nothing done unsaid."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from agent.keep.replay import delete_spooled
from agent.keep.spool import Spooled, Written
from agent.serve.lane import Answer, Incoming
from agent.serve.verbs import Verbs
from agent.tell.metrics import Metrics
from backends.fabric import Shortage
from backends.podcidrs import PodCidrs
from cni import frame
from cni.errors import KernelRefused
from cni.spec import Attachment
from demo.lab import eventually
from tests.fakes.world import World, lived_in

POD, NETNS = Attachment("pods", "c1", "eth0"), "/run/netns/a"
REFUSED = KernelRefused("the kernel refused: - link", "Operation not permitted (EPERM)", errno.EPERM)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A node with a pod."""
    with lived_in(tmp_path, POD, NETNS) as made:
        made.reconcile()
        yield made


def no_trouble() -> Shortage | None:
    return None


def verbs(world: World, unable: Any = no_trouble) -> Verbs:
    """Who serves there."""
    return Verbs(world.node, Metrics(CollectorRegistry()), unable, PodCidrs().shortage)


def request(verb: str, container: str = POD.container) -> frame.Request:
    """One for that container."""
    env = {"COMMAND": verb, "CONTAINERID": container, "IFNAME": "eth0", "NETNS": NETNS, "PATH": "/opt/cni/bin"}
    document = {"cniVersion": "1.1.0", "name": "pods", "type": "routable"}
    return frame.Request({f"CNI_{key}": value.encode() for key, value in env.items()}, json.dumps(document).encode())


def code(answer: Answer | None) -> tuple[int, int]:
    """The exit code, and the one of the error."""
    assert answer is not None
    return answer.response.code, json.loads(answer.response.stdout)["code"] if answer.response.code else 0


def test_who_hung_up_before_it_began_is_not_added(world: World) -> None:
    """Its DEL may have been served already, and nobody would remove what is added now."""
    gone = Incoming(request("ADD", "c2"), 0, lambda: True)
    assert code(verbs(world).serve(gone)) == (1, 11)
    assert verbs(world).add_together([gone])() == [None]
    assert list(world.node.ledger.records()) == [POD]


def test_a_bug_is_an_answer_too(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """999, and the log has where it is."""

    def broken() -> Shortage | None:
        raise ZeroDivisionError("a bug")

    assert code(verbs(world, broken).serve(Incoming(request("STATUS"), 0, lambda: False))) == (1, 999)
    assert "ZeroDivisionError" in caplog.text


def test_a_removal_that_is_refused_is_told_to_each(world: World) -> None:
    """Whether it came alone or with others; what was refused is still there, and its next DEL removes it."""
    served, one = verbs(world), Incoming(request("DEL"), 0, lambda: False)
    for others in ([], [Incoming(request("DEL", "c2"), 0, lambda: False)]):
        world.kernel.fail_at(1, REFUSED)
        answers = served.delete_together([one, *others])()
        if not others:
            assert [code(answer) for answer in answers] == [(1, 102)]
            assert list(world.node.ledger.records()) == [POD]
    assert [code(answer) for answer in answers] == [(0, 0), (0, 0)], "one by one they are removed"
    assert world.problems() == []


def test_a_dels_bug_is_not_taken_for_its_end(world: World) -> None:
    """What waited in the spool stays there."""
    world.kernel.fail_at(1, ZeroDivisionError("a bug"))
    spooled = [Spooled(request("DEL"), Written(world.now + 1, 0.0))]
    with pytest.raises(ZeroDivisionError):
        delete_spooled(world.node, spooled)
    assert list(world.node.ledger.records()) == [POD]
    assert delete_spooled(world.node, spooled) == [None]
    assert list(world.node.ledger.records()) == []


def test_of_many_one_that_is_refused_stays_and_is_told(world: World) -> None:
    """By GC and by what waited in the spool alike: each is tried by itself where all together were refused."""
    world.kernel.between = lambda: world.kernel.fail_at(1, REFUSED)
    world.kernel.fail_at(1, REFUSED)
    with pytest.raises(KernelRefused, match="EPERM"):
        world.node.collect("pods", [], world.node.ledger.sequence)
    spooled = [Spooled(request("DEL", one), Written(world.now + 1, 0.0)) for one in ("c1", "c2")]
    assert [str(one) for one in delete_spooled(world.node, spooled)] == [str(REFUSED)] * 2
    world.kernel.between = lambda: None
    world.kernel.forgive()
    assert delete_spooled(world.node, spooled) == [None] * 2
    assert list(world.node.ledger.records()) == []


def test_a_spooled_del_of_a_pod_that_has_a_request_under_way(world: World) -> None:
    """It waits for that, and what it is refused then is told."""
    keys = world.node._keys
    spooled = [Spooled(request("DEL"), Written(world.now + 1, 0.0))]
    with ThreadPoolExecutor(1) as pool:
        with keys.hold(POD):
            answers = pool.submit(delete_spooled, world.node, spooled)
            eventually("it waits", lambda: keys._locks[POD][1] == 2)
            world.kernel.fail_at(1, REFUSED)
        assert answers.result() == [REFUSED]
    assert list(world.node.ledger.records()) == [POD]
