"""What a table of the agent's configuration is made of: the agent's own tables, and those of backends.

A key's ``Meta.description`` is what a complaint says is allowed.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from netaddr import IPNetwork

PortNumber = Annotated[int, Meta(ge=1, le=65535, description="a port from 1 to 65535")]
Cidr = Annotated[IPNetwork, Meta(description="a CIDR such as 10.0.0.0/8 or 2001:db8::/32")]
Flag = Annotated[bool, Meta(description="true or false")]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: what it does not know is an error."""
