"""``vxlan``: an overlay between nodes that need only reach each other by IP. `wiring` is how packets get there."""

from backends.vxlan.wiring import vtep_mac

__all__ = ["vtep_mac"]
