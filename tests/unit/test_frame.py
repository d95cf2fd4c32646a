"""The protocol frame: every request survives it, and whatever is not one is refused with its reason."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.errors import Unreadable
from cni.frame import (
    ENV_MAX,
    MAGIC,
    STDIN_MAX,
    STDOUT_MAX,
    FrameReader,
    Request,
    Response,
    decode,
    decode_response,
    encode,
    encode_response,
    read_request,
)

HEADER = 12
ADD = Request({"CNI_COMMAND": b"ADD", "CNI_IFNAME": b"eth0"}, b'{"name":"pods"}')

_bytes_without_nul = st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"\x01"))
_names = _bytes_without_nul.map(lambda raw: "CNI_" + raw.replace(b"=", b"-").decode("utf-8", "surrogateescape"))
requests = st.builds(Request, st.dictionaries(_names, _bytes_without_nul, max_size=6), st.binary(max_size=300))
responses = st.builds(Response, st.integers(0, 255), st.binary(max_size=300))


def header(env: int, stdin: int, magic: bytes = MAGIC) -> bytes:
    """A request's header as the protocol's text describes it."""
    return struct.pack(">4sII", magic, env, stdin)


@given(requests)
def test_decode_undoes_encode(request: Request) -> None:
    """Any variables and any standard input come out of the frame as they went in."""
    assert decode(encode(request)) == request


@given(responses)
def test_decode_response_undoes_encode_response(response: Response) -> None:
    """Any exit code and any output come out of the response frame as they went in."""
    assert decode_response(encode_response(response)) == response


@given(requests, st.data())
def test_pieces_of_any_size_are_assembled(request: Request, data: st.DataObject) -> None:
    """However the stream is cut, the reader returns the request exactly at the last piece."""
    frame = encode(request)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(frame) - 1), max_size=8)))
    pieces = [frame[a:b] for a, b in zip([0, *cuts], [*cuts, len(frame)], strict=True)]
    reader = FrameReader()
    assert [reader.feed(piece) for piece in pieces] == [None] * len(cuts) + [request]


@given(requests, st.data())
def test_every_cut_off_frame_is_refused_with_the_count(request: Request, data: st.DataObject) -> None:
    """A frame that ends early is refused and the message says after how many bytes."""
    frame = encode(request)
    kept = data.draw(st.integers(1, len(frame) - 1))
    with pytest.raises(Unreadable, match=f"cut off after {kept} ?(of {len(frame)} )?bytes"):
        decode(frame[:kept])


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_a_request_or_unreadable(raw: bytes) -> None:
    """Nothing but Unreadable comes out of hostile bytes, and what is accepted is a canonical frame."""
    for frame in (raw, header(len(raw), 0) + raw):
        try:
            request = decode(frame)
        except Unreadable as error:
            assert error.code == 5 and error.message
        else:
            assert decode(encode(request)) == request


def test_the_layout_is_the_documented_one() -> None:
    """The bytes on the wire are magic, two big-endian lengths, variables ended by NUL, standard input."""
    assert encode(ADD) == b"CNI1\0\0\0\x20\0\0\0\x0fCNI_COMMAND=ADD\0CNI_IFNAME=eth0\0" + ADD.stdin
    assert encode_response(Response(1, b"{}")) == b"\x01\0\0\0\x02{}"


def test_an_empty_frame_is_told_from_a_cut_off_one() -> None:
    """A peer that connects and leaves without a byte is reported as such."""
    with pytest.raises(Unreadable, match="the request frame is empty"):
        decode(b"")


@pytest.mark.parametrize(
    ("env", "stdin", "reason"),
    [
        (ENV_MAX + 1, 0, f"env of {ENV_MAX + 1} bytes exceeds the limit of {ENV_MAX}"),
        (0, STDIN_MAX + 1, f"stdin of {STDIN_MAX + 1} bytes exceeds the limit of {STDIN_MAX}"),
        (0xFFFFFFFF, 0xFFFFFFFF, "env of 4294967295 bytes exceeds"),
    ],
)
def test_an_oversized_announcement_is_refused_before_its_bytes_come(env: int, stdin: int, reason: str) -> None:
    """The header alone is enough to refuse, so no memory is spent on hostile lengths."""
    with pytest.raises(Unreadable, match=reason):
        FrameReader().feed(header(env, stdin))


def test_a_foreign_protocol_is_refused_at_its_first_byte() -> None:
    """A peer that speaks something else is refused without waiting for a whole header."""
    with pytest.raises(Unreadable, match="begins with b'GET ' instead of b'CNI1'"):
        FrameReader().feed(b"GET /")
    with pytest.raises(Unreadable, match="begins with b'G'"):
        FrameReader().feed(b"G")


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        (b"CNI_COMMAND=ADD", "does not end with NUL"),
        (b"CNI_COMMAND\0", "holds b'CNI_COMMAND'"),
        (b"PATH=/bin\0", "holds b'PATH=/bin'"),
        (b"\0", "holds b''"),
    ],
)
def test_malformed_variables_are_refused(env: bytes, reason: str) -> None:
    """An entry that is no CNI_NAME=value is refused and shown."""
    with pytest.raises(Unreadable, match=reason):
        decode(header(len(env), 0) + env)


def test_the_first_of_two_equal_names_counts() -> None:
    """A name given twice has its first value, as getenv has it."""
    env = b"CNI_COMMAND=DEL\0CNI_COMMAND=ADD\0"
    assert decode(header(len(env), 0) + env).env == {"CNI_COMMAND": b"DEL"}


def test_bytes_after_the_request_are_refused() -> None:
    """A frame that goes on after its end is refused, whether at once or in a later piece."""
    with pytest.raises(Unreadable, match="goes on after its end"):
        decode(encode(ADD) + b"x")


@pytest.mark.parametrize(
    "request_",
    [
        Request({"PATH": b"/bin"}, b""),
        Request({"CNI_A=B": b""}, b""),
        Request({"CNI_A": b"a\0b"}, b""),
        Request({"CNI_ARGS": b"x" * ENV_MAX}, b""),
        Request({}, b"x" * (STDIN_MAX + 1)),
    ],
)
def test_what_could_not_be_read_back_is_not_encoded(request_: Request) -> None:
    """Encoding refuses what decoding would refuse."""
    with pytest.raises(Unreadable):
        encode(request_)


def test_the_limits_themselves_are_allowed() -> None:
    """A request and a response exactly at their limits pass."""
    name = "CNI_ARGS"
    largest = Request({name: b"x" * (ENV_MAX - len(name) - 2)}, b"y" * STDIN_MAX)
    assert decode(encode(largest)) == largest
    full = Response(0, b"z" * STDOUT_MAX)
    assert decode_response(encode_response(full)) == full


@pytest.mark.parametrize("code", [-1, 256])
def test_an_exit_code_that_no_process_can_have_is_a_defect(code: int) -> None:
    """A code outside 0 to 255 cannot be sent."""
    with pytest.raises(ValueError, match="0 to 255"):
        encode_response(Response(code, b""))


def test_an_output_above_the_limit_is_a_defect() -> None:
    """Output that the executable would refuse cannot be sent."""
    with pytest.raises(ValueError, match=f"at most {STDOUT_MAX}"):
        encode_response(Response(0, b"x" * (STDOUT_MAX + 1)))


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "cut off after 0 bytes"),
        (b"\0\0\0", "cut off after 3 bytes"),
        (b"\0\0\0\0\x05{}", "has 7 bytes, but its header announces 10"),
        (b"\0\0\0\0\x01{}", "has 7 bytes, but its header announces 6"),
        (b"\0\xff\xff\xff\xff", "stdout of 4294967295 bytes exceeds"),
    ],
)
def test_a_malformed_response_is_refused(frame: bytes, reason: str) -> None:
    """A response that is cut off, overlong or hostile is refused with its reason."""
    with pytest.raises(Unreadable, match=reason):
        decode_response(frame)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connected pair of stream sockets: the executable's end and the agent's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_request_is_read_from_a_socket(pair: tuple[socket.socket, socket.socket]) -> None:
    """The request is returned when complete, while the peer's end stays open for the response."""
    executable, agent = pair
    executable.sendall(encode(ADD))
    assert read_request(agent, 10.0, lambda: 0.0) == ADD


