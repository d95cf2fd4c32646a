"""``static`` as the agent knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from backends.descriptor import Backend
from backends.section import Section

if TYPE_CHECKING:
    from backends.site import Site
    from backends.wiring import Wiring
    from dataplane.items import Item


def _wiring(site: Site, table: Section) -> Wiring:
    from backends.static.wiring import StaticWiring

    return StaticWiring(site)


def _shows(item: Item) -> bool:
    from dataplane.items import Nexthop
    from dataplane.ours import DEVICES

    return isinstance(item, Nexthop) and item.dev not in DEVICES


BACKEND: Final = Backend(name="static", table=Section, wiring=_wiring, shows=_shows)
