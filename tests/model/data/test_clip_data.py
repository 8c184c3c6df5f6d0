"""What is to be read: splits and split sets of a data set, plain shards, and the identity of both."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from lps.manifests.canonical import pretty_json, sha256_hex
from lps.manifests.errors import IntegrityError, RefusedError, UnreadableError
from lps.manifests.schemas import read_table, table_bytes
from lps.model.data.clip_data import SAMPLES, ClipData, DataIdentity, open_data, spread_clips
from lps.model.data.clip_decoder import ReadOptions
from lps.model.data.clip_reader import ClipReader
from lps.model.data.epoch_plan import PlanOptions
from lps.model.data.pairs import pair_up
from lps.model.data.sample import BadSample
from lps.model.data.shard_cache import ShardCache
from lps.model.data.shard_index import open_shards
from lps.model.data.shards import Shard, expand_shards

if TYPE_CHECKING:
    from tests.model.conftest import Maker, Spec, SplitSet, WebServer

    Many = Callable[..., list[list[Spec]]]


def keys(data: ClipData) -> set[str]:
    """Return the keys of all samples."""
    return set(data.samples["key"].to_pylist())


def two_splits(spec: "type[Spec]") -> "list[list[Spec]]":
    """Return a shard of train, one of val."""
    return [
        [spec(video="a"), spec(video="b", label=1, original="a")],
        [spec(video="c", split="val"), spec(video="d", label=1, original="c", split="val")],
    ]


# ---- a data set ----------------------------------------------------------------------------------------------------


def test_a_split_of_the_shards_own_set_is_read_by_default(make: "Maker", spec: "type[Spec]") -> None:
    shards = two_splits(spec)
    out = make.data_set(shards)
    data = open_data(str(out), "val")
    assert keys(data) == {each.key for each in shards[1]}
    assert data.identity == DataIdentity(
        index_sha256=sha256_hex((out / "index.json").read_bytes()),
        split_set="group",
        split="val",
        leaky=False,
        datasets=("test",),
    )


def test_another_split_set_chooses_samples_from_shards_of_all_names(
    make: "Maker", spec: "type[Spec]", split_set: "type[SplitSet]"
) -> None:
    shards = two_splits(spec)
    swapped = split_set({"a": "val", "b": "train", "c": "train", "d": "val"})
    data = open_data(str(make.data_set(shards, split_sets={"swapped": swapped})), "train", split_set="swapped")
    assert keys(data) == {shards[0][1].key, shards[1][0].key}
    assert data.column("shard").tolist() == [0, 1]
    with ClipReader(data, ReadOptions(n_frames=3), PlanOptions()) as reader:
        assert {key for batch in reader.epoch(0) for key in batch.keys} == keys(data)


def test_a_leaky_split_set_needs_to_be_allowed(make: "Maker", spec: "type[Spec]", split_set: "type[SplitSet]") -> None:
    leaky = split_set({"a": "train", "d": "test"}, leaky=True)
    out = str(make.data_set(two_splits(spec), split_sets={"random": leaky}))
    with pytest.raises(RefusedError, match="split set 'random' of .* is stamped leaky"):
        open_data(out, "train", split_set="random")
    data = open_data(out, "train", split_set="random", allow_leaky=True)
    assert data.identity.leaky is True
    assert open_data(out, "train").identity.leaky is False


def test_the_index_alone_can_say_that_the_shards_own_set_is_leaky(make: "Maker", spec: "type[Spec]") -> None:
    out = make.data_set(two_splits(spec))
    index = json.loads((out / "index.json").read_bytes())
    (out / "index.json").write_bytes(pretty_json({**index, "leaky": True}))
    with pytest.raises(RefusedError, match="stamped leaky"):
        open_data(str(out), "train")


def test_unknown_names_are_answered_with_the_known_ones(
    make: "Maker", spec: "type[Spec]", split_set: "type[SplitSet]"
) -> None:
    out = str(make.data_set(two_splits(spec), split_sets={"other": split_set({"a": "train"})}))
    with pytest.raises(UnreadableError, match="has no split set 'nope'; it has: group, other"):
        open_data(out, "train", split_set="nope")
    with pytest.raises(UnreadableError, match="split set 'group' has no videos in 'test'; its splits: train, val"):
        open_data(out, "test")


def test_a_split_without_clips_is_named(make: "Maker", spec: "type[Spec]", split_set: "type[SplitSet]") -> None:
    failed = split_set({"without-clips": "test"})
    out = str(make.data_set(two_splits(spec), split_sets={"other": failed}))
    with pytest.raises(UnreadableError, match="the videos of this split have no clips"):
        open_data(out, "test", split_set="other")


def test_a_folder_that_is_no_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match=r"has no index.json"):
        open_data(str(tmp_path), "train")


@pytest.mark.parametrize("column", ["out_size", "n_frames"])
def test_a_sample_of_negative_size_is_refused(make: "Maker", spec: "type[Spec]", column: str) -> None:
    out = make.data_set(two_splits(spec))
    path = out / "manifests/clips.parquet"
    rows = read_table("clips", path.read_bytes()).to_pylist()
    path.write_bytes(table_bytes("clips", [{**row, column: -1} for row in rows], {}))
    with pytest.raises(IntegrityError, match=r"by the manifest of clips sample \S+ has no frames or no pixels$"):
        open_data(str(out), "train")


def test_a_sample_placed_outside_of_its_shard_is_refused(make: "Maker", spec: "type[Spec]") -> None:
    out = make.data_set(two_splits(spec))
    path = out / "shards/train/train-000000.tar"
    shard = path.read_bytes()
    make.rewrite_shard_size(out, len(shard) // 2)
    with pytest.raises(IntegrityError, match="places sample .* outside of its shard"):
        open_data(str(out), "train")


def test_a_data_set_on_a_plain_web_server_reads_as_from_disk(
    make: "Maker", spec: "type[Spec]", web: "WebServer", cache: ShardCache
) -> None:
    out = make.data_set(two_splits(spec))
    local = open_data(str(out), "train")
    for web.ranges in (True, False):
        remote = open_data(f"{web.url}/{out.name}", "train")
        assert remote.identity == local.identity
        assert remote.samples.equals(local.samples)
        with ClipReader(remote, ReadOptions(n_frames=3), PlanOptions(), cache=cache) as reader:
            assert {key for batch in reader.epoch(0) for key in batch.keys} == keys(local)


# ---- plain shards --------------------------------------------------------------------------------------------------


def test_plain_shards_read_as_the_data_set_does(make: "Maker", many: "Many", cache: ShardCache) -> None:
    shards = many(3, 4)
    listed = open_data(str(make.data_set(shards)), "train")
    found = open_shards(make.shards(shards), cache)
    unknown = ["original_video_id", "source_sha256"]  # only manifests say them
    assert found.samples.drop_columns(unknown).equals(listed.samples.drop_columns(unknown))
    assert found.identity == DataIdentity(datasets=("test",))
    assert found.digest() == listed.digest()


def test_plain_shards_are_scanned_once(make: "Maker", many: "Many", cache: ShardCache) -> None:
    pattern = make.shards(many(3, 4), spoil={"r0": lambda members: members.pop("json")})
    first = open_shards(pattern, cache)
    kept = sorted(cache.folder.glob("*.index"))
    assert len(kept) == 2
    stamps = [path.stat().st_mtime_ns for path in kept]
    again = open_shards(pattern, cache)
    assert again.samples.equals(first.samples)
    assert again.faults == first.faults != ()
    assert [path.stat().st_mtime_ns for path in kept] == stamps
    for path in kept:
        path.write_bytes(b"torn")
    assert open_shards(pattern, cache).samples.equals(first.samples)


def test_a_shard_that_changed_is_scanned_again(make: "Maker", spec: "type[Spec]", cache: ShardCache) -> None:
    pattern = make.shards([[spec(video="a")]])
    open_shards(pattern, cache)
    path = expand_shards(pattern)[0].local_path
    path.write_bytes(expand_shards(make.shards([[spec(video="b"), spec(video="c")]]))[0].local_path.read_bytes())
    assert len(open_shards(pattern, cache)) == 2


def test_a_sample_of_unknown_label_needs_no_cls(make: "Maker", spec: "type[Spec]", cache: ShardCache) -> None:
    data = open_shards(make.shards([[spec(video="a", label=None), spec(video="b")]]), cache)
    assert sorted(data.labels.tolist()) == [-1, 0]
    assert data.faults == ()


def test_a_shard_that_is_not_there_is_named(tmp_path: Path, cache: ShardCache) -> None:
    with pytest.raises(UnreadableError, match="cannot read shard .*none.tar: No such file"):
        open_shards(str(tmp_path / "none.tar"), cache)


def test_patterns_expand() -> None:
    assert [shard.uri for shard in expand_shards("http://h/x-{008..010}.tar")] == [
        "http://h/x-008.tar",
        "http://h/x-009.tar",
        "http://h/x-010.tar",
    ]
    assert [shard.uri for shard in expand_shards("{a,b}/0.tar::c.tar")] == ["a/0.tar", "b/0.tar", "c.tar"]


@pytest.mark.parametrize(
    ("pattern", "message"), [("a{0", "cannot expand"), ("", "names no shards"), ("a.tar::a.tar", "names a shard twice")]
)
def test_bad_patterns_are_refused(pattern: str, message: str) -> None:
    with pytest.raises(UnreadableError, match=message):
        expand_shards(pattern)


def test_messages_show_no_secrets_of_urls() -> None:
    shard = Shard(uri="https://user:secret@host:80/a/b.tar?X-Signature=secret")
    assert shard.shown == "https://host:80/a/b.tar"
    assert str(BadSample("key", shard.shown, "why")) == "sample key of shard https://host:80/a/b.tar: why"


# ---- a million samples ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def million() -> ClipData:
    """A million samples: 4 fakes of each real video, as columns."""
    n = 1_000_000
    number = np.arange(n)
    group = number // 5
    fake = number % 5 > 0

    def ids(values: np.ndarray) -> pa.Array:
        packed = np.zeros((n, 16), np.uint8)
        packed[:, :8] = values.astype(">u8").view(np.uint8).reshape(n, 8)
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), n, [None, pa.py_buffer(packed)])

    original = pa.compute.if_else(pa.array(fake), ids(group * 5), pa.scalar(None, pa.binary(16)))
    columns = {
        "key": pa.array([f"{k:032x}-00-000000" for k in range(n)]),
        "clip_id": ids(number),
        "video_id": ids(number),
        "original_video_id": original,
        "source_sha256": pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), n, [None, pa.py_buffer(bytes(32 * n))]),
        "label": pa.array(fake.astype(np.int8)),
        "dataset": pa.array(["test"] * n),
        "method": pa.nulls(n, pa.string()),
        "shard": pa.array((number // 230).astype(np.int32)),
        "offset": pa.array(number % 230 * 1_200_000),
        "n_bytes": pa.array(np.full(n, 1_200_000)),
        "n_frames": pa.array(np.full(n, 60, np.int16)),
        "side_px": pa.array(np.full(n, 224, np.int16)),
        "inner_px": pa.array(np.full(n, 224, np.int16)),
        "track_id": pa.array(np.zeros(n, np.int16)),
        "face_id": pa.array(np.zeros(n, np.int16)),
        "start_s": pa.array(np.zeros(n)),
        "window": pa.array(number.astype(np.uint64) // 5),
        "shares_window": pa.array(number % 5 == 1),
        "compression": pa.nulls(n, pa.string()),
    }
    shards = tuple(Shard(uri=f"s{k}.tar") for k in range(n // 230 + 1))
    identity = DataIdentity(index_sha256="0" * 64)
    return ClipData(samples=pa.table(columns, schema=SAMPLES), shards=shards, identity=identity)


def test_a_million_samples_take_little_memory(million: ClipData) -> None:
    assert million.samples.nbytes < 200e6


@pytest.mark.parametrize("sampling", ["natural", "balanced", "pairs"])
def test_a_million_samples_can_be_planned_and_asked_for(million: ClipData, cache: ShardCache, sampling: str) -> None:
    options = PlanOptions(sampling=sampling)  # type: ignore[arg-type]
    with ClipReader(million, ReadOptions(), options, cache=cache) as reader:
        request = next(reader.requests_of(reader.plan(1), 1, 1000))
    assert len(request.wanted) == 16
    if sampling != "natural":
        assert sum(wanted.sample.label for wanted in request.wanted) == 8


def test_a_million_samples_are_paired_and_spread(million: ClipData) -> None:
    pairs = pair_up(million)
    assert len(pairs) == 800_000
    assert (pairs.samples[:, 0] == pairs.samples[:, 1] // 5 * 5).all()
    assert int(pairs.shared.sum()) == 200_000
    assert len(spread_clips(million, 1)) == 1_000_000
