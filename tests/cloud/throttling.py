"""The account's token buckets: every instance of it draws on the same ones, and so do its neighbours."""

from __future__ import annotations

from collections.abc import Mapping

from tests.cloud.refusals import Refusal
from tests.cloud.world import World

BUCKETS: Mapping[str, tuple[float, float]] = {
    "Describe": (100, 20),
    "AttachNetworkInterface": (50, 5),
    "DetachNetworkInterface": (50, 5),
    "CreateTags": (100, 10),
    "": (100, 5),
}
"""Capacity and refill per second, by the longest beginning of an action's name."""

CODES: Mapping[str, int] = {
    "RequestLimitExceeded": 503,
    "Throttling": 400,
    "ThrottlingException": 400,
    "ThrottledException": 400,
    "RequestThrottledException": 400,
    "RequestThrottled": 400,
    "EC2ThrottledException": 400,
    "TooManyRequestsException": 429,
    "SlowDown": 503,
    "BandwidthLimitExceeded": 503,
    "PriorRequestNotComplete": 400,
}
"""What AWS's SDKs take for throttling (botocore.retries.standard), with a status each."""


def throttled(code: str = "RequestLimitExceeded") -> Refusal:
    """The refusal of what comes too often."""
    return Refusal(code, "Request limit exceeded.", CODES[code])


class Buckets:
    """One for each action."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tokens: dict[str, tuple[float, float]] = {}

    def spend(self, action: str) -> None:
        """Refusal: there is no token left."""
        prefix = max((one for one in BUCKETS if action.startswith(one)), key=len)
        (capacity, refill), now = BUCKETS[prefix], self._world.clock()
        tokens, since = self._tokens.get(action, (capacity, now))
        gained = (now - since) * (refill - self._world.unkind.neighbour)
        tokens = min(capacity, max(0.0, tokens + gained))
        self._tokens[action] = tokens - (tokens >= 1), now
        if tokens < 1:
            raise throttled(self._code())

    def _code(self) -> str:
        codes = list(CODES)
        return codes[int(self._world.chance() * len(codes))] if self._world.unkind.throttling_codes else codes[0]
