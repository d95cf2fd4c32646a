"""Which address belongs to whom: blocks, leases, the allocator, and the one durable thing, the store."""
