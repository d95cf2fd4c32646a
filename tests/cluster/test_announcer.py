"""A node's Node says what is wished: over real HTTP and TLS, against a server that is as strict as Kubernetes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agent.announce import check
from agent.announce.announcer import BURST, Announcer
from cluster.access import Credentials
from cluster.apiserver import Api
from cluster.kubernetes import KubernetesNodes, Pace
from cluster.ownnode import DOWN, NETWORK, UP, Condition, Wish
from tests.cluster.apiserver import ApiServer
from tests.cluster.listener import Listener, listening
from tests.cluster.store import Object, node

KEY = "routable.io/agent-not-ready"
OTHER = {"key": "example.com/gpu", "value": "yes", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"}
READY = Wish((Condition(NETWORK, "False", UP, "well"),), KEY, (("routable.io/pod-addresses", "254"),))
UNABLE = Wish((Condition(NETWORK, "True", DOWN, "not well"),), "")
ROLE = (
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch", "patch"]},
    {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
)


class Voice:
    """An announcer on a clock that the test sets, and what it hears."""

    def __init__(self, api: ApiServer, credentials: Credentials, listener: Listener, watches: int = 1) -> None:
        self.api = api
        self.credentials = credentials
        self._watches = watches
        self.listener = listener
        self.now = 1000.0
        self.wish: Wish | None = READY
        self.deaths: list[tuple[str, BaseException]] = []
        self.announcer = Announcer(
            Api(credentials),
            heard=lambda: self.listener.source.own,
            wished=lambda: self.wish,
            clock=lambda: self.now,
            wall=lambda: 1_800_000_000.0,
            random=lambda: 0.5,
            on_death=lambda name, error: self.deaths.append((name, error)),
            every=0.01,
        )

    def heard(self) -> None:
        """Wait until what the server has was heard."""
        seen = self.listener.source
        self.listener.until(lambda: self.api.watching >= self._watches)
        self.listener.until(lambda: seen._version == str(self.api.store.version))

    def look(self) -> str:
        """A look, when all was heard; what is wrong then."""
        self.heard()
        self.announcer.look()
        return "\n".join(map(str, self.announcer.problems))

    @property
    def node(self) -> Object:
        """What the server has."""
        found = self.api.store.get("n1")
        assert found is not None
        return found

    def condition(self, kind: str = NETWORK) -> Any:
        """A condition that it has."""
        return next((one for one in self.node["status"].get("conditions", ()) if one["type"] == kind), None)

    def say(self, **condition: str) -> None:
        """Another controller says of the network what it thinks."""
        made = self.node
        others = [one for one in made["status"].get("conditions", ()) if one["type"] != NETWORK]
        made["status"]["conditions"] = [*others, {"type": NETWORK, **condition}]
        self.api.store.put(made)


def registered(*taints: Any) -> Object:
    """A Node as its kubelet registers it."""
    made = node("n1", ["192.0.2.1"], ["10.1.1.0/24"])
    made["spec"]["taints"] = list(taints)
    return made


@pytest.fixture
def speaking(
    api: ApiServer, credentials: Callable[..., Credentials]
) -> Callable[..., Any]:
    """An announcer for the Node n1, which is there; *is_alone*: its source asks for no other."""

    @contextmanager
    def made(*taints: Any, is_alone: bool = False) -> Iterator[Voice]:
        api.rules = ROLE
        api.store.put(registered(*(taints or ({"key": KEY, "effect": "NoSchedule"}, OTHER))))
        api.store.put(node("n2", ["192.0.2.2"], ["10.1.2.0/24"]))
        source = KubernetesNodes(
            Api(credentials()),
            "the test's API server",
            time.monotonic,
            lambda: 0.5,
            None,
            Pace(again=(0.02, 0.1), told=0.0),
            "n1",
            is_alone=is_alone,
        )
        with listening(source) as listener:
            yield Voice(api, credentials(), listener)

    return made


@pytest.mark.parametrize("is_alone", [False, True])
def test_a_node_that_becomes_ready(api: ApiServer, speaking: Callable[..., Any], is_alone: bool) -> None:
    """The condition, the resource, and then the taint that waited for it, and no other: one look and two patches. What
    is said costs no request any more, whatever kubelet says meanwhile."""
    with speaking(is_alone=is_alone) as voice:
        assert voice.look() == ""
        now = "2027-01-15T08:00:00Z"
        assert voice.condition() == {
            "type": NETWORK, "status": "False", "reason": UP, "message": "well",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }  # fmt: skip
        assert voice.node["status"]["capacity"] == {"routable.io/pod-addresses": "254"}
        assert voice.node["spec"]["taints"] == [OTHER]
        assert [path for path, _ in api.patches] == ["n1/status", "n1"]
        before = len(api.requests)
        voice.announcer.look()
        for number in range(5):
            api.store.touch("n1", number=str(number))
            assert voice.look() == ""
        assert len(api.requests) == before
        if is_alone:
            assert voice.listener.names == "n1"
            assert all("fieldSelector=metadata.name%3Dn1" in one for one in api.requests if "limit" in one)


def test_one_that_was_said_before_is_only_heard(api: ApiServer, speaking: Callable[..., Any]) -> None:
    """An agent that starts anew asks nothing of a Node that says all already."""
    with speaking() as voice:
        voice.look()
        voice.listener.end()
        patches, requests = len(api.patches), len(api.requests)
        another = KubernetesNodes(Api(voice.credentials), "again", time.monotonic, lambda: 0.5, here="n1")
        with listening(another) as listener:
            assert Voice(api, voice.credentials, listener, watches=2).look() == ""
            assert len(api.patches) == patches
            assert len(api.requests) == requests + 2  # the list and the watch


def test_a_node_that_registers_anew(api: ApiServer, speaking: Callable[..., Any]) -> None:
    """Its kubelet lost it, or somebody deleted it: it begins with the taint, and it is said again."""
    with speaking() as voice:
        voice.look()
        api.store.delete("n1")
        voice.heard()
        voice.announcer.look()
        api.store.put({**registered({"key": KEY, "effect": "NoSchedule"}), "metadata": {
            **registered()["metadata"], "uid": "another",
        }})  # fmt: skip
        voice.look()
        assert voice.node["spec"].get("taints") is None
        assert voice.condition()["status"] == "False"


def test_what_others_say_of_the_network(api: ApiServer, speaking: Callable[..., Any]) -> None:
    """That it is there, whoever says so, is all that is wished, and stays. That it is not, as a cloud's controller says
    which makes no route for this node, is said otherwise. What is another's is never said to be down."""
    with speaking(OTHER) as voice:
        voice.say(status="False", reason="RouteCreated")
        voice.look()
        assert voice.condition()["reason"] == "RouteCreated"
        voice.wish = UNABLE
        voice.look()
        assert voice.condition()["reason"] == "RouteCreated"
        voice.wish = READY
        voice.say(status="True", reason="NoRouteCreated", lastTransitionTime="2026-01-01T00:00:00Z")
        voice.look()
        assert (voice.condition()["status"], voice.condition()["reason"]) == ("False", UP)
        voice.wish = UNABLE
        voice.look()
        assert (voice.condition()["status"], voice.condition()["reason"]) == ("True", DOWN)
        voice.wish = UNABLE._replace(conditions=(Condition(NETWORK, "True", DOWN, "in other words"),))
        patches = len(api.patches)
        voice.look()
        assert len(api.patches) == patches
        assert voice.condition()["message"] == "not well"


