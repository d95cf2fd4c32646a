"""``routable-agent --check``: what a start needs, told before it is tried; and that looking changes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from demo.lab import Lab, Node, built
from demo.place import Failed, run

ROOT = Path(__file__).parents[2]


class Checked(NamedTuple):
    """How a check ended, and the lines that it told, without their padding."""

    code: int
    lines: list[str]

    @property
    def wrong(self) -> list[str]:
        """What was found wrong."""
        return [line.removeprefix("WRONG ") for line in self.lines if line.startswith("WRONG ")]


def checked(node: Node, environment: Mapping[str, str] | None = None, *before: str) -> Checked:
    """``routable-agent --check`` on that node; *before* are words before the program."""
    line = [*before, sys.executable, "-m", "agent.main", "--config", str(node.config), "--check"]
    line = node.place.enter(*line)
    line[0] = str(shutil.which(line[0]))
    variables = {**os.environ, **node.environment, **(environment or {})}
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT, env=variables)
    assert done.stderr == ""
    return Checked(done.returncode, [" ".join(one.split()) for one in done.stdout.splitlines()])


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Two nodes; no agent was ever started."""
    with built(nodes=2, is_started=False) as lab:
        for node in lab.nodes:
            node.write_config()
        yield lab
        if (lab.directory / "read-only").exists():
            run("umount", str(lab.directory / "read-only"))


def everything(lab: Lab) -> str:
    """All that a start changes: files, links, addresses, routes, rules of the filter, sysctls."""
    place = lab.nodes[0].place
    files = run("find", str(lab.directory), "-printf", "%p %i %s %T@ %m\n")
    kernel = [place.ip(f"{words} show") for words in ("-details address", "route", "nexthop", "rule", "neighbour")]
    return "\n".join([files, *kernel, place.run("nft", "list", "ruleset"), place.run("sysctl", "net.ipv4.ip_forward")])


def test_a_node_that_is_ready_for_its_first_start(lab: Lab) -> None:
    """Each thing has a line, and afterwards all is as it was."""
    node = lab.nodes[0]
    before = everything(lab)
    found = checked(node)
    assert (found.code, found.wrong) == (0, [])
    for words in (
        f"ok configuration: {node.config}: backend static, node node-a",
        f"ok list of nodes: {lab.directory}/nodes.toml: 2 nodes",
        "ok this node: 192.0.2.1; pods' addresses from 10.244.1.0/24",
        "ok uplink: eth0, 1500 bytes, up; pods get 1500 bytes",
        "ok agent: none runs here",
        f"ok journal: {node.directory}/state.db will be made",
        "ok metrics: 127.0.0.1:9472 can be used",
        "good: the agent can start here",
    ):
        assert words in found.lines
    assert everything(lab) == before


def test_beside_an_agent_that_runs(lab: Lab) -> None:
    """It is told of, and goes on as if nobody had looked; after its end its journal is looked at and stays as it is."""
    node = lab.nodes[0]
    node.start()
    node.add()
    node.stop()
    node.start()
    before = node.status()["leases"]
    found = checked(node)
    assert (found.wrong, found.code) == ([], 0)
    assert "runs here: backend static, 1 leases" in next(line for line in found.lines if line.startswith("ok agent"))
    assert f"ok journal: {node.directory}/state.db is used by the agent that runs here" in found.lines
    assert node.status()["leases"] == before
    node.stop()
    before = everything(lab)
    found = checked(node)
    assert (found.wrong, found.code) == ([], 0)
    assert f"ok journal: {node.directory}/state.db has 1 leases" in found.lines
    assert everything(lab) == before


def no_list(lab: Lab) -> None:
    (lab.directory / "nodes.toml").unlink()


def bad_list(lab: Lab) -> None:
    path = lab.directory / "nodes.toml"
    more = '[[node]]\nname = "node-c"\naddresses = ["192.0.2.3"]\npod_cidrs = ["10.244.1.0/25"]\n'
    path.write_text(path.read_text() + more)


def stranger(lab: Lab) -> None:
    lab.write_nodes(lab.nodes[1:])


def other_address(lab: Lab) -> None:
    lab.nodes[0].addresses = ["192.0.2.77"]
    lab.write_nodes()


def chosen(**settings: object) -> Callable[[Lab], None]:
    def harm(lab: Lab) -> None:
        lab.nodes[0].settings.update(settings)
        lab.nodes[0].write_config()

    return harm


def text_for_state(lab: Lab) -> None:
    (lab.nodes[0].directory / "state.db").write_text("what somebody wrote")


