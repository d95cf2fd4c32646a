"""The kernel's refusals in words: what was refused, where, why, and what to do.

EEXIST, ENOENT and their like mean "already so" where a removal finds nothing left to remove.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from cni.errors import Failure, KernelRefused, TryAgain
from dataplane.diff import Change

ALREADY_GONE: Final = frozenset(
    {errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.ENXIO}
)
"""What a removal is answered when there is nothing to remove."""

_REMEDIES: Final = {
    errno.EPERM: "the agent needs CAP_NET_ADMIN and CAP_SYS_ADMIN in the namespace",
    errno.EACCES: "IPv6 may be switched off there: see the sysctl net.ipv6.conf.*.disable_ipv6",
    errno.EOPNOTSUPP: "the kernel lacks this feature or its module is not loaded",
    errno.EEXIST: "something that is not ours stands in its place; it was left alone",
    errno.ENETUNREACH: "the gateway is not on-link",
    errno.EHOSTUNREACH: "the gateway is not on-link",
    errno.ENETDOWN: "the link is down",
    errno.ENODEV: "the link does not exist",
    errno.ENOSPC: "the kernel's table is full",
}


def refused(change: Change, number: int, words: str = "") -> Failure:
    """The failure that says that the kernel refused *change* with errno *number*."""
    why = f"{os.strerror(number)} ({errno.errorcode.get(number, number)})"
    details = "; ".join(part for part in (why, words, _REMEDIES.get(number, "")) if part)
    if number in (errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN):
        return TryAgain(f"the kernel is short of memory for: {change}", details)
    return KernelRefused(f"the kernel refused: {change}", details, number, change.item.key.kind)
