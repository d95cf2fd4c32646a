"""Which backends' parts live: those of what is in use, of two while the node changes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.process.life import Life
from agent.switch.lives import Lives
from backends.told import Told
from cni.errors import ConfigInvalid
from tests.fakes.world import World


class Speaker:
    """A part of the backend of that *name*; in *said* stands what is asked of all."""

    def __init__(self, name: str, said: list[str]) -> None:
        self.name = name
        self._said = said

    def start(self) -> None:
        self._said.append(f"{self.name} begins")

    def stop(self) -> None:
        self._said.append(f"{self.name} ends")

    def wake(self) -> None:
        self._said.append(f"{self.name} is woken")

    def told(self) -> Told:
        return Told(sections={self.name: "well"})


@pytest.fixture
def life() -> Iterator[Life]:
    """One whose end leaves the process where it is; its signals are as they were afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield Life(lambda code: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_parts_live_while_their_backend_is_in_use(life: Life) -> None:
    """New ones each time; who tells and who is woken are those that live."""
    said: list[str] = []
    lives = Lives(lambda name: [Speaker(name, said)] if name != "static" else [], life)
    lives.use(["static"])
    assert (said, lives.told().sections) == ([], {})
    lives.use(["static", "bgp"])
    lives.use(["static", "bgp"])
    assert lives.told().sections == {"bgp": "well"}
    lives.wake()
    lives.use(["static"])
    lives.wake()
    assert said == ["bgp begins", "bgp is woken", "bgp ends"]
    lives.use(["bgp", "other"])
    said.clear()
    life.end(lambda: None, lambda: None)
    assert sorted(said) == ["bgp ends", "other ends"]
    lives.use(["static", "third"])  # a change that goes on meanwhile begins nothing more
    assert "third begins" not in said


def test_a_backend_that_cannot_be_had_leaves_the_others(life: Life) -> None:
    """What it needs is not installed: the caller is told, and what lives goes on."""
    said: list[str] = []

    def make(name: str) -> list[Speaker]:
        if name == "lacking":
            raise ConfigInvalid("no library")
        return [Speaker(name, said)]

    lives = Lives(make, life)
    lives.use(["bgp"])
    with pytest.raises(ConfigInvalid):
        lives.use(["bgp", "lacking"])
    assert lives.told().sections == {"bgp": "well"}
    assert said == ["bgp begins"]


def test_both_live_from_before_the_first_peer_moves_until_after_the_last(tmp_path: Path) -> None:
    """At a start, too, of a node that is on its way; and the old ones end when their way is gone."""
    world = World(tmp_path)
    world.switch.start()
    world.switch.stop()
    assert world.used == [{"static"}]
    world.restart()
    world.switch.ask("vxlan", world.survey.now, is_dry=False, is_forced=False)
    world.unsettled = world.settles + 1  # it gets no further than to begin
    world.switch.advance()
    assert world.used[1:] == [{"static", "vxlan"}]
    world.restart()
    world.switch.start()
    world.switch.stop()
    assert world.used[2] == {"static", "vxlan"}
    world.restart()
    world.switch.advance()
    assert world.switch.progress()["phase"] == "at rest"
    assert world.used[-1] == {"vxlan"}
    world.close()
