"""The executable that a runtime calls, in Python: hands the call to the agent and relays its answer.

It parses nothing: the ``CNI_*`` variables and standard input go to the agent's unix socket as one frame (see
``frame.py``), and the agent's exit code and standard output come back. ``relay.c`` is the same program; for the
same call both send the same bytes and print the same text. It decides by itself only what must work with the
agent away: DEL is written to the spool directory for the agent to replay, VERSION has a static answer, ADD, CHECK and
GC wait for the agent and then fail with 11 (try again). So does STATUS, with 50, and it asks
again if the agent ends before it answered: a runtime makes the node NotReady for any error of it, its pods are taken
from their Services at once and evicted 300 s later, so an agent that is started anew, or rolled, must not cause one.
It does not wait longer than an ADD does unasked, whatever it is told: a runtime that waits for it
answers its kubelet nothing meanwhile, which after 30 s takes the runtime itself for dead.

Run by ``python3 -I -S`` and installed as one file, it imports nothing but ``posix``, ``time`` (which the interpreter
has loaded by itself) and ``_socket``: ``site``, ``os`` and ``socket`` would double the start-up that every pod pays
several times.

Environment: ROUTABLE_SOCKET, ROUTABLE_SPOOL (absolute paths), ROUTABLE_WAIT (seconds to wait for the agent's
socket; STATUS waits for 10 at most), ROUTABLE_TIMEOUT (seconds from the connection to the whole answer; for STATUS
8 at most). Its own errors carry cniVersion 1.1.0: it does not read the configuration's, the error's form is the
same in every version, and code 50 exists since 1.1.0 only.
"""

import _socket
import posix
import time

ENV_MAX = 64 * 1024
STDIN_MAX = 1024 * 1024
STDOUT_MAX = 4 * 1024 * 1024
SOCKET_PATH_MAX = 107  # sizeof sun_path less the terminating NUL, unix(7)
SPOOL_PATH_MAX = 4000  # leaves room for the file's name below PATH_MAX
RETRY_MS = 50
VERSION_MS = 1000  # VERSION must not depend on the agent, hence not hang with it either
STATUS_WAIT_MS = 10_000  # an ADD would be served, and a DaemonSet that replaces a pod takes some seconds
STATUS_MS = 8000  # with the wait, well below the 30 s after which kubelet takes the runtime for dead
SHOWN = 200

WAITING = (b"ADD", b"CHECK", b"GC")
VERSION_ANSWER = b'{"cniVersion": "%b", "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]}\n'
VERSION_KEY = b'"cniVersion"'
ENOENT, EAGAIN, ECONNREFUSED = 2, 11, 111  # the agent is starting, or has a full backlog
REMEDY = "see that routable-agent runs on this node and what its log says"


