"""Check L11: people who look alike across splits, by embeddings that an auditor brings."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from lps.cli.audit.main import main
from lps.manifests.audit.checks.look_alikes import Embeddings, look_alike_check, read_embeddings
from lps.manifests.audit.core.types import AuditContext, CheckResult, State
from lps.manifests.errors import UnreadableError

if TYPE_CHECKING:
    from tests.manifests.audit.checks.conftest import World

N_NUMBERS = 128
Opened = Callable[["World"], AuditContext]


def faces(world: "World") -> dict[bytes, NDArray[np.float32]]:
    """Return a face of each video: one for all videos of a pair of sequences, strangers else."""
    rng = np.random.default_rng(0)
    group_of = {row["video_id"]: row["group_id"] for row in world.splits}
    face_of = {group: rng.normal(size=N_NUMBERS) for group in dict.fromkeys(group_of.values())}
    return {v: (face_of[group] + rng.normal(scale=0.1, size=N_NUMBERS)).astype("f4") for v, group in group_of.items()}


def written(path: Path, found: dict[bytes, NDArray[np.float32]]) -> Path:
    pq.write_table(pa.table({"video_id": [v.hex() for v in found], "embedding": list(found.values())}), path)
    return path


def look_alikes(ctx: AuditContext, path: Path) -> CheckResult:
    return look_alike_check(read_embeddings(path)).run(ctx)


def test_strangers_pass(world: "World", opened: Opened, tmp_path: Path) -> None:
    result = look_alikes(opened(world), written(tmp_path / "faces.parquet", faces(world)))
    assert (result.state, result.n_checked, result.note) == (State.PASS, len(world.videos), "")


def test_one_person_in_two_splits_is_named(world: "World", opened: Opened, tmp_path: Path) -> None:
    one, two = world.add("one", "train"), world.add("two", "test")
    found = faces(world)
    found[two["video_id"]] = found[one["video_id"]] + np.float32(0.05)
    result = look_alikes(opened(world), written(tmp_path / "faces.parquet", found))
    assert result.state == State.FAIL
    [offender] = result.offenders
    assert (offender.key, offender.detail) == (
        two["video_id"].hex(),
        "two.mp4 (test) looks like one.mp4 (train): cosine 1.00",
    )


def test_recogniser_that_takes_all_for_alike_is_unknown(world: "World", opened: Opened, tmp_path: Path) -> None:
    alike = dict.fromkeys(faces(world), np.ones(4, "f4"))
    assert look_alikes(opened(world), written(tmp_path / "faces.parquet", alike)).state == State.UNKNOWN


def test_threshold_follows_the_recogniser(world: "World", opened: Opened, tmp_path: Path) -> None:
    """Strangers whose faces have half of their direction in common are no look-alikes."""
    near = {v: face / np.linalg.norm(face) + np.float32(N_NUMBERS**-0.5) for v, face in faces(world).items()}
    result = look_alikes(opened(world), written(tmp_path / "faces.parquet", near))
    assert result.state == State.PASS
    assert float(result.limit.split()[3]) > 0.6


def test_strangers_of_a_large_set_are_no_look_alikes(
    world: "World", opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among millions of pairs, some are nearer to each other than one in a million is."""
    rng = np.random.default_rng(2)
    for k in range(4000):
        world.add(f"more{k}", ("train", "test")[k % 2])
    found = {row["video_id"]: rng.normal(size=48).astype("f4") for row in world.videos}
    ctx, path = opened(world), written(tmp_path / "faces.parquet", found)
    assert look_alikes(ctx, path).state == State.PASS
    with monkeypatch.context() as patch:
        patch.setattr("lps.manifests.audit.checks.look_alikes.BY_CHANCE", float("inf"))
        assert look_alikes(ctx, path).state == State.FAIL
    one, two = (world.video(f"more{k}")["video_id"] for k in (0, 1))
    found[two] = found[one]
    result = look_alikes(ctx, written(path, found))
    assert [offender.key for offender in result.offenders] == [two.hex()]


def test_videos_without_a_face_are_not_passed_over(world: "World", opened: Opened, tmp_path: Path) -> None:
    found = faces(world)
    del found[world.videos[0]["video_id"]]
    result = look_alikes(opened(world), written(tmp_path / "faces.parquet", found))
    assert result.state == State.UNKNOWN
    assert result.note == f"1 of {len(world.videos)} placed videos with clips have no embedding"
    other = {bytes(16): np.ones(4, "f4")}
    assert look_alikes(opened(world), written(tmp_path / "other.parquet", other)).state == State.UNKNOWN


def test_videos_without_clips_need_no_face(world: "World", opened: Opened, tmp_path: Path) -> None:
    """No recogniser sees a face of a video that failed, and no detector learns one."""
    found, name = faces(world), world.placed("test", 0)[0]
    world.drop_clips(name)
    del found[world.video(name)["video_id"]]
    result = look_alikes(opened(world), written(tmp_path / "faces.parquet", found))
    assert (result.state, result.n_checked, result.note) == (State.PASS, len(world.videos) - 1, "")


