"""A real containerd, driven over CRI as kubelet drives it, has its pods' network from this plugin."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from netaddr import IPAddress, IPNetwork

from demo.lab import eventually
from demo.place import Failed, run
from tests.fakes.gocni import kubelet
from tests.runtime.conftest import Cluster
from tests.runtime.cri import CallFailed, Pod, Sandbox
from tests.runtime.daemon import NOTHING, RELEASES, Machine
from tests.runtime.pods import peer_url, pod

pytestmark = pytest.mark.runtime
FIFTY, TWENTY = 50, 20


@pytest.fixture(autouse=True)
def _apart(cluster: Cluster) -> Iterator[None]:
    """What a test that failed leaves is no other's."""
    yield
    for machine in cluster.machines:
        if not machine.agent.is_running():
            machine.agent.start()
        for sandbox in machine.pods():
            machine.cri.stop(sandbox)
            machine.cri.remove(sandbox)


def test_pods_have_addresses_of_their_node_and_reach_each_other(cluster: Cluster) -> None:
    """Both families, on one node and from node to node: the receiver sees the sender's own address."""
    a, b = cluster.machines
    made = [(machine, *machine.serve(pod())) for machine in (a, a, b)]
    addresses = [machine.cri.addresses(sandbox) for machine, sandbox, _ in made]
    for (machine, _, _), own in zip(made, addresses, strict=True):
        ranges = [IPNetwork(cidr) for cidr in machine.node.pod_cidrs]
        assert [any(IPAddress(one) in cidr for cidr in ranges) for one in own] == [True, True]
    for (machine, _, container), own in zip(made, addresses, strict=True):
        for theirs in addresses:
            for mine, other in zip(own, theirs, strict=True):
                if other != mine:
                    assert machine.cri.execute(container, "wget", "-q", "-O", "-", peer_url(other)) == mine
    for machine, sandbox, _ in made:
        machine.delete(sandbox)
    assert [machine.left() for machine in cluster.machines] == [NOTHING, NOTHING]


def test_a_host_port_answers_from_outside(cluster: Cluster) -> None:
    """The reference portmap, chained as shipped, leads a node's port to the pod; who asks is seen as who it is."""
    machine = cluster.machines[0]
    sandbox, _ = machine.serve(pod(ports={8080: 80}))
    for family in cluster.lab.families:
        address = machine.node.address(family)
        host = f"[{address}]" if family == 6 else address
        answer = cluster.lab.outside.run("busybox", "wget", "-q", "-O", "-", f"http://{host}:8080/cgi-bin/peer")
        assert answer == cluster.lab.outside_address(family)
    machine.delete(sandbox)
    assert machine.left() == NOTHING


def test_the_agent_knows_pods_by_name(cluster: Cluster) -> None:
    """What containerd says of a pod is with its lease."""
    machine = cluster.machines[0]
    asked = pod()
    sandbox = machine.cri.run(asked)
    (lease,) = machine.node.status()["leases"]
    assert (lease["container"], lease["pod"]) == (sandbox.id, f"default/{asked.name}")
    machine.delete(sandbox)


def test_sandboxes_removed_while_the_agent_is_away_leave_nothing(cluster: Cluster) -> None:
    """StopPodSandbox and RemovePodSandbox succeed without an agent; the next one ends what is left."""
    machine = cluster.machines[0]
    removed = [machine.cri.run(pod()) for _ in range(3)]
    kept, container = machine.serve(pod())
    machine.agent.stop()
    for sandbox in removed:
        machine.delete(sandbox)
    machine.agent.start()
    eventually("nothing is left", lambda: machine.left()["leases"] == [kept.id] and machine.left()["spool"] == [])
    assert len(machine.left()["links"]) == 1
    machine.cri.execute(container, "ping", "-c", "1", "-W", "5", machine.node.address(4))
    machine.delete(kept)
    assert machine.left() == NOTHING


def test_the_node_stays_ready_while_the_agent_is_replaced(cluster: Cluster) -> None:
    """As a DaemonSet's roll does it. Asked all the time, containerd always says that its network is ready; pods go on,
    one that came meanwhile is served, and of one that went nothing is left."""
    machine = cluster.machines[0]
    (kept, container), (gone, _) = (machine.serve(pod()) for _ in range(2))
    with kubelet(machine.cri) as watched:
        machine.agent.stop()
        machine.delete(gone)
        machine.cri.execute(container, "ping", "-c", "1", "-W", "5", machine.node.address(4))
        machine.agent.start()
        late = machine.cri.run(pod())
    assert (watched.reasons, watched.answers > 0) == ([], True)
    eventually("only those are there", lambda: machine.left()["leases"] == sorted([kept.id, late.id]))
    machine.cri.execute(container, "ping", "-c", "1", "-W", "5", machine.cri.addresses(late)[0])
    for sandbox in (kept, late):
        machine.delete(sandbox)
    assert machine.left() == NOTHING


