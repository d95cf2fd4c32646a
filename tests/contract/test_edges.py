"""Where the operating system's errors come in: whatever it refuses, at whichever call, is a `Failure` that says so, and
the next look, when the trouble is over, sees and does all."""

from __future__ import annotations

import errno
import gc
import os
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from netaddr import IPAddress

from cni.errors import ConfigInvalid, EnvironmentInvalid, Failure, KernelRefused, TryAgain
from dataplane import ethtool, host, linkmsg, preflight, probe, rtnl, uplink, ways
from dataplane.diff import diff, render
from dataplane.events import Events
from dataplane.forward import Forward
from dataplane.hooks import Hooks
from dataplane.items import HOST, Item, NftTable, Plan, Sysctl, plan
from dataplane.kernel import Kernel
from dataplane.links import VXLAN_LINK, Fdb, Vxlan
from dataplane.netlink import Nack, Socket, T
from dataplane.netns import Netns
from dataplane.nft import Nft
from dataplane.observe import MOST, Device, OnHost, Pod, PodLink, Scope, Settings
from dataplane.program import REST, Done, call
from dataplane.refusal import unable
from dataplane.settings import PROC_SYS
from demo.place import Place
from demo.place import run as command
from tests.contract.test_dataplane import GATEWAYS, IPV6, LINK, NODE, OVERLAY, pod
from tests.fakes.descriptors import descriptors

MANY = 400
TABLE = NftTable("inet", "routable-edges", "chain one { }")
ERRORS = (
    *(errno.ENOBUFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EINTR, errno.EAGAIN, errno.EBUSY),
    *(errno.EPERM, errno.EACCES, errno.EIO, errno.EINVAL, errno.ENOSPC, errno.EOPNOTSUPP, errno.ENETDOWN),
)
SCOPES: list[Scope] = [OnHost(), Settings(("net/ipv4/ip_forward",)), PodLink(LINK), Device("up0", ("192.0.2.1/24",))]


class Faulty(Socket):
    """A socket whose n-th use is refused; *left* counts down for all of them."""

    def __init__(self, left: list[int], number: int) -> None:
        self._left, self._number = left, number
        self._count()
        super().__init__()

    def _count(self) -> None:
        self._left[0] -= 1
        if self._left[0] == 0:
            raise OSError(self._number, os.strerror(self._number))

    def transact(self, messages: Sequence[rtnl.Message]) -> list[Nack]:
        """See `Socket.transact`."""
        self._count()
        return super().transact(messages)

    def get(self, kind: int, bodies: Sequence[bytes], decode: Callable[[bytes], T | None]) -> list[T | None]:
        """See `Socket.get`."""
        self._count()
        return super().get(kind, bodies, decode)

    def dump(self, kind: int, body: bytes, decode: Callable[[bytes], T | None], most: int = 0) -> list[T]:
        """See `Socket.dump`."""
        self._count()
        return super().dump(kind, body, decode, most)

    def index(self, link: str) -> int:
        """See `Socket.index`."""
        self._count()
        return super().index(link)

    def fileno(self) -> int:
        """See `Socket.fileno`."""
        self._count()
        return super().fileno()


class Meddled(Socket):
    """A socket before whose n-th dump something happens."""

    def __init__(self, left: list[int], happens: Callable[[], object]) -> None:
        super().__init__()
        self._left, self._happens = left, happens

    def dump(self, kind: int, body: bytes, decode: Callable[[bytes], T | None], most: int = 0) -> list[T]:
        """See `Socket.dump`."""
        self._left[0] -= 1
        if self._left[0] == 0:
            self._happens()
        return super().dump(kind, body, decode, most)


