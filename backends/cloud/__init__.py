"""What the backends of clouds share, in no cloud's words: how one is asked, what it refused, what was begun there.

A cloud's fabric is a generator of `steps`, so that the same code lives in a thread, in the tests on a virtual clock,
and thousands of times in a simulation. `asking` makes its calls at the pace of `pacing` and keeps in `obstacles` what
was refused. Nothing here knows a cloud's library, or how many interfaces a machine has: that is the business of
`backends.aws` and its like.
"""