def test_one_that_somebody_undoes_is_left_to_them_for_a_while(api: ApiServer, speaking: Callable[..., Any]) -> None:
    """It is said a few times in ten minutes, then told, and tried again after that."""
    with speaking(OTHER) as voice:
        said = ""
        for _ in range(BURST + 3):
            voice.say(status="True", reason="NoRouteCreated")
            said = voice.look()
        assert len(api.patches) == BURST
        assert said.startswith("the Node n1 is not changed for a while: it was changed 6 times within 600 s")
        voice.now += 601.0
        assert voice.look() == ""
        assert voice.condition()["status"] == "False"


def test_a_conflict_is_looked_at_again(api: ApiServer, speaking: Callable[..., Any]) -> None:
    """Somebody adds a taint between the look and the change: that stays. Where it never ends, it is tried later."""
    with speaking() as voice:
        def meddled(number: int) -> None:
            made = voice.node
            made["spec"]["taints"].append({**OTHER, "key": f"example.com/{number}"})
            api.before_patch = lambda: None
            api.store.put(made)

        # Before the second patch: the first has no version, and is of whatever is there.
        api.before_patch = lambda: setattr(api, "before_patch", lambda: meddled(1))
        assert voice.look() == ""
        assert [one["key"] for one in voice.node["spec"]["taints"]] == ["example.com/gpu", "example.com/1"]
        assert api.refusals == [409]

        made = voice.node
        made["spec"]["taints"].append({"key": KEY, "effect": "NoExecute"})
        api.store.put(made)
        api.before_patch = lambda: api.store.touch("n1", colour="blue")
        voice.heard()
        voice.announcer.look()
        assert len(api.refusals) == 6
        assert not voice.announcer.problems  # not for a moment
        voice.now += 31.0
        assert "has a newer version of it" in str(voice.announcer.problems[0])
        api.before_patch = lambda: None
        assert voice.look() == ""
        assert KEY not in str(voice.node)