def test_a_video_without_clips_is_no_look_alike(world: "World", opened: Opened, tmp_path: Path) -> None:
    one, two = world.add("one", "train"), world.add("two", "test")
    world.drop_clips("two")
    found = faces(world)
    found[two["video_id"]] = found[one["video_id"]]
    assert look_alikes(opened(world), written(tmp_path / "faces.parquet", found)).state == State.PASS


def test_a_failed_original_still_ties_its_fakes(world: "World", opened: Opened, tmp_path: Path) -> None:
    """Fakes of one group are of one person, whether or not the video that ties them gave clips."""
    original = world.add("one", "train")
    fakes = [world.add(n, s, 1, original_video_id=original["video_id"]) for n, s in (("a", "train"), ("b", "test"))]
    world.drop_clips("one")
    found = faces(world)
    found[fakes[1]["video_id"]] = found[fakes[0]["video_id"]]
    assert look_alikes(opened(world), written(tmp_path / "faces.parquet", found)).state == State.PASS


def test_ids_may_be_categories(tmp_path: Path) -> None:
    """A column of pandas' `astype("category")` is dictionary-encoded text."""
    path = tmp_path / "faces.parquet"
    for kind, texts in ((pa.string(), ["aa", "bb", "aa"]), (pa.large_string(), ["aa", "bb", "aa"])):
        ids = pa.array(texts, kind).dictionary_encode()
        pq.write_table(pa.table({"video_id": ids, "embedding": [[1.0], [2.0], [3.0]]}), path)
        assert pa.types.is_dictionary(pq.read_schema(path).field("video_id").type)
        assert read_embeddings(path).ids == [b"\xaa", b"\xbb"]


def test_rows_of_a_video_are_averaged(tmp_path: Path) -> None:
    column = pa.FixedSizeListArray.from_arrays(pa.array([2.0, 0, 0, 5, 0, -1]), 2)
    pq.write_table(pa.table({"video_id": [b"a" * 16, b"a" * 16, b"b" * 16], "embedding": column}), tmp_path / "f")
    found = read_embeddings(tmp_path / "f")
    assert found.ids == [b"a" * 16, b"b" * 16]
    np.testing.assert_allclose(found.vectors, [[0.5**0.5, 0.5**0.5], [0, -1]], rtol=1e-6)


def test_large_sets_are_compared_in_tiles(
    world: "World", opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lps.manifests.audit.checks.look_alikes.TILE", (7, 11))
    monkeypatch.setattr("lps.manifests.splits.near_copies.N_SAMPLED", 5000)
    test_one_person_in_two_splits_is_named(world, opened, tmp_path)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"video_id": ["aa"]}, "has no column 'embedding'"),
        ({"video_id": ["aa"], "embedding": [1.0]}, "no list of numbers"),
        ({"video_id": ["aa", "bb"], "embedding": [[1.0], [1.0, 2.0]]}, "as many numbers"),
        ({"video_id": ["aa"], "embedding": [[float("nan"), 1.0]]}, "zero or not finite (row 0)"),
        ({"video_id": ["aa", "bb"], "embedding": [[1.0, 1.0], [0.0, 0.0]]}, "zero or not finite (row 1)"),
        ({"video_id": ["aa", "bb"], "embedding": [[1.0], [float("inf")]]}, "zero or not finite (row 1)"),
        ({"video_id": ["aa", "bb"], "embedding": [[1.0], [float("nan")]]}, "zero or not finite (row 1)"),
        ({"video_id": pa.array([1]).dictionary_encode(), "embedding": [[1.0]]}, "must be hexadecimal text or bytes"),
        ({"video_id": ["zz"], "embedding": [[1.0]]}, "no hexadecimal text"),
        ({"video_id": [1], "embedding": [[1.0]]}, "must be hexadecimal text or bytes"),
        ({"video_id": pa.array([], pa.string()), "embedding": pa.array([], pa.list_(pa.float32()))}, "no embedding"),
    ],
)
def test_file_that_is_wrong_is_named(table: dict[str, Any], said: str, tmp_path: Path) -> None:
    pq.write_table(pa.table(table), tmp_path / "faces.parquet")
    with pytest.raises(UnreadableError, match="faces.parquet") as e:
        read_embeddings(tmp_path / "faces.parquet")
    assert said in str(e.value)


def test_command_reads_them(dataset: Path, tmp_path: Path) -> None:
    ids = pq.read_table(dataset / "manifests/videos.parquet", columns=["video_id"])["video_id"].to_pylist()
    path = written(tmp_path / "faces.parquet", {v: np.eye(len(ids), dtype="f4")[k] for k, v in enumerate(ids)})
    words = ["check", str(dataset), "--checks", "L11", "--embeddings", str(path)]
    assert "L11" in (done := CliRunner().invoke(main, words)).output
    assert "needs --embeddings" not in done.output
    path.write_bytes(b"no parquet")
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, done.output.count("\n")) == (4, 1)
    assert "faces.parquet: no embeddings can be read" in done.output


def test_ids_that_no_video_has_do_no_harm(world: "World", opened: Opened) -> None:
    found = faces(world)
    more = Embeddings(
        ids=[*found, bytes(16)],
        vectors=np.array([*(f / np.linalg.norm(f) for f in found.values()), np.ones(128)], "f4"),
    )
    assert look_alike_check(more).run(opened(world)).state == State.PASS
