"""What the emulated Compute Engine does to its callers when it is told to, switch by switch, and all of it at once."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import fields
from http.client import HTTPException
from typing import Any

import pytest
from netaddr import IPNetwork

from tests.cloud.refusals import NoAnswer, Refusal
from tests.gcp.compute import Compute
from tests.gcp.documents import ERRORS, Cut
from tests.gcp.estate import ZONE
from tests.gcp.metadata_server import ROOT, Metadata
from tests.gcp.scene import Scene, request, row
from tests.gcp.strangers import Hands
from tests.gcp.tokens import Tokens
from tests.gcp.unkindness import KIND, Unkind, worst

OFTEN = 200


@pytest.fixture
def scene() -> Scene:
    """As kind as can be."""
    return Scene()


def outcomes(do: Callable[[], Any], times: int = OFTEN) -> Counter[str]:
    """What came of it, by the code of a refusal, or of its break."""
    found = Counter[str]()
    for _ in range(times):
        try:
            do()
        except Refusal as refusal:
            found[refusal.code] += 1
        except Cut as cut:
            found["half" if cut.is_half else "mangled"] += 1
        except NoAnswer:
            found["lost"] += 1
        else:
            found[""] += 1
    return found


def test_the_worst_has_every_switch_on() -> None:
    """One seed or another."""
    seeds = [worst(seed) for seed in range(6)]
    for one in fields(Unkind):
        assert any(getattr(unkind, one.name) != getattr(KIND, one.name) for unkind in seeds), one.name


def test_the_same_seed_and_calls_have_the_same_fate() -> None:
    """So what a random walk found is found again."""
    found = []
    for _ in range(2):
        scene = Scene(unkind=worst(7))
        found.append(outcomes(scene.nic))
    assert found[0] == found[1]
    assert len(found[0]) > 5


@pytest.mark.parametrize(
    ("switch", "codes"),
    [
        ({"losing": 0.5}, {"", "lost"}),
        ({"failing": 0.5}, {"", "backendError", "500", "502"}),
        ({"cutting": 0.5}, {"", "half", "mangled"}),
        ({"throttling": 0.5}, {"", "rateLimitExceeded"}),
        ({"doubling": 0.5}, {""}),
    ],
)
def test_calls_fail_in_every_way(scene: Scene, switch: dict[str, float], codes: set[str]) -> None:
    """Whatever they ask."""
    scene.project.become(**switch)
    scene.project.has_quotas = False
    assert outcomes(scene.nic).keys() == codes


def test_throttling_has_three_forms() -> None:
    """A rate, too many operations, too often."""
    texts = [(ERRORS[one].page or ("", ""))[1] for one in ("throttle", "operations", "often")]
    documents = [json.loads(text)["error"] for text in texts]
    assert [one["code"] for one in documents] == [403, 403, 429]
    assert [one["details"][0]["reason"] for one in documents] == [
        "RATE_LIMIT_EXCEEDED",
        "CONCURRENT_OPERATIONS_QUOTA_EXCEEDED",
        "RESOURCE_OPERATION_RATE_EXCEEDED",
    ]


def test_a_call_that_comes_twice_is_two_operations_without_a_request(scene: Scene) -> None:
    """The second is refused, since the first has changed the fingerprint; of one request there is one operation."""
    scene.project.fail("instances.updateNetworkInterface", 1, "twice")
    assert scene.refused(scene.patch, [row("/28")]).status == 412
    assert len(scene.ranges()) == 1
    scene.project.fail("instances.updateNetworkInterface", 1, "twice")
    scene.patch([row("/28")], "node-b", requestId=request())
    assert len(scene.ranges("node-b")) == 1


def test_an_answer_is_late_and_an_operation_takes_its_time(scene: Scene) -> None:
    """How late is known to who drives the clock; each range takes longer."""
    scene.project.become(taking=(1.0, 2.0), pending=(2.0, 3.0), running=(5.0, 6.0), each_range=10.0)
    operation = scene.patch([row("/28"), row("/28")])
    assert 1.0 <= scene.project.took <= 2.0
    statuses = []
    start, changed = scene.virtual.now, None
    while (status := scene.got(operation)["status"]) != "DONE":
        statuses.append(status)
        scene.virtual.now += 0.5
        if changed is None and scene.project.truth("node-a"):
            changed = status
    assert statuses[0] == "PENDING"
    assert (statuses[-1], changed) == ("RUNNING", "RUNNING")
    assert 27.0 <= scene.virtual.now - start <= 29.5


def test_wait_may_answer_before_its_time(scene: Scene) -> None:
    """And then the operation is not done."""
    scene.project.become(wait_early=0.5)
    scene.project.operations.running = 10.0
    asked = {"operation": scene.patch([row("/28")])["name"]}
    found = [scene.project.blocks("zoneOperations.wait", asked) for _ in range(20)]
    assert {one == 10.0 for one in found} == {True, False}
    assert all(0 <= one <= 10 for one in found)


def test_an_operation_is_not_found_at_first_and_not_for_ever(scene: Scene) -> None:
    """404, both times."""
    scene.project.become(operation_unseen=(2.0, 2.0))
    scene.project.operations.retention = 100.0
    operation = scene.patch([row("/28")])
    assert scene.refused(scene.got, operation).status == 404
    scene.virtual.now += 3.0
    assert scene.got(operation)["status"] == "DONE"
    scene.virtual.now += 100.0
    assert scene.refused(scene.got, operation).status == 404


def test_while_an_operation_is_under_way_others_may_be_refused(scene: Scene) -> None:
    """On the same machine alone."""
    scene.project.become(busy=1.0)
    scene.project.operations.running = 5.0
    scene.patch([row("/28")])
    refused = scene.refused(scene.patch, [row("/28")])
    assert (refused.status, refused.code) == (400, "resourceNotReady")
    scene.patch([row("/28")], "node-b")
    scene.virtual.now += 5.0
    scene.patch([*map(row, scene.ranges()), row("/28")])


def test_a_stale_fingerprint_may_be_noticed_inside_of_the_operation(scene: Scene) -> None:
    """The call is accepted, and nothing is changed."""
    first = scene.nic()["fingerprint"]
    scene.patch([row("/28")])
    scene.project.become(stale_inside=1.0)
    done = scene.got(scene.patch([], fingerprint=first))
    assert done["httpErrorStatusCode"] == 412
    assert len(scene.ranges()) == 1


def test_instances_get_may_be_old_after_the_operation_is_done(scene: Scene) -> None:
    """The fingerprint, too: what is built on it is refused; one answer is older than the last."""
    scene.project.become(get_lag=(0.0, 10.0))
    scene.virtual.now += 60.0
    operation = scene.patch([row("/28")])
    assert scene.got(operation)["status"] == "DONE"
    scene.virtual.now += 5.0
    seen = [len(scene.ranges()) for _ in range(40)]
    assert set(seen) == {0, 1}
    assert any(one > other for one, other in itertools.pairwise(seen))
    scene.virtual.now += 5.0
    assert {len(scene.ranges()) for _ in range(40)} == {1}


def test_ranges_are_listed_in_any_order(scene: Scene) -> None:
    """With the same fingerprint."""
    scene.patch([row("/28")] * 4)
    scene.project.become(shuffles=True)
    nics = [scene.nic() for _ in range(20)]
    assert len({str(one["aliasIpRanges"]) for one in nics}) > 1
    assert len({one["fingerprint"] for one in nics}) == 1


def test_a_call_that_adds_and_takes_away_may_be_refused(scene: Scene) -> None:
    """One after the other goes."""
    scene.project.become(mixed_refused=True)
    scene.patch([row("10.1.0.0/28")])
    assert scene.refused(scene.patch, [row("10.1.5.0/28")]).status == 400
    scene.patch([])
    scene.patch([row("10.1.5.0/28")])
    assert scene.ranges() == ["10.1.5.0/28"]


@pytest.mark.parametrize(("switch", "is_changed"), [("failing_inside", False), ("failing_done", True)])
def test_an_operation_may_end_with_an_internal_error(scene: Scene, switch: str, is_changed: bool) -> None:
    """With everything changed, or nothing: only looking tells."""
    scene.project.become(**{switch: 1.0})
    done = scene.got(scene.patch([row("/28")]))
    assert (done["error"]["errors"][0]["code"], done["httpErrorStatusCode"]) == ("INTERNAL_ERROR", 500)
    assert bool(scene.project.truth("node-a")) == is_changed


def test_a_range_that_moved_lately_is_delivered_later(scene: Scene) -> None:
    """To the old machine until then; to nobody else is it late."""
    hands = Hands(scene.project)
    scene.project.become(moving=(30.0, 60.0))
    network = hands.add("node-a", range_="pods")
    assert scene.project.delivered("node-a") == {network}
    hands.move(network, "node-a", "node-b")
    assert scene.project.delivered("node-a") == {network}
    assert not scene.project.delivered("node-b")
    scene.virtual.now += 61.0
    assert not scene.project.delivered("node-a")
    assert scene.project.delivered("node-b") == {network}
    hands.take("node-b", network)
    scene.virtual.now += 61.0
    assert hands.add("node-a", range_="pods") == network
    assert scene.project.delivered("node-a") == {network}


def test_the_metadata_is_late_and_never_goes_back(scene: Scene) -> None:
    """Each change by as much as was drawn for it."""
    scene.project.become(metadata_lag=(0.0, 20.0))
    scene.virtual.now += 60.0
    counts = []
    for number in range(1, 60):
        if number <= 10:
            Hands(scene.project).add("node-a", range_="pods")
        counts.append(len(scene.project.told("node-a").aliases))
        scene.virtual.now += 1.0
    assert counts == sorted(counts)
    assert counts[9] < 10
    assert counts[-1] == 10


def test_the_metadata_server_fails_and_polls_end_early_or_never() -> None:
    """Over HTTP: an error, a page, no answer; without a change, at once; and neither at a change nor at the timeout."""
    scene, tokens = Scene(time.time), Tokens()
    with Metadata(scene.project, "node-a", tokens) as metadata:

        def read(query: str, patience: float = 0.2) -> str:
            asked = urllib.request.Request(metadata.url + ROOT + query, headers={"Metadata-Flavor": "Google"})
            with urllib.request.urlopen(asked, timeout=patience) as answer:
                return str(answer.read().decode())

        scene.project.become(metadata_failing=0.5, metadata_taking=(0.0, 0.001))
        found = Counter[str]()
        for _ in range(40):
            try:
                found[read("instance/name")] += 1
            except urllib.error.HTTPError as error:
                with error:
                    found[str(error.code)] += 1
            except TimeoutError:
                found["hang"] += 1
        assert found.keys() == {"node-a", "", "500", "503", "hang"}
        scene.project.set_unkind(Unkind(poll_early=1.0))
        assert read("instance/name?wait_for_change=true&timeout_sec=60", 30.0) == "node-a"
        scene.project.set_unkind(Unkind(poll_hanging=1.0))
        with pytest.raises(TimeoutError):
            read("instance/name?wait_for_change=true&timeout_sec=0")


@pytest.mark.parametrize("kind", ["half", "mangled", "html502", "empty200", "lost_after"])
def test_over_http_an_answer_is_not_what_it_should_be(kind: str) -> None:
    """Half of it, or no JSON, or a page, or none at all."""
    scene, tokens = Scene(time.time), Tokens()
    token, _ = tokens.issue("somebody")
    with ExitStack() as cleanup:
        compute = cleanup.enter_context(Compute(scene.project, tokens))
        url = f"{compute.url}/compute/v1/projects/routable-test/zones/{ZONE}/instances/node-a"
        asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        scene.project.fail("instances.get", 1, kind)
        with pytest.raises((HTTPException, OSError, ValueError)) as caught, urllib.request.urlopen(asked) as answer:
            json.loads(answer.read())
        if isinstance(caught.value, urllib.error.HTTPError):
            caught.value.close()
        with urllib.request.urlopen(asked) as answer:
            assert json.loads(answer.read())["name"] == "node-a"


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_nothing_is_had_twice_or_lost(seed: int) -> None:
    """A random walk with everything on: what machines have and what is free is the whole range, and the log says how
    it came about."""
    scene, chance = Scene(unkind=worst(seed), pods="10.1.0.0/22"), random.Random(seed)
    project, hands = scene.project, Hands(scene.project)
    for _ in range(300):
        name = chance.choice(("node-a", "node-b"))
        with contextlib.suppress(Refusal, NoAnswer):
            have = [one for one in scene.nic(name).get("aliasIpRanges", []) if chance.random() < 0.8]
            more = [row(f"/{chance.choice((28, 27, 26, 32))}") for _ in range(chance.randrange(3))]
            scene.patch([*have, *more], name, requestId=request())
        if chance.random() < 0.1:
            hands.meddle(name, "pods")
        if chance.random() < 0.02:
            hands.recreate(name)
        scene.virtual.now += chance.random() * 10
        held = [one for each in project.instances for one in project.truth(each)]
        size = sum(one.size for one in held if one in IPNetwork("10.1.0.0/22"))
        assert size + project.subnetworks["nodes"].range("pods").free == 1024
        assert not [(one, other) for one in held for other in held if one is not other and one in other]
    for name in project.instances:
        told: set[IPNetwork] = set()
        for change in project.log:
            if change.instance == name:
                told = (told - set(change.lost)) | set(change.gained)
        assert told == project.truth(name)
