"""What the kernel refuses, or has lost meanwhile, on the way of a change."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from cni.errors import KernelRefused, TryAgain
from cni.spec import Identity
from dataplane import linkmsg, routemsg, rtnl, settings
from dataplane.diff import Change, diff
from dataplane.items import HOST, Nexthop, Route, Space, plan
from dataplane.kernel import Kernel
from dataplane.links import VXLAN_LINK, Vxlan
from dataplane.netlink import Nack, Socket
from dataplane.netns import Netns
from dataplane.nft import Nft
from dataplane.observe import OnHost, Pod, PodLink
from demo.place import Place
from demo.place import run as command
from tests.contract.test_dataplane import LINK, OVERLAY, pod
from tests.contract.test_edges import netns, own, same
from tests.fakes.descriptors import descriptors

__all__ = ["netns", "own"]
VXLAN = next(item for item in OVERLAY.values() if isinstance(item, Vxlan))


@pytest.fixture
def kernel(own: Netns) -> Iterator[Kernel]:
    """The real one, in the namespace that the tests run in."""
    with closing(Kernel(own, Nft())) as made:
        yield made


def test_an_overlay_of_other_numbers_is_made_anew(kernel: Kernel) -> None:
    """The kernel changes neither VNI nor port on a living device."""
    kernel.apply(diff({}, plan(VXLAN)))
    for other in (replace(VXLAN, vni=7), replace(VXLAN, port=8472), replace(VXLAN, local="192.0.2.9", mtu=1400)):
        kernel.apply(diff(kernel.observe([OnHost()]), plan(other)))
        same(kernel.observe([OnHost()]), plan(other))


def test_an_overlay_that_went_is_refused_and_not_half_changed(kernel: Kernel) -> None:
    """Between the look and the change: the next look sees that it is to be made."""
    with pytest.raises(KernelRefused, match="No such device"):
        kernel.apply([Change(VXLAN, replace(VXLAN, mtu=1400))])


def test_a_nexthop_that_became_anothers_is_not_replaced(kernel: Kernel) -> None:
    """Nor do our routes come to lead through it; of what is to go it is left out."""
    number = 0x40000001
    ours = Nexthop(number, "192.0.2.2", "up0")
    command("ip", "nexthop", "add", "id", str(number), "via", "192.0.2.3", "dev", "up0", "protocol", "static")
    route = Route(HOST, "10.1.2.0/24", nhid=number)
    for change in (Change(ours, ours._replace(via="192.0.2.4")), Change(None, route)):
        with pytest.raises(KernelRefused, match=f"nexthop object {number} is another program's") as caught:
            kernel.apply([change])
        assert caught.value.errno == errno.EEXIST
    kernel.apply([Change(ours, None)])
    assert "192.0.2.3" in command("ip", "nexthop", "show", "id", str(number))
    command("ip", "nexthop", "del", "id", str(number))


def test_of_many_nexthops_anothers_is_found_too(kernel: Kernel) -> None:
    """More than are asked for one by one."""
    many = [Nexthop(0x40000100 + number, f"192.0.2.{number}", "up0") for number in range(2, 42)]
    kernel.apply([Change(None, one) for one in many])
    command("ip", "nexthop", "del", "id", str(many[7].id))
    command("ip", "nexthop", "add", "id", str(many[7].id), "via", "192.0.2.99", "dev", "up0", "protocol", "static")
    kernel.apply([Change(one, None) for one in many])
    assert kernel.observe([OnHost()]) == {}
    assert command("ip", "nexthop", "show").count("via") == 1
    command("ip", "nexthop", "del", "id", str(many[7].id))


def test_a_pod_that_is_gone_has_nothing_to_be_removed(kernel: Kernel) -> None:
    """It took all along; but nothing can be made there."""
    place = Place.make(f"refused{os.getpid()}")
    path = str(place.path)
    kernel.apply(diff({}, pod(path)))
    inside = {key: item for key, item in pod(path).items() if key.place == path}
    place.remove()
    kernel.apply(diff(inside, {}))
    with pytest.raises(KernelRefused, match="the pod's network namespace is gone"):
        kernel.apply(diff({}, inside))
    assert kernel.leads_to(LINK, path) is False
    kernel.apply(diff(kernel.observe([OnHost()]), {}))


def test_where_a_namespace_was_is_something_else(own: Netns, kernel: Kernel, netns: str, tmp_path: Path) -> None:
    """A file, or another namespace: the one that is meant is gone, and with it what was there."""
    (tmp_path / "file").write_text("")
    there = kernel.identity(netns)
    assert there is not None
    gc.collect()  # what other tests left open would be closed at any moment
    for path in (Space(str(tmp_path / "file"), there), Space(netns, Identity(there.device, there.inode + 1, 0))):
        before = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(FileNotFoundError):
            own.open(path)
        assert kernel.observe([Pod(path, "eth0")]) == {}
        assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_namespace_is_not_taken_for_gone_for_want_of_a_descriptor(own: Netns, kernel: Kernel, netns: str) -> None:
    """It is told as that, whichever of the two that it takes is the one too many; and none is leaked."""
    there = kernel.identity(netns)
    assert there is not None
    gc.collect()  # what other tests left open would be closed at any moment
    before = len(list(Path("/proc/self/fd").iterdir()))
    for few in (0, 1):
        with descriptors(few), pytest.raises(OSError, match="Too many open files"):
            own.open(Space(netns, there))
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    with descriptors(2):
        os.close(own.open(Space(netns, there)))


def test_a_link_that_may_not_be_deleted_is_told(own: Netns, kernel: Kernel, netns: str) -> None:
    """By its name and the kernel's reason; one that is gone meanwhile is no error."""

    class Unwilling(Socket):
        def __init__(self, number: int) -> None:
            super().__init__()
            self._number = number

        def transact(self, messages: Sequence[rtnl.Message]) -> list[Nack]:
            return [Nack(0, self._number, "not this one")]

    kernel.apply(diff({}, pod(netns)))
    have = kernel.observe([PodLink(LINK)])
    told = f"refused to delete {LINK}: Operation not permitted not this one"
    with (
        closing(Kernel(own, Nft(), partial(Unwilling, errno.EPERM))) as other,
        pytest.raises(KernelRefused, match=told),
    ):
        other.apply(diff(have, {}))
    with closing(Kernel(own, Nft(), partial(Unwilling, errno.ENODEV))) as other:
        other.apply(diff(have, {}))
    kernel.apply(diff(have, {}))


