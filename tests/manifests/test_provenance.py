"""What a run says of the code that ran."""

import subprocess
from pathlib import Path

from lps.manifests.provenance import checkout, code_version


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
