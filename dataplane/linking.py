"""How links of ours come into being, change and go: the hosts' ends of pods' links, and backends' devices."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from socket import if_nameindex
from typing import Final

from cni.errors import KernelRefused
from dataplane import ethtool, linkmsg, observe, ours, settings
from dataplane.batch import Batch
from dataplane.diff import Change
from dataplane.items import Key
from dataplane.links import Port, Veth, Vxlan
from dataplane.netns import Opened
from dataplane.refusal import ALREADY_GONE, refused, translated
from dataplane.sockets import Sockets

_FIRST: Final = 1 << 24
"""Where the interface indexes of our links begin."""


class Linking:
    """Any thread may call. The sysctls are below *directory*, where nothing can be written if it *is_fixed*; *random*
    answers a number of so many bits."""

    def __init__(
        self, sockets: Sockets, directory: Path, random: Callable[[int], int], *, is_fixed: bool
    ) -> None:
        self._sockets = sockets
        self._directory = directory
        self._random = random
        self._has_ipv6 = (directory / "net/ipv6").exists()  # not so after ipv6.disable=1 on the kernel's command line
        self._is_fixed = is_fixed
        # Links get indexes of our choice, so that all of a pod's objects on the host can go out in one send. Nobody
        # else counts up here: the kernel's own choice starts at 1.
        with translated("list the links"):
            self._indexes = itertools.count(max(_FIRST, *(index + 1 for index, _ in if_nameindex())))

    def create_veths(
        self, batch: Batch, changes: Sequence[Change], ports: Mapping[Key, Port], opened: Opened
    ) -> None:
        """All of them in one send; what brings them up waits for the next, when they are guarded."""
        made: list[tuple[Change, Veth, int]] = []
        for change in changes:
            assert isinstance(change.new, Veth)
            veth, index = change.new, next(self._indexes)
            port = ports.get(Key(veth.peer_netns, "link", veth.peer_name))
            netns, mtu = opened.open(veth.peer_netns), port.mtu if port else veth.mtu
            batch.say(change, linkmsg.create_veth(veth, index, netns, mtu))
            made.append((change, veth, index))
        batch.send()
        for change, veth, index in made:
            self.guard(change, veth)
            batch.know(veth.name, index)
            batch.say(change, linkmsg.finish_link(veth, index, self._has_ipv6))

    def guard(self, change: Change, link: Veth | Vxlan) -> None:
        """The half of `Veth.is_guarded` that is IPv6's, and whether there is any on the link: files alone say it."""
        if not self._has_ipv6 or link.mtu < linkmsg.IPV6_MTU_MIN or self._is_fixed:
            return
        conf = f"{self._directory}/net/ipv6/conf/{link.name}"
        try:
            for name in linkmsg.GUARD6:
                settings.write(f"{conf}/{name}", b"0")
            off = b"1" if isinstance(link, Veth) and link.is_ipv6_off else b"0"
            if isinstance(link, Veth) and settings.read(f"{conf}/disable_ipv6") != off:
                with self._sockets.turn:  # for that one the kernel spins until it has rtnl_mutex
                    settings.write(f"{conf}/disable_ipv6", off)
        except FileNotFoundError:
            return  # the link has gone, as the next message will tell, or it has been smaller so far
        except OSError as error:
            raise refused(change, error.errno or errno.EIO, "its IPv6 settings") from error

    def put_vxlan(self, batch: Batch, change: Change, vxlan: Vxlan) -> None:
        """Make *vxlan* of what is there, or of nothing."""
        old = change.old
        if isinstance(old, Vxlan) and (old.vni, old.port, old.local) == (vxlan.vni, vxlan.port, vxlan.local):
            self.guard(change, vxlan)
            batch.add(change)
        else:  # the kernel cannot change these on a living device
            if old is not None:
                self.delete([vxlan.name])
            index = next(self._indexes)
            batch.say(change, linkmsg.create_vxlan(vxlan, index))
            batch.send()
            self.guard(change, vxlan)
            batch.say(change, linkmsg.finish_link(vxlan, index, self._has_ipv6))
        batch.send()
        try:
            with self._sockets.host() as sock:
                ethtool.set_tx_checksum(sock, vxlan.name, vxlan.tx_checksum)
        except OSError as error:
            raise refused(change, error.errno or errno.EIO, "its checksum offload") from error

    def delete(self, names: Sequence[str]) -> None:
        """Delete links, with one wait for all of them; what is gone already, or not ours, is left out.

        By their indexes, of which no two links of a namespace have the same one after the other: a link that takes the
        name meanwhile is another. All at once by a link group that nobody else can know.
        """
        with self._sockets.host() as sock:
            found = observe.links(sock, names)
            indexes = [link.ifindex for link in found if link is not None and observe.is_ours(link)]
            messages = [linkmsg.delete_link(indexes[0])] if len(indexes) == 1 else []
            if len(indexes) > 1:
                group = ours.DYING | self._random(ours.DYING_BITS)
                messages = [*(linkmsg.set_group(index, group) for index in indexes), linkmsg.delete_group(group)]
            for refusal in sock.transact(messages):
                if refusal.errno not in ALREADY_GONE:
                    why = f"{os.strerror(refusal.errno)} {refusal.words}"
                    raise KernelRefused(f"the kernel refused to delete {' '.join(names)}", why, refusal.errno)
