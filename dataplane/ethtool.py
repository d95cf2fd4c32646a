"""One offload switch of one device, by the ethtool ioctl (include/uapi/linux/ethtool.h)."""

from __future__ import annotations

import fcntl
import socket
import struct
from array import array
from typing import Final

_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_GTXCSUM: Final = 0x16
_ETHTOOL_STXCSUM: Final = 0x17


def is_tx_checksum_on(device: str) -> bool:
    """Whether the device computes transmit checksums itself."""
    return bool(_call(device, _ETHTOOL_GTXCSUM, 0))


def set_tx_checksum(device: str, on: bool) -> None:
    """Switch the device's transmit checksums.

    Raises:
        OSError: no such device, or it cannot.
    """
    _call(device, _ETHTOOL_STXCSUM, int(on))


def _call(device: str, command: int, value: int) -> int:
    data = array("I", [command, value])
    request = struct.pack("16sP16x", device.encode(), data.buffer_info()[0])  # struct ifreq with ifr_data
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
    return data[1]
