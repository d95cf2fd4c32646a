"""``static``: routes to the pods of every node on the same segment. `wiring` is how packets get there."""