def test_a_peer_that_dies_is_reported(pair: tuple[socket.socket, socket.socket]) -> None:
    """End of stream within the request is Unreadable, with the count."""
    executable, agent = pair
    executable.sendall(encode(ADD)[:20])
    executable.close()
    with pytest.raises(Unreadable, match="cut off after 20 of"):
        read_request(agent, 10.0, lambda: 0.0)


def test_a_slow_peer_meets_the_deadline(pair: tuple[socket.socket, socket.socket]) -> None:
    """The deadline counts for the whole request, however steadily single bytes arrive."""
    executable, agent = pair
    executable.sendall(encode(ADD)[:20])
    ticks = iter([0.0, 11.0])
    with pytest.raises(Unreadable, match="in the time allowed") as caught:
        read_request(agent, 10.0, lambda: next(ticks))
    assert "cut off after 20 of" in caught.value.details


def test_a_silent_peer_meets_the_deadline(pair: tuple[socket.socket, socket.socket]) -> None:
    """The socket's own timeout is set from what is left of the deadline."""
    _, agent = pair
    with pytest.raises(Unreadable, match="in the time allowed"):
        read_request(agent, 0.01, lambda: 0.0)


class Broken:
    """A stream whose connection has failed."""

    def settimeout(self, value: float | None, /) -> None:
        """Accept any timeout."""

    def recv(self, bufsize: int, /) -> bytes:
        """Fail as a reset connection does."""
        raise ConnectionResetError(104, "Connection reset by peer")


def test_a_failed_connection_is_unreadable() -> None:
    """The system's error is translated, and its text kept."""
    with pytest.raises(Unreadable, match="reset by peer"):
        read_request(Broken(), 10.0, lambda: 0.0)