def half_a_database_for_state(lab: Lab) -> None:
    (lab.nodes[0].directory / "state.db").write_bytes(b"SQLite format 3\0".ljust(100, b"\0") + b"\xff" * 4000)


def directory_for_state(lab: Lab) -> None:
    (lab.nodes[0].directory / "state.db").mkdir()


def file_for_socket(lab: Lab) -> None:
    lab.nodes[0].runtime.socket.write_text("")


def others_in_spool(lab: Lab) -> None:
    lab.nodes[0].runtime.spool.mkdir()
    (lab.nodes[0].runtime.spool / "letter").write_text("")


def spool_below_a_file(lab: Lab) -> None:
    lab.nodes[0].settings["paths"]["spool"] = "/dev/null/spool"
    lab.nodes[0].write_config()


def read_only(lab: Lab) -> None:
    place = lab.directory / "read-only"
    place.mkdir()
    run("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(place))
    lab.nodes[0].settings["paths"]["state"] = str(place / "routable" / "state.db")
    lab.nodes[0].write_config()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (no_list, ["list of nodes: ", "/nodes.toml: cannot be read: No such file or directory"]),
        (bad_list, ["list of nodes: ", "/nodes.toml, line ", "10.244.1.0/25"]),
        (stranger, ["this node: no node is named node-a in the list of nodes: add this node to the list"]),
        (other_address, ["this node: no link has an address of this node (192.0.2.77): correct the list of nodes"]),
        (chosen(uplink="eth7"), ["this node: uplink is eth7, but there is no such link: links: "]),
        (chosen(mtu=9000), ["this node: mtu is 9000: at most 1500: eth0 carries 1500"]),
        (chosen(metrics={"listen": "192.0.2.77:9472"}), ["metrics: 192.0.2.77:9472 cannot be used", "metrics.listen"]),
        (chosen(backend="aws-eni"), ["metadata: IMDS", "169.254.169.254"]),
        (chosen(backend="vxlna"), ["configuration: ", "agent.toml, line 2: backend is", 'did you mean "vxlan"?']),
        (text_for_state, ["journal: paths.state is ", "which is no journal of the agent's: it begins with b'what som"]),
        (half_a_database_for_state, ["journal: paths.state is ", "it begins with b'SQLite format 3"]),
        (directory_for_state, ["journal: paths.state is ", "which is a directory"]),
        (file_for_socket, ["socket: paths.socket is ", "which is a regular file"]),
        (others_in_spool, ["spool: paths.spool is ", "which has letter in it"]),
        (spool_below_a_file, ["spool: /dev/null/spool cannot be used: /dev/null is no directory: set paths.spool"]),
        (read_only, ["/read-only cannot be written here", ": set paths.state"]),
    ],
)
def test_what_is_wrong_is_told_with_its_remedy(lab: Lab, harm: Callable[[Lab], None], words: list[str]) -> None:
    """In the words of the start that would fail; all else is looked at, too, and nothing is touched."""
    harm(lab)
    before = everything(lab)
    found = checked(lab.nodes[0])
    assert found.code == 1
    assert found.wrong
    for line in found.wrong[:1]:
        assert all(word in line for word in words), found.lines
    assert found.lines[-1].startswith(f"wrong: {len(found.wrong)} of the above")
    assert everything(lab) == before


def test_what_the_machine_lacks_is_told(lab: Lab) -> None:
    """nft, and what only root may."""
    node = lab.nodes[0]
    (found,) = checked(node, {"PATH": "/nowhere"}).wrong
    assert found.startswith("machine: lacks nftables, for the table inet routable (the program nft is missing")
    power = "-all,+net_admin"
    (found,) = checked(node, None, "setpriv", "--bounding-set", power, "--inh-caps", power).wrong
    assert found == "machine: lacks the capability CAP_SYS_ADMIN: run the agent as root, or grant it"


def test_settings_that_cannot_be_written_are_told(lab: Lab) -> None:
    """In a container: each that is not as it should be, and what to do about it; and where the key leads nowhere."""
    node = lab.nodes[0]
    node.place.sysctl("net/ipv4/ip_forward", "0")
    fixed = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys"
    shell = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", f'{fixed} && exec "$@"', "sh"]
    found = checked(node, None, *shell)
    assert any(line.startswith("note sysctls: /proc/sys is read-only here") for line in found.lines)
    line = next(one for one in found.wrong if "the sysctl net/ipv4/ip_forward = 1" in one)
    assert "/proc/sys/net/ipv4/ip_forward cannot be written here; set it on the machine, or see paths.sysctls" in line
    node.settings["paths"]["sysctls"] = str(lab.directory)
    node.write_config()
    (line,) = checked(node).wrong
    assert f"paths.sysctls is {lab.directory}, where no sysctls are: {lab.directory}/net: No such file" in line
    with pytest.raises(Failed, match="mount the host's /proc/sys/net at "):
        node.start()


