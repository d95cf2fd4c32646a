"""The kernel's refusals in words: what was refused, where, why, and what to do.

EEXIST, ENOENT and their like mean "already so" where a removal finds nothing left to remove. No OSError gets out of
this package: each way into it is `translated`, so what can go wrong below is classed here and nowhere else.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cni.errors import Failure, KernelRefused, TryAgain
from dataplane.diff import Change
from dataplane.links import Veth, Vxlan

ALREADY_GONE: Final = frozenset(
    {errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.ENXIO}
)
"""What a removal is answered when there is nothing to remove."""

VANISHED: Final = frozenset({errno.ENODEV, errno.ENXIO})
"""What a look at a link is answered when the link went meanwhile: nothing is there, which is no error."""

PASSING: Final = frozenset(
    {errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.EMFILE, errno.ENFILE}
)
"""What is over by itself: a shortage of the moment, or a look that changes got in the way of."""

_REMEDIES: Final = {
    errno.EMFILE: "the agent has too many descriptors open: raise its limit (LimitNOFILE)",
    errno.ENFILE: "the machine has too many files open: raise the sysctl fs.file-max",
    errno.EROFS: "it is mounted read-only here: mount it writable, or set the value on the machine",
    errno.EPERM: "the agent needs CAP_NET_ADMIN and CAP_SYS_ADMIN in the namespace",
    errno.EACCES: "IPv6 may be switched off there: see the sysctl net.ipv6.conf.*.disable_ipv6",
    errno.EOPNOTSUPP: "the kernel lacks this feature or its module is not loaded",
    errno.EEXIST: "something that is not ours stands in its place; it was left alone",
    errno.EADDRINUSE: "another tunnel or program has this UDP port: choose another vxlan.port, on all nodes",
    errno.ENETUNREACH: "the gateway is not on-link",
    errno.EHOSTUNREACH: "the gateway is not on-link",
    errno.ENETDOWN: "the link is down",
    errno.ENODEV: "the link does not exist",
    errno.ENOSPC: "the kernel's table is full",
}


def refused(change: Change, number: int, words: str = "") -> Failure:
    """The failure that says that the kernel refused *change* with errno *number*."""
    if number in PASSING:
        return TryAgain(f"the kernel cannot do this now: {change}", _why(number, words))
    why = _why(number, "; ".join(part for part in (words, _way_out(change, number, words)) if part))
    return KernelRefused(f"the kernel refused: {change}", why, number, change.item.key.kind)


def _way_out(change: Change, number: int, words: str) -> str:
    if number != errno.EEXIST or not isinstance(change.item, Veth | Vxlan):
        return ""
    name = change.item.name
    if isinstance(change.item, Vxlan) and "VNI" in words:
        return "see ip -d link show type vxlan: remove that device, or choose another vxlan.vni, on all nodes"
    way_out = f"see ip link show {name}: rename it (ip link set {name} name OTHER) or remove it"
    if isinstance(change.item, Veth) and change.item.peer_name:  # the kernel makes both ends, and says not which
        way_out += (
            f"; where there is none, {change.item.peer_name} in {change.item.peer_netns} leads elsewhere: "
            f"give its other end the name {name} again, or delete the pod"
        )
    return way_out


def unable(what: str, error: OSError) -> Failure:
    """The failure that says that *what*, as in "look at link eth0", met *error*."""
    number = error.errno or 0
    words = error.strerror or str(error)
    why = _why(number, "" if words == os.strerror(number) else words) if number else words
    if number in PASSING:
        return TryAgain(f"cannot {what} now", why)
    return KernelRefused(f"cannot {what}", why, number)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise an OSError of the body as what it means while one tries to *what*."""
    try:
        yield
    except OSError as error:
        raise unable(what, error) from error


def _why(number: int, words: str) -> str:
    name = f"{os.strerror(number)} ({errno.errorcode.get(number, number)})"
    return "; ".join(part for part in (name, words, _REMEDIES.get(number, "")) if part)