def test_after_a_reboot_pods_come_anew_and_nothing_old_is_left(cluster: Cluster) -> None:
    """kubelet stops and removes the sandboxes of before, whose namespaces are gone, and makes new ones."""
    machine, other = cluster.machines
    old = [machine.cri.run(pod()) for _ in range(3)]
    peer, _ = other.serve(pod())
    reboot(machine)
    assert sorted(machine.pods()) == sorted(sandbox.id for sandbox in old)
    with ThreadPoolExecutor(1) as early:
        machine.cri.stop(old[0].id)
        first = early.submit(machine.serve, old[0].pod.again())  # the agent is a pod, too: it comes up among others
        machine.agent.start()
        before = {sandbox.id for sandbox in old}
        eventually("the old leases are gone", lambda: not before.intersection(machine.left()["leases"]))
        new = [first.result()]
    machine.cri.remove(old[0].id)
    for sandbox in old[1:]:
        machine.cri.stop(sandbox.id)
        new.append(machine.serve(sandbox.pod.again()))
        machine.cri.remove(sandbox.id)
    assert machine.left()["leases"] == sorted(sandbox.id for sandbox, _ in new)
    assert len(machine.left()["links"]) == len(new)
    for sandbox, container in new:
        for mine, theirs in zip(machine.cri.addresses(sandbox), other.cri.addresses(peer), strict=True):
            assert machine.cri.execute(container, "wget", "-q", "-O", "-", peer_url(theirs)) == mine
    for sandbox, _ in new:
        machine.delete(sandbox)
    other.delete(peer)
    assert [one.left() for one in cluster.machines] == [NOTHING, NOTHING]


def test_fifty_at_once_while_the_agent_is_killed(cluster: Cluster) -> None:
    """Every pod has a sandbox in the end, those that failed and were tried again included, addresses are unique, and
    when all are removed, the agent being killed once more, nothing is left."""
    machine = cluster.machines[0]
    failed: list[str] = []

    def until_it_runs(asked: Pod) -> Sandbox:
        for _ in range(5):  # kubelet tries for ever, a sync of the pod's later
            try:
                return machine.cri.run(asked)
            except CallFailed as error:
                failed.append(str(error))
                asked = asked.again()
        raise AssertionError(failed)

    def restart() -> None:
        machine.agent.kill()
        machine.agent.start()

    with ThreadPoolExecutor(FIFTY) as pool:
        running = [pool.submit(until_it_runs, pod()) for _ in range(FIFTY)]
        for count in (FIFTY // 5, FIFTY // 2):
            eventually("some pods are there", lambda count=count: len(machine.node.status()["leases"]) > count)
            restart()
        sandboxes = [one.result() for one in running]
        addresses = [address for sandbox in sandboxes for address in machine.cri.addresses(sandbox)]
        assert len(set(addresses)) == 2 * FIFTY
        assert machine.left()["leases"] == sorted(sandbox.id for sandbox in sandboxes)
        assert len(machine.left()["links"]) == FIFTY
        removals = [pool.submit(machine.delete, sandbox) for sandbox in sandboxes]
        eventually("some are gone", lambda: len(machine.node.status()["leases"]) < FIFTY * 4 // 5)
        restart()
        for one in removals:
            one.result()
    eventually("nothing is left", lambda: machine.left() == NOTHING)
    assert machine.pods() == []


def test_containerd_is_killed_while_it_makes_pods(cluster: Cluster) -> None:
    """Its next process knows of those that it had begun; kubelet has what is not ready removed, and nothing is left."""
    machine = cluster.machines[0]
    with ThreadPoolExecutor(TWENTY) as pool:
        begun = [pool.submit(machine.cri.run, pod()) for _ in range(TWENTY)]
        eventually("some pods are there", lambda: len(machine.node.status()["leases"]) > TWENTY // 4)
        machine.kill()
    failed = [error for one in begun if (error := one.exception()) is not None]  # some may have been whole by then
    assert failed
    assert all(isinstance(error, CallFailed) for error in failed)
    for sandbox in machine.pods():
        machine.cri.stop(sandbox)
        machine.cri.remove(sandbox)
    eventually("nothing is left", lambda: machine.left() == NOTHING)
    new = machine.cri.run(pod())
    assert machine.left()["leases"] == [new.id]


def test_a_result_that_was_not_written_whole(cluster: Cluster) -> None:
    """containerd before 2 reads what an ADD gave before it calls DEL, and ends no pod where that is an empty file,
    until somebody removes it; the address stays the pod's. Newer ones do that themselves."""
    machine = cluster.machines[0]
    sandbox = machine.cri.run(pod())
    (result,) = machine.paths["/var/lib/cni"].glob(f"results/routable-{sandbox.id}-eth0")
    result.write_text("")
    if machine.release is not RELEASES["2"]:
        with pytest.raises(CallFailed, match="unexpected end of JSON input"):
            machine.cri.stop(sandbox.id)
        assert machine.left()["leases"] == [sandbox.id]
        result.unlink()
    machine.delete(sandbox)
    assert machine.left() == NOTHING


def reboot(machine: Machine) -> None:
    """The end of the machine at once, and its next boot, without the agent yet: only files are left, and the boot id is
    another."""
    node = machine.node
    spaces = [Path(lease["netns"]) for lease in node.status()["leases"]]
    machine.agent.kill()
    machine.power_off()
    for space in spaces:
        run("umount", str(space))
        space.unlink()
    node.place.run("nft", "flush", "ruleset")
    node.place.ip("nexthop flush proto 82")
    for family in (4, 6):
        for what in ("route", "rule"):
            with suppress(Failed):  # nothing to flush
                node.place.ip(f"-{family} {what} flush proto 82")
    eventually("the pods' links are gone", lambda: "rt" not in {name[:2] for name in links(machine)})
    machine.power_on()


def links(machine: Machine) -> list[str]:
    """The names of the links of pods on the node."""
    return [line.split()[1] for line in machine.node.place.ip("-o link").splitlines()]
