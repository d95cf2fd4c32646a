"""What is kept in the runtime's directories, and what is left alone there."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.announce.conflist import conflist
from agent.announce.directories import EXECUTABLE, Directories, remove_conflist
from agent.announce.plugins import Plugins
from agent.config.schema import CniTable
from agent.start.voices import executable, lasting
from cni import install
from cni.errors import ConfigInvalid
from demo.lab import eventually
from tests.conformance.executables import called

RELAY = '#!/bin/sh\necho \'{{"supportedVersions": ["1.0.0"]}}\' # {}\n'


class Place:
    """A runtime's directories, and what keeps them."""

    def __init__(self, directory: Path, template: str = "") -> None:
        self.conflist = directory / "net.d" / "10-routable.conflist"
        self.bin = directory / "bin"
        self.source = directory / "routable"
        self.table = CniTable(conflist=str(self.conflist), executables=str(self.bin), template=template)
        self.can_serve = True
        self.now = 1000.0
        self.kept: dict[str, str] = {}
        self.told: list[str] = []
        self.deaths: list[tuple[str, BaseException]] = []
        self.write("first")
        self.plugins("portmap", "loopback")
        self.begin()

    def begin(self) -> None:
        """A process of the agent."""
        self.directories = Directories(
            self.table,
            can_serve=lambda: self.can_serve,
            source=lambda: self.source,
            journal=self,
            tell=self.told.append,
            on_death=lambda name, error: self.deaths.append((name, error)),
            clock=lambda: self.now,
            every=0.01,
        )

    def recall(self, name: str) -> str | None:
        """See `dataplane.memory.Memory`."""
        return self.kept.get(name)

    def remember(self, name: str, value: str) -> None:
        """See `dataplane.memory.Memory`."""
        self.kept[name] = value

    def write(self, version: str) -> None:
        """The executable of a *version*."""
        self.source.write_text(RELAY.format(version))
        self.source.chmod(0o755)

    def plugins(self, *names: str) -> None:
        """Executables of others."""
        self.bin.mkdir(exist_ok=True)
        for name in names:
            (self.bin / name).write_text("#!/bin/sh\n")
            (self.bin / name).chmod(0o755)

    def look(self) -> str:
        """What is wrong after a look."""
        self.directories.look()
        return "\n".join(map(str, self.directories.problems))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Directories with the reference plugins."""
    return Place(tmp_path)


def test_both_are_put_there_and_stay_as_they_are(place: Place) -> None:
    """The executable at once, the configuration when the agent can serve; what is right is not written again, by this
    process or the next, nor taken away when it ends or cannot serve any more."""
    place.can_serve = False
    assert place.look() == ""
    assert (place.bin / "routable").read_text() == RELAY.format("first")
    assert not place.conflist.exists()
    place.can_serve = True
    assert place.look() == ""
    assert place.conflist.read_bytes() == conflist().content
    assert place.conflist.stat().st_mode & 0o777 == 0o644
    before = place.conflist.stat().st_ino, (place.bin / "routable").stat().st_ino
    place.can_serve = False
    place.look()
    place.begin()
    place.can_serve = True
    place.look()
    assert (place.conflist.stat().st_ino, (place.bin / "routable").stat().st_ino) == before
    assert [one.name for one in place.conflist.parent.iterdir()] == ["10-routable.conflist"]
    assert not place.told


def removed(place: Place) -> None:
    """Somebody removes the configuration."""
    place.conflist.unlink()


def altered(place: Place) -> None:
    """Somebody alters it, and leaves our mark."""
    found = json.loads(place.conflist.read_text())
    place.conflist.write_text(json.dumps({**found, "plugins": found["plugins"][:1]}))


@pytest.mark.parametrize("change", [removed, altered])
def test_what_somebody_changes_is_put_back_and_told(place: Place, change: Callable[[Place], None]) -> None:
    """At the next look, if the agent can serve; a configuration that is removed ten times within a minute is told to
    be fought over, and comes when that is over."""
    place.look()
    change(place)
    place.can_serve = False
    place.look()
    assert not place.told
    place.can_serve = True
    place.look()
    assert place.conflist.read_bytes() == conflist().content
    assert place.told == [f"mended {place.conflist}, which somebody changed or removed"]
    for _ in range(9):
        place.look()
        change(place)
        place.look()
    place.look()
    change(place)
    assert "is fought over" in place.look()
    assert not place.conflist.exists() or place.conflist.read_bytes() != conflist().content
    place.now += 61.0
    assert place.look() == ""
    assert place.conflist.read_bytes() == conflist().content


def test_an_executable_that_somebody_removes_or_changes_is_put_back(place: Place) -> None:
    """Also its mode, which a runtime cannot do without."""
    place.look()
    target = place.bin / "routable"
    target.unlink()
    place.look()
    assert target.read_text() == RELAY.format("first")
    target.chmod(0o644)
    place.look()
    assert os.access(target, os.X_OK)
    assert len(place.told) == 2


def test_another_version_replaces_the_executable_while_it_runs(place: Place, tmp_path: Path) -> None:
    """A runtime that executes the old one goes on with it, and the next call has the new one."""
    install.install(tmp_path, Path("/usr/bin/python3"), "cc")
    place.begin()
    place.look()
    running = {"CNI_COMMAND": "ADD", "ROUTABLE_SOCKET": str(tmp_path / "nobody")}  # it waits for an agent
    with subprocess.Popen(
        [place.bin / "routable"], env=running, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        place.write("second")
        place.begin()
        assert place.look() == ""
        assert place.told == []
        assert b"second" in (place.bin / "routable").read_bytes()
        assert b"supportedVersions" in called(place.bin / "routable", {b"CNI_COMMAND": b"VERSION"}).out
        assert process.poll() is None
        process.kill()


def test_an_executable_that_is_fought_over(place: Place) -> None:
    """Ten times within a minute, then it is told, and left for the rest of it."""
    place.look()
    for _ in range(10):
        (place.bin / "routable").unlink()
        place.look()
    (place.bin / "routable").unlink()
    assert f"{place.bin / 'routable'} is fought over" in place.look()
    place.now += 61.0
    assert place.look() == ""


def test_where_the_executables_are_nobodys_business(place: Place, tmp_path: Path) -> None:
    """Without that directory nothing is known of what is missing there: the configuration is written."""
    place.table = CniTable(conflist=str(place.conflist))
    place.begin()
    assert place.look() == ""
    assert place.conflist.exists()
    assert not (place.bin / "routable").exists()


def test_the_executable_of_an_image_or_of_the_node(tmp_path: Path) -> None:
    """The one beside the agent's Python; where there is none, it is made."""
    beside, scratch = tmp_path / "beside", tmp_path / "scratch"
    beside.mkdir()
    found = executable(beside, scratch)
    assert found == scratch / "routable"
    assert b"supportedVersions" in called(found, {b"CNI_COMMAND": b"VERSION"}).out
    found.rename(beside / "routable")
    assert executable(beside, scratch) == beside / "routable"


