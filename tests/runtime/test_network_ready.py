"""When a real containerd says that its network is ready, and that `tests.fakes.gocni` says the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.announce.conflist import DEFAULT
from demo.lab import eventually
from tests.fakes.gocni import GoCni
from tests.runtime.conftest import running
from tests.runtime.cri import CallFailed, Pod
from tests.runtime.daemon import CONFLIST, NOTHING, RELEASES, Machine

pytestmark = pytest.mark.runtime


@pytest.fixture(scope="module", params=list(RELEASES))
def alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One node, with each release of containerd."""
    with running(request.param, 1, tmp_path_factory.mktemp("images"), wait="1") as cluster:
        yield cluster.machines[0]


@pytest.fixture
def machine(alone: Machine) -> Iterator[Machine]:
    """The node, whose containerd has its network before and after."""
    yield alone
    if not alone.agent.is_running():
        alone.agent.start()
    assert eventually("its network is ready", lambda: not alone.cri.network())


def has_status(machine: Machine) -> bool:
    """Whether this containerd asks STATUS."""
    return machine.release is RELEASES["2"]


def fake(machine: Machine) -> GoCni:
    """The fake in the place of this containerd."""
    return GoCni(machine.networks, machine.plugins, machine.environment, has_status(machine))


def said(machine: Machine) -> str:
    """Why the network is not ready: containerd's answer, which is the fake's."""
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(fake(machine).network)
        answer = machine.cri.network()
        assert other.result().replace(str(machine.node.runtime.socket), "/run/routable/agent.sock") == answer
    return answer


def test_without_an_agent(machine: Machine) -> None:
    """Release 1.6 asks nothing; release 2 is told what is wrong, after the time in which an agent could start, which is
    a second here."""
    machine.agent.stop()
    assert ("no answer from routable-agent" in said(machine)) == has_status(machine)


def test_the_configuration_is_taken_and_missed(machine: Machine) -> None:
    """That which the agent puts there is noticed, and that it is gone; the first one by name counts, and one that
    cannot be read counts as none."""
    path = machine.networks / CONFLIST
    machine.agent.stop()
    path.unlink()
    missing = "NetworkPluginNotReady: Network plugin returns error: cni plugin not initialized"
    eventually("it is missed", lambda: machine.cri.network() == missing)
    assert said(machine) == missing
    machine.agent.start()
    eventually("the agent's is taken", lambda: not machine.cri.network())
    assert said(machine) == ""
    before = machine.networks / "00-broken.conflist"
    before.write_text("{")
    eventually("it is read", lambda: machine.cri.network() == missing)
    assert said(machine) == missing
    before.unlink()


def test_a_pod_cannot_end_without_a_configuration(machine: Machine) -> None:
    """containerd calls no DEL while it has none: kubelet tries again, and once it is back nothing is left."""
    sandbox = machine.cri.run(Pod("late", "late"))
    machine.agent.stop()
    (machine.networks / CONFLIST).unlink()
    eventually("it is missed", machine.cri.network)
    with pytest.raises(CallFailed, match="cni plugin not initialized"):
        machine.cri.stop(sandbox.id)
    machine.agent.start()
    assert machine.left()["leases"] == [sandbox.id]
    eventually("it is back", lambda: not machine.cri.network())
    machine.delete(sandbox)
    assert machine.left() == NOTHING


@pytest.fixture
def older(machine: Machine) -> Iterator[Machine]:
    """The node while its portmap is of before release 1.6.0, which takes STATUS for a verb that needs a container."""
    portmap = machine.plugins / "portmap"
    target = portmap.readlink()
    portmap.unlink()
    portmap.symlink_to(RELEASES["1.6"].plugins / "portmap")
    yield machine
    portmap.unlink()
    portmap.symlink_to(target)


def test_an_older_plugin_beside_a_newer_containerd(older: Machine) -> None:
    """The agent leaves the version that has STATUS out of its configuration, and pods are served."""
    path = older.networks / CONFLIST
    eventually("it is left out", lambda: "1.1.0" not in json.loads(path.read_text())["cniVersions"])
    eventually("the network is ready", lambda: not older.cri.network())
    older.delete(older.cri.run(Pod("served", "served")))
    assert older.left() == NOTHING


def test_an_older_plugin_in_somebody_elses_list_is_asked_too(older: Machine) -> None:
    """Where it has that version, release 2 is told what the plugin makes of it."""
    before = older.networks / "00-own.conflist"
    before.write_text(json.dumps(DEFAULT))
    try:
        eventually("it is read", lambda: bool(older.cri.network()) == has_status(older))
        assert ("missing containerID" in said(older)) == has_status(older)
    finally:
        before.unlink()
