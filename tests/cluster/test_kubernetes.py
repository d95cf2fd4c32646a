"""The list of nodes from an API server: real HTTP and TLS, against a server that does what it may do."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cluster.access import Credentials
from cluster.apiserver import Api, Gone, Unanswered
from cluster.kept import Kept
from cluster.kubernetes import KubernetesNodes, Pace
from cni.errors import Failure, TryAgain
from tests.cluster.apiserver import ApiServer
from tests.cluster.listener import listening
from tests.cluster.store import node

QUICK = Pace(page=3, silence=5.0, again=(0.02, 0.1), told=0.0)
Make = Callable[..., KubernetesNodes]


@pytest.fixture
def source(credentials: Callable[..., Credentials], tmp_path: Path) -> Make:
    """A source that is in a hurry; *changes* to its pace."""

    def made(random: float = 0.5, clock: Callable[[], float] = time.monotonic, **changes: Any) -> KubernetesNodes:
        kept = Kept(tmp_path / "kept", "the test's")
        pace = QUICK._replace(**changes)
        return KubernetesNodes(Api(credentials()), "the test's API server", clock, lambda: random, kept, pace)

    return made


def put(api: ApiServer, *numbers: int) -> None:
    """Nodes of these numbers."""
    for number in numbers:
        api.store.put(node(f"n{number}", [f"192.0.2.{number}"], [f"10.1.{number}.0/24"]))


def watches(api: ApiServer) -> list[str]:
    """The requests to watch."""
    return [one for one in api.requests if "watch=true" in one]


def has_more(api: ApiServer, before: int) -> bool:
    """Whether there was another request to watch."""
    return len(watches(api)) > before


def lists(api: ApiServer) -> list[str]:
    """The requests to list."""
    return [one for one in api.requests if "watch=true" not in one]


def test_nodes_are_listed_in_pages_and_followed_from_there(api: ApiServer, source: Make) -> None:
    """Every page once, one watch; what is added, changed and deleted is there when the watch has told it."""
    put(api, 1, 2, 3, 4, 5, 6, 7)
    with listening(source()) as heard:
        heard.knows("n1 n2 n3 n4 n5 n6 n7")
        put(api, 8)
        heard.knows("n1 n2 n3 n4 n5 n6 n7 n8")
        api.store.delete("n2")
        heard.knows("n1 n3 n4 n5 n6 n7 n8")
        api.store.put(node("n3", ["192.0.2.33"], ["10.1.3.0/24"]))
        heard.until(lambda: "192.0.2.33" in {str(one.address(4)) for one in heard.source.nodes})
        assert heard.source.error is None
    assert [one.split("continue=")[0] for one in lists(api)] == [
        "/api/v1/nodes?limit=3",
        "/api/v1/nodes?limit=3&",
        "/api/v1/nodes?limit=3&",
    ]
    (watch,) = watches(api)
    assert "resourceVersion=1007" in watch
    assert "allowWatchBookmarks=true" in watch
    assert "timeoutSeconds=450" in watch


def test_what_does_not_concern_us_wakes_nobody(api: ApiServer, source: Make) -> None:
    """Labels, heartbeats and bookmarks are heard and go no further."""
    put(api, 1)
    with listening(source()) as heard:
        heard.knows("n1")
        assert heard.woken == 1
        for number in range(20):
            api.store.touch("n1", number=str(number))
        put(api, 2)
        heard.knows("n1 n2")
        assert heard.woken == 2


def test_one_bad_node_is_told_and_the_others_are_used(api: ApiServer, source: Make) -> None:
    """It is a peer with a flaw, until somebody gives it what it lacks: pod CIDRs may come late."""
    put(api, 1, 2)
    api.store.put(node("n3", ["192.0.2.3"], None))
    with listening(source()) as heard:
        heard.knows("n1 n2 n3")
        (flawed,) = (one for one in heard.source.nodes if one.flaws)
        assert flawed.name == "n3"
        put(api, 3)
        heard.until(lambda: not any(one.flaws for one in heard.source.nodes))


def test_a_watch_goes_on_where_the_last_one_ended(api: ApiServer, source: Make) -> None:
    """The server ends watches and drops connections: nothing is listed again, nothing is missed or lost."""
    put(api, 1)
    api.longest_watch = 0.2
    with listening(source()) as heard:
        heard.knows("n1")
        names = "n1"
        for number in range(2, 6):
            before = len(watches(api))
            put(api, number)
            api.drop()
            names += f" n{number}"
            heard.knows(names)
            heard.until(partial(has_more, api, before))
    assert len(lists(api)) == 1


def test_bookmarks_keep_the_version_young(api: ApiServer, source: Make) -> None:
    """The server forgets what was before; who heard its bookmarks needs no list after that."""
    put(api, 1)
    with listening(source()) as heard:
        heard.until(lambda: api.watching)
        api.store.forget()
        seen = api.store.version
        heard.until(lambda: heard.source._version == str(seen))
        api.drop()
        put(api, 2)
        heard.knows("n1 n2")
    assert len(lists(api)) == 1
    assert f"resourceVersion={seen}" in watches(api)[-1]


@pytest.mark.parametrize("in_stream", [True, False], ids=["in the stream", "as the answer"])
def test_all_is_listed_anew_when_the_server_has_forgotten(api: ApiServer, source: Make, in_stream: bool) -> None:
    """410: what was deleted meanwhile is gone, the others stay throughout."""
    put(api, 1, 2)
    api.is_gone_in_stream = in_stream
    with listening(source()) as heard:
        heard.until(lambda: api.watching and heard.names == "n1 n2")
        api.leave()
        api.store.delete("n2")
        put(api, 3)
        api.store.forget()
        heard.until(lambda: heard.source.error)
        assert heard.names == "n1 n2"
        api.come_back()
        heard.knows("n1 n3")
        assert heard.source.error is None
    assert len(lists(api)) == 2
    assert api.refusals == [410]


def test_a_list_whose_pages_are_forgotten_is_had_at_once(api: ApiServer, source: Make) -> None:
    """410 to a page: half a list drops no node, and the next try asks for all in one answer."""
    put(api, 1, 2, 3, 4, 5)
    page, calls = api.store.page, 0

    def forgetful(at: int | None, after: str, limit: int, name: str = "") -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            api.store.forget()
        return page(at, after, limit, name)

    api.store.page = forgetful  # type: ignore[method-assign]
    with listening(source()) as heard:
        heard.knows("n1 n2 n3 n4 n5")
    assert [("limit" in one, "continue" in one) for one in lists(api)] == [(True, False), (True, True), (False, False)]


@pytest.mark.parametrize("fault", ["500", "503", "429", "close", "garbage", "cut", "hang"])
def test_whatever_a_server_does_in_place_of_an_answer(api: ApiServer, source: Make, fault: str) -> None:
    """To a list or to a watch: nodes stay, it is asked again after a pause, and all is well."""
    put(api, 1)
    api.faults.extend(["" if fault == "cut" else fault, fault])
    with listening(source()) as heard:
        if fault == "hang":
            heard.until(lambda: api.requests)
            api.drop()
            api.faults.append("hang")
            heard.until(lambda: heard.source.error)
            api.leave()
            api.faults.clear()
            api.come_back()
        heard.knows("n1")
        put(api, 2)
        heard.knows("n1 n2")
        heard.until(lambda: heard.source.error is None)


def test_an_answer_that_comes_byte_by_byte_is_none(api: ApiServer, credentials: Callable[..., Credentials]) -> None:
    """It is given up after a while, though something always comes."""
    put(api, 1)
    api.faults.append("trickle")
    source = KubernetesNodes(Api(credentials(), whole=0.3), "the test's", time.monotonic, lambda: 0.5, None, QUICK)
    began = time.monotonic()
    with pytest.raises(Failure, match="cannot be asked"):
        source.look()
    assert time.monotonic() - began < 10.0
    source.look()
    assert [one.name for one in source.nodes] == ["n1"]


def test_half_a_list_is_none(api: ApiServer, source: Make) -> None:
    """The connection is cut in the middle of the second page: who is on no page yet is not taken for gone."""
    for number in range(1, 6):
        api.store.put(node(f"n{number}", [f"192.0.2.{number}"], [f"10.1.{number}.0/24"], images=40))
    with listening(source()) as heard:
        heard.until(lambda: api.watching and heard.names == "n1 n2 n3 n4 n5")
        api.leave()
        api.store.delete("n5")
        api.store.forget()
        api.faults.extend(["", "", "half"])  # the watch that is answered with 410, a page, half a page
        seen = set()

        def is_without() -> bool:
            seen.add(heard.names)
            return heard.names == "n1 n2 n3 n4"

        api.come_back()
        heard.until(is_without)
        assert seen == {"n1 n2 n3 n4 n5", "n1 n2 n3 n4"}
    assert not api.faults


def test_a_server_that_does_not_even_greet_is_left_at_once(source: Make, api: ApiServer, tmp_path: Path) -> None:
    """It takes the connection and says nothing, as one that is overrun: the agent can end in the middle of that."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        config = tmp_path / "kubeconfig"
        one = source()
        config.write_text(config.read_text().replace(str(api.port), str(mute.getsockname()[1])))
        with listening(one):
            stream, _ = mute.accept()
            with stream:
                stream.recv(1)
                began = time.monotonic()
                one.end()
                assert stream.recv(1 << 16)  # what it greeted with
                assert stream.recv(1) == b""
                assert time.monotonic() - began < 10.0


