"""The vocabulary of the CNI specification, its errors, and the executable that a runtime calls."""