def test_settings_of_a_link_that_cannot_be_written_are_told(own: Netns, tmp_path: Path, netns: str) -> None:
    """A link that would believe what its pod says does not come up; nothing is left of it afterwards."""
    conf = tmp_path / "net/ipv6/conf" / LINK
    (conf / "accept_ra").mkdir(parents=True)
    (tmp_path / "net/ipv4/ip_forward").mkdir(parents=True)
    with closing(Kernel(own, Nft(), settings=tmp_path)) as kernel:
        with pytest.raises(KernelRefused, match=r"link rt.*; its IPv6 settings"):
            kernel.apply(diff({}, pod(netns)))
        assert "UP" not in command("ip", "-brief", "link", "show", LINK).split()[1:3]
        (conf / "accept_ra").rmdir()
        for name in (*linkmsg.GUARD6, "disable_ipv6"):
            (conf / name).write_text("7\n")
        kernel.apply(diff(kernel.observe([PodLink(LINK)]), {}))
        kernel.apply(diff({}, {key: item for key, item in pod(netns).items() if key.place == HOST}))
        guard = {name: (conf / name).read_text().strip() for name in linkmsg.GUARD6}
        assert guard == dict.fromkeys(linkmsg.GUARD6, "0")
        kernel.apply(diff(kernel.observe([PodLink(LINK)]), {}))


def test_a_thread_that_cannot_get_in_stays_where_it_was(own: Netns) -> None:
    """A descriptor of something else: the kernel's reason comes out, and the thread is at home."""
    here = Path("/proc/thread-self/ns/net")
    home = here.readlink()
    told = pytest.raises(OSError, match="setns: Invalid argument")
    with Path("/dev/null").open() as file, told, own.inside(file.fileno()):
        raise AssertionError("it got in")
    assert here.readlink() == home


def test_a_dump_of_what_there_is_none_of(kernel: Kernel) -> None:
    """Of an overlay that is not there, and asked of nothing, nothing is known."""
    with closing(Socket()) as sock:
        assert sock.get(routemsg.RTM_GETNEXTHOP, [], bytes) == []
        with pytest.raises(OSError, match="No such device"):
            sock.index(VXLAN_LINK)
    with pytest.raises((KernelRefused, TryAgain)):
        kernel.apply([Change(None, Route(HOST, "10.9.0.0/16", dev="nowhere"))])


def test_a_setting_that_is_read_only_may_be_what_is_wanted(tmp_path: Path) -> None:
    """As where `/proc/sys` is a container's own: only what would change it is refused."""
    setting = tmp_path / "ip_forward"
    setting.write_text("1\n")
    command("mount", "--bind", str(tmp_path), str(tmp_path))
    try:
        command("mount", "-o", "remount,bind,ro", str(tmp_path))
        settings.write(str(setting), b"1")
        with pytest.raises(OSError, match="Read-only"):
            settings.write(str(setting), b"0")
    finally:
        command("umount", str(tmp_path))