def test_a_silent_watch_is_given_up_and_all_is_listed(api: ApiServer, source: Make) -> None:
    """No line, no bookmark: a connection that leads nowhere any more, or a server that was restored from a copy and
    has fewer versions than were heard of."""
    put(api, 1, 2)
    with listening(source(silence=0.5)) as heard:
        heard.until(lambda: api.watching and heard.names == "n1 n2")
        api.leave()
        api.store.delete("n2")
        api.store.version = 500
        api.store.changes.clear()
        api.store.oldest = 400
        api.come_back()
        heard.knows("n1")


def test_tries_are_spread_and_become_rare(api: ApiServer, source: Make) -> None:
    """Pauses double up to the longest, each by half more or less; what the server asks for is kept."""
    api.leave()
    one = source(again=(1.0, 30.0), random=1.0)
    pauses = []
    for _ in range(8):
        with pytest.raises(Exception, match="cannot be asked") as caught:
            one.listen(lambda: None)
        pauses.append(one._failed(caught.value))  # type: ignore[arg-type]
    assert pauses == [1.5, 3.0, 6.0, 12.0, 24.0, 45.0, 45.0, 45.0]
    assert one._failed(Unanswered(TryAgain("429"), 60.0)) == 60.0


def test_a_server_that_forgets_at_once_is_asked_ever_more_rarely(api: ApiServer, source: Make) -> None:
    """It gives a list and does not know that any more when it is to be watched from there (410). Only the first such
    list comes soon: an API server in trouble is not asked for all again and again by all agents."""
    put(api, 1)
    page = api.store.page

    def forgetful(at: int | None, after: str, limit: int, name: str = "") -> Any:
        found = page(at, after, limit, name)
        api.store.touch("n1")
        api.store.forget()
        return found

    api.store.page = forgetful  # type: ignore[method-assign]
    one, pauses = source(again=(1.0, 30.0)), []
    for _ in range(4):
        with pytest.raises(Gone) as caught:
            one.listen(lambda: None)
        pauses.append(one._failed(caught.value))
    assert pauses == [0.001, 2.0, 4.0, 8.0]
    api.store.page = page  # type: ignore[method-assign]
    with listening(one) as heard:
        heard.until(lambda: one._failures == 0)


