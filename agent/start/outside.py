"""What surrounds the node: the other nodes, the addresses, the host, and how a backend wires all that."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.config import chosen
from agent.config.schema import Config
from agent.keep.survey import Survey
from agent.start import restore
from agent.start.ground import Ground
from agent.start.supply import Supply, Use, supply
from agent.switch.way import Way
from backends.descriptor import Around
from dataplane import host, uplink


@dataclass(frozen=True, slots=True)
class Outside:
    """What surrounds the node, and what gives it addresses and peers."""

    survey: Survey
    supply: Supply
    way: Way

    def around(self) -> Around | None:
        """What the backends' parts know of the world; None while nothing is known."""
        now, state = self.survey.now, self.way.state
        return Around(now.site, now.peers, frozenset((state.active, state.wanted))) if now is not None else None


def surrounded(config: Config, ground: Ground, use: Use) -> Outside:
    """Look at what surrounds the node, for the first time."""
    found = supply(config, use)
    state = restore.state(ground.store, ground.kernel, found.source, config.backend, ground.boot)
    way = Way(state, chosen.wirings(config))
    survey = Survey(
        node=config.node,
        uplink=config.uplink,
        options=chosen.wanted(config),
        source=found.source,
        fabric=found.fabric,
        find_uplink=uplink.find,
        wire=way.wiring,
        look=partial(host.look, ground.forward, Path(config.paths.sysctls)),
    )
    survey.refresh()
    return Outside(survey, found, way)
