"""What a run says of the code that ran; caches without a home, and sockets where TMPDIR is too long for them."""

import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from lps.cli.prep.main import main
from lps.manifests import environment
from lps.manifests.environment import cache_folder, checkout, code_version, scratch_folder, socket_place
from lps.manifests.errors import UnreadableError


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let TMPDIR be a folder of the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    return tmp_path / "t"


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this be a user without HOME and without an entry in the table of users."""
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_a_cache_lies_where_it_is_said_or_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("shards") == tmp_path / ".cache/lps-prep/shards"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "said"))
    assert cache_folder("shards") == tmp_path / "said/lps-prep/shards"


@pytest.mark.usefixtures("nobody")
def test_without_a_home_it_lies_in_the_temporary_folder(temporary: Path) -> None:
    assert cache_folder("shards") == temporary / f"lps-prep-{os.getuid()}/shards"


def test_a_home_that_cannot_be_written_to_is_none(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.F_OK and Path(path).exists())
    assert cache_folder("weights") == temporary / f"lps-prep-{os.getuid()}/weights"
    (tmp_path / "home/.cache/lps-prep/weights").mkdir(parents=True)  # what is there can still be read
    assert cache_folder("weights") == tmp_path / "home/.cache/lps-prep/weights"


@pytest.mark.usefixtures("nobody", "temporary")
def test_weights_are_looked_for_without_a_home() -> None:
    assert CliRunner().invoke(main, ["weights", "check"]).exit_code == 0


def test_sockets_lie_elsewhere_where_their_place_is_too_long(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "SHORT_PLACES", (str(tmp_path / "absent"), str(tmp_path)))
    assert socket_place("s") == str(temporary)
    room = environment.SOCKET_PATH_BYTES - len(str(tmp_path)) - 1
    assert socket_place("s" * room) == str(tmp_path)
    with pytest.raises(UnreadableError, match="name one in TMPDIR"):
        socket_place("s" * (room + 1))


def test_version_environment_and_commit() -> None:
    found = code_version()
    assert found["lps-prep"]
    assert len(found["environment_sha256"]) == 64
    assert set(found) - {"commit", "modified"} == {"lps-prep", "environment_sha256"}


def test_checkouts_say_whether_they_are_modified(tmp_path: Path) -> None:
    assert checkout(tmp_path) == {}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    assert checkout(tmp_path) == {}, "no commit yet"
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "first"], check=True)
    clean = checkout(tmp_path)
    assert len(clean["commit"]) == 40
    assert clean["modified"] is False
    (tmp_path / "new.py").write_text("")
    assert checkout(tmp_path) == {**clean, "modified": True}


KILLED = """
import os, signal, sys
from lps.manifests.environment import scratch_folder
with scratch_folder("lps-shard-", sys.argv[1]) as folder:
    (folder / "half.tar").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_scratch_of_a_killed_process_is_removed_by_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "lps-shard-own").mkdir()  # somebody else's
    with scratch_folder("lps-shard-", str(tmp_path)) as alive:
        ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, timeout=100)
        assert ended.returncode == -9
        assert len(list(tmp_path.iterdir())) == 3
        with scratch_folder("lps-shard-", str(tmp_path)) as other:
            assert sorted(tmp_path.iterdir()) == sorted([alive, other, tmp_path / "lps-shard-own"])
    assert [path.name for path in tmp_path.iterdir()] == ["lps-shard-own"]


def test_scratch_of_another_host_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, timeout=100)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("platform.node", lambda: "another host")
        with scratch_folder("lps-shard-", str(tmp_path)):
            assert len(list(tmp_path.iterdir())) == 2
