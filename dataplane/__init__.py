"""The kernel's objects as values, the difference between two sets of them, and the one place that applies it."""
