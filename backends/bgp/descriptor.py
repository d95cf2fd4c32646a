"""``bgp`` as the agent knows it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from backends.bgp.command import BGP
from backends.bgp.drain import DRAIN
from backends.bgp.table import BgpTable, contradictions
from backends.descriptor import Backend, Handles, Means, Part, Provision
from backends.verdict import Verdict

if TYPE_CHECKING:
    from backends.site import Site
    from backends.told import Shown
    from backends.wiring import Wiring
    from dataplane.items import Item

NAME: Final = "bgp"


def _wiring(site: Site, table: BgpTable) -> Wiring:
    from backends.bgp.wiring import BgpWiring

    return BgpWiring(site, table)


def _shows(item: Item) -> bool:
    from dataplane.items import Route

    return isinstance(item, Route) and item.local


def _supply(table: BgpTable, means: Means) -> Provision:
    from backends.bgp.live import speaker
    from backends.podcidrs import PodCidrs

    def parts(handles: Handles) -> list[Part]:
        return [speaker(NAME, table, means, handles)]

    return Provision(PodCidrs(), parts=parts)


def _remove(table: BgpTable, node: str) -> Iterator[str]:
    from backends.bgp.live import remove

    return remove(table, node)


def _check(table: BgpTable, environment: Mapping[str, str]) -> Iterator[Verdict]:
    from backends.bgp.verdicts import verdicts

    return verdicts(table)


def _show(sections: Mapping[str, Any]) -> Shown:
    from backends.bgp.told import show

    return show(sections, time.time())


BACKEND: Final = Backend(
    name=NAME,
    table=BgpTable,
    contradictions=contradictions,
    wiring=_wiring,
    supply=_supply,
    shows=_shows,
    has_nexthops=False,
    is_lasting=True,
    remove=_remove,
    check=_check,
    show=_show,
    commands=(BGP, DRAIN),
)
