"""What the verbs answer where something is wrong: each request with an answer, and nothing done unsaid."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from agent.keep.replay import delete_spooled
from agent.keep.spool import Spooled, Written
from agent.node.ledger import Asked
from agent.node.node import Node
from agent.serve.lane import Answer, Incoming
from agent.serve.verbs import Verbs
from agent.tell.metrics import Metrics
from backends.fabric import Shortage
from backends.podcidrs import PodCidrs
from backends.podlink import link_name
from cni import frame
from cni.errors import KernelRefused
from cni.spec import Attachment
from dataplane.diff import Change
from dataplane.items import HOST, Key
from demo.lab import eventually
from tests.fakes.kernel import FakeKernel
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


def request(verb: str, container: str = POD.container, netns: str = NETNS) -> frame.Request:
    """One for that container."""
    env = {"COMMAND": verb, "CONTAINERID": container, "IFNAME": "eth0", "NETNS": netns, "PATH": "/opt/cni/bin"}
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


class Buggy(FakeKernel):
    """A kernel that brings out a bug with every change of the link of one attachment that makes it, or removes it."""

    def __init__(self, kernel: FakeKernel, who: Attachment, *, is_made: bool) -> None:
        super().__init__()
        self.__dict__ |= vars(kernel)
        self._key = Key(HOST, "link", link_name(who))
        self._is_made = is_made
        self.is_mended = False

    def apply(self, changes: Sequence[Change]) -> None:
        """See `dataplane.seam.Dataplane.apply`."""
        met = any(one.item.key == self._key and (one.new is not None) == self._is_made for one in changes)
        if met and not self.is_mended:
            raise ZeroDivisionError("a bug")
        super().apply(changes)


def with_bug(world: World, who: Attachment, *, is_made: bool) -> tuple[Node, Buggy]:
    """The world's node with a bug that *who* brings out."""
    kernel = Buggy(world.kernel, who, is_made=is_made)
    node = Node(world.node.ledger, kernel, Metrics(CollectorRegistry()))
    assert world.node.wiring is not None
    node.rewire(world.node.wiring)
    return node, kernel


def test_of_many_adds_a_bug_costs_the_one_that_brings_it_out(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The others are served; that one is answered, and nothing is left of it."""
    node, kernel = with_bug(world, Attachment("pods", "c2", "eth0"), is_made=True)
    served = Verbs(node, Metrics(CollectorRegistry()), no_trouble, PodCidrs().shortage)
    asked = [Incoming(request("ADD", one, f"/run/netns/{one}"), 0, lambda: False) for one in ("c2", "c3")]
    for one in ("c2", "c3"):
        kernel.add_netns(f"/run/netns/{one}")
    assert served.add_together(asked)() == [None, None], "they are served one by one"
    assert list(node.ledger.records()) == [POD]
    assert [code(served.serve(one)) for one in asked] == [(1, 999), (0, 0)]
    assert [who.container for who in node.ledger.records()] == ["c1", "c3"]
    assert "ZeroDivisionError" in caplog.text


def test_a_bug_that_comes_out_as_an_add_is_undone_leaves_its_lease(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The address is nobody else's until its DEL; what went wrong first is what is told."""
    node, kernel = with_bug(world, Attachment("pods", "c2", "eth0"), is_made=False)
    kernel.add_netns("/run/netns/c2")
    kernel.fail_at(1, REFUSED)
    with pytest.raises(KernelRefused, match="EPERM"):
        node.add(Attachment("pods", "c2", "eth0"), Asked("/run/netns/c2"))
    assert "could not be undone" in caplog.text
    assert [who.container for who in node.ledger.records()] == ["c1", "c2"]
    kernel.is_mended = True
    assert node.delete(Attachment("pods", "c2", "eth0"))


def test_of_many_dels_a_bug_costs_the_one_that_brings_it_out(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Together, by GC, and out of the spool: the others end, that one is told and comes again."""
    node, kernel = with_bug(world, POD, is_made=False)
    served = Verbs(node, Metrics(CollectorRegistry()), no_trouble, PodCidrs().shortage)
    both = [Incoming(request("DEL", one), 0, lambda: False) for one in ("c1", "c2")]
    assert [code(answer) for answer in served.delete_together(both)()] == [(1, 999), (0, 0)]
    with pytest.raises(ZeroDivisionError):
        node.collect("pods", [], node.ledger.sequence)
    spooled = [Spooled(one.request, Written(world.now + 1, 0.0)) for one in both]
    failure, served_too = delete_spooled(node, spooled)
    assert "ZeroDivisionError" in str(failure)
    assert served_too is None
    assert caplog.text.count("Traceback") == 2
    kernel.is_mended = True
    assert delete_spooled(node, spooled) == [None, None]
    assert list(node.ledger.records()) == []


def test_a_dels_bug_is_not_taken_for_its_end(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """What waited in the spool stays there, and the agent goes on: each start would meet it again."""
    world.kernel.fail_at(1, ZeroDivisionError("a bug"))
    spooled = [Spooled(request("DEL"), Written(world.now + 1, 0.0))]
    assert "ZeroDivisionError: a bug" in str(*delete_spooled(world.node, spooled))
    assert "Traceback" in caplog.text
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
        with keys.hold(POD.container):
            answers = pool.submit(delete_spooled, world.node, spooled)
            eventually("it waits", lambda: keys._locks[POD.container][1] == 2)
            world.kernel.fail_at(1, REFUSED)
        assert answers.result() == [REFUSED]
    assert list(world.node.ledger.records()) == [POD]
