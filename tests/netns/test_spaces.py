"""Pods' namespaces as runtimes and people leave them: names given again, unmounted, bound elsewhere, by process."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cni.errors import EnvironmentInvalid
from dataplane.items import Space
from dataplane.kernel import Kernel
from dataplane.netns import Netns
from dataplane.nft import Nft
from demo.lab import Lab, built, eventually
from demo.place import Place, run
from demo.runtime import Refused
from tests.conformance.podman import is_root


@pytest.fixture
def lab() -> Iterator[Lab]:
    """One node."""
    with built(nodes=1, family="dual") as lab:
        yield lab


def links(place: Place) -> list[str]:
    return [line.split()[1] for line in place.ip("-o link").splitlines()]


def test_a_name_that_is_given_again(lab: Lab) -> None:
    """The dead pod's lease ends, and nothing of it comes to be in the new namespace, which nobody asked us to touch."""
    (node,) = lab.nodes
    pod = node.add()
    run("ip", "netns", "delete", pod.place.name)
    run("ip", "netns", "add", pod.place.name)
    eventually("its lease ends", lambda: not node.status()["leases"])
    assert links(pod.place) == ["lo:"]
    assert node.runtime.call("ADD", "another", str(pod.place.path))["ips"]


def test_a_name_that_is_unmounted_and_left(lab: Lab) -> None:
    """The file is no namespace any more: the pod is gone."""
    (node,) = lab.nodes
    pod = node.add()
    run("umount", "-l", str(pod.place.path))
    eventually("its lease ends", lambda: not node.status()["leases"])
    pod.place.path.unlink()
    node.pods.remove(pod)


def test_a_pod_that_outlives_its_name_keeps_its_address(lab: Lab) -> None:
    """Its link leads to it still, so the host's end is mended; in what is at the path now nothing is done."""
    (node,) = lab.nodes
    pod = node.add()
    link = pod.result["interfaces"][0]["name"]
    with subprocess.Popen(pod.place.enter("sleep", "60")) as inhabitant:
        inhabitants = [str(inhabitant.pid)]
        eventually("it is in there", lambda: run("ip", "netns", "pids", pod.place.name).split() == inhabitants)
        run("umount", str(pod.place.path))
        pod.place.path.unlink()
        run("ip", "netns", "add", pod.place.name)
        node.place.ip(f"link set {link} down")
        eventually("the host's end is mended", lambda: "UP" in node.place.ip(f"-o link show {link}").split("<")[1])
        assert links(pod.place) == ["lo:"]
        assert node.status()["leases"]
        inhabitant.kill()
    eventually("it ends with the pod", lambda: not node.status()["leases"])


def test_the_nodes_own_namespace_by_any_name(lab: Lab, tmp_path: Path) -> None:
    """It is known by what it is: nothing is attached to it."""
    (node,) = lab.nodes
    bound = tmp_path / "bound"
    bound.touch()
    run("mount", "--bind", str(node.place.path), str(bound))
    try:
        assert node.agent is not None
        for path in (str(node.place.path), str(bound), f"/proc/{node.agent.pid}/ns/net", "/proc/self/ns/net"):
            with pytest.raises(Refused, match="is the node's own network namespace"):
                node.runtime.call("ADD", "host", path)
    finally:
        run("umount", str(bound))
    assert not node.status()["leases"]


@pytest.mark.parametrize("user", [[], *([["--reuid", "1000", "--clear-groups"]] if is_root() else [])])
def test_a_namespace_that_is_named_by_a_process(lab: Lab, user: list[str]) -> None:
    """As some runtimes do, with the power that the unit gives, the agent's user or another; the lease ends with the
    process."""
    (node,) = lab.nodes
    line = ["unshare", "--net", "setpriv", *user, "--bounding-set", "-all,+net_raw", "--"]
    with subprocess.Popen([*line, "sh", "-c", "echo in; exec sleep 60"], stdout=subprocess.PIPE) as inhabitant:
        assert inhabitant.stdout is not None
        assert inhabitant.stdout.readline() == b"in\n"
        path = f"/proc/{inhabitant.pid}/ns/net"
        assert node.runtime.call("ADD", "by-process", path)["ips"]
        inhabitant.kill()
    eventually("its lease ends", lambda: not node.status()["leases"])


def test_what_is_meant_is_opened_and_nothing_else() -> None:
    """A path with what was there once is gone when that is gone; a link tells where it leads, and where it does not."""
    first, second = Place.make("space-first"), Place.make("space-second")
    try:
        with closing(Netns()) as netns, closing(Kernel(netns, Nft())) as kernel:
            path = str(first.path)
            identity = kernel.identity(path)
            assert identity is not None
            run("ip", "link", "add", "space0", "type", "veth", "peer", "name", "space1", "netns", first.name)
            assert kernel.leads_to("space0", path)
            assert not kernel.leads_to("space0", str(second.path))
            assert not kernel.leads_to("space-none", path)
            first.remove()
            run("ip", "netns", "add", first.name)
            assert not kernel.leads_to("space0", path)
            with pytest.raises(FileNotFoundError, match="another network namespace is there now"):
                netns.open(Space(path, identity))
            with pytest.raises(EnvironmentInvalid, match="not a network namespace"):
                netns.open("/proc/self/ns/mnt")
    finally:
        for place in (first, second):
            place.remove()
