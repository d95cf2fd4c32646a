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
    from dataplane.items import VXLAN_LINK, Nexthop

    return isinstance(item, Nexthop) and item.dev != VXLAN_LINK


BACKEND: Final = Backend(name="static", table=Section, wiring=_wiring, shows=_shows)