@pytest.fixture
def own() -> Iterator[Netns]:
    """The namespace that the tests run in, with an uplink."""
    command("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    for words in ("link set up0 up", "link set up1 up", "address add 192.0.2.1/24 dev up0"):
        command("ip", *words.split())
    command("ip", "address", "add", "2001:db8::1/64", "dev", "up0", "nodad")
    with closing(Netns()) as own:
        yield own
        with closing(Kernel(own, Nft())) as kernel:
            kernel.apply(diff(kernel.observe([OnHost(), Settings((), ((TABLE.family, TABLE.name),))]), {}))
    command("ip", "link", "del", "up0")


@pytest.fixture
def netns() -> Iterator[str]:
    """A pod's namespace."""
    place = Place.make(f"edges{os.getpid()}")
    yield str(place.path)
    if place.path.exists():
        place.remove()


def same(have: Plan, want: Plan) -> None:
    """Fail with the difference in words."""
    assert render(diff(have, want)) == ""


def vanish(link: str) -> Callable[[], object]:
    """Somebody removes a link."""
    return partial(command, "ip", "link", "del", link)


def _open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# --- shortages ----------------------------------------------------------------------------------------------------


def _observed(own: Netns, netns: str) -> None:
    with closing(Kernel(own, Nft())) as kernel:
        kernel.observe([*SCOPES, Settings((), ((TABLE.family, TABLE.name),)), Pod(netns, "eth0", (IPV6,), GATEWAYS)])


def _applied(own: Netns, netns: str) -> None:
    with closing(Kernel(own, Nft())) as kernel:
        tables = Settings((), ((TABLE.family, TABLE.name),))
        have = kernel.observe([OnHost(), tables, Pod(netns, "eth0", (IPV6,), GATEWAYS)])
        kernel.apply(diff(have, {**pod(netns), **OVERLAY, TABLE.key: TABLE}))


def _identified(own: Netns, netns: str) -> None:
    with closing(Kernel(own, Nft())) as kernel:
        assert kernel.identity(netns) is not None


def _found(own: Netns, netns: str) -> None:
    assert uplink.find("", [IPAddress("192.0.2.1")]).name == "up0"
    assert "up0" in uplink.by_mac().values()


def _judged(own: Netns, netns: str) -> None:
    assert preflight.missing({**NODE, TABLE.key: TABLE}, Nft()) == []


def _subscribed(own: Netns, netns: str) -> None:
    Events().close()


def _looked_around(own: Netns, netns: str) -> None:
    host.look(Forward(), PROC_SYS, "up0", ["192.0.2.1"])


def _asked(own: Netns, netns: str) -> None:
    (way,) = ways.ways([ways.Packet("192.0.2.9")])
    ways.explain(ways.Packet("192.0.2.9"), way)


def _listed(own: Netns, netns: str) -> None:
    Hooks().look([], is_asymmetric=True)


@pytest.mark.parametrize(
    "use",
    [_observed, _applied, _identified, _found, _judged, _subscribed, _looked_around, _asked, _listed],
)
def test_no_descriptor_is_left(own: Netns, netns: str, use: Callable[[Netns, str], None]) -> None:
    """However few there are: it is said, as something that passes, no descriptor is leaked, and with enough all is
    done."""
    refused = 0
    gc.collect()  # what other tests left open would be closed at any moment
    for more in range(MANY):
        before = _open()
        try:
            with descriptors(more):
                use(own, netns)
        except TryAgain as failure:
            assert "EMFILE" in failure.details
            assert _open() == before
            refused += 1
            continue
        assert refused > 0, "it opened nothing: this proves nothing"
        return
    raise AssertionError("never enough")


def test_a_probe_without_a_descriptor_says_so() -> None:
    """It is no answer, and no bug."""
    with descriptors(0):
        why = probe.silence("127.0.0.1", "127.0.0.1", [], 0.1)
    assert "Too many open files" in why


@pytest.mark.parametrize("number", ERRORS, ids=[errno.errorcode[one] for one in ERRORS])
def test_any_error_at_any_use_of_a_socket(own: Netns, netns: str, number: int) -> None:
    """Looking and changing: it is a failure that names the error, it was met, and afterwards all can be made good."""
    want = {**pod(netns), **OVERLAY}
    scopes: list[Scope] = [OnHost(), Pod(netns, "eth0", (IPV6,), GATEWAYS)]
    for at in range(1, MANY):
        left = [at]
        with closing(Kernel(own, Nft(), partial(Faulty, left, number))) as kernel:
            try:
                for plan_ in (want, {}):
                    kernel.apply(diff(kernel.observe(scopes), plan_))
            except (KernelRefused, TryAgain) as failure:
                assert left[0] <= 0
                assert errno.errorcode[number] in str(failure)
                assert isinstance(failure, TryAgain) == (number in ERRORS[:7])
                left[0] = -1
                kernel.apply(diff(kernel.observe(scopes), want))
                same(kernel.observe(scopes), want)
                kernel.apply(diff(kernel.observe(scopes), {}))
                continue
        assert left[0] > 0, "the error was swallowed"
        assert at > 10, "this proves little"
        return
    raise AssertionError("never through")


def test_an_answer_that_cannot_be_read(own: Netns) -> None:
    """It is told as that."""

    class Mad(Socket):
        def dump(self, kind: int, body: bytes, decode: Callable[[bytes], T | None], most: int = 0) -> list[T]:
            return super().dump(kind, body, lambda content: decode(content[:5]))

    with (
        closing(Kernel(own, Nft(), Mad)) as kernel,
        pytest.raises(KernelRefused, match="an answer of the kernel cannot be read"),
    ):
        kernel.observe([OnHost()])


def test_a_dump_that_never_gets_through(own: Netns) -> None:
    """Changes got in the way each time: that passes."""

    class Restless(Socket):
        def _dump(self, kind: int, body: bytes) -> Iterator[tuple[int, bytes]]:
            yield 0x10, b""  # NLM_F_DUMP_INTR

    with closing(Kernel(own, Nft(), Restless)) as kernel, pytest.raises(TryAgain, match="interrupted by changes"):
        kernel.observe([OnHost()])


# --- what goes while one looks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_pods_link_that_vanishes_during_a_look(own: Netns, netns: str, number: int) -> None:
    """From either side: neither it nor what hung on it is there, which is no error."""
    for scope in (PodLink(LINK), Pod(netns, "eth0", (IPV6,), GATEWAYS)):
        with closing(Kernel(own, Nft())) as kernel:
            kernel.apply(diff({}, pod(netns)))
        left = [number]
        with closing(Kernel(own, Nft(), partial(Meddled, left, vanish(LINK)))) as kernel:
            have = kernel.observe([scope])
            if left[0] > 0:
                vanish(LINK)()
                continue
            # What was seen before it went may be told, but nothing that is not so of one moment or the other.
            same({key: item for key, item in have.items() if pod(netns).get(key) != item}, {})
            assert kernel.observe([scope]) == {}


def test_a_pods_link_that_vanishes_before_its_routes_are_looked_at(own: Netns, netns: str) -> None:
    """The kernel then says that there is no such device: the whole link is gone."""
    with closing(Kernel(own, Nft())) as kernel:
        kernel.apply(diff({}, pod(netns)))
    left = [2]
    with closing(Kernel(own, Nft(), partial(Meddled, left, vanish(LINK)))) as kernel:
        assert kernel.observe([PodLink(LINK)]) == {}
    assert left[0] <= 0


@pytest.mark.parametrize("number", [2, 3])
def test_the_overlays_device_vanishes_during_a_look(own: Netns, number: int) -> None:
    """It is not there, or what was seen of it before is told; the rest of the node is there."""
    with closing(Kernel(own, Nft())) as kernel:
        kernel.apply(diff({}, {**NODE, **{key: item for key, item in OVERLAY.items() if _is_of_overlay(item)}}))
    left = [number]
    with closing(Kernel(own, Nft(), partial(Meddled, left, vanish(VXLAN_LINK)))) as kernel:
        have = kernel.observe([OnHost()])
        same({key: item for key, item in have.items() if number == 2 or not _is_of_overlay(item)}, NODE)
    assert left[0] <= 0


def _is_of_overlay(item: Item) -> bool:
    return isinstance(item, Vxlan | Fdb) or (item.link == VXLAN_LINK and item.key.kind == "addr")


def test_the_offload_of_a_device_just_gone(own: Netns) -> None:
    """The ioctl says that there is no such device, from the socket's namespace."""
    with closing(Socket()) as sock:
        with pytest.raises(OSError, match="No such device") as caught:
            ethtool.is_tx_checksum_on(sock, VXLAN_LINK)
        assert caught.value.errno == errno.ENODEV
        with pytest.raises(OSError, match="No such device"):
            sock.index(VXLAN_LINK)
        assert sock.index("up0") == socket.if_nametoindex("up0")


def test_an_interface_of_the_machine_vanishes_during_a_look(own: Netns) -> None:
    """A network card may be taken out at any time."""
    command("ip", "link", "add", "card0", "type", "bridge")
    left = [1]
    with closing(Kernel(own, Nft(), partial(Meddled, left, vanish("card0")))) as kernel:
        assert kernel.observe([Device("card0", ("192.0.2.9/32",))]) == {}
    assert left[0] <= 0


# --- paths --------------------------------------------------------------------------------------------------------


def test_a_path_that_is_no_namespace(own: Netns, tmp_path: Path) -> None:
    """A directory, a file, a FIFO, a socket, a loop of links, a name that is too long, one with a NUL: each is refused
    by the variable's name, for looking and for changing, and waited for is none. What leads nowhere is gone."""
    os.mkfifo(tmp_path / "fifo")
    os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("nothing")
    with closing(Kernel(own, Nft())) as kernel:
        for name in ("", "fifo", "socket", "file", "loop", "x" * 300, "a\0b"):
            path = str(tmp_path / name)
            for look in (kernel.identity, lambda path: kernel.observe([Pod(path, "eth0", (IPV6,), GATEWAYS)])):
                with pytest.raises(EnvironmentInvalid, match="CNI_NETNS"):
                    look(path)
            with pytest.raises(EnvironmentInvalid):
                kernel.apply(diff({}, pod(path)))
        for name in ("nowhere", "nothing", "file/below"):
            path = str(tmp_path / name)
            assert kernel.identity(path) is None
            assert kernel.observe([Pod(path, "eth0", (IPV6,), GATEWAYS)]) == {}
        assert kernel.observe([PodLink(LINK)]) == {}


def test_a_thread_that_does_not_get_back_ends_the_process(netns: str) -> None:
    """It would take the pod's namespace for the node's; a passing shortage is waited out."""
    lost: list[bool] = []

    class Stuck(Netns):
        refusals = 3

        def _enter(self, descriptor: int) -> None:
            if descriptor == self._own and self.refusals:
                self.refusals -= 1
                raise OSError(errno.ENOMEM, "setns: Cannot allocate memory")
            super()._enter(descriptor)

    for refusals in (3, 50):
        with closing(Stuck(lambda: lost.append(True))) as own:
            own.refusals = refusals
            descriptor = own.open(netns)
            with own.inside(descriptor):
                pass
            os.close(descriptor)
            assert lost == ([True] if refusals == 50 else [])
            own.refusals = 0
            own._return()


# --- sysctls ------------------------------------------------------------------------------------------------------


def test_sysctls_that_cannot_be_read_or_written(own: Netns, tmp_path: Path) -> None:
    """Read-only, no file, no text: told with its name and why, each; one that is not there is not there."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "net/ipv4/ip_forward").mkdir(parents=True)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\n")
    with closing(Kernel(own, Nft(), settings=tmp_path)) as kernel:
        assert kernel.observe([Settings(("absent",))]) == {}
        (item,) = kernel.observe([Settings(("bytes",))]).values()
        assert str(item) == "sysctl bytes = \ufffd\ufffd"
        with pytest.raises(KernelRefused, match="cannot look at directory: Is a directory"):
            kernel.observe([Settings(("directory",))])
        for name in ("directory", "absent/below"):
            with pytest.raises(KernelRefused, match=f"the kernel refused: . sysctl {name} = 1"):
                kernel.apply(diff({}, plan(Sysctl(HOST, name, "1"))))


# --- nft ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """What the program nft on PATH does."""

    def write(script: str) -> None:
        file = tmp_path / "nft"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return write


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        ("kill -9 $$", TryAgain, "nft was killed by signal 9"),
        ("echo '{'", KernelRefused, "nft's answer cannot be read"),
        ("echo '[]'", KernelRefused, "nft's answer cannot be read"),
        ("echo 7", KernelRefused, "nft's answer cannot be read"),
        ("printf '\\377\\376'", KernelRefused, "nft's answer cannot be read"),
        (":", KernelRefused, "nft's answer cannot be read"),
        ("echo 'Error: Operation not permitted' >&2; exit 1", KernelRefused, "Operation not permitted"),
        ("exit 3", KernelRefused, "nft refused: list table inet routable"),
        ("printf '\\377' >&2; exit 1", KernelRefused, "nft refused: list table inet routable"),
    ],
)
def test_an_nft_that_fails(program: Callable[[str], None], script: str, kind: type[Failure], words: str) -> None:
    """Killed, mad, refused: it is told, and never taken for a table that is not there."""
    program(script)
    with pytest.raises(kind) as caught:
        Nft().read("inet", "routable")
    assert words in str(caught.value)


def test_an_nft_that_is_missing_or_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KernelRefused, match="the program nft is missing"):
        Nft().read("inet", "routable")
    (tmp_path / "nft").write_text("")
    with pytest.raises(KernelRefused, match="cannot call nft to list table inet routable"):
        Nft().read("inet", "routable")
    assert "Permission denied" in Nft().check(TABLE)


def test_an_nft_that_does_not_end(program: Callable[[str], None]) -> None:
    """It is killed, as is told; a program of its own that keeps its pipes open delays nobody."""
    program("/bin/sleep 60 & wait")
    with pytest.raises(TimeoutError, match=r"nft did not end within 0.2 s"):
        call(["nft", "list", "tables"], "", 0.2)


def test_an_nft_that_is_too_slow_is_left_alone_for_a_while() -> None:
    """A pass that waits for it mends nothing else; then it is tried again."""
    now, calls = [0.0], []

    def slow(arguments: Sequence[str], text: str) -> Done:
        calls.append(arguments)
        raise TimeoutError

    nft = Nft(slow, lambda: now[0])
    with pytest.raises(TryAgain, match="did not answer within 10 s"):
        nft.read("inet", "routable")
    uses = (partial(nft.read, "inet", "routable"), partial(nft.write, TABLE), partial(nft.delete, TABLE))
    for use in uses:
        with pytest.raises(TryAgain, match="not asked for a while"):
            use()
    assert len(calls) == 1
    now[0] = REST
    with pytest.raises(TryAgain, match="did not answer"):
        nft.read("inet", "routable")
    now[0] = REST + 2 * REST - 1
    with pytest.raises(TryAgain, match="not asked for a while"):
        nft.read("inet", "routable")


def test_a_table_that_is_not_there(own: Netns) -> None:
    """Is not there, whatever the language of the machine."""
    assert Nft().read("inet", "routable-none") is None


# --- words --------------------------------------------------------------------------------------------------------


def test_an_error_without_a_number() -> None:
    """Some of Python's have words alone."""
    failure = unable("look at link eth0", OSError("no interface with this name"))
    assert str(failure) == "cannot look at link eth0: no interface with this name"


def test_an_uplink_that_is_not_there(own: Netns) -> None:
    """It says what there is."""
    with pytest.raises(ConfigInvalid, match=r"up0 192\.0\.2\.1/24"):
        uplink.find("card9", [])


# --- what a pod fills its namespace with --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "is_ended"),
    [
        ("neigh add 10.9.{high}.{low} dev eth0 lladdr 02:00:00:00:00:01 nud permanent", False),
        ("route add 10.9.{high}.{low}/32 dev eth0", False),
        ("route add 10.9.{high}.{low}/32 dev eth0 proto 82", True),
        ("address add 10.9.{high}.{low}/32 dev eth0", True),
    ],
    ids=["neighbours", "routes", "routes like ours", "addresses"],
)
def test_a_pod_that_fills_its_namespace(own: Netns, netns: str, tmp_path: Path, words: str, is_ended: bool) -> None:
    """A look at it is bounded, by asking for what is ours alone, or is ended, as is told; one at its link costs nothing
    more, and others are seen as ever."""
    want = pod(netns)
    scope = Pod(netns, "eth0", (IPV6,), GATEWAYS)
    with closing(Kernel(own, Nft())) as kernel:
        kernel.apply(diff({}, want))
        file = tmp_path / "batch"
        lines = (words.format(high=number >> 8, low=number & 255) for number in range(MOST + 200))
        file.write_text("\n".join(lines))
        Place(f"edges{os.getpid()}").run("ip", "-batch", str(file))
        (link,) = kernel.observe([Pod(netns, "eth0", is_link_alone=True)]).values()
        assert link == want[link.key]
        same(kernel.observe([PodLink(LINK)]), {key: item for key, item in want.items() if key.place == HOST})
        if is_ended:
            with pytest.raises(KernelRefused, match=f"more than {MOST} of them, so the look was ended"):
                kernel.observe([scope])
        else:
            same(kernel.observe([PodLink(LINK), scope]), want)


