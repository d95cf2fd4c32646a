"""At random on the real kernel: networks come and go in pods, by any names, with any wishes, in any order. After each
step the host and the insides of the pods have exactly what the leases say.

``make test`` takes the same walk each time; with FUZZ in the environment it is another, and a long one.
"""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from demo.lab import Lab, Node, built, eventually
from demo.place import Failed, Place, run
from demo.runtime import Refused

STEPS: Final = 400 if os.environ.get("FUZZ") else 40
SEED: Final = None if os.environ.get("FUZZ") else 4
NETWORKS: Final = ("pods", "second", "third")
IFNAMES: Final = ("eth0", "net1", "net2")
GATEWAYS: Final = {4: "169.254.1.1", 6: "fe80::1"}
HOST_MAC: Final = "ee:ee:ee:ee:ee:ee"
OF_THE_KERNEL: Final = ("local", "broadcast", "multicast", "anycast")
SHOWN: Final = ("link show", "address show", "route show table all", "rule show", "neigh show nud permanent")
EXISTS, INVALID = 105, 7

Facts = Counter[tuple[object, ...]]
"""What there is in a place, one tuple for each object."""


class Who(NamedTuple):
    """The specification's key."""

    network: str
    container: str
    ifname: str


class Held(NamedTuple):
    """What an attachment has by its ADD: where, what was answered, and in which families no default route."""

    place: Place
    result: Mapping[str, Any]
    beside: tuple[int, ...]

    @property
    def addresses(self) -> list[str]:
        return [one["address"].partition("/")[0] for one in self.result["ips"]]

    @property
    def link(self) -> str:
        return str(self.result["interfaces"][0]["name"])

    @property
    def mac(self) -> str:
        return str(self.result["interfaces"][1]["mac"])

    def on_host(self) -> Iterator[tuple[object, ...]]:
        yield "link", self.link, HOST_MAC, "UP"
        for address in self.addresses:
            yield "route", address, self.link, None
            yield "neighbour", self.link, address, self.mac

    def inside(self, ifname: str) -> Iterator[tuple[object, ...]]:
        yield "link", ifname, self.mac, "UP"
        for address in self.addresses:
            family = 6 if ":" in address else 4
            yield "address", ifname, address
            yield "neighbour", ifname, GATEWAYS[family], HOST_MAC
            # Who has no default route has one for what has its address.
            yield "route", family, ifname, address if family in self.beside else None


def seen(place: Place) -> Facts:
    """What there is, less the loopback and what the kernel makes by itself."""
    found: Facts = Counter()
    for family in (4, 6):
        said = run("ip", f"-{family}", "-j", "-n", place.name, "-batch", "-", stdin="\n".join(SHOWN))
        links, holders, routes, rules, neighbours = map(json.loads, said.splitlines())
        if family == 4:
            found.update(("link", one["ifname"], one["address"], *is_up(one)) for one in links)
        for link in holders:
            found.update(("address", link["ifname"], one["local"]) for one in link["addr_info"])
        sources = {str(rule["table"]): rule["src"] for rule in rules if rule["src"] != "all"}
        for route in routes:
            if route.get("type") in OF_THE_KERNEL or route.get("protocol") == "kernel":
                continue
            what = family if route["dst"] == "default" else route["dst"]
            table = route.get("table")
            found["route", what, route.get("dev"), sources.pop(str(table), table)] += 1
        found.update(("rule to nowhere", source) for source in sources.values())
        found.update(("neighbour", one["dev"], one["dst"], one["lladdr"]) for one in neighbours)
    return Counter({fact: count for fact, count in found.items() if not is_the_kernels(fact)})


def is_up(link: Mapping[str, Any]) -> list[str]:
    return ["UP"] if "LOWER_UP" in link["flags"] else []


def is_the_kernels(fact: tuple[object, ...]) -> bool:
    """Of the loopback, or the address that it gives a link by itself."""
    return "lo" in fact or (fact[0] == "address" and str(fact[2]).startswith("fe80:"))