def test_what_may_not_be_looked_at_is_told(lab: Lab) -> None:
    """As by somebody who is not the agent's user: each thing by its name, and no traceback."""
    node = lab.nodes[0]
    locked = lab.directory / "locked"
    locked.mkdir(mode=0o000)
    paths = {"socket": "agent.sock", "state": "state.db", "spool": "spool"}
    node.settings["paths"] = {key: str(locked / "below" / name) for key, name in paths.items()}
    node.write_config()
    power = "-all,+net_admin,+sys_admin"  # without CAP_DAC_OVERRIDE the owner, too, has what the mode says
    found = checked(node, None, "setpriv", "--bounding-set", power, "--inh-caps", power)
    assert found.code == 1
    assert [line.partition(":")[0] for line in found.wrong] == ["socket", "journal", "spool"]
    assert all("cannot be looked at: Permission denied: run this as" in line for line in found.wrong)


def test_pods_of_another_backend_are_told(lab: Lab) -> None:
    """Whether the agent that gave them their addresses runs or not."""
    node = lab.nodes[0]
    node.start()
    node.add()
    chosen(backend="aws-eni")(lab)
    expected = "journal: backend is aws-eni, but 1 pods on this node have addresses of backend static"
    assert any(line.startswith(expected) for line in checked(node).wrong)
    node.stop()
    assert any(line.startswith(expected) for line in checked(node).wrong)


def test_an_agent_with_another_configuration_is_told(lab: Lab) -> None:
    """Two in one network namespace would undo each other's work."""
    node = lab.nodes[0]
    node.start()
    node.settings["paths"] = {key: f"{path}2" for key, path in node.settings["paths"].items()}
    node.write_config()
    found = checked(node)
    assert any("runs here, and does not answer at paths.socket" in line for line in found.wrong)


def test_a_damaged_journal_keeps_no_agent_from_starting(lab: Lab) -> None:
    """It is told what becomes of it."""
    node = lab.nodes[0]
    node.start()
    node.stop()
    path = node.directory / "state.db"
    path.write_bytes(path.read_bytes()[:5000])
    before = path.read_bytes()
    found = checked(node)
    assert (found.code, found.wrong) == (0, [])
    told = "is damaged: it will be set aside, and built anew from what the kernel knows"
    assert f"ok journal: {path} {told}" in found.lines
    assert path.read_bytes() == before


def test_a_peer_that_the_backend_cannot_reach_is_noted(lab: Lab) -> None:
    """The agent starts all the same."""
    lab.nodes[1].addresses = ["198.51.100.9"]
    lab.write_nodes()
    found = checked(lab.nodes[0])
    assert found.code == 0
    assert any(line.startswith("note peer: node-b cannot be reached") for line in found.lines)


def test_of_many_peers_that_cannot_be_reached_some_are_named(lab: Lab) -> None:
    """And how many there are besides. Metrics that nobody is to see are noted, too."""
    chosen(metrics={"listen": ""})(lab)
    with (lab.directory / "nodes.toml").open("a") as file:
        for number in range(10, 18):
            keys = f'addresses = ["198.51.100.{number}"]\npod_cidrs = ["10.245.{number}.0/24"]\n'
            file.write(f'\n[[node]]\nname = "far-{number}"\n{keys}')
    found = checked(lab.nodes[0])
    assert (found.code, found.wrong) == (0, [])
    assert sum(line.startswith("note peer: far-") for line in found.lines) == 5
    assert "note peer: nor can 3 others" in found.lines
    assert any(line.startswith("note metrics: are served nowhere") for line in found.lines)


def test_a_machine_that_cannot_be_judged_now_is_told(lab: Lab) -> None:
    """As where nft was killed: that says nothing of what is there, and is no reason to go on."""
    tools = lab.directory / "tools"
    tools.mkdir()
    (tools / "nft").write_text("#!/bin/sh\nkill -KILL $$\n")
    (tools / "nft").chmod(0o755)
    (found,) = checked(lab.nodes[0], {"PATH": f"{tools}:{os.environ['PATH']}"}).wrong
    assert found.startswith("machine: cannot be judged: nft was killed by signal 9")