def test_a_watch_that_ends_in_its_time_ends_the_failures(api: ApiServer, source: Make) -> None:
    """Though it told nothing: the server answers again."""
    put(api, 1)
    one = source(again=(0.02, 30.0))
    one._failed(Unanswered(TryAgain("503")))
    api.longest_watch = 0.3
    one.listen(lambda: None)
    assert one._failures == 0


def test_an_api_server_that_is_away_changes_nothing(api: ApiServer, source: Make) -> None:
    """Nodes stay, what is wrong is told in words; a restart meanwhile begins with what was known last."""
    put(api, 1, 2)
    with listening(source()) as heard:
        heard.until(lambda: api.watching and heard.names == "n1 n2")
        api.leave()
        heard.until(lambda: heard.source.error)
        told = str(heard.source.error)
        assert told.startswith(f"the API server {api.url} cannot be asked: ")
        assert told.endswith("the nodes that were known last are used")
        assert heard.names == "n1 n2"
    again = source()
    assert sorted(one.name for one in again.nodes) == ["n1", "n2"]
    with listening(again) as heard:
        heard.until(lambda: heard.source.error)
        assert heard.names == "n1 n2"
        api.store.delete("n1")
        api.come_back()
        heard.knows("n2")
        assert heard.source.error is None


def test_a_short_absence_is_not_told(api: ApiServer, source: Make) -> None:
    """An API server that is replaced is no trouble; one that stays away is."""
    put(api, 1)
    with listening(source(told=1.0)) as heard:
        heard.knows("n1")
        api.leave()
        began = time.monotonic()
        heard.until(lambda: heard.source.error)
        assert time.monotonic() - began >= 0.9


