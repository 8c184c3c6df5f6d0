"""Clips as pictures and videos for other tools: what is in them, that a killed convert goes on, what is refused."""

import fcntl
import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from lps.manifests.errors import IntegrityError, LpsError, RefusedError, UnreadableError
from lps.manifests.names import ConvertKind
from lps.manifests.records import Note
from lps.manifests.schemas import read_table
from lps.manifests.splits.records import SplitParams
from lps.manifests.storage import Store
from lps.pipeline.job.split_sets import add_split_set
from lps.pipeline.tools.convert import ConvertEvent, Converting, ConvertRequest, convert_clips
from tests.builders import folder_video, manifest_rows
from tests.pipeline.tools.convert_data import (
    N_FRAMES,
    PARAMS,
    TICKS,
    change_clips,
    converted,
    ffpp_videos,
    make_data_set,
    pixels,
    stored_members,
    tree,
)

KINDS: tuple[ConvertKind, ...] = ("frames", "mp4", "deepfakebench")


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A data set that no test changes."""
    return make_data_set(tmp_path_factory.mktemp("convert") / "out", ffpp_videos())


@pytest.fixture
def small(tmp_path: Path) -> Store:
    return make_data_set(tmp_path / "out", ffpp_videos(2))


def lines(target: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (target / "clips.jsonl").read_text().splitlines()]


# ---- what is made ----------------------------------------------------------------------------------------------------


def test_frames_are_the_stored_files_by_split_and_label(data_set: Store, tmp_path: Path) -> None:
    made = converted(data_set, tmp_path / "to", "frames")
    rows, stored = manifest_rows(Path(data_set.url), "clips"), stored_members(data_set)
    assert (made.n_clips, made.n_made) == (len(rows), len(rows)) == (40, 40)
    expected = {
        f"{row['split']}/{('real', 'fake')[row['label']]}/{row['sample_key']}/{k:02d}.jpg": stored[
            f"{row['sample_key']}.{k:02d}.jpg"
        ]
        for row in rows
        for k in range(N_FRAMES)
    }
    assert len({row["split"] for row in rows}) == 3
    found = {name: (tmp_path / "to" / name).read_bytes() for name in tree(tmp_path / "to") if name.endswith(".jpg")}
    assert found == expected
    assert set(tree(tmp_path / "to")) == {*expected, "clips.jsonl", "convert.json"}


def test_the_table_says_what_the_samples_say(data_set: Store, tmp_path: Path) -> None:
    converted(data_set, tmp_path / "to", "frames")
    rows, stored = manifest_rows(Path(data_set.url), "clips"), stored_members(data_set)
    assert [line["sample_key"] for line in lines(tmp_path / "to")] == [row["sample_key"] for row in rows]
    for line, row in zip(lines(tmp_path / "to"), rows, strict=True):
        sample = json.loads(stored[f"{row['sample_key']}.json"])
        same = ("clip_id", "video_id", "label", "method", "dataset", "frame_idx", "pts_s")
        assert {name: line[name] for name in same} == {name: sample[name] for name in same}
        assert (line["split"], line["compression"]) == (row["split"], "c23")
        assert (tmp_path / "to" / str(line["path"]) / "04.jpg").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_stored_around_the_face_is_told(kind: ConvertKind, tmp_path: Path) -> None:
    out = make_data_set(tmp_path / "out", ffpp_videos(1))
    change_clips(out, align_template="arcface5-24x0.85")
    notes: list[str] = []
    asked = ConvertRequest(out=out.url, target=tmp_path / "to", kind=kind)
    convert_clips(asked, lambda event: notes.append(event.text) if isinstance(event, Note) else None)
    assert [(line["out_size"], line["inner_px"]) for line in lines(tmp_path / "to")] == [(32, 24), *[(32, 32)] * 3]
    assert notes == [
        "with a margin around the aligned face, which is the middle inner_px of out_size (clips.jsonl): 1 of 4 clips"
    ]


@pytest.mark.parametrize("codec", ["png", "webp"])
def test_lossless_pictures_are_png_with_the_pixels_of_the_clip(codec: str, tmp_path: Path) -> None:
    out = make_data_set(tmp_path / "out", ffpp_videos(1), replace(PARAMS, codec=codec))  # type: ignore[arg-type]
    converted(out, tmp_path / "to", "frames")
    stored = stored_members(out)
    for line in lines(tmp_path / "to"):
        for k, image in enumerate(pixels(bytes.fromhex(str(line["video_id"])))):
            path = tmp_path / "to" / str(line["path"]) / f"{k:02d}.png"
            with Image.open(path) as found:
                assert found.format == "PNG"
                assert (np.asarray(found) == image).all()
            assert codec != "png" or path.read_bytes() == stored[f"{line['sample_key']}.{k:02d}.png"]


def test_videos_have_the_pixels_and_the_times_of_the_clip(data_set: Store, tmp_path: Path) -> None:
    converted(data_set, tmp_path / "to", "mp4", limit=1)
    stored = stored_members(data_set)
    assert len(lines(tmp_path / "to")) == 6
    for line in lines(tmp_path / "to"):
        with av.open(str(tmp_path / "to" / str(line["path"]))) as container:
            stream = container.streams.video[0]
            frames = list(container.decode(stream))
            assert (stream.codec_context.name, stream.codec_context.profile) == ("h264", "High 4:4:4 Predictive")
            assert stream.average_rate == pytest.approx(25 * 4 / 8, rel=0.15)  # the last frame has a length, too
        times = [frame.pts * frame.time_base for frame in frames if frame.pts is not None and frame.time_base]
        assert times == [Fraction(t - TICKS[0], 25) for t in TICKS]
        for k, frame in enumerate(frames):
            with Image.open(io.BytesIO(stored[f"{line['sample_key']}.{k:02d}.jpg"])) as image:
                assert (frame.to_ndarray(format="rgb24") == np.asarray(image)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_data_set_gives_the_same_files_every_time(
    kind: ConvertKind, data_set: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted(data_set, tmp_path / "a", kind, limit=2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    converted(Store(f"file://{data_set.url}"), tmp_path / "b", kind, limit=2)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert len(tree(tmp_path / "a")) > 10
    name = str(tmp_path).encode()
    assert not [path for path in (tmp_path / "a").rglob("*") if path.is_file() and name in path.read_bytes()]


def test_another_split_set_decides_the_folders(small: Store, tmp_path: Path) -> None:
    add_split_set(small.url, "mixed", SplitParams(rule="random", seed=3, allow_leaky=True), None)
    converted(small, tmp_path / "to", "frames", split_set="mixed")
    rows = read_table("splits", small.read("manifests/splits/mixed.parquet")).to_pylist()
    splits = {row["video_id"].hex(): row["split"] for row in rows}
    assert {line["video_id"]: line["split"] for line in lines(tmp_path / "to")} == splits
    own = {row["video_id"].hex(): row["split"] for row in manifest_rows(Path(small.url), "clips")}
    assert own != splits
    assert json.loads((tmp_path / "to" / "convert.json").read_bytes())["leaky"] is True


def test_a_limit_is_one_of_each_split_and_label(data_set: Store, tmp_path: Path) -> None:
    converted(data_set, tmp_path / "to", "frames", limit=2)
    n_of = Counter((line["split"], line["label"]) for line in lines(tmp_path / "to"))
    assert n_of == {(split, label): 2 for split in ("train", "val", "test") for label in (0, 1)}


# ---- stop and resume -------------------------------------------------------------------------------------------------

KILLED = """
import os, sys
from pathlib import Path
from lps.pipeline.tools.convert import ConvertRequest, convert_clips