def test_what_was_made_is_made_again_when_somebody_removed_it(tmp_path: Path) -> None:
    """And not before."""
    made = [tmp_path / "one", tmp_path / "two"]
    waiting = iter(made)

    def make() -> Path:
        path = next(waiting)
        path.write_text("")
        return path

    source = lasting(make)
    assert (source(), source()) == (made[0], made[0])
    made[0].unlink()
    assert (source(), source()) == (made[1], made[1])


def test_one_that_does_not_run_replaces_none(place: Place) -> None:
    """The old one stays, and it is told why."""
    place.look()
    place.source.write_text("#!/nonexistent\n")
    place.begin()
    assert "routable cannot be installed" in place.look()
    assert (place.bin / "routable").read_text() == RELAY.format("first")
    place.source.unlink()
    assert "cannot be read: No such file" in place.look()


def test_what_is_not_ours_is_left_alone(place: Place, tmp_path: Path) -> None:
    """A configuration without our mark, a link, a directory in its place: told, and never touched, nor removed at the
    end."""
    place.conflist.parent.mkdir()
    sample = (Path(__file__).parents[2] / "conf" / "10-routable.conflist").read_text()
    place.conflist.write_text(sample)
    assert f"{place.conflist} is not the agent's: it has no mark" in place.look()
    assert place.conflist.read_text() == sample
    assert remove_conflist(place.table) == f"left alone, it has no mark of ours: {place.conflist}"
    place.conflist.unlink()
    (tmp_path / "elsewhere").write_bytes(conflist().content)
    place.conflist.symlink_to(tmp_path / "elsewhere")
    assert "is not a regular file" in place.look()
    assert place.conflist.is_symlink()
    place.conflist.unlink()
    place.conflist.mkdir()
    assert "is not a regular file" in place.look()
    place.conflist.rmdir()
    assert place.look() == ""
    assert remove_conflist(place.table) == f"- {place.conflist}"
    assert not place.conflist.exists()
    assert remove_conflist(place.table) == ""
    assert remove_conflist(CniTable()) == ""


