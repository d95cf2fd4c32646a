"""Who the nodes of the cluster are: names, addresses and pod CIDRs.

They come from a nodes file; Kubernetes is a later source behind the same seam, ``peers.Source``.
"""
