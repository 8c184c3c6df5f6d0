"""What is lost or damaged between two runs is named, and made again with the bytes that it had."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from lps.cli.audit.main import main as audit
from lps.cli.prep.main import main
from lps.manifests.errors import UnreadableError
from lps.manifests.index import TABLES_OF_A_COMMIT, Commit, CommittedRows, rows_path
from lps.manifests.records import Note
from lps.manifests.storage import Store, StoredFile
from lps.pipeline.job.wholeness import SHOWN, Fault, fault_lines, find_faults

if TYPE_CHECKING:
    import subprocess

    from tests.pipeline.conftest import Digests, Scenario

TAR = "shards/train/train-000000.tar"
CLIPS = "manifests/clips.parquet"

Named = list[tuple[str, str]]
"""Paths that are not whole, and words of what is said of each."""


@pytest.fixture
def out(undisturbed_out: Path, tmp_path: Path) -> Path:
    """Return a finished data set that the test may spoil."""
    return shutil.copytree(undisturbed_out, tmp_path / "out")


def status(out: Path) -> dict[str, object]:
    ended = CliRunner().invoke(main, ["status", str(out), "--json"])
    assert ended.exit_code == 0, ended.output
    return dict(json.loads(ended.output))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-512])


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:600] + bytes([data[600] ^ 1]) + data[601:])


def name_in_index(out: Path) -> None:
    index = json.loads((out / "index.json").read_bytes())
    entry = {**index["shards"]["train"][0], "shard_id": "train-000099", "uri": "shards/train/train-000099.tar"}
    index["shards"]["train"].append(entry)
    (out / "index.json").write_text(json.dumps(index))


def spoil_shards(out: Path) -> Named:
    missing, shorter, unnamed, *_ = sorted(path.relative_to(out).as_posix() for path in out.glob("shards/*/*.tar"))
    (out / missing).unlink()
    cut(out / shorter)
    (out / f"commits/{Path(unnamed).stem}.json").unlink()
    return [
        (missing, "missing"),
        (shorter, "bytes, its commit record says"),
        (unnamed, "no commit record names it"),
    ]


def spoil_tar_and_index(out: Path) -> Named:
    (out / TAR).write_bytes(b"")
    cut(out / "index.json")
    return [(TAR, "0 bytes, its commit record says"), ("index.json", "is damaged")]


def spoil_manifests(out: Path) -> Named:
    rule = "manifests/splits/group.json"
    (out / CLIPS).unlink()
    cut(out / "manifests/videos.parquet")
    (out / rule).unlink()
    return [
        (CLIPS, "missing"),
        ("manifests/videos.parquet", "bytes, index.json says"),
        (rule, "missing"),
    ]


def spoil_index(out: Path) -> Named:
    name_in_index(out)
    return [("shards/train/train-000099.tar", "and no commit record does")]


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [spoil_shards, spoil_tar_and_index, spoil_manifests, spoil_index])
def test_status_names_what_the_next_run_mends(
    scenario: "Scenario",
    out: Path,
    digests: "Callable[[Path], Digests]",
    undisturbed: "Digests",
    spoil: Callable[[Path], Named],
) -> None:
    assert status(out)["complete"] is True
    expected = spoil(out)
    found = status(out)
    assert found["complete"] is False
    faults = found["faults"]
    assert isinstance(faults, list)
    assert "not whole: " in CliRunner().invoke(main, ["status", str(out)]).output
    notes = [note.text for note in scenario.run(scenario.request(out)).of(Note)]
    for path, said in expected:
        assert [fault for fault in faults if fault["path"] == path and said in fault["detail"]], faults
        assert [text for text in notes if path in text and said in text], notes
    assert digests(out) == undisturbed
    assert status(out)["complete"] is True


@pytest.mark.slow
def test_a_changed_byte_is_found_on_request(
    command: "Callable[..., subprocess.CompletedProcess[str]]",
    out: Path,
    digests: "Callable[[Path], Digests]",
    undisturbed: "Digests",
) -> None:
    flip(out / TAR)
    spoilt = digests(out)
    assert command(out).returncode == 0
    assert digests(out) == spoilt, "sizes are what every run compares"
    ended = command(out, "--verify")
    assert ended.returncode == 0, ended.stderr
    assert f"note: {TAR}: its sha256 is not the one that its commit record says" in ended.stderr
    assert digests(out) == undisturbed


@pytest.mark.slow
def test_a_tar_that_nothing_names_is_told_and_left(scenario: "Scenario", out: Path) -> None:
    other = out / "shards/train/train-000077.tar"
    other.write_bytes(b"other")
    ended = scenario.run(scenario.request(out))
    assert [note.text for note in ended.of(Note) if "000077" in note.text] == [
        "shards/train/train-000077.tar: no commit record names it"
    ]
    assert other.exists()


@pytest.mark.slow
@pytest.mark.parametrize("interrupted", [False, True])
def test_added_split_sets_outlive_a_run(scenario: "Scenario", out: Path, interrupted: bool) -> None:
    added = CliRunner().invoke(main, ["split", str(out), "--rule", "ranked", "--name", "ranked-v1"])
    assert added.exit_code == 0, added.output
    before = (out / "index.json").read_bytes()
    if interrupted:
        (out / "index.json").unlink()
        (out / TAR).unlink()
    scenario.run(scenario.request(out))
    assert (out / "index.json").read_bytes() == before
    assert CliRunner().invoke(audit, ["check", str(out), "--checks", "T4"]).exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_a_split_set_that_is_not_what_the_index_named_leaves_it(
    scenario: "Scenario", out: Path, spoil: Callable[[Path], object]
) -> None:
    make = ["split", str(out), "--rule", "ranked", "--name", "ranked-v1"]
    assert CliRunner().invoke(main, make).exit_code == 0
    path = out / "manifests/splits/ranked-v1.parquet"
    data = path.read_bytes()
    spoil(path)
    ended = scenario.run(scenario.request(out))
    assert any(note.text.startswith("manifests/splits/ranked-v1.parquet: ") for note in ended.of(Note))
    assert "ranked-v1" not in (out / "index.json").read_text()
    assert CliRunner().invoke(main, make).exit_code == 0
    assert path.read_bytes() == data


# ---- without a run ---------------------------------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path: Path) -> Store:
    """Return a store with 300 small tars and the rows of their commits."""
    store = Store(str(tmp_path / "out"))
    for k in range(300):
        store.publish(f"shards/train/train-{k:06d}.tar", b"x" * k)
        for table in TABLES_OF_A_COMMIT:
            store.publish(rows_path(f"train-{k:06d}", table), b"x")
    return store


def commits(n: int) -> list[Commit]:
    rows = dict.fromkeys(TABLES_OF_A_COMMIT, CommittedRows(n_rows=0, rows_sha256="0", n_bytes=1, sha256="0" * 64))
    return [
        Commit(
            shard_id=f"train-{k:06d}",
            plan_sha256="",
            shard={"uri": f"shards/train/train-{k:06d}.tar", "bytes": k, "sha256": "0" * 64},
            rows=rows,
        )
        for k in range(n)
    ]


def test_sizes_come_from_the_listing(many: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    listed: list[str] = []
    size, walk = Store.size, Store.walk

    def counted(store: Store, path: str) -> int | None:
        asked.append(path)
        return size(store, path)

    def listing(store: Store, under: str = "") -> list[StoredFile]:
        listed.append(under)
        return walk(store, under)

    monkeypatch.setattr(Store, "size", counted)
    monkeypatch.setattr(Store, "walk", listing)
    assert find_faults(many, commits(300)) == []
    assert asked == []
    assert len(listed) <= 3
    many.delete("shards/train/train-000007.tar")
    expected = Fault("shards/train/train-000007.tar", "missing", "train-000007")
    assert find_faults(many, commits(300)) == [expected]
    assert asked == ["shards/train/train-000007.tar"], "what the listing lacks is asked for by name"


def test_rows_of_a_commit_belong_to_its_shard(many: Store) -> None:
    many.publish("commits/train-000008.clips.parquet", b"")
    many.delete("commits/train-000009.videos.parquet")
    assert find_faults(many, commits(300)) == [
        Fault("commits/train-000008.clips.parquet", "0 bytes, its commit record says 1", "train-000008"),
        Fault("commits/train-000009.videos.parquet", "missing", "train-000009"),
    ]


def test_shards_without_samples_need_no_tar(many: Store) -> None:
    found = commits(300)
    many.delete("shards/train/train-000299.tar")
    assert find_faults(many, [*found[:-1], replace(found[-1], shard=None)]) == []


def test_a_store_that_does_not_say_is_no_store_without_tars(many: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise UnreadableError("cannot list")

    monkeypatch.setattr(Store, "walk", refused)
    monkeypatch.setattr(Store, "size", refused)
    with pytest.raises(UnreadableError):
        find_faults(many, commits(3))


def test_of_many_faults_the_first_are_told() -> None:
    lines = list(fault_lines([Fault(f"{k}.tar", "missing") for k in range(SHOWN + 5)]))
    assert lines[-1] == "and 5 more"
    assert len(lines) == SHOWN + 1
