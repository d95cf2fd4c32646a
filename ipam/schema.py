"""The store's file: its tables, its version, how it is opened, and what SQLite's errors mean for whom.

One table: a *tenure* is an address in the hands of an attachment from ``since`` to ``until`` (seconds since the
epoch); while ``until`` is NULL it is a live lease. So the leases and the history of every address are the same
rows, and the partial unique indexes make "one address twice" impossible in the file itself.

A file is ours by SQLite's application id, or, where an agent made it that did not set one yet, by its table.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from cni.errors import Failure, StateCorrupt, TryAgain

VERSION: Final = 1
"""``PRAGMA user_version`` of the tables below. It rises only with what an older agent could not go on with: a file of a
higher one is refused. What else comes (columns that may be NULL, tables, settings) leaves it as it is: `ADDED`."""
APPLICATION: Final = int.from_bytes(b"rtbl", "big")
"""``PRAGMA application_id``: what tells our file from another program's. Of its first version, none has it."""

# "place" is the family and the address in hexadecimal, so that a person's ORDER BY sorts by number: as text
# 10.0.0.10 comes before 10.0.0.9. "boot" is the boot during which a tenure began: a lease of an earlier boot
# has no pod behind it any more. "began" and "ended" are the same times as "since" and "until" by that boot's own
# clock (CLOCK_BOOTTIME), which nobody sets: what came first is told by these. "space" is which network namespace it
# was, for a path may name another later. "beside" has the families' digits in which the default route is another's.
# "uid" is which pod it was, where "pod" is "namespace/name", which another may be called next.
TABLES: Final = """
CREATE TABLE tenure (
    id        INTEGER PRIMARY KEY,
    address   TEXT NOT NULL,
    place     TEXT NOT NULL,
    block     TEXT NOT NULL,
    reserve   INTEGER NOT NULL,
    owner     TEXT NOT NULL,
    network   TEXT NOT NULL,
    container TEXT NOT NULL,
    ifname    TEXT NOT NULL,
    netns     TEXT NOT NULL,
    mac       TEXT NOT NULL,
    mtu       INTEGER NOT NULL,
    pod       TEXT NOT NULL,
    boot      TEXT NOT NULL,
    since     REAL NOT NULL,
    until     REAL,
    began     REAL,
    ended     REAL,
    space     TEXT,
    beside    TEXT,
    uid       TEXT
) STRICT;
CREATE INDEX tenure_address ON tenure (address);
CREATE UNIQUE INDEX tenure_one_holder ON tenure (address) WHERE until IS NULL;
CREATE UNIQUE INDEX tenure_one_per_family ON tenure (network, container, ifname, substr(place, 1, 1))
    WHERE until IS NULL;
CREATE VIEW lease AS
    SELECT address, pod, network, container, ifname, netns, mac, block, owner,
           datetime(since, 'unixepoch') AS since
    FROM tenure WHERE until IS NULL ORDER BY place;
CREATE VIEW history AS
    SELECT address, pod, network, container, ifname,
           datetime(since, 'unixepoch') AS since, datetime(until, 'unixepoch') AS until
    FROM tenure ORDER BY place, id DESC;
"""

ADDED: Final = (("began", "REAL"), ("ended", "REAL"), ("space", "TEXT"), ("beside", "TEXT"), ("uid", "TEXT"))
"""Columns that files of earlier agents lack. They may be NULL, so the version stays and such an agent can be gone back
to: it leaves them out, and knows the rest. Where it writes a row anew they say nothing any more: see `unknown`."""
_KNOWN: Final = frozenset(re.findall(r"^    (\w+) +(?:INTEGER|TEXT|REAL)", TABLES, re.MULTILINE))

_MAGIC: Final = b"SQLite format 3\0"
_HEADER: Final = 100
_CACHE: Final = 512
"""KiB of pages that SQLite keeps, of a file that grows to tens of MB: by default 2,000."""


class Damaged(StateCorrupt):
    """The file is not what was written to it: it can be set aside and built anew from what memory or kernel know."""


PATIENCE = 1.0
"""Seconds that a write waits for another program, such as a person's sqlite3, to let go of the file."""


SETTINGS: Final = "CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT"
"""What else must outlive the agent. Older agents do not mind this table."""


