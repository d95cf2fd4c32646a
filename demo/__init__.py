"""A cluster out of network namespaces: real nodes with real agents on one machine, for the demo, tests and benchmarks.

Not part of the product and not installed with it. Everything lives in namespaces that `demo.isolate` made, so nothing
of the machine's own is touched and nothing is left behind.
"""
