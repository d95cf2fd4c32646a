"""``static`` as the agent knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from backends.descriptor import Backend
from backends.section import Section

if TYPE_CHECKING:
    from backends.site import Site
    from backends.wiring import Wiring


def _wiring(site: Site, table: Section) -> Wiring:
    from backends.static.wiring import StaticWiring

    return StaticWiring(site)


BACKEND: Final = Backend(name="static", table=Section, wiring=_wiring)
