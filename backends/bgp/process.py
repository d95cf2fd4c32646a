"""The process that is BIRD: found, started, told, ended. It outlives the agent, whose memory it is not in.

What always holds: nothing is ended that is not this node's own. That a socket has our path proves nothing; whose it is,
the kernel says, which names who listens there (SO_PEERCRED, unix(7)), and BIRD itself, which is asked for the mark in
its configuration. A pidfd names the process from then on, whatever becomes of the number.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from backends.bgp import replies
from backends.bgp.conf import MARK
from backends.bgp.control import PATIENCE, Conversation, Line
from backends.bgp.files import files
from backends.bgp.table import BgpTable
from cni.errors import ConfigInvalid, Failure, TryAgain

CHECKED: Final = 8.0
"""Seconds for BIRD to read a configuration, with 500 neighbours a tenth of one; less than the agent has for its end."""
ENDING: Final = 5.0
"""Seconds for a BIRD that was told to end to have ended."""
_SAID_MAX: Final = 2000
_NOBODY: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED, errno.ESRCH})
"""There is no such socket, nobody listens there, or who did has ended."""
_DONE: Final = frozenset({3, 4, 5})
"""BIRD's codes for a configuration that is in use, or will be once sessions have changed."""


class Bird:
    """The BIRD of the node called *node*, as *table* says; *patience* is for its answers, *reading* for
    what it reads. One thread uses it."""

    def __init__(
        self, table: BgpTable, node: str, patience: float = PATIENCE, reading: float = CHECKED
    ) -> None:
        self._patience, self._reading = patience, reading
        self._table = table
        self._node = node
        self._files = files(table)
        self._pidfd = -1
        self.pid = 0
        """Of the one that answered last; 0 where that is not seen from here, as in a container of its own."""

    # --- what is there ------------------------------------------------------------------------------------------------

    def mark(self) -> str:
        """The mark in the configuration of the BIRD that answers.

        TryAgain: none answers. ConfigInvalid: who answers is not ours, and is left alone.
        """
        with self._conversation() as bird:
            found = replies.constant(bird.ask(f"eval {MARK}"))
            if found.rpartition(" ")[0] != self._node:
                whose = f"whose configuration is marked {found!r}" if found else "with another configuration than ours"
                raise ConfigInvalid(
                    f"at {self._files.socket} answers a BIRD {whose}",
                    "it was left alone: end it, or set bgp.directory to another",
                )
            self._meet(bird)
        return found

    def _meet(self, bird: Conversation) -> None:
        """Remember who that is, for when it does not answer any more."""
        if bird.pid == self.pid and self._pidfd >= 0 and not has_ended(self._pidfd):
            return
        self._forget()
        self.pid = bird.pid
        if bird.pid:
            with suppress(OSError):
                self._pidfd = os.pidfd_open(bird.pid)
            bird.ask(f"eval {MARK}")  # it lives still, so the number was its own

    def has_ended(self) -> bool:
        """Whether there is no process of ours, answering or not."""
        if self._pidfd >= 0 and has_ended(self._pidfd):
            self._forget()
        if self._pidfd < 0:
            self._pidfd = self._silent()
        return self._pidfd < 0

    def _silent(self) -> int:
        """The pidfd of a BIRD of ours that has the socket, whether or not it answers; -1: there is none."""
        try:
            pid = self._listener()
            pidfd = os.pidfd_open(pid) if pid else -1
        except OSError as error:
            if error.errno in _NOBODY:
                return -1
            what = f"who listens at {self._files.socket} cannot be known: {error.strerror or error}"
            raise TryAgain(what, "nothing is started beside it") from error
        if pidfd >= 0 and not _is_started_as(pid, line(self._table)[1:]):
            os.close(pidfd)
            return -1
        return pidfd

    def _listener(self) -> int:
        """Who has the socket; 0 where that is not seen from here."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as stream:
            stream.settimeout(self._patience)
            try:
                stream.connect(str(self._files.socket))
            except BlockingIOError:  # it has not met anybody for so long that no more can wait
                pids = (int(one.name) for one in Path("/proc").iterdir() if one.name.isdecimal())
                return next((pid for pid in pids if _is_started_as(pid, line(self._table)[1:])), 0)
            credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return int.from_bytes(credentials[:4], sys.byteorder)

    def ask(self, *commands: str) -> list[Sequence[Line]]:
        """What BIRD answers to each of *commands*. TryAgain: it does not."""
        with self._conversation() as bird:
            return [bird.ask(one) for one in commands]

    def last_words(self) -> str:
        """What a BIRD that has ended said last."""
        for path in (self._files.errors, self._files.log):
            with suppress(OSError):
                said = path.read_bytes()[-_SAID_MAX:].decode(errors="replace").strip().splitlines()
                if said:
                    return said[-1]
        return "it said nothing"

    # --- what is done -------------------------------------------------------------------------------------------------

    def write(self, text: str) -> None:
        """Have the configuration *text* in its file once BIRD's own parser has read it.

        ConfigInvalid: it refuses, or there is no BIRD here; what was in the file stays. TryAgain: it takes too long.
        """
        path = self._files.configuration
        with suppress(OSError):
            if path.read_bytes() == text.encode() and not path.stat().st_mode & 0o077:
                return
        self._files.write(self._files.trial, text)
        self._parse(self._files.trial)
        self._files.place(self._files.trial, path)

    def _parse(self, path: Path) -> None:
        words = [self._table.bird, "-p", "-c", str(path)]
        try:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, timeout=self._reading, check=False
            )
        except OSError as error:
            raise self._missing(error) from error
        except subprocess.TimeoutExpired as error:
            told = f"{words[0]} reads {path} for longer than {self._reading:g} s"
            raise TryAgain(told, "it is tried again") from error
        if done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace").strip().removeprefix("bird: ")
            why = "the one before stays in use; is it BIRD 2?"
            raise ConfigInvalid(f"BIRD refuses its configuration: {said[:_SAID_MAX]}", why)

    def configure(self) -> None:
        """Have the BIRD that runs read its file anew: sessions that do not differ stay as they are, and where what is
        accepted or said does, all is accepted and said anew, in the same session (RFC 2918). "soft" would leave that
        until the session ends.

        ConfigInvalid: it refuses. TryAgain: it does not answer.
        """
        with self._conversation(self._reading) as bird:
            answer = bird.ask("configure")[-1]
        if answer.code not in _DONE:
            raise ConfigInvalid(f"BIRD refuses its configuration: {answer.text}", "the one before stays in use")

    def start(self, *, is_restart: bool) -> None:
        """Start BIRD, in a session of its own, so that nothing that ends the agent reaches it. With *is_restart* what
        it had in the kernel is kept until its neighbours have said all again (RFC 4724). ConfigInvalid: that cannot
        be."""
        words = [*line(self._table), *(["-R"] if is_restart else [])]
        said = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        try:
            # The agent has SIGTERM and SIGINT blocked, which BIRD would have, too: nobody could end it.
            self.pid = os.posix_spawn(
                words[0],
                words,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, str(self._files.errors), said, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigmask=(),
            )
            self._forget()
            self._pidfd = os.pidfd_open(self.pid)
        except OSError as error:
            raise self._missing(error) from error

    def stop(self) -> None:
        """End BIRD, and leave no file of it: its neighbours are told, so that none waits for it to come again; if it
        does not end, by force."""
        self._files.clear()
        try:
            self.ask("down")
            is_ending = self._pidfd < 0 or has_ended(self._pidfd, ENDING)
        except Failure:
            is_ending = False
        if not is_ending:
            self.kill()

    def kill(self) -> None:
        """End BIRD at once, without a word to its neighbours: those that restart gracefully wait for it. TryAgain: the
        kernel does not let us."""
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
            except OSError as error:
                what = f"BIRD, process {self.pid}, cannot be ended: {error.strerror}"
                raise TryAgain(what, "end it by hand, or let the agent send it signals") from error
            has_ended(self._pidfd, ENDING)

    # --- the rest -----------------------------------------------------------------------------------------------------

    def _conversation(self, patience: float = 0.0) -> Conversation:
        return Conversation(str(self._files.socket), patience or self._patience)

    def _missing(self, error: OSError) -> ConfigInvalid:
        return ConfigInvalid(
            f"{self._table.bird} cannot be run: {error.strerror}",
            "install BIRD 2 (the package bird2), or set bgp.bird to where it is",
        )

    def _forget(self) -> None:
        if self._pidfd >= 0:
            with suppress(ChildProcessError):  # of an earlier agent
                os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
            os.close(self._pidfd)
        self._pidfd = -1


def line(table: BgpTable) -> list[str]:
    """BIRD's command line, but for ``-R``."""
    place = files(table)
    return [table.bird, "-f", "-c", str(place.configuration), "-s", str(place.socket)]


def _is_started_as(pid: int, words: Sequence[str]) -> bool:
    """Whether the process was started in this network with all these *words*."""
    try:
        said = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        is_here = Path(f"/proc/{pid}/ns/net").stat().st_ino == Path("/proc/thread-self/ns/net").stat().st_ino
    except OSError:
        return False
    return is_here and all(word.encode() in said for word in words)


def has_ended(pidfd: int, patience: float = 0.0) -> bool:
    """Whether the process has ended, at the latest after so many seconds."""
    waiting = select.poll()
    waiting.register(pidfd, select.POLLIN)
    return bool(waiting.poll(patience * 1000.0))
