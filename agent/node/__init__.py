"""The node: leases and the kernel brought together, the one thing that changes either."""