def test_a_configuration_whose_executables_are_missing_is_not_written(place: Place) -> None:
    """Every pod would fail, on a node that is Ready. One that was there already stays; loopback, which no configuration
    names, is told."""
    (place.bin / "portmap").unlink()
    (place.bin / "loopback").unlink()
    assert place.look() == (
        f"{place.bin} has no executable loopback: every pod needs it: install the CNI reference plugins there\n"
        f"{place.bin} has no executable portmap: it is in the network configuration: "
        "install the CNI reference plugins there"
    )
    assert not place.conflist.exists()
    place.plugins("portmap")
    assert "loopback" in place.look()
    assert place.conflist.exists()


def test_executables_that_are_links_to_what_a_container_does_not_see(place: Place, tmp_path: Path) -> None:
    """They count as there, since nobody can tell; what leads nowhere in a directory that can be seen does not."""
    for one in ("portmap", "loopback"):
        (place.bin / one).unlink()
        (place.bin / one).symlink_to(tmp_path / "on-the-node" / "bin" / "cni")
    assert place.look() == ""
    assert place.conflist.exists()
    (tmp_path / "on-the-node" / "bin").mkdir(parents=True)
    assert "no executable portmap" in place.look()
    (tmp_path / "on-the-node" / "bin" / "cni").write_text("#!/bin/sh\n")
    (tmp_path / "on-the-node" / "bin" / "cni").chmod(0o755)
    assert place.look() == ""


def test_versions_that_a_chained_plugin_does_not_speak_are_not_offered(place: Place) -> None:
    """A runtime would choose the highest, and every ADD would fail in that plugin. Told, and offered when a newer one
    is there; what a plugin does not say is not judged."""
    old = '#!/bin/sh\n[ "$CNI_COMMAND" = VERSION ] && echo \'{"supportedVersions": ["0.4.0", "1.0.0"]}\'\n'
    (place.bin / "portmap").write_text(old)
    assert place.look() == (
        f"{place.bin}/portmap does not speak CNI 1.1.0: so the network configuration does not offer that, nor STATUS "
        "with it: install a newer one (of the reference plugins release 1.6.0)"
    )
    found = json.loads(place.conflist.read_text())
    assert (found["cniVersion"], found["cniVersions"]) == ("1.0.0", ["0.4.0", "1.0.0"])
    assert place.look()
    (place.bin / "portmap").write_text(old.replace('"1.0.0"]', '"1.1.0"]'))
    assert "portmap does not speak CNI 1.0.0" in place.look()
    found = json.loads(place.conflist.read_text())
    assert (found["cniVersion"], found["cniVersions"]) == ("1.1.0", ["0.4.0", "1.1.0"])
    (place.bin / "portmap").write_text(old.replace('"0.4.0", "1.0.0"', '"9.9.9"'))
    assert "does not speak CNI 0.4.0, 1.0.0, 1.1.0" in place.look()
    assert json.loads(place.conflist.read_text())["cniVersions"] == ["0.4.0", "1.0.0", "1.1.0"]
    (place.bin / "portmap").write_text("#!/nonexistent\n")
    assert place.look() == ""
    assert not place.told


