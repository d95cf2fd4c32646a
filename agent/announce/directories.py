"""The runtime's directories: the executable, and the network configuration once the agent can serve, are kept there.

What always holds: the runtime sees an old file or a new one, whole; no network configuration is given before an ADD
would be served, nor one whose executables are missing; what has no mark of ours is never touched; and nothing goes when
the agent does: a runtime that misses its configuration makes the node NotReady, and a restart is no reason for that.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent.announce.conflist import SIZE_MAX, Conflist, conflist, is_ours
from agent.announce.plugins import Plugins
from agent.config.schema import CniTable
from agent.keep.limiter import AGAIN, BURST, PERIOD, Limiter, fought
from backends.threads import OnDeath, thread
from cluster import tomlfile
from cni.errors import ConfigInvalid, Failure
from cni.install import NAME, is_placed, placed
from dataplane.memory import Memory

log = logging.getLogger(__name__)

EVERY: Final = 1.0
"""Seconds between looks."""
LOOPBACK: Final = "loopback"
"""The runtime calls it for every pod, whatever the configuration says."""
_EXTENSIONS: Final = (".conf", ".conflist", ".json")
"""Of what libcni takes for a configuration: the first by name is the one that counts."""
EXECUTABLE: Final = "cni executable"
"""The name in the journal of where the agent put its executable, and which that was."""


class Directories:
    """What *table* says, kept.

    *can_serve* answers whether an ADD would be served; *source* where an executable is that is to be put there; *tell*
    is told what was put right that somebody else changed; *clock* answers seconds, monotonic; *on_death* is told if the
    thread ends unasked.
    """

    name: Final = "cni"

    def __init__(
        self,
        table: CniTable,
        *,
        can_serve: Callable[[], bool],
        source: Callable[[], Path],
        journal: Memory,
        tell: Callable[[str], None],
        on_death: OnDeath,
        clock: Callable[[], float],
        every: float = EVERY,
    ) -> None:
        self._table = table
        self._can_serve = can_serve
        self._source = source
        self._journal = journal
        self._tell = tell
        self._clock = clock
        self._every = every
        self._limiter = Limiter(BURST, PERIOD, AGAIN)
        self._plugins = Plugins()
        self._right: dict[Path, object] = {}
        """What was as it should be, and how: who finds it otherwise, and wants it so still, finds another's doing."""
        self._placed: tuple[int, ...] = ()
        """Which file was found to be our executable: see `_state`."""
        self._stopping = threading.Event()
        self._thread = thread(self.name, self._live, on_death)
        self.problems: Sequence[Failure] = ()
        """What could not be done, or is in its way. Any thread may read."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is there stays."""
        self._stopping.set()
        self._thread.join()

    def _live(self) -> None:
        while not self._stopping.wait(self._every):
            self.look()

    def look(self) -> None:
        """Put right what differs, once. Raises nothing that the world brings about: that is in `problems`."""
        problems = list(self._looked())
        known = {str(one) for one in self.problems}
        for one in problems:
            if str(one) not in known:
                log.error("the runtime's directories are not as they should be", extra={"error": str(one)})
        self.problems = problems

    def _looked(self) -> Iterator[Failure]:
        if self._table.executables:
            yield from self._executable(Path(self._table.executables))
        if self._table.conflist:
            path = Path(self._table.conflist)
            try:
                yield from self._configured(path, wanted(self._table))
            except Failure as failure:
                yield failure
            except OSError as error:
                yield _unusable(path, error)

    # --- the executable ---------------------------------------------------------------------------------------------

    def _executable(self, directory: Path) -> Iterator[Failure]:
        target = directory / NAME
        if self._placed and _state(target) == self._placed:
            return
        try:
            source = self._source()
            if not is_placed(source, target):
                if not self._may_be_put_right(target, source):
                    yield fought(str(target))
                    return
                # First whose it is: one that is there and not in the journal is no more known as ours at the end.
                digest = placed(source, target, lambda digest: self._journal.remember(EXECUTABLE, f"{digest} {target}"))
                log.info("the executable was put there", extra={"file": str(target), "sha256": digest})
                self._is_put_right(target, source)
            self._placed = _state(target)
            self._right[target] = source
        except Failure as failure:
            yield failure

    # --- the network configuration ----------------------------------------------------------------------------------

    def _configured(self, path: Path, made: Conflist) -> Iterator[Failure]:
        have = content(path)
        lacking = missing(self._table, made)
        made, unspoken = self._speakable(made)
        yield from unspoken
        if have is not None and not is_ours(have):
            why = "it has no mark of the agent's and was left alone; take it away, or set cni.conflist to another name"
            yield ConfigInvalid(f"{path} is not the agent's", why)
        elif have == made.content:
            self._right[path] = made
        elif lacking.keys() - {LOOPBACK}:
            pass  # pods' ADDs would fail: what is there is better, and if it is nothing, pods are better off elsewhere
        elif self._can_serve():
            if self._may_be_put_right(path, made):
                _write(path, made.content)
                self._is_put_right(path, made)
                log.info("the network configuration was written", extra={"file": str(path)})
            else:
                yield fought(str(path))
        yield from lacking.values()
        yield from before(path)

    def _speakable(self, made: Conflist) -> tuple[Conflist, list[Failure]]:
        """What all its plugins speak, and what that costs."""
        directory = Path(self._table.executables)
        unspoken = {}
        for one in made.types if self._table.executables else ():
            spoken = self._plugins.spoken(directory / one) if one != NAME else None
            beyond = [version for version in made.versions if spoken is not None and version not in spoken]
            if beyond:
                unspoken[one] = beyond
        found = [_unspoken(f"{directory}/{one}", versions) for one, versions in unspoken.items()]
        return made.without({version for versions in unspoken.values() for version in versions}), found

    def _may_be_put_right(self, path: Path, wanted: object) -> bool:
        """Whether it may be written now: not as often as somebody else changes it."""
        return self._right.get(path) != wanted or self._limiter.allow(path, self._clock())

    def _is_put_right(self, path: Path, wanted: object) -> None:
        """It was written. If somebody had changed it, that counts, and is told; what could not be written does not."""
        if self._right.get(path) == wanted:
            self._limiter.made(path, self._clock())
            self._tell(f"mended {path}, which somebody changed or removed")
        self._right[path] = wanted


