"""README.md's own lines, on a machine of their own with an empty /etc: in the end an agent serves a pod."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import pytest

from demo.lab import place
from tests.conformance.conftest import REFERENCE

ROOT: Final = Path(__file__).parents[2]
NAME: Final = "node-a"
"""The node that the sample of the list begins with, and that this machine is."""
CONTAINER: Final = "pod-of-the-readme"

# /etc is empty; of /opt, which may hold an interpreter, what there was is still there. Both can be written, and with
# what else is written they vanish.
PREPARE: Final = """
set -e
hostname node-a
mkdir -p /run/outer /run/routable
mount --rbind /opt /run/outer
mount -t tmpfs tmpfs /opt
for one in /run/outer/*; do
    [ -d "$one" ] || continue
    mkdir "/opt/${one##*/}" && mount --rbind "$one" "/opt/${one##*/}"
done
mount -t tmpfs tmpfs /etc
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs -o mode=0700 tmpfs /run/routable
mount -t tmpfs tmpfs /run/netns
mkdir -p /opt/cni/bin /etc/systemd/system
cp REFERENCE/loopback REFERENCE/portmap /opt/cni/bin/
echo ready
exec sleep infinity
"""

# As much of it as starting a service takes: Type=notify waits until that is ready.
SYSTEMCTL: Final = """#!/bin/sh
set -eu
[ "$*" = "enable --now routable-agent" ] || { echo "systemctl: not expected: $*" >&2; exit 64; }
unit=/etc/systemd/system/routable-agent.service
line=$(sed -n 's/^ExecStart=//p' $unit)
power=$(sed -n 's/^CapabilityBoundingSet=//p' $unit | sed 's/CAP_/+/g; s/ /,/g')
setpriv --bounding-set "-all,$power" $line >/run/routable/log 2>&1 &
echo $! >/run/routable/pid
until grep -q ' info ready ' /run/routable/log; do
    kill -0 $! || { cat /run/routable/log >&2; exit 1; }
    sleep 0.1
done
"""


def commands() -> list[str]:
    """The lines of the block below "Installing on a node"."""
    text = (ROOT / "README.md").read_text()
    found = re.search(r"^## Installing on a node\n.*?^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None, "README.md has no such block"
    return found[1].splitlines()


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine with nothing installed: *enter* are the words that lead into it, to a copy of the sources."""

    enter: tuple[str, ...]
    environment: Mapping[str, str]

    def run(self, *line: str, stdin: str = "", **variables: str) -> str:
        """What a program prints there; its failure is the test's."""
        done = subprocess.run(
            [*self.enter, *line],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env={**self.environment, **variables},
        )
        assert done.returncode == 0, f"{' '.join(line)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def plugin(self, verb: str, config: Mapping[str, Any], kind: str) -> dict[str, Any]:
        """What the plugin called *kind* answers to ADD or DEL."""
        variables = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": CONTAINER,
            "CNI_NETNS": f"/run/netns/{CONTAINER}",
            "CNI_IFNAME": "lo" if kind == "loopback" else "eth0",
            "CNI_PATH": "/opt/cni/bin",
        }
        said = self.run(f"/opt/cni/bin/{kind}", stdin=json.dumps(config), **variables)
        return dict(json.loads(said)) if said else {}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """One that has what the README asks for, and the addresses of the sample's first node."""
    checkout = tmp_path / "routable"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build"))
    with ExitStack() as cleanup:
        name = f"readme{os.getpid()}"
        outside, node = place(cleanup, f"{name}-outside"), place(cleanup, name)
        outside.ip(f"link add eth0 type veth peer name eth0 netns {node.name}")
        for one, number in ((node, 1), (outside, 2)):
            one.ip("link set eth0 up")
            one.ip(f"address add 192.0.2.{number}/24 dev eth0")
            one.ip(f"address add 2001:db8::{number}/64 dev eth0 nodad")
        (tmp_path / "systemctl").write_text(SYSTEMCTL)
        (tmp_path / "systemctl").chmod(0o755)
        script = PREPARE.replace("REFERENCE", str(REFERENCE))
        line = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--uts", "--propagation", "private"]
        inside = subprocess.Popen(node.enter(*line, "sh", "-c", script), stdout=subprocess.PIPE, text=True)
        cleanup.callback(inside.wait)
        cleanup.callback(inside.kill)
        assert inside.stdout is not None
        cleanup.callback(inside.stdout.close)
        assert inside.stdout.readline() == "ready\n"
        enter = ("nsenter", f"--target={inside.pid}", "--mount", "--uts", "--net", f"--wd={checkout}")
        path = f"{tmp_path}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        environment = {"PATH": path, "LC_ALL": "C.UTF-8", "TMPDIR": "/run", **offline(tmp_path / "packages")}
        made = Machine(enter, environment)
        cleanup.callback(made.run, "sh", "-c", "[ ! -e /run/routable/pid ] || kill $(cat /run/routable/pid)")
        yield made


