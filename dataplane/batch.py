"""Changes on their way to the kernel through one netlink socket, gathered so that they go out in one send."""

from __future__ import annotations

import errno
import os
import threading

from dataplane import linkmsg, observe, ours, routemsg, rtnl
from dataplane.diff import Change
from dataplane.items import HOST, Item, Rule
from dataplane.links import Port, Veth, Vxlan
from dataplane.netlink import Socket
from dataplane.refusal import ALREADY_GONE, VANISHED, refused


class Batch:
    """Gathers changes of the namespace that *sock* is open in."""

    def __init__(self, sock: Socket, turn: threading.Lock) -> None:
        self._sock = sock
        self._turn = turn
        self._indexes: dict[str, int] = {}
        self._messages: list[rtnl.Message] = []
        self._changes: list[Change] = []
        self._kinds: set[type[Item]] = set()

    def add(self, change: Change) -> None:
        """One more change, in the kernel's words."""
        old, new = change
        if isinstance(new, Veth | Vxlan | Port):
            if not isinstance(new, Port):
                self._index_of(change, new.name)
            self.say(change, linkmsg.set_link(new, old))
        elif not isinstance(change.item, Port):  # a port goes with its veth and cannot be removed alone
            index = self._index_of(change, change.item.link)
            if index is not None:
                item = change.item
                self.say(change, routemsg.put(item, index, old is not None) if new else routemsg.drop(item, index))

    def know(self, link: str, index: int) -> None:
        """The index that *link* will have when its creation, which comes next, has been sent."""
        self._indexes[link] = index

    def say(self, change: Change, *messages: rtnl.Message) -> None:
        """More messages, all on behalf of *change*."""
        self._messages += messages
        self._changes += [change] * len(messages)
        if change.new is not None:
            self._kinds.add(type(change.new))

    def send_first(self, kind: type[Item]) -> None:
        """Send what was gathered if there is a change of that *kind* in it, so that what follows is not made if that is
        refused."""
        if kind in self._kinds:
            self.send()

    def send(self) -> None:
        """Send what was gathered.

        Raises:
            KernelRefused, TryAgain: the first refusal that is not "already so"; it names its change.
            OSError: nothing could be sent, or no answer be had.
        """
        messages, changes = self._messages, self._changes
        self._messages, self._changes, self._indexes = [], [], {}
        self._kinds = set()
        if not messages:
            return
        with self._turn:
            refusals = self._sock.transact(messages)
        for refusal in refusals:
            change = changes[refusal.position]
            # A rule is what it says: one that a link of before left in a pod is the same.
            if isinstance(change.new, Rule) and change.item.key.place != HOST and refusal.errno == errno.EEXIST:
                continue
            if change.new is not None or refusal.errno not in ALREADY_GONE:
                raise refused(change, refusal.errno, refusal.words)

    def _index_of(self, change: Change, link: str) -> int | None:
        """The index of a link; 0 for an item that is on none; None where the link went and took the item along.

        A link that is called as ours are and is another's now is none that anything of ours can be on.
        """
        if not link:
            return 0
        if link not in self._indexes:
            try:
                self._indexes[link] = self._index(link)
            except OSError as error:
                number = error.errno or 0
                if change.new is None and number in VANISHED:
                    return None
                self.send()  # what was asked before comes before this refusal
                raise refused(change, number, f"link {link}") from error
        return self._indexes[link]

    def _index(self, name: str) -> int:
        if not ours.has_our_name(name):
            return self._sock.index(name)
        (link,) = observe.links(self._sock, [name])
        if link is None or not observe.is_ours(link):
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return link.ifindex
