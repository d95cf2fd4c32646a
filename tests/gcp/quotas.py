"""The project's rate quotas: so many calls of each group of methods in each minute of the clock, for all its machines.

"Compute Engine rate quotas": enforced "at a per-minute interval for each group"; what is used up at 10:00:15 is there
again at 10:01:00.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from tests.gcp import unverified
from tests.gcp.documents import over_rate
from tests.gcp.estate import Estate

GROUPS: Mapping[str, str] = {
    "instances.updateNetworkInterface": "default_per_region",
    "instances.get": "read_requests_per_region",
    "subnetworks.get": "read_requests_per_region",
    "zoneOperations.get": "operation_read_requests_per_region",
    "zoneOperations.wait": "heavy_weight_read_requests_per_region",
}
"""As the same page has them."""
MINUTE = 60.0


class Quotas:
    """*limits* are per group and minute."""

    def __init__(self, estate: Estate) -> None:
        self._estate = estate
        self.limits: dict[str, int] = dict(unverified.QUERIES)
        self._minute = 0
        self._used: Counter[str] = Counter()

    def spend(self, method: str) -> None:
        """Refusal: none is left in this minute."""
        minute, passed = divmod(self._estate.clock(), MINUTE)
        if minute != self._minute:
            self._minute = int(minute)
            self._used.clear()
        group = GROUPS[method]
        others = self._estate.unkind.neighbour * passed / MINUTE
        if self._used[group] + others >= self.limits[group]:
            raise over_rate(group, str(self._estate.number))
        self._used[group] += 1