def remove_conflist(table: CniTable) -> str:
    """For the end: take the network configuration away, if it is ours. The answer says what was done; '' is nothing."""
    path = Path(table.conflist) if table.conflist else None
    try:
        have = content(path) if path is not None else None
        if path is None or have is None:
            return ""
        if not is_ours(have):
            return f"left alone, it has no mark of ours: {path}"
        path.unlink()
    except OSError as error:
        raise _unusable(path, error) from error
    return f"- {path}"


def wanted(table: CniTable) -> Conflist:
    """What is to be there. ConfigInvalid: the template makes none; what is there stays."""
    if not table.template:
        return conflist()
    try:
        _, raw = tomlfile.read(Path(table.template))
    except OSError as error:
        raise ConfigInvalid(f"{table.template}: cannot be read", f"{error.strerror}; see cni.template") from error
    return conflist(raw, table.template)


def missing(table: CniTable, made: Conflist) -> dict[str, Failure]:
    """Executables that the runtime will look for in vain, as far as is known where it does."""
    if not table.executables:
        return {}
    names = sorted({*made.types, LOOPBACK})
    lacking = [one for one in names if _is_missing(Path(table.executables) / one)]
    return {one: _lacking(one, table.executables) for one in lacking}


def content(path: Path) -> bytes | None:
    """What is there, None: nothing. ConfigInvalid: it is no file of its own."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ConfigInvalid(f"{path} is not a regular file", "it was left alone; set cni.conflist to another name")
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            return file.read(SIZE_MAX)
    except FileNotFoundError:
        return None


def _write(path: Path, content: bytes) -> None:
    """In one step, and with a name meanwhile that no runtime takes for a configuration's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(fresh, flags, 0o644), "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        with suppress(OSError):
            fresh.unlink()
        raise


def before(path: Path) -> Iterator[Failure]:
    """Another configuration that the runtime takes instead: it takes the first by name."""
    others = path.parent.iterdir() if path.parent.is_dir() else ()
    first = min((one.name for one in others if one.suffix in _EXTENSIONS), default=path.name)
    if first < path.name:
        remedy = f"take {path.parent / first} away, or set cni.conflist to a name before it"
        why = f"a runtime takes the first by name: {remedy}"
        yield ConfigInvalid(f"{path.name} is not what the runtime uses, {first} is", why)


def _state(path: Path) -> tuple[int, ...]:
    """Which file it is, and when it changed; () where there is none."""
    try:
        found = path.stat(follow_symlinks=False)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode


def _is_missing(executable: Path) -> bool:
    """Whether it is known not to be there. A link may lead to where only the runtime can look: an agent in a container
    sees the directory, and not what is beside it on the node (k3s has such links)."""
    if os.access(executable, os.X_OK):
        return False
    return not executable.is_symlink() or Path(os.path.realpath(executable)).parent.exists()


def _lacking(name: str, directory: str) -> Failure:
    every = "every pod needs it: " if name == LOOPBACK else "it is in the network configuration: "
    return ConfigInvalid(f"{directory} has no executable {name}", f"{every}install the CNI reference plugins there")


def _unspoken(path: str, versions: list[str]) -> Failure:
    what = f"{path} does not speak CNI {', '.join(versions)}"
    cost = "so the network configuration does not offer that" + (", nor STATUS with it" if "1.1.0" in versions else "")
    return ConfigInvalid(what, f"{cost}: install a newer one (of the reference plugins release 1.6.0)")


def _unusable(path: Path | None, error: OSError) -> Failure:
    return ConfigInvalid(f"{path} cannot be written: {error.strerror or error}", "see that its directory is writable")
