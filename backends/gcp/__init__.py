"""``gcp-alias``: pods with addresses of the VPC, from alias IP ranges on the network interface of their node.

`fabric` decides, and is pure but for the journal: what it wants of the cloud it yields, and is sent the answer.
`metadata` is the metadata server in earnest. The client library is loaded by `worker` alone, a process of its own,
which `remote` starts and speaks to. What another cloud would do likewise is in `backends.cloud`. `wiring` is how
packets get there.
"""