class Walk:
    """What a runtime did so far, and so what there must be."""

    def __init__(self, node: Node, seed: int | None) -> None:
        self.seed = random.Random(seed).randrange(1 << 32) if seed is None else seed
        self.chance = random.Random(self.seed)
        self.node = node
        self.places = [node.pod_place() for _ in range(3)]
        self.lives = Counter(self.places)
        """How many pods were in each so far."""
        self.held: dict[Who, Held] = {}
        self.unanswered: set[Who] = set()
        """Attached by an earlier process of the agent: it cannot know that their runtime had the answer."""
        self.before = seen(node.place)
        self.done: Counter[str] = Counter()

    def step(self) -> None:
        """One of what can happen."""
        kinds = {
            self.add: 28, self.delete: 8, self.collect: 4, self.check: 4, self.link_is_lost: 3,
            self.name_is_given_again: 2, self.agent_is_killed: 1,
        }  # fmt: skip
        (do,) = self.chance.choices(list(kinds), list(kinds.values()))
        do()

    def all_is_as_the_leases_say(self) -> None:
        """In every place, and in status."""
        want = {place.name: Counter[tuple[object, ...]]() for place in self.places}
        want[self.node.place.name] = self.before.copy()
        for who, held in self.held.items():
            want[self.node.place.name].update(held.on_host())
            want[held.place.name].update(held.inside(who.ifname))
        found: dict[str, Facts] = {}

        def is_so() -> bool:
            found.update({place.name: seen(place) for place in [self.node.place, *self.places]})
            leases = {(one["network"], one["container"], one["ifname"]) for one in self.node.status()["leases"]}
            return found == want and leases == set(self.held)

        try:
            eventually("the kernel has what the leases say", is_so, patience=20.0)
        except Failed:
            differences = {name: (found[name] - want[name], want[name] - found[name]) for name in want}
            raise AssertionError(f"seed {self.seed}: too much, too little: {differences}") from None

    def call(self, verb: str, who: Who, netns: str, config: Mapping[str, Any] | None = None) -> Any:
        return self.node.runtime.call(verb, who.container, netns, who.ifname, {**(config or {}), "name": who.network})

    def owners(self, place: Place, but: Who) -> dict[int, Who]:
        """Who has the default route of a family in *place*."""
        return {
            family: who
            for who, held in self.held.items()
            for family in (4, 6)
            if held.place == place and who != but and family not in held.beside
        }

    # --- what can happen --------------------------------------------------------------------------------------

    def add(self) -> None:
        """Of any network, by any name, with any wish; what is in the way is told, and nothing is changed."""
        place = self.chance.choice(self.places)
        self.add_one(self.who(place), place)

    def who(self, place: Place) -> Who:
        """An attachment of the pod that is there now."""
        container = f"{place.name}-{self.lives[place]}"
        return Who(self.chance.choice(NETWORKS), container, self.chance.choice(IFNAMES))

    def add_one(self, who: Who, place: Place) -> None:
        wish, config = self.wish(who)
        is_refused = who not in self.unanswered and any(
            other.ifname == who.ifname and held.place == place for other, held in self.held.items()
        )
        try:
            result = self.call("ADD", who, str(place.path), config)
        except Refused as refused:
            self.done[f"code {refused.code}"] += 1
            assert is_refused or wish == "refused", f"seed {self.seed}: {refused}"
            if who in self.unanswered and "ips" in config.get("runtimeConfig", {}):
                self.forget(who)  # all or nothing: what it asks for now it cannot have
            return
        assert not is_refused and wish != "refused", f"seed {self.seed}: {who} was added again"
        has_none = config.get("defaultRoute") is False
        beside = (4, 6) if has_none else tuple(self.owners(place, who))
        self.held[who] = Held(place, result, tuple(sorted(beside)))
        self.unanswered.discard(who)
        assert len(result.get("routes", ())) == 2 - len(beside)
        self.done["added beside" if beside else "added"] += 1

    def wish(self, who: Who) -> tuple[str, dict[str, Any]]:
        """What an ADD asks for, and whether that is to be refused."""
        others = [held for other, held in self.held.items() if other != who]
        wishes: list[tuple[str, dict[str, Any]]] = [("", {})] * 9
        wishes += [("", {"defaultRoute": False}), ("", asking(mac="0a:58:00:00:00:42"))]
        wishes += [("refused", asking(mac=mac)) for mac in ("01:00:5e:00:00:01", "00:00:00:00:00:00")]
        wishes += [("refused", asking(ips=["10.244.1.0"])), ("refused", asking(ips=["fe80::1"]))]
        if others:
            wishes += [("refused", asking(ips=self.chance.choice(others).addresses))] * 2
        return self.chance.choice(wishes)

    def delete(self) -> None:
        """Of what is there or is not, and with whatever is said of where it is."""
        whos = [*self.held, Who("second", self.places[0].name, "net9")]
        who = self.chance.choice(whos)
        own = [str(self.held[who].place.path)] * 3 if who in self.held else []
        netns = self.chance.choice([*own, "", "/run/netns/none", str(self.chance.choice(self.places).path)])
        self.call("DEL", who, netns)
        self.forget(who)
        self.done["deleted"] += 1

    def forget(self, who: Who) -> None:
        self.held.pop(who, None)
        self.unanswered.discard(who)

    def collect(self) -> None:
        """With a list of what is there, what was, what others have, and attachments of another network."""
        network = self.chance.choice(NETWORKS)
        kept = {who for who in self.held if self.chance.random() < 0.6}
        listed = [{"containerID": who.container, "ifname": who.ifname} for who in kept]
        others = [("another", "eth0"), (self.who(self.places[0]).container, "lo")]
        listed += [{"containerID": container, "ifname": ifname} for container, ifname in others]
        config = {"name": network, "cni.dev/valid-attachments": listed}
        self.node.runtime.call("GC", config=config)
        names = {(who.container, who.ifname) for who in kept}
        stale = [who for who in self.held if who.network == network and (who.container, who.ifname) not in names]
        for who in stale:
            self.forget(who)
        self.done["collected" if stale else "nothing to collect"] += 1

    def check(self) -> None:
        """All that is there is as it should be."""
        for who, held in self.held.items():
            self.call("CHECK", who, str(held.place.path), {"prevResult": held.result})
            self.done["checked"] += 1

    def link_is_lost(self) -> None:
        """By either end: it is made again, without a default route where another has one by then."""
        if self.held:
            who, held = self.chance.choice([*self.held.items()])
            place, link = self.chance.choice([(self.node.place, held.link), (held.place, who.ifname)])
            place.ip(f"link delete {link}")
            self.done["a link was lost"] += 1

    def name_is_given_again(self) -> None:
        """The pod is dead, and another has its namespace's name and its attachments' names at once."""
        place = self.chance.choice(self.places)
        run("ip", "netns", "delete", place.name)
        Place.make(place.name)
        dead = [who for who, held in self.held.items() if held.place == place]
        for who in dead:
            self.forget(who)
        self.lives[place] += 1
        self.done["a name was given again"] += 1
        if self.chance.random() < 0.7:
            self.add_one(self.who(place), place)

    def agent_is_killed(self) -> None:
        """Another goes on, with the journal or with what the kernel knows."""
        self.node.stop(signal.SIGKILL)
        if self.chance.random() < 0.5:
            journal = Path(self.node.settings["paths"]["state"])
            for file in journal.parent.glob(f"{journal.name}*"):
                file.unlink()
            self.done["the journal was lost"] += 1
        self.node.start()
        self.unanswered = set(self.held)
        self.done["the agent was killed"] += 1


def asking(**wishes: object) -> dict[str, Any]:
    """The capabilities of CONVENTIONS.md."""
    return {"capabilities": dict.fromkeys(wishes, True), "runtimeConfig": wishes}


@pytest.fixture
def lab() -> Iterator[Lab]:
    """One dual-stack node."""
    with built(backend="static", family="dual", nodes=1, settings={"ipam": {"cooldown": 0}}) as lab:
        yield lab


def test_networks_come_and_go_in_pods(lab: Lab) -> None:
    """Whatever happened, the kernel is as the leases say; in the end, nothing is left. All ways were gone."""
    walk = Walk(lab.nodes[0], SEED)
    for _ in range(STEPS):
        walk.step()
        walk.all_is_as_the_leases_say()
    for who in list(walk.held):
        walk.call("DEL", who, "")
        walk.forget(who)
    walk.all_is_as_the_leases_say()
    ways = {"added", "added beside", "deleted", "collected", "checked", "a link was lost", "a name was given again"}
    ways |= {"the agent was killed", "the journal was lost", f"code {EXISTS}", f"code {INVALID}"}
    assert set(walk.done) >= ways, walk.done
    for place in walk.places:
        place.remove()
