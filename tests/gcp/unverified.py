"""What no document says and nobody here has tried: numbers, codes and words that are guesses. They are here alone.

What is built on them says so by their names. Whoever has tried one against Google takes it from here to where it is
used, with the source.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

QUERIES: Final[Mapping[str, int]] = {
    "default_per_region": 1500,
    "read_requests_per_region": 1500,
    "operation_read_requests_per_region": 1500,
    "heavy_weight_read_requests_per_region": 750,
}
"""Per minute, project and region. The groups and their methods are documented ("Compute Engine rate quotas"), the
numbers were until 2025; since then one looks them up in the console."""

CONCURRENT: Final = 4000
"""Operations under way in a project and region ("Concurrent operation quotas": the limit depends on the operation)."""

STALE_INSIDE: Final = ("CONDITION_NOT_MET", 412)
"""A fingerprint that was good when the call came, and is not when the operation runs: code and status inside of it.
That it may be said there is known (cloudfoundry/bosh-google-cpi-release issue 159), with which code is not."""

TOO_OFTEN: Final = ("RESOURCE_OPERATION_RATE_EXCEEDED", 429)
"""Code and status of a resource that is changed too often."""

TOO_MANY: Final = "Too many alias IP ranges: {count}, limit {most}."
"""More ranges than an interface may have: a refusal (400, invalid)."""

AS_UPDATE: Final = "Alias IP ranges can be added or deleted, but cannot be updated: {range}."
"""A range that overlaps one which the same call takes away, or is it with another range of the subnet: a refusal. That
it cannot be done is documented ("Configure alias IP ranges", Limitations), how it is refused is not."""

USE: Final = "compute.subnetworks.use"
"""Needed beside compute.instances.updateNetworkInterface to take from a subnet. The reference names it for the field
"subnetwork" alone."""