@pytest.mark.parametrize(
    ("rule", "needs", "left"),
    [
        (ROLE[0], "the verb patch on nodes/status", "n1"),
        ({**ROLE[0], "verbs": ["get", "list", "watch"]}, "the verb patch on nodes/status", ""),
        ({**ROLE[0], "verbs": ["list", "watch"]}, "the verb get on nodes", ""),
    ],
)
def test_what_is_not_permitted_is_told_with_the_rule(
    api: ApiServer, speaking: Callable[..., Any], rule: Any, needs: str, left: str
) -> None:
    """At once, and what is permitted is done all the same; it is asked for ever less often, and works when somebody
    permits it."""
    with speaking() as voice:
        api.rules = (rule,)
        said = voice.look()
        assert said.startswith(f"this node's Node cannot be told: the API server {api.url} does not permit it: 403")
        assert said.endswith(f"the agent needs {needs} (RBAC)")
        assert (KEY not in str(voice.node)) == (left == "n1")
        before = len(api.requests)
        for _ in range(300):
            voice.now += 1.0
            voice.announcer.look()
        assert len(api.requests) - before < 30
        api.rules = ROLE
        voice.now += 450.0
        assert voice.look() == ""
        assert KEY not in str(voice.node)
        assert voice.condition()["status"] == "False"


@pytest.mark.parametrize("fault", ["500", "429", "close", "garbage", "another", "hang"])
def test_whatever_a_server_does_in_place_of_an_answer(
    api: ApiServer, speaking: Callable[..., Any], fault: str
) -> None:
    """To the look or to a change: it is tried again after a pause, and told only if that lasts."""
    with speaking() as voice:
        for place in (0, 1):
            voice.wish = READY if place == 0 else UNABLE
            voice.heard()
            api.faults.extend([*([""] * place), fault])
            if fault == "hang":
                voice.announcer._api.end()  # as by stop(), in the middle of it
                api.faults.clear()
                return
            voice.announcer.look()
            assert voice.announcer._failure is not None
            assert not voice.announcer.problems
            voice.now += 2.0
            assert voice.look() == ""
        assert voice.condition()["status"] == "True"


def test_what_check_tells_of_the_node(api: ApiServer, credentials: Callable[..., Credentials]) -> None:
    """What it says, or that there is no such answer; nothing is changed."""
    api.store.put(registered(OTHER))

    def told() -> str:
        return " ".join(str(one) for one in check.node(Api(credentials()), "the test's API server", "n1"))

    assert "n1 says nothing of NetworkUnavailable; taints: example.com/gpu" in told()
    api.faults.append("garbage")
    assert "the test's API server answers with something else than a Node" in told()
    assert not api.patches


def test_it_is_a_part_of_the_agent(api: ApiServer, speaking: Callable[..., Any]) -> None:
    """Its thread looks, and ends in the middle of an answer that does not come; what nobody foresaw is the end of the
    agent."""
    with speaking() as voice:
        voice.heard()
        voice.wish = None
        voice.announcer.look()
        assert not api.patches
        voice.wish = READY
        api.faults.append("hang")
        voice.announcer.start()
        voice.listener.until(lambda: not api.faults)
        began = time.monotonic()
        voice.announcer.stop()
        assert time.monotonic() - began < 5.0
        api.faults.append("hang")  # lets go of the one that hangs
        assert not voice.deaths
    with speaking() as voice:
        voice.announcer._wished = lambda: 1 // 0
        voice.announcer.start()
        voice.announcer._thread.join(10.0)
        ((name, error),) = voice.deaths
        assert (name, type(error)) == ("announcer", ZeroDivisionError)
        api.faults.clear()
