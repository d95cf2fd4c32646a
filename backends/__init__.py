"""The backends by name: how the pods of different nodes reach each other.

Each is a module with a factory that makes a `backends.wiring.Wiring` of a `backends.wiring.Site`; it is imported when
it is chosen, so that no node pays for the libraries of another's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # the names alone must not cost what a wiring imports
    from backends.wiring import Site, Wiring

BACKENDS: Final[Mapping[str, str]] = MappingProxyType(
    {"static": "backends.static:StaticWiring", "vxlan": "backends.vxlan:VxlanWiring"}
)
"""Name, as in the agent's configuration, to "module:factory"."""


def load(name: str) -> Callable[[Site], Wiring]:
    """The factory of the backend *name*. KeyError: there is none."""
    module, _, factory = BACKENDS[name].partition(":")
    found: Callable[[Site], Wiring] = getattr(import_module(module), factory)
    return found
