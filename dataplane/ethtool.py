"""One offload switch of one device, by the ethtool ioctl (include/uapi/linux/ethtool.h).

Any socket will do, and speaks of its own namespace: the netlink socket that is open in any case needs no descriptor
more.
"""

from __future__ import annotations

import fcntl
import struct
from array import array
from typing import Final

from dataplane.netlink import Socket

_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_GTXCSUM: Final = 0x16
_ETHTOOL_STXCSUM: Final = 0x17


def is_tx_checksum_on(sock: Socket, device: str) -> bool:
    """Whether the device computes transmit checksums itself.

    Raises:
        OSError: no such device (any more).
    """
    return bool(_call(sock, device, _ETHTOOL_GTXCSUM, 0))


def set_tx_checksum(sock: Socket, device: str, on: bool) -> None:
    """Switch the device's transmit checksums.

    Raises:
        OSError: no such device, or it cannot.
    """
    _call(sock, device, _ETHTOOL_STXCSUM, int(on))


def _call(sock: Socket, device: str, command: int, value: int) -> int:
    data = array("I", [command, value])
    request = struct.pack("16sP16x", device.encode(), data.buffer_info()[0])  # struct ifreq with ifr_data
    fcntl.ioctl(sock, _SIOCETHTOOL, request)
    return data[1]
