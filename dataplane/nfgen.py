"""The number of nftables' present generation: every change of any table, by whomever, counts it up (linux/netfilter/
nf_tables.h, NFT_MSG_GETGEN). While it stays, nothing has to be looked at again: asking costs some 30 microseconds,
a call of nft a hundred times as much.
"""

from __future__ import annotations

import socket
import struct
from contextlib import closing
from typing import Final

from pyroute2.netlink import NLM_F_REQUEST, NLMSG_ERROR

from dataplane.netlink import messages
from dataplane.rtnl import attrs

_NETLINK_NETFILTER: Final = 12
_GETGEN: Final = 10 << 8 | 16
"""NFNL_SUBSYS_NFTABLES and NFT_MSG_GETGEN."""
_HEADER: Final = struct.Struct("=IHHII")
_NFGENMSG: Final = struct.Struct("!BBH")
_GEN_ID: Final = 1


def generation() -> int | None:
    """That of the calling thread's network namespace; None where this kernel does not tell.

    Raises:
        OSError: there is no socket to be had.
    """
    with closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)) as sock:
        sock.settimeout(1.0)
        body = _NFGENMSG.pack(0, 0, 0)
        sock.send(_HEADER.pack(_HEADER.size + len(body), _GETGEN, NLM_F_REQUEST, 1, 0) + body)
        for kind, _, _, content in messages(sock.recv(1 << 16)):
            found = attrs(content, _NFGENMSG.size, len(content)) if kind != NLMSG_ERROR else {}
            if _GEN_ID in found:
                return int.from_bytes(found[_GEN_ID], "big")
    return None
