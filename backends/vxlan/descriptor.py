"""``vxlan`` as the agent knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from backends.descriptor import Backend
from backends.vxlan.table import VxlanTable

if TYPE_CHECKING:
    from backends.site import Site
    from backends.wiring import Wiring
    from dataplane.items import Item


def _wiring(site: Site, table: VxlanTable) -> Wiring:
    from backends.vxlan.wiring import VxlanWiring

    return VxlanWiring(site, table)


def _shows(item: Item) -> bool:
    from dataplane.links import VXLAN_LINK

    return VXLAN_LINK in (item.key.name, item.link)


BACKEND: Final = Backend(name="vxlan", table=VxlanTable, wiring=_wiring, shows=_shows)
