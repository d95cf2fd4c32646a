"""The backends by name: how the pods of different nodes reach each other.

Each is a module with a factory that makes a `backends.wiring.Wiring` of a `backends.site.Site`; it is imported when
it is chosen, so that no node pays for the libraries of another's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # the names alone must not cost what a wiring imports
    from backends.site import Site
    from backends.wiring import Wiring

BACKENDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "static": "backends.static.wiring:StaticWiring",
        "vxlan": "backends.vxlan.wiring:VxlanWiring",
        "aws-eni": "backends.aws.wiring:EniWiring",
    }
)
"""Name, as in the agent's configuration, to "module:factory"."""


CLOUDS: Final = frozenset({"aws-eni"})
"""The backends that have their addresses from a cloud: all others share the pod CIDRs of the list of nodes, so a node
can go from one of those to another under running pods."""


def are_alike(one: str, other: str) -> bool:
    """Whether a node can go from one backend to the other under running pods: the addresses stay what they are."""
    return one == other or CLOUDS.isdisjoint((one, other))


def load(name: str) -> Callable[[Site], Wiring]:
    """The factory of the backend *name*. KeyError: there is none."""
    module, _, factory = BACKENDS[name].partition(":")
    found: Callable[[Site], Wiring] = getattr(import_module(module), factory)
    return found
