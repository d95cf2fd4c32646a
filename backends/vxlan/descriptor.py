"""``vxlan`` as the agent knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from backends.descriptor import Backend
from backends.vxlan.table import Vxlan

if TYPE_CHECKING:
    from backends.site import Site
    from backends.wiring import Wiring


def _wiring(site: Site, table: Vxlan) -> Wiring:
    from backends.vxlan.wiring import VxlanWiring

    return VxlanWiring(site, table)


BACKEND: Final = Backend(name="vxlan", table=Vxlan, wiring=_wiring)
