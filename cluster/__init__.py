"""Who the nodes of the cluster are: names, addresses and pod CIDRs.

They come from a nodes file or from the Kubernetes API, both behind the seam ``peers.Source``.
"""