class Refusal(Exception):
    """The executable's own answer: a CNI error of *code*; *details* says why and what to do."""

    def __init__(self, code: int, message: str, details: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


class NoAnswer(Exception):
    """The agent gave no whole answer; the text says what happened instead."""


class HungUp(NoAnswer):
    """The agent closed the connection first: it has ended, perhaps to start anew."""


def main() -> None:
    """Serve the call that this process's environment and standard input are; never returns."""
    try:
        try:
            keep_standard_descriptors()
            code, output = served(posix.environ)
        except Refusal as error:
            code, output = 1, document(error)
        if not wrote(output):
            code = code or 1
    except KeyboardInterrupt:
        code = 130
    posix._exit(code)


def served(environ: dict[bytes, bytes]) -> tuple[int, bytes]:
    """Return exit code and standard output of the call."""
    where = path(environ, "ROUTABLE_SOCKET", b"/run/routable/agent.sock", SOCKET_PATH_MAX)
    spool = path(environ, "ROUTABLE_SPOOL", b"/var/lib/routable/spool", SPOOL_PATH_MAX)
    wait = milliseconds(environ, "ROUTABLE_WAIT", 10_000, 0)
    timeout = milliseconds(environ, "ROUTABLE_TIMEOUT", 60_000, 1)
    command = environ.get(b"CNI_COMMAND")
    env = variables(environ)
    stdin = standard_input()
    frame = b"CNI1" + len(env).to_bytes(4, "big") + len(stdin).to_bytes(4, "big") + env + stdin
    if command == b"STATUS":
        wait, timeout = min(wait, STATUS_WAIT_MS), min(timeout, STATUS_MS)
    elif command == b"VERSION":
        wait, timeout = 0, min(timeout, VERSION_MS)
    elif command not in WAITING:
        wait = 0
    try:
        return answered(where, frame, wait, timeout, is_asked_again=command == b"STATUS")
    except NoAnswer as error:
        return without_agent(command, where, f"{error}", spool, frame, stdin)


def answered(where: bytes, frame: bytes, wait: int, timeout: int, is_asked_again: bool) -> tuple[int, bytes]:
    """Return the agent's exit code and output; *wait* and *timeout* are milliseconds.

    What changes nothing *is_asked_again* if the agent ends before it has answered, while an agent is waited for.
    """
    deadline = now() + wait
    while True:
        stream = connected(where, wait, deadline)
        try:
            return exchanged(stream, frame, timeout)
        except HungUp:
            if not is_asked_again or now() >= deadline:
                raise
        pause(RETRY_MS)


def without_agent(
    command: bytes | None, where: bytes, why: str, spool: bytes, frame: bytes, stdin: bytes
) -> tuple[int, bytes]:
    """Return the answer of a call that the agent did not answer, or raise the error that it ends in."""
    if command == b"VERSION":
        return 0, VERSION_ANSWER % version(stdin)
    if command == b"DEL":
        try:
            spooled(spool, frame)
        except OSError as error:
            raise Refusal(
                11,
                f"DEL could be neither served nor kept: writing to {shown(spool)} failed: {reason(error)}",
                f"no answer from routable-agent on {shown(where)}: {why}; {REMEDY}, or make the directory"
                " (ROUTABLE_SPOOL) writable",
            ) from error
        return 0, b""
    if command == b"STATUS":
        raise Refusal(50, f"no pod can be added: no answer from routable-agent on {shown(where)}", f"{why}; {REMEDY}")
    if command in WAITING:
        name = command.decode()
        raise Refusal(11, f"{name} was not served: no answer from routable-agent on {shown(where)}", f"{why}; {REMEDY}")
    given = "not set" if command is None else f'"{shown(command)}"'
    raise Refusal(
        4,
        f"CNI_COMMAND is {given}",
        "expected ADD, DEL, CHECK, GC, STATUS or VERSION; this program is called by a container runtime",
    )


def version(stdin: bytes) -> bytes:
    """Return the cniVersion of the input, which VERSION answers with, by its text: nothing here reads JSON.

    The agent does the same (``call.asked_version``).
    """
    _, _, rest = stdin.partition(VERSION_KEY)
    colon, _, rest = rest.partition(b'"')
    given, quote, _ = rest[:17].partition(b'"')
    is_one = quote and given and colon.strip(b" \t\r\n") == b":" and not given.strip(b"0123456789.")
    return given if is_one else b"1.1.0"


def path(environ: dict[bytes, bytes], name: str, default: bytes, longest: int) -> bytes:
    """Return the absolute path that the variable *name* gives."""
    value = environ.get(name.encode(), default)
    if value[:1] != b"/" or len(value) > longest:
        raise Refusal(4, f'{name} is "{shown(value)}"', f"expected an absolute path of at most {longest} bytes")
    return value


def milliseconds(environ: dict[bytes, bytes], name: str, default: int, least: int) -> int:
    """Return the milliseconds that the variable *name* gives in seconds."""
    value = environ.get(name.encode())
    if value is None:
        return default
    whole, point, part = value.partition(b".")
    if whole.isdigit() and len(whole) <= 4 and (part.isdigit() and len(part) <= 3 if point else True):
        given = int(whole) * 1000 + int(part.ljust(3, b"0"))
        if least <= given <= 3_600_000:
            return given
    raise Refusal(
        4,
        f'{name} is "{shown(value)}"',
        f"expected seconds from {least / 1000:g} to 3600 with at most three decimals, such as 10 or 0.5",
    )


def variables(environ: dict[bytes, bytes]) -> bytes:
    """Return every CNI_* variable as KEY=VALUE and NUL, in the environment's order."""
    entries = [name + b"=" + value + b"\0" for name, value in environ.items() if name[:4] == b"CNI_"]
    env = b"".join(entries)
    if len(env) > ENV_MAX:
        largest = max(entries, key=len)
        raise Refusal(
            4,
            f"the CNI_* variables have {len(env)} bytes, {len(largest)} of them in {shown(largest.split(b'=')[0])}",
            f"at most {ENV_MAX} bytes can be forwarded to the agent",
        )
    return env


def standard_input() -> bytes:
    """Return standard input to its end."""
    data = bytearray()
    while len(data) <= STDIN_MAX:
        try:
            piece = posix.read(0, 65536)
        except BlockingIOError:  # a caller's pipe may have been left non-blocking
            posix.set_blocking(0, True)
            continue
        except OSError as error:
            raise Refusal(
                5, f"standard input cannot be read: {reason(error)}", "it must hold the network configuration"
            ) from error
        if not piece:
            return bytes(data)
        data += piece
    raise Refusal(
        6,
        f"standard input has more than {STDIN_MAX} bytes",
        "it must hold the network configuration, which is JSON of a few thousand bytes",
    )


def connected(where: bytes, patience: int, deadline: int) -> _socket.socket:
    """Return a connection to the agent, trying again until *deadline*, in all *patience* ms, while it is starting."""
    while True:
        try:
            return dialled(where)
        except OSError as error:
            left = deadline - now()
            if error.errno not in (ENOENT, EAGAIN, ECONNREFUSED):
                raise NoAnswer(f"connecting failed: {reason(error)}") from error
            if left <= 0:
                waited = f" for {patience / 1000:g} s (ROUTABLE_WAIT)" if patience else ""
                raise NoAnswer(f"connecting failed{waited}: {reason(error)}") from error
        pause(min(RETRY_MS, left))


def dialled(where: bytes) -> _socket.socket:
    """Return a connection to the agent, or raise OSError without waiting."""
    stream = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        stream.settimeout(1)  # non-blocking beneath: a full backlog is EAGAIN instead of a hang
        stream.connect(where)
    except OSError:
        stream.close()
        raise
    return stream


def exchanged(stream: _socket.socket, frame: bytes, timeout: int) -> tuple[int, bytes]:
    """Send *frame* and return the agent's exit code and output, all within *timeout* milliseconds."""
    deadline = now() + timeout
    answer = bytearray()
    try:
        try:
            stream.settimeout(timeout / 1000)
            stream.sendall(frame)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the agent may have refused the request before its end; then its answer can still be read
        whole = 5
        while len(answer) < whole:
            left = deadline - now()
            if left <= 0:
                raise TimeoutError
            stream.settimeout(left / 1000)
            piece = stream.recv(min(whole - len(answer), 65536))
            if not piece:
                raise ConnectionResetError
            answer += piece
            if len(answer) == 5:
                whole += length(answer)
    except TimeoutError as error:
        raise NoAnswer(
            f"only {len(answer)} bytes of an answer within {timeout / 1000:g} s (ROUTABLE_TIMEOUT)"
        ) from error
    except ConnectionResetError as error:
        raise HungUp(f"it closed the connection after {len(answer)} bytes of an answer") from error
    except OSError as error:
        raise NoAnswer(f"the connection failed: {reason(error)}") from error
    return answer[0], bytes(answer[5:])


def length(header: bytearray) -> int:
    """Return how many bytes of output an answer's header announces."""
    announced = int.from_bytes(header[1:5], "big")
    if announced > STDOUT_MAX:
        raise NoAnswer(f"its answer announces {announced} bytes, and the limit is {STDOUT_MAX}")
    return announced


def spooled(directory: bytes, frame: bytes) -> None:
    """Write *frame* as a new file del-<wall>-<pid>.<up>.<boot> in *directory*, or raise OSError.

    *wall* is nanoseconds since the epoch; *up* those of CLOCK_BOOTTIME during the *boot* of that id (dashes left out):
    the agent orders by these, since the wall clock may be set. The file appears under its name whole or not at all.
    The directory is not synced: what a crash of the machine could lose is a DEL of a pod that the crash has ended too.
    """
    posix.umask(0o077)
    folder = opened(directory)
    up = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    name = b"del-%d-%d.%d.%b" % (time.time_ns(), posix.getpid(), up, boot_id())
    temporary = b"." + name
    file = posix.open(temporary, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL, 0o600, dir_fd=folder)
    try:
        rest = memoryview(frame)
        while rest:
            rest = rest[posix.write(file, rest) :]
        posix.fsync(file)
        posix.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        posix.unlink(temporary, dir_fd=folder)
        raise


def boot_id() -> bytes:
    """Return the boot's id without its dashes, or nothing where /proc is not there."""
    try:
        file = posix.open("/proc/sys/kernel/random/boot_id", posix.O_RDONLY)
    except OSError:
        return b""
    text = posix.read(file, 64)
    posix.close(file)
    return text.strip().replace(b"-", b"")


def opened(directory: bytes) -> int:
    """Return a descriptor of *directory*, which is made (0700, parents too) if it is missing."""
    try:
        return posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY)
    except FileNotFoundError:
        pass
    for end in range(1, len(directory) + 1):
        if directory[end : end + 1] in (b"/", b""):
            try:  # noqa: SIM105 - contextlib would be one more import
                posix.mkdir(directory[:end], 0o700)
            except FileExistsError:
                pass
    return posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY)


