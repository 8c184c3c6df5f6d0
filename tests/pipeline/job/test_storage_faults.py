"""Disks that are full or not writable: one line, nothing torn, and the next run goes on from what is there."""

import contextlib
import hashlib
import json
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lps.manifests.errors import UnreadableError
from lps.manifests.storage import Store
from lps.pipeline.job.tasks import run_commit

if TYPE_CHECKING:
    from lps.pipeline.config.params import Params
    from lps.pipeline.job.shards import ShardJob
    from tests.pipeline.conftest import Digests

    Ended = subprocess.CompletedProcess[str]

KIB = 1024


class Disk:
    """A small file system of its own."""

    def __init__(self, folder: Path, kib: int) -> None:
        self.folder = folder
        folder.mkdir()
        self._mount(["-t", "tmpfs", "-o", f"size={kib}k", "tmpfs"])

    def remount(self, options: str) -> None:
        """Change its options."""
        self._mount(["-o", f"remount,{options}"])

    def _mount(self, options: list[str]) -> None:
        done = subprocess.run(["mount", *options, str(self.folder)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"needs the right to mount: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str, int], Disk]]:
    """Return a function that makes a disk of so many KiB."""
    made = []

    def make(name: str, kib: int) -> Disk:
        made.append(Disk(tmp_path / name, kib))
        return made[-1]

    yield make
    for one in made:
        subprocess.run(["umount", "--lazy", str(one.folder)], check=True)


@contextlib.contextmanager
def full_beyond(n_bytes: int) -> Iterator[None]:
    """Let every write beyond `n_bytes` into a file fail, as on a full disk; needs no rights."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def assert_nothing_torn(out: Path) -> int:
    """Check every committed shard and that there is no other file of a shard; return how many tars there are."""
    n_tars = 0
    records = [json.loads(path.read_bytes()) for path in sorted((out / "commits").glob("*.json"))]
    for record in records:
        if record["shard"] is not None:
            tar = out / record["shard"]["uri"]
            assert hashlib.sha256(tar.read_bytes()).hexdigest() == record["shard"]["sha256"]
            n_tars += 1
    assert list(out.rglob("*.tmp")) == []
    assert not (out / "index.json").exists()
    return n_tars


# ---- whole runs ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_full_disks_stop_a_run_which_then_goes_on(
    command: "Callable[..., Ended]",
    assert_one_line: "Callable[[Ended, int, str], None]",
    disk: Callable[[str, int], Disk],
    undisturbed_out: Path,
    undisturbed: "Digests",
    digests: "Callable[[Path], Digests]",
) -> None:
    tars = sorted(path.stat().st_size // KIB for path in undisturbed_out.glob("shards/*/*.tar"))
    # Any shard fits, all together do not, whatever their order; the rest is for plan, commits and events.
    target = disk("target", sum(tars) - tars[0] // 2 + 200)
    out, scratch = target.folder / "out", disk("scratch", 64)

    ended = command(out, settings=f'scratch = "{scratch.folder}"')
    assert_one_line(ended, 4, f"in the scratch folder {scratch.folder}: No space left on device")
    assert assert_nothing_torn(out) == 0

    ended = command(out)
    assert_one_line(ended, 4, "No space left on device")
    assert 1 <= assert_nothing_torn(out) < len(tars)

    target.remount("size=100m")
    ended = command(out)
    assert ended.returncode == 0, ended.stderr
    assert digests(out) == undisturbed


@pytest.mark.slow
def test_an_output_that_cannot_be_written_shows_at_once(
    command: "Callable[..., Ended]", assert_one_line: "Callable[[Ended, int, str], None]", tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    ended = command(tmp_path / "file/out")
    assert_one_line(ended, 4, f"lps-prep: cannot write {tmp_path}/file/out/runs/")
    assert "sources" not in ended.stderr  # before anything else is done


@pytest.mark.slow
def test_a_read_only_output_shows_at_once(
    command: "Callable[..., Ended]",
    assert_one_line: "Callable[[Ended, int, str], None]",
    disk: Callable[[str, int], Disk],
) -> None:
    target = disk("target", 64)
    target.remount("ro")
    assert_one_line(command(target.folder / "out"), 4, "Read-only file system")


# ---- one shard, one file -------------------------------------------------------------------------------------------


class NoLedger:
    """Stands for the start times where there is no cluster."""

    def __init__(self) -> None:
        self.started = self

    def remote(self, job: str) -> None:
        """Take note of nothing."""


def test_a_shard_that_does_not_fit_into_scratch_leaves_nothing(
    shard: "tuple[ShardJob, Params, list[Any]]", tmp_path: Path
) -> None:
    job, params, results = shard
    out, scratch = Store(str(tmp_path / "out")), tmp_path / "scratch"
    scratch.mkdir()
    work = (job, params, out)
    with (
        full_beyond(16 * KIB),
        pytest.raises(UnreadableError, match=rf"^cannot build {job.shard_id} in .*scratch: File"),
    ):
        run_commit(NoLedger(), "commit", work, str(scratch), *results)
    assert list(scratch.iterdir()) == []
    assert not Path(out.url).exists()
    assert run_commit(NoLedger(), "commit", work, str(scratch), *results).n_samples == 1


@pytest.mark.parametrize("before", [b"older content", None], ids=["replacing", "new"])
def test_a_file_that_does_not_fit_is_not_seen(tmp_path: Path, before: bytes | None) -> None:
    store, source = Store(str(tmp_path / "out")), tmp_path / "big"
    source.write_bytes(bytes(64 * KIB))
    if before is not None:
        store.publish("a/b", before)
    with full_beyond(16 * KIB):
        with pytest.raises(UnreadableError, match=r"^cannot write .*out/a/b: File too large$"):
            store.publish_file(source, "a/b")
        with pytest.raises(UnreadableError, match=r"^cannot write .*out/a/b: File too large$"):
            store.publish("a/b", bytes(64 * KIB))
    assert [file.path for file in store.walk()] == (["a/b"] if before else [])
    assert before is None or store.read("a/b") == before
    store.publish_file(source, "a/b")
    assert store.read("a/b") == source.read_bytes()
