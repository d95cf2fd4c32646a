"""``aws-eni``: pods with addresses of the VPC, on elastic network interfaces (ENIs) of their node.

`fabric` decides, and is pure but for the journal: what it wants of the cloud it yields, and is sent the answer. `ec2`
and `imds` are the cloud in earnest; what another cloud would do likewise is in `backends.cloud`. `wiring` is how
packets get there.
"""