def test_a_first_start_without_an_api_server_says_so(api: ApiServer, source: Make) -> None:
    """There is nothing to go on with, and that is told from the beginning, with the reason."""
    api.leave()
    one = source(told=60.0)
    assert "the test's API server has not answered yet" in str(one.error)
    with listening(one) as heard:
        heard.until(lambda: "cannot be asked" in str(heard.source.error))
        assert str(heard.source.error).startswith("the cluster's nodes are not known yet: the API server")
        put(api, 1)
        api.come_back()
        heard.knows("n1")


def test_what_is_not_permitted_is_told_with_what_to_do(api: ApiServer, source: Make) -> None:
    """403 names the verbs, and is over when somebody gives them."""
    put(api, 1)
    api.is_permitted = False
    with pytest.raises(Failure, match=r"does not permit it: 403 Forbidden, nodes is forbidden.*verbs list and watch"):
        source().look()
    with listening(source()) as heard:
        heard.until(lambda: "403" in str(heard.source.error))
        api.is_permitted = True
        heard.knows("n1")


def test_a_copy_that_is_damaged_or_of_another_cluster_is_not_used(api: ApiServer, source: Make, tmp_path: Path) -> None:
    """The agent starts without it and asks."""
    put(api, 1)
    with listening(source()) as heard:
        heard.knows("n1")
    path = tmp_path / "kept"
    raw = path.read_bytes()
    path.write_bytes(raw[:-9])
    assert not source().nodes
    path.write_bytes(raw.replace(b"the test's", b"another's"))
    assert not source().nodes


def test_what_was_told_is_on_disk(api: ApiServer, source: Make, tmp_path: Path) -> None:
    """Before anybody acts on it: an agent that is killed a moment later, and started anew without an API server, takes
    nothing away from what it had."""
    with listening(source()) as heard:
        names = ""
        for number in range(1, 6):
            put(api, number)
            names = f"{names} n{number}".strip()
            heard.knows(names)
            assert sorted(one.name for one in source().nodes) == names.split()
        written = (tmp_path / "kept").stat()
        api.store.touch("n1", colour="blue")
        api.drop()
        put(api, 1)
        heard.until(lambda: heard.source._version == str(api.store.version))
        heard.source.refresh()
        assert (tmp_path / "kept").stat() == written  # heartbeats write nothing


def test_look_asks_once(api: ApiServer, source: Make) -> None:
    """For --check: all pages, and no watch."""
    put(api, 1, 2, 3, 4)
    one = source()
    one.look()
    assert sorted(peer.name for peer in one.nodes) == ["n1", "n2", "n3", "n4"]
    assert (len(lists(api)), len(watches(api))) == (2, 0)
