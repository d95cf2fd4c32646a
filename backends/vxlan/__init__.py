"""``vxlan``: an overlay between nodes that need only reach each other by IP. `wiring` is how packets get there."""
