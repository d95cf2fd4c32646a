"""How many pods a node can have, for kubelet's ``--max-pods``: what is the same for every cloud."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any, Final

_HOST_PODS: Final = 2
"""Pods that need no address of their own, by the custom of a cloud's own calculator: those on the host network."""
_SENSIBLE: Final = ((30, 250), (0, 110))
"""From how many processors how many pods a kubelet should have at most, by the same calculator."""


def max_pods(addresses: int, processors: int, *, headroom: int = 0, is_capped: bool = True) -> int:
    """What kubelet's --max-pods should say where there are so many *addresses*, of which *headroom* are for pods that
    come while the addresses of those before them cool down; if *is_capped*, no more than a machine of so many
    *processors* should run."""
    pods = max(0, addresses - headroom) + _HOST_PODS
    cap = next(most for least, most in _SENSIBLE if processors >= least)
    return min(pods, cap) if is_capped else pods


def spare(addresses: int, pods: int) -> int:
    """How many of *addresses* are left where kubelet's --max-pods is *pods*."""
    return addresses - max(0, pods - _HOST_PODS)


def arguments(parser: ArgumentParser) -> None:
    """Those that every such command has."""
    parser.add_argument("--headroom", type=count, metavar="N", default=0, help="addresses to leave; default: 0")
    parser.add_argument("--uncapped", action="store_true", help="also more than 110, or 250 from 30 processors on")
    parser.add_argument("--json", action="store_true", help="with the limits it follows from, for programs")


def count(text: str) -> int:
    """A number of things, for argparse."""
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def tell(options: Namespace, pods: int, addresses: int, found: Mapping[str, Any], cooldown: float) -> int:
    """Print how many *pods* there can be of so many *addresses*, and what that was *found* by; the exit code."""
    left = spare(addresses, pods)
    document = {"max_pods": pods, **found, "pod_addresses": addresses, "headroom": left}
    print(json.dumps(document, indent=2) if options.json else pods)  # noqa: T201
    if left <= 0:
        print(  # noqa: T201
            f"routablectl: this counts all {addresses} addresses: on a full node a pod waits up to {cooldown:g} s for "
            "that of the one that it replaces (ipam.cooldown); leave as many as pods change in that time: --headroom N",
            file=sys.stderr,
        )
    return 0
