"""What ``--check`` tells of the runtime's directories and of the Node."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.announce.check import directories, node
from agent.announce.conflist import conflist
from agent.config.load import load
from agent.config.schema import CniTable
from agent.start import check
from backends.verdict import Mark
from cluster.access import Access
from cluster.apiserver import Api
from cni.errors import ConfigInvalid


def told(table: CniTable) -> list[str]:
    """The verdicts, line by line."""
    return [" ".join(str(one).split()) for one in directories(table)]


@pytest.fixture
def table(tmp_path: Path) -> CniTable:
    """Directories that are there, with the reference plugins."""
    (tmp_path / "bin").mkdir()
    for name in ("portmap", "loopback"):
        (tmp_path / "bin" / name).write_text("")
        (tmp_path / "bin" / name).chmod(0o755)
    return CniTable(conflist=str(tmp_path / "net.d" / "10-routable.conflist"), executables=str(tmp_path / "bin"))


def test_nothing_is_told_of_what_is_off() -> None:
    """Nothing is kept, nothing is looked at."""
    assert told(CniTable()) == []


def test_what_can_be_written_is_good(table: CniTable, tmp_path: Path) -> None:
    """A configuration that will be made, and one that an agent made."""
    path = Path(table.conflist)
    assert told(table) == [f"ok executables: {tmp_path}/bin can be written", f"ok conflist: {path} can be written"]
    assert not path.parent.exists()
    path.parent.mkdir()
    path.write_bytes(conflist().content)
    assert told(table)[1:] == [f"ok conflist: {path} is an agent's"]


def test_what_will_not_be_is_wrong(table: CniTable, tmp_path: Path) -> None:
    """Another's configuration, one that comes first, executables that are missing, a template that makes none, a
    directory that is none."""
    path = Path(table.conflist)
    path.parent.mkdir()
    path.write_text("{}")
    (path.parent / "05-other.conf").touch()
    (tmp_path / "bin" / "loopback").unlink()
    first, foreign, missing, before = told(table)
    assert first.startswith("ok executables")
    assert foreign.startswith(f"WRONG conflist: {path} is not the agent's: it has no mark")
    assert missing.startswith(f"WRONG conflist: {tmp_path}/bin has no executable loopback")
    assert before.startswith("WRONG conflist: 10-routable.conflist is not what the runtime uses, 05-other.conf is")
    template = CniTable(conflist=table.conflist, template=str(tmp_path / "none"))
    assert told(template) == [
        f"WRONG conflist: {tmp_path}/none: cannot be read: No such file or directory; see cni.template"
    ]
    nowhere = CniTable(conflist=f"{path}/a.conflist", executables=f"{path}/bin")
    executables, unseen = told(nowhere)
    assert executables == f"WRONG executables: {path}/bin cannot be written: see {path}"
    assert unseen == f"WRONG conflist: {path}/a.conflist cannot be looked at: Not a directory"


def test_credentials_that_cannot_be_used_are_wrong() -> None:
    """With the reason, as from an agent's start."""

    def unreadable() -> Access:
        raise ConfigInvalid("/token: cannot be read", "No such file or directory")

    (verdict,) = node(Api(unreadable), "the test's API server", "n1")
    assert "WRONG" in str(verdict)
    assert "/token: cannot be read" in str(verdict)


def test_where_the_api_server_is_must_be_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside a pod nobody says it."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    path = tmp_path / "agent.toml"
    path.write_text('backend = "static"\n[nodes]\nfile = "/n"\n[kubernetes]\nannounce = true\n')
    (only,) = check._voices(load(str(path), hostname="n1"))
    assert (only.mark, only.what) == (Mark.WRONG, "Node")
    assert "KUBERNETES_SERVICE_HOST is not set" in only.said