def keep_standard_descriptors() -> None:
    """Occupy closed standard descriptors, so that output never lands in the agent's socket or a spool file."""
    for descriptor in (0, 1, 2):
        try:
            posix.fstat(descriptor)
        except OSError:
            try:
                posix.open("/dev/null", posix.O_RDONLY)  # read-only: writing an answer to it fails, as it must
            except OSError as error:
                raise Refusal(
                    5, f"/dev/null cannot be opened: {reason(error)}", "a standard descriptor is closed"
                ) from error


def wrote(output: bytes) -> bool:
    """Write *output* to standard output; False if it could not be written whole."""
    rest = memoryview(output)
    while rest:
        try:
            rest = rest[posix.write(1, rest) :]
        except BlockingIOError:
            posix.set_blocking(1, True)
        except OSError:
            return False
    return True


def now() -> int:
    """Milliseconds of a monotonic clock."""
    return time.monotonic_ns() // 1_000_000


def pause(duration: int) -> None:
    """Sleep for *duration* milliseconds, on a socket that nobody can send to."""
    nothing = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    nothing.settimeout(duration / 1000)
    try:  # noqa: SIM105 - contextlib would be one more import
        nothing.recv(1)
    except TimeoutError:
        pass
    nothing.close()


def document(error: Refusal) -> bytes:
    """Return the CNI error object of *error*."""
    message, details = quoted(error.message), quoted(error.details)
    text = f'{{"cniVersion": "1.1.0", "code": {error.code}, "msg": {message}, "details": {details}}}\n'
    return text.encode()


def quoted(text: str) -> str:
    """Return ASCII *text* as a JSON string."""
    pieces = []
    for sign in text:
        if sign in '"\\':
            pieces.append("\\" + sign)
        elif " " <= sign <= "~":
            pieces.append(sign)
        else:
            pieces.append(f"\\u{ord(sign):04x}")
    return '"' + "".join(pieces) + '"'


def shown(value: bytes) -> str:
    """Return *value* as ASCII for a message, other bytes as \\xNN, cut to a readable length."""
    return value[:SHOWN].decode("ascii", "backslashreplace") + ("..." if len(value) > SHOWN else "")


def reason(error: OSError) -> str:
    """Return the system's own words for *error*."""
    return f"{error.strerror} (errno {error.errno})"


if __name__ == "__main__":
    main()