def opened(path: Path) -> sqlite3.Connection:
    """The store at *path*, made with mode 0600 in a directory of mode 0700 where missing.

    StateCorrupt: it is no store, is damaged, or was written by a newer version. What is not ours is not changed.
    """
    with translated(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_symlink() or path.exists():
            refuse_others(path)
        # Made by us, for its mode: SQLite would use the umask's, and gives the files beside it the same one.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        path.chmod(0o600)
        database = sqlite3.connect(path, PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            _prepare(database, path)
        except BaseException:
            database.close()
            raise
    return database


def unknown(database: sqlite3.Connection) -> list[str]:
    """The columns of a tenure that a newer agent added. Who writes a row anew makes them NULL: what they said was of
    the row as it was, such as which namespace its pod is in."""
    return sorted({name for _, name, *_ in database.execute("PRAGMA table_info(tenure)")} - _KNOWN)


def bears_our_mark(path: Path) -> bool:
    """Whether the file says in its first bytes that it is ours, however damaged the rest may be."""
    try:
        return _application(path) == APPLICATION
    except OSError:
        return False


def _application(path: Path) -> int | None:
    """The application id in the header of a database (https://www.sqlite.org/fileformat2.html, 1.3); None: it is none.

    Read from the file itself, since to open a database with SQLite is to write beside it.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER)
    return int.from_bytes(header[68:72], "big") if header.startswith(_MAGIC) and len(header) == _HEADER else None


def refuse_others(path: Path) -> None:
    """Raise StateCorrupt unless what is at *path* is empty or ours; it is only read."""
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode):
        raise StateCorrupt(
            f"paths.state is {path}, which is a {named_kind(mode)}",
            "it was left alone; set paths.state to a file of the agent's own, itself and not a link to it",
        )
    if path.stat().st_size == 0:
        return
    application = _application(path)
    if application is None:
        raise _damaged(path, "file is not a database")
    if application == 0:
        where = f"{path.absolute().as_uri()}?mode=ro"
        with translated(path), closing(sqlite3.connect(where, PATIENCE, uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_schema")}
        is_ours = "tenure" in tables or not tables
    else:
        is_ours = application == APPLICATION
    if not is_ours:
        raise StateCorrupt(
            f"paths.state is {path}, which is a database of another program",
            "it was left alone; set paths.state to a file of the agent's own",
        )


def named_kind(mode: int) -> str:
    """What a file with that *mode* is, in a word."""
    kinds = {
        stat.S_IFDIR: "directory",
        stat.S_IFLNK: "symbolic link",
        stat.S_IFSOCK: "socket",
        stat.S_IFIFO: "FIFO",
        stat.S_IFREG: "regular file",
    }
    return kinds.get(stat.S_IFMT(mode), "device")


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise StateCorrupt(
            f"the store {path} has version {version}; this agent knows versions up to {VERSION}",
            "a newer agent wrote it: run that one, or move the file away while no pod runs on this node",
        )
    (damage,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if damage != "ok":
        raise _damaged(path, damage)
    if database.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        # Before the log is used, so that it is in the file itself from the first moment.
        database.execute(f"PRAGMA application_id = {APPLICATION}")
    database.execute("PRAGMA journal_mode = WAL")
    # NORMAL does not wait for the disk at a commit, only now and then when the log is folded into the file. A
    # crash of the agent loses nothing. A crash of the machine may lose the last commits, but leases end with the
    # boot anyway; what it may not do, unlike with OFF, is leave a damaged file that the next boot trips over.
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute(f"PRAGMA cache_size = -{_CACHE}")
    if version == 0:
        database.executescript(f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
    found = {name for _, name, *_ in database.execute("PRAGMA table_info(tenure)")}
    for name, kind in ADDED:
        if name not in found:
            database.execute(f"ALTER TABLE tenure ADD COLUMN {name} {kind}")
    database.execute(SETTINGS)


_PASSING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN})
_PASSING_CODES: Final = ("SQLITE_NOMEM", "SQLITE_IOERR_NOMEM", "SQLITE_INTERRUPT", "SQLITE_PROTOCOL", "SQLITE_SCHEMA")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise what goes wrong with the file at *path* as a Failure that names it and says what to do."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.Error as error:
        raise failure(path, error) from error
    except MemoryError as error:
        raise TryAgain(f"the store {path} cannot be used now: memory is short", "see the machine's log") from error
    except OSError as error:
        if error.errno in _PASSING:
            why = f"{error.strerror} ({errno.errorcode[error.errno]})"
            raise TryAgain(f"the store {path} cannot be opened now", why) from error
        raise StateCorrupt(
            f"the store {path} cannot be opened: {error.strerror}", "check paths.state and its directory"
        ) from error


def failure(path: Path, error: sqlite3.Error) -> Failure:
    """What an error of SQLite means: https://www.sqlite.org/rescode.html, by the name of its result code."""
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith("SQLITE_FULL"):
        return TryAgain(f"the store {path} cannot be written: its file system is full", "free some space there")
    if name.startswith(_PASSING_CODES):
        return TryAgain(f"the store {path} cannot be used now: {error} ({name})", "see the machine's log")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return TryAgain(
            f"the store {path} is locked by another program", "end that program, or its transaction"
        )
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return _damaged(path, str(error))
    return StateCorrupt(
        f"the store {path} cannot be used: {error} ({name or type(error).__name__})",
        "check the disk under it, and that its file system is mounted writable",
    )


def set_aside(path: Path, now: float) -> Path | None:
    """Rename what is at *path* and what SQLite keeps beside it, for a person to look at; None: nothing is there.

    *now* is in seconds since the epoch.
    """
    mark = time.strftime(".damaged-%Y%m%dT%H%M%SZ", time.gmtime(now))
    aside = None
    with translated(path):
        for suffix in ("-shm", "-wal", ""):
            file = Path(f"{path}{suffix}")
            if file.exists():
                aside = file.rename(f"{path}{mark}{suffix}")
    return aside


def _damaged(path: Path, damage: str) -> Damaged:
    return Damaged(
        f"the store {path} is damaged or not a database: {damage}",
        "it is set aside, and built anew from what is known of the pods",
    )
