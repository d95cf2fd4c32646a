"""Which backend wires this node, and the change from one to another under running pods."""