def test_a_node_whose_uplink_cannot_be_told_says_so(own: Netns) -> None:
    """Its address is on two links, or on the loopback with no way to another node: the operator names it."""
    command("ip", "address", "add", "192.0.2.1/24", "dev", "up1")
    with pytest.raises(ConfigInvalid, match=r"several links have addresses of this node .*: up0, up1: set uplink"):
        uplink.find("", [IPAddress("192.0.2.1")])
    assert uplink.find("up1", [IPAddress("192.0.2.1")]).name == "up1"
    command("ip", "address", "add", "198.51.100.7/32", "dev", "lo")
    try:
        with pytest.raises(ConfigInvalid, match="on lo, and no route leads to another node: set uplink to the link"):
            uplink.find("", [IPAddress("198.51.100.7")], [IPAddress("203.0.113.9")])
        assert uplink.find("", [IPAddress("198.51.100.7")], [IPAddress("192.0.2.9")]).name in ("up0", "up1")
    finally:
        command("ip", "address", "del", "198.51.100.7/32", "dev", "lo")


def test_news_that_were_lost_are_news(own: Netns) -> None:
    """More came than the kernel keeps for one who does not listen: they may have been about anything."""
    with closing(Events()) as events:
        events.watch(["up0"])
        flood()
        assert events.wait(1.0) is True


def test_a_name_that_was_lost_with_the_news_is_known(own: Netns) -> None:
    """A link that is called otherwise since then is known by that name when something happens to it."""
    with closing(Events()) as events:
        events.watch(["up9"])
        flood()
        command("ip", "link", "set", "up1", "name", "up9")
        try:
            assert events.wait(1.0) is True
            command("ip", "address", "add", "203.0.113.1/32", "dev", "up9")
            assert events.wait(1.0) is True
        finally:
            command("ip", "address", "flush", "dev", "up9", "to", "203.0.113.1/32")
            command("ip", "link", "set", "up9", "name", "up1")


def flood() -> None:
    """More news than the kernel keeps for one who does not listen."""
    with closing(Socket()) as sock:
        index = sock.index("up1")
        for _ in range(40):
            sock.transact([linkmsg.set_group(index, number) for number in range(1000, 2000)])
            sock.transact([linkmsg.set_group(index, 0)])
