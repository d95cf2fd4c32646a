"""deploy/packages.sh --extract: programs of Debian packages from a folder, with nothing installed."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy/packages.sh"

APT = """#!/bin/sh
# An apt-get whose packages are files beside it; it can download them while there is a file "current".
here=${0%/*}
echo "$*" >>"$here/calls"
case "$*" in
*--print-uris*) cat "$here/mirrors" ;;
*update*) : >"$here/current" ;;
*--simulate*)
    [ -e "$here/current" ] || exit 100
    echo 'Inst libneeded (1.0 Debian:12/stable [amd64])'
    echo 'Inst page (1.0 Debian:12/stable [all])'
    echo 'Inst libthere [0.9] (1.0 Debian:12/stable [amd64])'
    echo 'Inst wanted (1.0 Debian:12/stable [amd64]) [libneeded:amd64 ]' ;;
*download*)
    for word; do case $word in Dir::Etc::SourceList=*) cp "${word#*=}" "$here/sources" ;; esac; done
    for package; do [ ! -e "$here/$package.deb" ] || { cp "$here/$package.deb" . && got=yes; }; done
    [ "${got-}" ] ;;
esac
"""


MIRRORS = """'http://security.invalid/debian-security/dists/stable-security/InRelease' one 0
'http://somebody.invalid/debian/dists/stable/stable/binary-amd64/Packages.xz' another 0
'http://mirror.invalid/debian/dists/stable/main/binary-amd64/Packages.xz' a third 0
"""


def package(place: Path, name: str, files: Mapping[str, str]) -> None:
    """Builds NAME.deb in *place* of what is in *files*, programs all."""
    root = place / f"{name}.root"
    texts = {"DEBIAN/control": f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: -\nDescription: -\n"}
    for path, text in (*texts.items(), *files.items()):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
        (root / path).chmod(0o755)
    subprocess.run(["dpkg-deb", "--build", root, place / f"{name}.deb"], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def apt(tmp_path: Path) -> Path:
    """The folder of an apt-get that has four packages, whose lists are those of today."""
    place = tmp_path / "apt"
    place.mkdir()
    (place / "apt-get").write_text(APT)
    (place / "apt-get").chmod(0o755)
    (place / "current").touch()
    (place / "mirrors").write_text(MIRRORS)
    says = '#!/bin/sh\necho "${LD_LIBRARY_PATH%%:*}" "$(command -v helper)"\n'
    package(place, "wanted", {"usr/bin/wanted": says})
    package(place, "libneeded", {"usr/lib/some-linux-gnu/libneeded.so": "", "usr/sbin/helper": "#!/bin/sh\n"})
    package(place, "libthere", {"usr/lib/there": ""})
    package(place, "page", {"usr/share/page": ""})
    return place


def extract(apt: Path, folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    """What the script did with *apt* first in PATH."""
    path = f"{apt}:{os.environ['PATH']}"
    command = [str(SCRIPT), "--extract", str(folder), *names]
    return subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=30)


def test_a_program_runs_with_what_it_needs(apt: Path, tmp_path: Path) -> None:
    """Its libraries and programs are found; what is there, or is for every architecture, is not unpacked."""
    folder = tmp_path / "debian"
    assert extract(apt, folder, "wanted").returncode == 0
    said = subprocess.run([folder / "run", "wanted"], capture_output=True, text=True, check=True)
    assert said.stdout.split() == [str(folder / "usr/lib/some-linux-gnu"), str(folder / "usr/sbin/helper")]
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    programs = {"usr/bin/wanted", "usr/sbin/helper", "usr/lib/some-linux-gnu/libneeded.so"}
    assert found == {"run", ".packages/wanted"} | programs


def test_what_is_unpacked_is_not_asked_for_again(apt: Path, tmp_path: Path) -> None:
    """A second call needs neither network nor apt-get; a further package is unpacked beside the first."""
    folder = tmp_path / "debian"
    extract(apt, folder, "wanted")
    (apt / "calls").unlink()
    assert extract(apt, folder, "wanted").returncode == 0
    assert not (apt / "calls").exists()
    assert extract(apt, folder, "wanted", "page").returncode == 0
    assert (folder / "usr/share/page").is_file()
    assert "download libneeded page" in (apt / "calls").read_text()


def test_the_machines_lists_are_left_as_they_are(apt: Path, tmp_path: Path) -> None:
    """Where they are too old or missing, lists of the script's own are fetched, and removed after use."""
    (apt / "current").unlink()
    folder = tmp_path / "debian"
    assert extract(apt, folder, "wanted").returncode == 0
    update = next(line for line in (apt / "calls").read_text().splitlines() if "update" in line)
    assert f"Dir::State::Lists={folder}/.download." in update
    assert not list(folder.glob(".download*"))


def test_what_could_not_be_had_is_tried_again(apt: Path, tmp_path: Path) -> None:
    """A download that fails is the script's failure, and leaves nothing that looks unpacked."""
    folder = tmp_path / "debian"
    (apt / "wanted.deb").rename(apt / "hidden")
    (apt / "libneeded.deb").rename(apt / "hidden2")
    assert extract(apt, folder, "wanted").returncode != 0
    (apt / "hidden").rename(apt / "wanted.deb")
    assert extract(apt, folder, "wanted").returncode == 0
    assert (folder / "usr/bin/wanted").is_file()


def test_packages_of_another_release_come_alone(apt: Path, tmp_path: Path) -> None:
    """They are asked of the machine's own mirror, with lists of the script's own, and bring nothing that they need."""
    folder = tmp_path / "testing"
    assert extract(apt, folder, "--suite", "testing", "wanted").returncode == 0
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {"run", "wanted"}
    calls = (apt / "calls").read_text()
    assert f"Dir::Etc::SourceList={folder}/.download." in calls
    assert "--simulate" not in calls
    sources = (apt / "sources").read_text()
    assert re.fullmatch(r"deb .*http://mirror\.invalid/debian testing main\n", sources)


def test_another_release_is_not_had_without_a_mirror_of_debian(apt: Path, tmp_path: Path) -> None:
    """On a machine that knows none, the script says what is missing, and goes on."""
    (apt / "mirrors").write_text("\n".join(MIRRORS.splitlines()[:2]))
    done = extract(apt, tmp_path / "testing", "--suite", "testing", "wanted")
    assert done.returncode == 0
    assert "no mirror of Debian is known here" in done.stderr
    assert "wanted" in done.stderr