def offline(directory: Path) -> dict[str, str]:
    """What has pip find our requirements and setuptools installed already, in *directory*, and ask nobody for more."""
    wanted = [word for word in metadata.requires("routable") or () if "extra ==" not in word]
    directory.mkdir()
    for name in ["setuptools", *(re.split(r"[^A-Za-z0-9_.-]", word)[0] for word in wanted)]:
        files = metadata.distribution(name).files or ()
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            whole = Path(str(metadata.distribution(name).locate_file(top)))
            (directory / top).symlink_to(whole)
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_CACHE_DIR": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return {"PYTHONPATH": str(directory), "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", **quiet}


def test_the_readmes_own_lines_end_with_a_pod_that_has_an_address(machine: Machine) -> None:
    """One after the other, as they stand there. The conflist is run as a runtime would, loopback first."""
    assert len(commands()) >= 7
    for line in commands():
        machine.run("sh", "-c", line)
    machine.run("ip", "netns", "add", CONTAINER)
    conflist = json.loads(machine.run("sh", "-c", "cat /etc/cni/net.d/*"))
    kept = {"cniVersion": conflist["cniVersion"], "name": conflist["name"]}
    machine.plugin("ADD", {**kept, "type": "loopback"}, "loopback")
    result: dict[str, Any] = {}
    for plugin in conflist["plugins"]:
        previous = {"prevResult": result} if result else {}
        result = machine.plugin("ADD", {**plugin, **kept, **previous}, plugin["type"])
    addresses = [one["address"] for one in result["ips"]]
    assert [address.partition("/")[0] for address in addresses] == ["10.244.1.1", "2001:db8:244:1::1"]
    shown = machine.run("ip", "-n", CONTAINER, "address", "show", "eth0")
    assert all(address.partition("/")[0] in shown for address in addresses)
    status = json.loads(machine.run("/opt/routable/bin/routablectl", "status", "--json"))
    assert status["problems"] == []
    assert [one["container"] for one in status["leases"]] == [CONTAINER]
    machine.run("/opt/routable/bin/routable-agent", "--check")


def test_what_the_readme_asks_for_is_what_the_conflists_need() -> None:
    """Every plugin of the conflist that is installed is named before the lines, and so is loopback."""
    text = (ROOT / "README.md").read_text()
    before = text[text.index("## Installing on a node") : text.index("As root, in a checkout")]
    conflist = next(word for line in commands() for word in line.split() if word.endswith(".conflist"))
    kinds = {plugin["type"] for plugin in json.loads((ROOT / conflist).read_text())["plugins"]} - {"routable"}
    assert kinds
    for kind in (*kinds, "loopback"):
        assert f"`{kind}`" in before


def test_plugins_without_status_are_refused_by_what_the_readme_says() -> None:
    """Debian's know no STATUS, and this is what a runtime that asks for it is told."""
    variables = {"CNI_COMMAND": "STATUS", "CNI_PATH": str(REFERENCE)}
    said = subprocess.run(
        [REFERENCE / "portmap"],
        input=json.dumps({"cniVersion": "1.1.0", "name": "pods", "type": "portmap"}),
        capture_output=True,
        text=True,
        check=False,
        env=variables,
    ).stdout
    newest = json.loads(
        subprocess.run(
            [REFERENCE / "portmap"], capture_output=True, text=True, check=True, env={"CNI_COMMAND": "VERSION"}
        ).stdout
    )["supportedVersions"][-1]
    if newest == "1.0.0":
        assert "missing containerID" in said
        assert "missing containerID" in " ".join((ROOT / "README.md").read_text().split())
    else:
        assert said == ""