rename, unlink, left = Path.rename, Path.unlink, [int(sys.argv[4])]

def step():
    left[0] -= 1
    if left[0] < 0:
        os._exit(9)

def renamed(self, target):
    step()
    return rename(self, target)

def removed(self, **options):
    if self.name == ".begun.json":
        step()
    return unlink(self, **options)

Path.rename = Path.replace = renamed
Path.unlink = removed
os.sched_getaffinity = lambda pid: {0}
convert_clips(ConvertRequest(out=sys.argv[1], target=Path(sys.argv[2]), kind=sys.argv[3]), lambda event: None)
"""
N_SMALL = 8
"""Clips of the small data set."""


@pytest.mark.parametrize(
    ("kind", "n_steps"),
    [
        pytest.param("frames", 0, id="before the record"),
        pytest.param("frames", 1, id="before the first clip"),
        pytest.param("frames", 4, id="pictures"),
        pytest.param("mp4", 4, id="videos"),
        pytest.param("frames", 1 + N_SMALL, id="before the table"),
        pytest.param("deepfakebench", 4 + N_SMALL, id="between lists"),
        pytest.param("frames", 2 + N_SMALL, id="before the marker"),
        pytest.param("frames", 3 + N_SMALL, id="after the marker"),
    ],
)
def test_a_killed_convert_goes_on_with_what_is_left(
    kind: ConvertKind, n_steps: int, small: Store, tmp_path: Path
) -> None:
    converted(small, tmp_path / "whole", kind)
    target = tmp_path / "to"
    words = [sys.executable, "-c", KILLED, small.url, str(target), kind, str(n_steps)]
    assert subprocess.run(words, check=False, capture_output=True).returncode == 9
    left = tree(target)
    assert ("convert.json" in left) == (n_steps == 3 + N_SMALL)
    assert (".begun.json" in left) == (n_steps > 0)
    assert any(".tmp" in name for name in left) == ("convert.json" not in left), "the kill was before a name was given"
    whole = [path for path in target.rglob("*") if path.suffix in (".jpg", ".png", ".mp4") and ".tmp" not in str(path)]
    kept = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in whole}
    n_kept = min(max(n_steps - 1, 0), N_SMALL)
    assert len(kept) == n_kept * (1 if kind == "mp4" else N_FRAMES)
    made = converted(small, target, kind)
    assert (made.n_clips, made.n_made) == (N_SMALL, N_SMALL - n_kept)
    assert tree(target) == tree(tmp_path / "whole")
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept} == kept


def test_an_interrupted_convert_goes_on(data_set: Store, tmp_path: Path) -> None:
    seen: list[ConvertEvent] = []

    def stops(event: ConvertEvent) -> None:
        seen.append(event)
        if len(seen) == 4:
            raise KeyboardInterrupt

    request = ConvertRequest(out=data_set.url, target=tmp_path / "to", kind="frames")
    with pytest.raises(KeyboardInterrupt):
        convert_clips(request, stops)
    assert not (tmp_path / "to" / "convert.json").exists()
    n_there = len([path for path in (tmp_path / "to").glob("*/*/*") if not path.name.startswith(".")])
    assert 3 <= n_there < 40
    again: list[ConvertEvent] = []
    assert convert_clips(request, again.append).n_made == 40 - n_there
    assert (again[0], again[-1]) == (Converting(n_there, 40), Converting(40, 40))
    assert len(again) == 1 + 40 - n_there


def test_a_finished_convert_makes_only_what_was_lost(small: Store, tmp_path: Path) -> None:
    converted(small, tmp_path / "to", "mp4")
    before = tree(tmp_path / "to")
    assert converted(small, tmp_path / "to", "mp4").n_made == 0
    lost = next((tmp_path / "to").rglob("*.mp4"))
    lost.unlink()
    assert converted(small, tmp_path / "to", "mp4").n_made == 1
    assert tree(tmp_path / "to") == before


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_finished", [True, False])
@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("mp4", {}, "to 'frames', now 'mp4'"),
        ("frames", {"limit": 1}, "limit None, now 1"),
        ("frames", {"split_set": "other"}, "split_set 'group', now 'other'"),
    ],
)
def test_other_options_are_refused_by_name(
    kind: str,
    options: dict[str, object],
    says: str,
    is_finished: bool,
    small: Store,
    tmp_path: Path,  # noqa: FBT001
) -> None:
    add_split_set(small.url, "other", SplitParams(rule="ranked"), None)
    converted(small, tmp_path / "to", "frames")
    if not is_finished:
        (tmp_path / "to" / "convert.json").rename(tmp_path / "to" / ".begun.json")
    before = tree(tmp_path / "to")
    with pytest.raises(RefusedError, match=says):
        converted(small, tmp_path / "to", kind, **options)
    assert tree(tmp_path / "to") == before


def test_a_changed_data_set_is_refused_by_name(small: Store, tmp_path: Path) -> None:
    converted(small, tmp_path / "to", "frames")
    add_split_set(small.url, "other", SplitParams(rule="ranked"), None)
    with pytest.raises(RefusedError, match="index_sha256 '"):
        converted(small, tmp_path / "to", "frames")


def test_a_folder_with_something_else_is_refused(small: Store, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "photo.jpg").write_bytes(b"x")
    with pytest.raises(RefusedError, match="not empty"):
        converted(small, tmp_path / "to", "frames")
    assert set(tree(tmp_path / "to")) == {"photo.jpg"}


def test_a_folder_in_the_data_set_is_refused(small: Store, tmp_path: Path) -> None:
    before = tree(tmp_path)
    (tmp_path / "link").symlink_to(small.url)
    for inside in (Path(small.url), Path(small.url) / "new" / "to", tmp_path / "link" / "to"):
        with pytest.raises(RefusedError, match="inside the data set"):
            converted(small, inside, "frames")
    (tmp_path / "link").unlink()
    assert tree(tmp_path) == before


def test_a_folder_that_another_convert_writes_is_refused(small: Store, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    handle = os.open(tmp_path / "to", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(RefusedError, match="another convert"):
        converted(small, tmp_path / "to", "frames")
    os.close(handle)
    converted(small, tmp_path / "to", "frames")


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        pytest.param(lambda out: out.delete("index.json"), UnreadableError, "index.json", id="no index"),
        pytest.param(lambda out: change_clips(out, sample_key="../../evil"), IntegrityError, "evil", id="key"),
        pytest.param(lambda out: change_clips(out, sample_key="a/b"), IntegrityError, "a/b", id="folder"),
        pytest.param(lambda out: change_clips(out, tar_nbytes=1), IntegrityError, "contradicts", id="sample"),
        pytest.param(lambda out: change_clips(out, n_frames=4), IntegrityError, "contradicts", id="frames"),
        pytest.param(lambda out: change_clips(out, pts_ticks=[1, 2, 3, 3, 4]), UnreadableError, "rise", id="times"),
        pytest.param(lambda out: change_clips(out, shard_id="x"), IntegrityError, "contradicts", id="shard"),
        pytest.param(
            lambda out: change_clips(out, sample_key=manifest_rows(Path(out.url), "clips")[1]["sample_key"]),
            IntegrityError, "twice", id="twice",
        ),
    ],
)  # fmt: skip
def test_faults_of_a_data_set_are_one_line(
    damage: Callable[[Store], None], error: type[LpsError], says: str, small: Store, tmp_path: Path
) -> None:
    damage(small)
    before = tree(tmp_path)
    with pytest.raises(error, match=says) as caught:
        converted(small, tmp_path / "to", "mp4")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "to" / "convert.json").exists()
    assert {name: digest for name, digest in tree(tmp_path).items() if not name.startswith("to/")} == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ext", ["02.jpg", "json"])
def test_a_changed_byte_of_a_shard_stops_the_convert(kind: ConvertKind, ext: str, small: Store, tmp_path: Path) -> None:
    row = manifest_rows(Path(small.url), "clips")[3]
    member = next(each for each in row["members"] if each["ext"] == ext)
    tar = Path(small.url) / f"shards/{row['split']}/{row['shard_id']}.tar"
    data = bytearray(tar.read_bytes())
    data[member["offset"] + 20] ^= 1
    tar.write_bytes(data)
    with pytest.raises(IntegrityError, match=f"{row['sample_key']}.{ext}"):
        converted(small, tmp_path / "to", kind)
    assert not [path for path in (tmp_path / "to").rglob("*") if row["sample_key"] in path.name]
    assert not (tmp_path / "to" / "convert.json").exists()


def test_a_split_set_that_is_not_there_is_named_with_those_that_are(small: Store, tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="no split set 'x'; it has: group"):
        converted(small, tmp_path / "to", "frames", split_set="x")
    assert not (tmp_path / "to").exists()


def test_clips_without_a_label_have_a_folder_or_are_left_out(tmp_path: Path) -> None:
    videos = [folder_video("x/a.mp4", None), folder_video("real/b.mp4", 0)]
    out = make_data_set(tmp_path / "out", videos)
    converted(out, tmp_path / "frames", "frames")
    assert {str(line["path"]).split("/")[1] for line in lines(tmp_path / "frames")} == {"unknown", "real"}
    seen: list[ConvertEvent] = []
    request = ConvertRequest(out=out.url, target=tmp_path / "bench", kind="deepfakebench")
    assert convert_clips(request, seen.append).n_clips == 1
    assert "no label: 1 clips" in str(seen[0])
    only = make_data_set(tmp_path / "only", videos[:1])
    with pytest.raises(UnreadableError, match="no clips with a label"):
        converted(only, tmp_path / "none", "deepfakebench")
