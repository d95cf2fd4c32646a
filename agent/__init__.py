"""The node agent: the one thing that changes the node, and everything that only it needs."""