def test_a_plugin_that_could_not_be_asked_is_asked_again(place: Place) -> None:
    """It is busy for as long as somebody writes to it; what it speaks is not known by that."""
    plugin = place.bin / "portmap"
    plugin.write_text(RELAY.format("old"))
    plugins = Plugins()
    with plugin.open("ab"):
        assert plugins.spoken(plugin) is None
    assert plugins.spoken(plugin) == frozenset({"1.0.0"})


def test_what_could_not_be_mended_is_not_told_as_mended(place: Place) -> None:
    """Nor for a fight: there is no room, and nobody who keeps changing it."""
    place.look()
    place.conflist.unlink()
    obstacle = place.conflist.with_name(f".{place.conflist.name}.new")
    obstacle.mkdir()
    for _ in range(20):
        assert "cannot be written" in place.look()
    assert not place.told
    obstacle.rmdir()
    assert place.look() == ""
    assert place.told == [f"mended {place.conflist}, which somebody changed or removed"]


def test_a_template_is_followed(place: Place, tmp_path: Path) -> None:
    """What it makes is written when it changes; one that is wrong, or gone, is told and changes nothing."""
    template = tmp_path / "template.conflist"
    place = Place(tmp_path, str(template))
    assert f"{template}: cannot be read: No such file or directory; see cni.template" in place.look()
    assert not place.conflist.exists()
    template.write_text('{"name": "pods", "plugins": [{"type": "routable"}]}')
    assert place.look() == ""
    first = place.conflist.read_bytes()
    assert json.loads(first)["name"] == "pods"
    template.write_text("{")
    assert f"{template}: is not JSON" in place.look()
    assert place.conflist.read_bytes() == first
    template.write_text('{"name": "more", "plugins": [{"type": "routable"}, {"type": "portmap"}]}')
    assert place.look() == ""
    assert json.loads(place.conflist.read_text())["name"] == "more"
    assert not place.told


def test_a_configuration_that_comes_first_is_told(place: Place) -> None:
    """The runtime takes the first by name of those that libcni reads."""
    place.conflist.parent.mkdir()
    (place.conflist.parent / "05-notes.txt").touch()
    assert place.look() == ""
    (place.conflist.parent / "10-flannel.conflist").touch()
    assert "10-routable.conflist is not what the runtime uses, 10-flannel.conflist is" in place.look()


def test_directories_that_cannot_be_written_are_told(place: Place, tmp_path: Path) -> None:
    """And nothing else comes of it."""
    (tmp_path / "net.d").write_text("a file")
    (tmp_path / "bin" / "routable").mkdir()
    said = place.look()
    assert "routable cannot be installed" in said
    assert "cannot be written" in said
    with pytest.raises(ConfigInvalid, match="cannot be written"):
        remove_conflist(CniTable(conflist=f"/{'x' * 300}/a.conflist"))


def test_a_write_that_fails_leaves_nothing_behind(place: Place, tmp_path: Path) -> None:
    """As where something is in the way of the rename."""
    place.conflist.parent.mkdir()
    (place.conflist.parent / ".10-routable.conflist.new").mkdir()
    assert "cannot be written" in place.look()
    assert [one.name for one in place.conflist.parent.iterdir()] == [".10-routable.conflist.new"]


def test_the_executable_that_was_put_there_is_known_and_removed(place: Place) -> None:
    """By its digest in the journal; another one, or none, is left alone."""
    place.look()
    digest, _, target = place.kept[EXECUTABLE].partition(" ")
    assert not install.removed(Path(target), "another")
    assert install.removed(Path(target), digest)
    assert not install.removed(Path(target), digest)
    with pytest.raises(ConfigInvalid, match="cannot be removed"):
        install.removed(Path(f"/{'x' * 300}"), digest)


def test_it_is_a_part_of_the_agent(place: Place) -> None:
    """Its thread looks until it is stopped; what nobody foresaw is the agent's end."""
    place.directories.start()
    eventually("it is there", place.conflist.exists)
    place.directories.stop()
    assert not place.deaths
    place.begin()
    place.can_serve = True
    place.conflist.unlink()
    place.directories._can_serve = lambda: bool(1 // 0)
    place.directories.start()
    place.directories._thread.join(10.0)
    ((name, error),) = place.deaths
    assert (name, type(error)) == ("cni", ZeroDivisionError)
