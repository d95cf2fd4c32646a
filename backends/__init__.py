"""The backends by name: how the pods of different nodes reach each other.

Each is whole in a folder, behind a `backends.descriptor.Backend`; that is imported when somebody asks for it, so that
no node pays for the libraries of another's.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:  # the names alone must not cost what a descriptor imports
    from backends.descriptor import Backend

BACKENDS: Final[Mapping[str, str]] = MappingProxyType(
    {"static": "static", "vxlan": "vxlan", "bgp": "bgp", "aws-eni": "aws", "gcp-alias": "gcp"}
)
"""Name, as in the agent's configuration, to folder, which is what the backend's table there is called, too."""


def load(name: str) -> Backend[Any]:
    """The backend *name*. KeyError: there is none."""
    found: Backend[Any] = import_module(f"backends.{BACKENDS[name]}.descriptor").BACKEND
    return found


def are_alike(one: str, other: str) -> bool:
    """Whether a node can go from one backend to the other under running pods: the addresses stay what they are. Of one
    that is not known here nothing else is."""
    return one == other or all(name not in BACKENDS or load(name).has_pod_cidrs for name in (one, other))
