"""What the operator may say of the overlay: the table [vxlan]."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from backends.section import Flag, PortNumber, Section


class VxlanTable(Section, frozen=True):
    """The overlay, for backend = "vxlan"."""

    vni: Annotated[int, Meta(ge=1, le=(1 << 24) - 1, description="a number from 1 to 16777215")] = 4096
    port: PortNumber = 4789
    direct: Flag = False
    underlay: Annotated[Literal["auto", "ipv4", "ipv6"], Meta(description='"auto", "ipv4" or "ipv6"')] = "auto"
