"""``bgp``: each node announces its pod CIDRs to the network's routers, by BIRD.

`sessions` says whom the node speaks with and `conf` what BIRD is told (both pure); `control` asks BIRD, `replies` reads
what it answers, `process` finds, starts and ends it; `speaker` keeps all that as it should be.
"""
