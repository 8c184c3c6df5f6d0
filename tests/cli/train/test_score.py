"""lps-train score: raw videos to scores, the same as the detector gives on clips that `process_video` prepared."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from lps.cli.train.main import main
from lps.cli.train.score_inputs import find_videos
from lps.cli.train.scoring import ScoredClip, ScoredTrack, Scorer, VideoScore, open_scorer
from lps.cli.train.timeline import draw_timeline
from lps.manifests.canonical import digest16, pretty_json
from lps.manifests.codes import Code, Stage, Status
from lps.manifests.names import Role
from lps.manifests.records import Clip, Outcome
from lps.manifests.splits.learnt import learnt_from
from lps.model.data.frames import frames_to_blocks
from lps.model.evaluation.loading import load_detector
from lps.model.evaluation.scores import read_scores
from lps.model.evaluation.threshold import StoredThreshold
from lps.model.networks.context_net import NetParams
from lps.model.networks.detector import Detector, HeadParams
from lps.model.networks.svm import fit_svm
from lps.model.training.checkpoint import file_sha256, learnt_tensor, write_checkpoint
from lps.model.training.presets import Preset
from lps.pipeline.clips.process import process_video
from lps.pipeline.config.params import ALL_CLIPS, LocalizeParams, Params
from lps.pipeline.faces.link import link_faces
from lps.pipeline.faces.localizers import load_localizer
from lps.pipeline.tools.demo_videos import make_face_video, make_texture_video
from tests.builders import detector_checkpoint, manifest_rows, process_folder, still_clip

pytestmark = pytest.mark.usefixtures("one_thread")

PRESET = Preset(image_px=32, net=NetParams(width=4, n_blocks=2, gru_dropout=0.0), head=HeadParams(final_bn=False))
PREP = Params(localizer="mtcnn", clip_frames=12, block_frames=6, out_px=64, jpeg_quality=90)
"""Clips of two frames more than the detector sees."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, write_video: Callable[..., Path]) -> Path:
    """Return a folder: one face, the same with a half of it lost, two faces, none, and one clip too few."""
    root = tmp_path_factory.mktemp("videos")
    make_face_video(root / "one.mp4", n_frames=26, width=320, height=240)
    make_face_video(root / "other.mp4", n_frames=26, width=320, height=240, seed=3, portrait="hopper")
    pairs = zip(_frames(root / "one.mp4"), _frames(root / "other.mp4"), strict=True)
    write_video(root / "two.mp4", [np.hstack(pair) for pair in pairs])
    make_texture_video(root / "none.mp4", n_frames=14, width=320, height=240)
    make_face_video(root / "short.mp4", n_frames=5, width=320, height=240)
    data = (root / "one.mp4").read_bytes()
    (root / "damaged.mp4").write_bytes(data[: len(data) // 2])
    return root


def _frames(path: Path) -> list[Any]:
    with av.open(str(path)) as source:
        return [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]


def _write(path: Path, *, prep: Params | None = PREP, **changes: Any) -> Path:
    torch.manual_seed(0)
    network = Detector(PRESET.net, PRESET.head)
    with torch.no_grad():
        network.final_fc[1].weight.mul_(20)  # type: ignore[operator]  # scores that differ
    record = detector_checkpoint(network, PRESET, data={"prep": prep.record() if prep else None})
    write_checkpoint(path, replace(record, **changes))
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a detector with random weights."""
    return _write(tmp_path_factory.mktemp("run") / "best.pt")


def call(*args: object) -> Result:
    return CliRunner().invoke(main, ["score", *map(str, args)])


def records(result: Result) -> list[dict[str, Any]]:
    found: list[dict[str, object]] = json.loads(result.stdout)
    return found


def expected(path: Path, checkpoint: Path, params: Params) -> list[float]:
    """Return the scores of the clips that a data set would hold, clip by clip."""
    localizer = load_localizer("mtcnn", weights_dir=None, device="cpu", batch_size=1)
    result = process_video(path, digest16("any"), localizer.detect, params)
    loaded = load_detector(checkpoint)
    scores = []
    for clip in result.clips:
        # The middle 10 of 12 frames, read as the trainer reads them.
        images = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in clip.frames[1:11]]
        small = [cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA) for image in images]
        with torch.inference_mode():
            blocks = frames_to_blocks(torch.from_numpy(np.stack(small)[None]), 5)
            if loaded.svm is not None:
                scores += loaded.svm.p_fake(loaded.network.context(loaded.network.encode_clips(blocks))).tolist()
            else:
                scores += loaded.network(blocks).softmax(1)[:, 1].tolist()
    return scores


# ---- scores ----------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_prepared_clips(videos: Path, checkpoint: Path) -> None:
    result = call(videos / "one.mp4", "--checkpoint", checkpoint, "--json")
    assert result.exit_code == 0, result.output
    (record,) = records(result)
    scores = expected(videos / "one.mp4", checkpoint, replace(PREP, clips=ALL_CLIPS))
    assert len(scores) == 2
    assert [clip["p_fake"] for clip in record["clips"]] == pytest.approx(scores, abs=2e-6)
    assert len(set(scores)) == 2
    assert record["video"]["p_fake"] == pytest.approx(np.mean(scores), abs=2e-6)
    assert record["video"]["called"] == ("fake" if np.mean(scores) > 0.5 else "real")
    assert [(clip["first_frame"], clip["last_frame"]) for clip in record["clips"]] == [(1, 10), (13, 22)]
    assert [clip["start_s"] for clip in record["clips"]] == [0.04, 0.52]
    assert record["clips"][0]["end_s"] == 0.4
    x0, y0, x1, y1 = record["clips"][0]["box_xyxy"]
    assert 0 <= x0 < x1 <= 320
    assert 0 <= y0 < y1 <= 240
    assert record["checkpoint"]["sha256"] == file_sha256(checkpoint)
    assert record["video"]["sha256"] == file_sha256(videos / "one.mp4")
    assert record["preparation"] == replace(PREP, clips=ALL_CLIPS, localize=LocalizeParams(faces="all")).record()
    assert set(record["localizer_weights"]) == {"mtcnn-pnet", "mtcnn-rnet", "mtcnn-onet"}
    assert record["notes"] == []


def test_encoder_by_name_scores_as_prepared_clips(videos: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    preset = replace(PRESET, net=replace(PRESET.net, encoder="torchvision:resnet18", proj_dim=8))
    record = detector_checkpoint(Detector(preset.net, preset.head), preset, data={"prep": PREP.record()})
    write_checkpoint(tmp_path / "best.pt", record)
    (found,) = records(call(videos / "one.mp4", "--checkpoint", tmp_path / "best.pt", "--json"))
    scores = expected(videos / "one.mp4", tmp_path / "best.pt", replace(PREP, clips=ALL_CLIPS))
    assert [clip["p_fake"] for clip in found["clips"]] == pytest.approx(scores, abs=2e-6)


def test_two_faces_are_two_tracks_and_the_higher_one_counts(videos: Path, checkpoint: Path, tmp_path: Path) -> None:
    path = videos / "two.mp4"
    (record,) = records(call(path, "--checkpoint", checkpoint, "--json", "--out", tmp_path))
    assert [track["n_clips"] for track in record["tracks"]] == [2, 2]
    sides = {clip["track"]: set[bool]() for clip in record["clips"]}
    for clip in record["clips"]:
        sides[clip["track"]].add(clip["box_xyxy"][0] > 320)
    assert sorted(map(list, sides.values())) == [[False], [True]]
    for track in record["tracks"]:
        own = [clip["p_fake"] for clip in record["clips"] if clip["track"] == track["track"]]
        assert track["p_fake"] == pytest.approx(np.mean(own), abs=2e-6)
    assert record["video"]["p_fake"] == max(track["p_fake"] for track in record["tracks"])
    everybody = replace(PREP, clips=ALL_CLIPS, localize=LocalizeParams(faces="all"))
    scores = expected(path, checkpoint, everybody)
    assert sorted(clip["p_fake"] for clip in record["clips"]) == pytest.approx(sorted(scores), abs=2e-6)


@pytest.mark.parametrize("rule", ["max", "mean"])
@pytest.mark.slow
def test_a_video_is_judged_as_evaluate_judges_it(rule: str, videos: Path, checkpoint: Path, tmp_path: Path) -> None:
    for place, name in (("real", "one"), ("fake/x", "two")):
        (tmp_path / "src" / place).mkdir(parents=True)
        (tmp_path / f"src/{place}/{name}.mp4").write_bytes((videos / f"{name}.mp4").read_bytes())
    prepared = replace(PREP, clips=ALL_CLIPS, localize=LocalizeParams(faces="all"))
    process_folder(tmp_path / "src", tmp_path / "ds", prepared)
    (fake,) = (row for row in manifest_rows(tmp_path / "ds", "videos") if row["label"])
    assert {row["face_id"] for row in manifest_rows(tmp_path / "ds", "clips") if row["label"]} == {0, 1}
    args = ["--data", tmp_path / "ds", "--split", fake["split"], "--clips", "all", "--out", tmp_path / "out"]
    args += ["--checkpoint", checkpoint, "--workers", 0, "--video-score", rule]
    result = CliRunner().invoke(main, ["evaluate", *map(str, args)])
    assert result.exit_code == 0, result.output
    scores, _ = read_scores((tmp_path / "out/scores.parquet").read_bytes(), "scores")
    labelled = scores.labelled()
    evaluated = labelled.select(labelled.labels == 1).by_video().p_fake
    (record,) = records(call(videos / "two.mp4", "--checkpoint", checkpoint, "--json", "--video-score", rule))
    assert record["video_score"] == rule
    assert [record["video"]["p_fake"]] == pytest.approx(evaluated, abs=2e-6)
    tracks = [track["p_fake"] for track in record["tracks"]]
    assert (record["video"]["p_fake"] == max(tracks)) == (rule == "max")
    shown = call(videos / "two.mp4", "--checkpoint", checkpoint, "--video-score", rule, "--out", tmp_path).stdout
    assert ("its highest face" in shown, "mean of all its clips" in shown) == (rule == "max", rule == "mean")


@pytest.mark.slow
def test_files_that_the_detector_has_seen_are_told(videos: Path, tmp_path: Path) -> None:
    digest = pa.array([bytes.fromhex(file_sha256(videos / "one.mp4"))], pa.binary(32))
    nobody = pa.array([bytes(16)], pa.binary(16))
    samples = pa.table({"video_id": nobody, "source_sha256": digest, "clip_id": nobody})
    trained = _write(tmp_path / "x.pt", learnt=learnt_tensor(learnt_from(Role.FRAMES, samples)))
    result = call(videos / "one.mp4", videos / "two.mp4", "--checkpoint", trained)
    said = [line for line in result.stdout.splitlines() if "the detector was pretrained on this file" in line]
    assert [line.partition(": ")[0].endswith("one.mp4") for line in said] == [True]
    found = records(call(videos / "one.mp4", videos / "two.mp4", "--checkpoint", trained, "--json"))
    assert [record["video"]["seen"] for record in found] == [["frames"], []]
    old = _write(tmp_path / "old.pt", learnt=None)
    result = call(videos / "one.mp4", "--checkpoint", old, "--json")
    assert "note: the checkpoint does not say what it learnt from" in result.stderr
    assert records(result)[0]["video"]["seen"] is None


def test_largest_face_only(videos: Path, checkpoint: Path) -> None:
    (record,) = records(call(videos / "two.mp4", "--checkpoint", checkpoint, "--json", "--faces", "largest"))
    assert len(record["clips"]) == 2


def test_support_vector_machine_judges_in_place_of_the_head(videos: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    contexts = rng.normal(size=(20, 32))
    svm = fit_svm(contexts, np.asarray(contexts[:, 0] > 0, np.int64))
    with_svm = _write(tmp_path / "svm.pt", extra=svm.state())
    (record,) = records(call(videos / "one.mp4", "--checkpoint", with_svm, "--json"))
    scores = expected(videos / "one.mp4", with_svm, replace(PREP, clips=ALL_CLIPS))
    assert [clip["p_fake"] for clip in record["clips"]] == pytest.approx(scores, abs=2e-6)


def test_checkpoint_that_knows_no_preparation_is_told(videos: Path, tmp_path: Path) -> None:
    bare = _write(tmp_path / "bare.pt", prep=None)
    result = call(videos / "one.mp4", "--checkpoint", bare, "--localizer", "mtcnn", "--json")
    assert result.exit_code == 0, result.output
    assert "note: the checkpoint does not say how its clips were prepared" in result.stderr
    (record,) = records(result)
    assert [clip["last_frame"] - clip["first_frame"] for clip in record["clips"]] == [9, 9]
    assert record["preparation"]["clip_frames"] == 10


def test_other_localizer_than_in_training_is_told(tmp_path: Path) -> None:
    trained = _write(tmp_path / "trained.pt", prep=replace(PREP, localizer="retinaface-fan"))
    scorer = open_scorer(trained, localizer="mtcnn")
    assert scorer.params.localizer == "mtcnn"
    assert scorer.notes[0].startswith("localizer was retinaface-fan in training and is mtcnn here")


def test_clips_shorter_than_the_detector_needs_are_padded(videos: Path, tmp_path: Path) -> None:
    short = _write(tmp_path / "short.pt", prep=replace(PREP, clip_frames=6))
    (record,) = records(call(videos / "one.mp4", "--checkpoint", short, "--json"))
    assert [(clip["first_frame"], clip["last_frame"]) for clip in record["clips"]][:2] == [(0, 5), (6, 11)]


# ---- files -----------------------------------------------------------------------------------------------------------


def test_writes_record_and_timeline_under_names_of_their_own(videos: Path, checkpoint: Path, tmp_path: Path) -> None:
    twin = tmp_path / "elsewhere" / "one.mp4"
    twin.parent.mkdir()
    twin.write_bytes((videos / "other.mp4").read_bytes())
    out = tmp_path / "out"
    result = call(videos / "one.mp4", twin, "--checkpoint", checkpoint, "--out", out)
    assert result.exit_code == 0, result.output
    assert "p(fake)" in result.stdout
    names = ["one-2.json", "one-2.png", "one.json", "one.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    first, second = (json.loads((out / name).read_bytes()) for name in ("one.json", "one-2.json"))
    assert first["video"]["file"] == str(videos / "one.mp4")
    assert second["video"]["file"] == str(twin)
    # Judged again, a video takes its old place; another one of that name, in a later command, does not.
    before = (out / "one.json").read_bytes()
    assert call(twin, "--checkpoint", checkpoint, "--out", out).exit_code == 0
    assert call(videos / "one.mp4", "--checkpoint", checkpoint, "--out", out).exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == names
    assert (out / "one.json").read_bytes() == before


def test_foreign_files_are_not_overwritten(videos: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text("mine")
    assert call(videos / "none.mp4", "--checkpoint", checkpoint, "--out", tmp_path).exit_code == 3
    assert (tmp_path / "none.json").read_text() == "mine"
    assert json.loads((tmp_path / "none-2.json").read_bytes())["video"]["code"] == "E_NO_FACE"


def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the videos that are scored from now on."""
    names: list[str] = []
    score = Scorer.score

    def noted(self: Scorer, path: Path) -> VideoScore:
        names.append(path.name)
        return score(self, path)

    monkeypatch.setattr(Scorer, "score", noted)
    return names


def test_run_again_it_scores_what_has_no_record_yet(
    videos: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, table = tmp_path / "scores.jsonl", tmp_path / "scores.csv"
    args = ["--checkpoint", checkpoint, "--jsonl", log, "--csv", table]
    first = call(videos / "short.mp4", videos / "none.mp4", videos / "absent.mp4", *args)
    assert first.exit_code == 3, first.output
    lines = log.read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["video"]["code"] for line in lines] == ["E_TOO_SHORT", "E_NO_FACE", "E_MISSING_FILE"]
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [row["code"] for row in rows] == ["E_TOO_SHORT", "E_NO_FACE", "E_MISSING_FILE"]
    assert (rows[1]["n_tracks"], rows[1]["p_fake"], len(rows[1]["sha256"])) == ("0", "", 64)
    log.write_bytes(lines[0] + lines[2] + lines[1][:50])  # killed while it wrote; what could not be read is tried again
    scored = watched(monkeypatch)
    monkeypatch.chdir(videos)
    again = call("short.mp4", "none.mp4", "absent.mp4", *args)
    assert scored == ["none.mp4", "absent.mp4"], "the digest counts, not the spelling"
    assert "note: 1 of 3 videos were scored before" in again.stderr
    assert log.read_bytes() == lines[0] + log.read_bytes()[len(lines[0]) :]
    assert [json.loads(line)["video"]["file"] for line in log.read_bytes().splitlines()][1:] == [
        "none.mp4",
        "absent.mp4",
    ]
    other = call("short.mp4", *args, "--threshold", "0.25")
    assert_refused(other, 3, "scores.jsonl holds scores made with another threshold; use another file")
    log.write_text("mine\n")
    assert_refused(call("short.mp4", *args), 4, "scores.jsonl, line 1, is no record of `lps-train score`")
    assert log.read_text() == "mine\n"


def test_records_in_a_folder_are_found_again(
    videos: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = [videos / "one.mp4", "--checkpoint", checkpoint, "--out", tmp_path]
    assert call(*args).exit_code == 0
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    scored = watched(monkeypatch)
    again = call(*args, "--jsonl", tmp_path / "all.jsonl")
    assert (again.exit_code, scored) == (0, [])
    assert json.loads((tmp_path / "all.jsonl").read_bytes()) == json.loads((tmp_path / "one.json").read_bytes())
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.suffix != ".jsonl"} == before
    (tmp_path / "one.png").unlink()
    assert call(*args).exit_code == 0
    assert (scored, (tmp_path / "one.png").exists()) == (["one.mp4"], True)


def assert_refused(result: Result, code: int, says: str) -> None:
    assert (result.exit_code, says in result.stderr) == (code, True), result.output
    assert len(result.stderr.splitlines()) == 1


# ---- thresholds ------------------------------------------------------------------------------------------------------


def test_a_stored_threshold_decides_and_its_temperature_calibrates(
    videos: Path, checkpoint: Path, tmp_path: Path
) -> None:
    stored = StoredThreshold(
        checkpoint_sha256=file_sha256(checkpoint), video_score="max", clips="3", data="ff", n_real=9, n_fake=30,
        at="eer", threshold=0.0, fpr=0.1, recall=0.9, temperature=20.0, ece_before=0.2, ece_after=0.1,
    )  # fmt: skip
    (tmp_path / "t.json").write_bytes(pretty_json(stored.record()))
    result = call(videos / "one.mp4", "--checkpoint", checkpoint, "--threshold", tmp_path / "t.json", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "called fake above 0\n" in result.stdout
    assert "calibrated with temperature 20\n" in result.stdout
    assert "chosen with 3 clips of each video, and all are scored here" in result.stderr
    assert "chosen on 9 real and 30 fake videos, which are few" in result.stderr
    found = json.loads((tmp_path / "one.json").read_bytes())
    assert (found["video"]["called"], found["threshold_from"]["at"]) == ("fake", "eer")
    assert abs(found["video"]["p_calibrated"] - 0.5) < abs(found["video"]["p_fake"] - 0.5)
    (record,) = records(call(videos / "one.mp4", "--checkpoint", checkpoint, "--threshold", "1", "--json"))
    assert (record["video"]["called"], record["video"]["p_calibrated"], record["threshold"]) == ("real", None, 1.0)
    assert call(videos / "one.mp4", "--checkpoint", checkpoint, "--threshold", "7").exit_code == 2
    other = _write(tmp_path / "other.pt", prep=replace(PREP, jpeg_quality=91))
    refused = call(videos / "one.mp4", "--checkpoint", other, "--threshold", tmp_path / "t.json")
    assert_refused(refused, 3, "the threshold was chosen for the detector")


# ---- what is to be scored --------------------------------------------------------------------------------------------


def test_folders_patterns_and_lists_are_their_videos_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/1.mp4", "a/b/2.MOV", "a/note.txt", "a/.hidden/3.mp4", "c/[x].mp4", "c/4.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list").write_bytes(b"c/4.bin\n\nabsent.mp4\r\na\n")

    def found(*names: str, listed: str = "") -> list[str]:
        return [str(path) for path in find_videos(names, Path(listed) if listed else None)]

    assert found("a") == ["a/1.mp4", "a/b/2.MOV"]
    assert found("a/1.mp4", "a", str(tmp_path / "a")) == [f"{tmp_path}/a/1.mp4", f"{tmp_path}/a/b/2.MOV"]
    assert found("a/**/*.mp4", "c/[x].mp4") == ["a/1.mp4", "c/[x].mp4"]
    assert found("?") == ["a/1.mp4", "a/b/2.MOV", "c/[x].mp4"]
    assert found("gone.mp4", listed="list") == ["gone.mp4", "c/4.bin", "absent.mp4", "a/1.mp4", "a/b/2.MOV"]
    assert found("x" * 5000) == ["x" * 5000]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a/1.mp4\n")))
    assert found(listed="-") == ["a/1.mp4"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["https://host/a.mp4"], 3, "https://host/a.mp4 is a URL, and only files of this machine are scored"),
        (["-"], 3, "a video cannot be scored from stdin ('-')"),
        (["*.nothing"], 3, "no file matches *.nothing"),
        ([], 3, "there is no video to score"),
        (["."], 3, "no file below . is a video by its name"),
        (["--list", "none"], 4, "cannot read the list none: No such file"),
        (["--list", "zeros"], 4, "must have a name a line"),
    ],
)
def test_what_cannot_be_scored_is_said_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("zeros").write_bytes(b"a\0b\0")
    assert_refused(call(*words, "--checkpoint", "absent.pt"), code, says)


# ---- videos without a score ------------------------------------------------------------------------------------------


def test_video_without_a_face_ends_with_3_after_the_others(videos: Path, checkpoint: Path, tmp_path: Path) -> None:
    result = call(videos / "none.mp4", videos / "one.mp4", "--checkpoint", checkpoint, "--out", tmp_path, "--json")
    assert result.exit_code == 3
    assert "no score for 1 of 2 videos" in result.stderr.splitlines()[-1]
    assert "E_NO_FACE: no face was found in the frames that were looked at" in result.stderr.splitlines()[-1]
    none, one = records(result)
    assert (none["video"]["code"], none["video"]["p_fake"], none["tracks"]) == ("E_NO_FACE", None, [])
    assert one["video"]["p_fake"] is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["none.json", "one.json", "one.png"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("damaged", "E_PROBE"),
        ("short", "E_TOO_SHORT"),
        ("absent", "E_MISSING_FILE"),
        ("text", "E_PROBE"),
        ("pipe", "E_UNREADABLE"),
        ("huge", "E_LIMIT"),
    ],
)
def test_unusable_video_ends_with_its_code(videos: Path, checkpoint: Path, name: str, code: str) -> None:
    (videos / "text.mp4").write_text("no video")
    if name == "pipe":
        os.mkfifo(videos / "pipe.mp4")
    if name == "huge":
        (videos / "huge.mp4").touch()
        os.truncate(videos / "huge.mp4", 1 << 40)  # a hole; its digest would take minutes
    result = call(videos / f"{name}.mp4", "--checkpoint", checkpoint)
    assert result.exit_code == 3
    assert code in result.stdout
    assert "no score for 1 of 1 videos: " in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert code in result.stderr


def test_partly_damaged_video_is_scored_and_its_fault_shown(videos: Path, checkpoint: Path, tmp_path: Path) -> None:
    data = bytearray((videos / "one.mp4").read_bytes())
    with av.open(str(videos / "one.mp4")) as source:
        at, size = next((p.pos or 0, p.size) for k, p in enumerate(source.demux(video=0)) if k == 20)
    data[at : at + size] = bytes(size)
    partial = tmp_path / "partial.mp4"
    partial.write_bytes(data)
    result = call(partial, "--checkpoint", checkpoint, "--json")
    assert result.exit_code == 0
    (record,) = records(result)
    assert record["video"]["status"] == "partial"
    assert record["video"]["code"] in ("E_DECODE", "E_TRUNCATED")
    assert record["video"]["p_fake"] is not None


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"stage": "pretrain"}, 3, "has no detector"),
        ({"data": {"prep": {"colour": 1}}}, 4, "unknown name 'colour'"),
    ],
)
def test_unusable_checkpoint_is_one_line(
    videos: Path, tmp_path: Path, changes: dict[str, Any], code: int, says: str
) -> None:
    result = call(videos / "one.mp4", "--checkpoint", _write(tmp_path / "a.pt", **changes))
    assert result.exit_code == code
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_score_that_is_no_number_stops(videos: Path, tmp_path: Path) -> None:
    network = Detector(PRESET.net, PRESET.head)
    with torch.no_grad():
        network.final_fc[1].bias.fill_(float("nan"))  # type: ignore[operator]
    result = call(videos / "one.mp4", "--checkpoint", _write(tmp_path / "nan.pt", network=network.state_dict()))
    assert result.exit_code == 4
    assert "one.mp4 at 0.0 s" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_help_is_light() -> None:
    code = (
        "import sys; from lps.cli.train.main import main; main(['score', '--help'], standalone_mode=False); "
        "print(sorted({'torch', 'ray', 'cv2', 'av', 'matplotlib', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Exit codes: 0 every video has a score, 3" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


# ---- one face from clip to clip --------------------------------------------------------------------------------------

Box = tuple[float, float, float, float]
LEFT: Box = (0, 0, 40, 40)
RIGHT: Box = (100, 0, 150, 50)
FAR: Box = (300, 0, 340, 40)


def _clips(*stretches: Sequence[Box], n_faces: Sequence[int] = ()) -> list[Clip]:
    """Return clips of two frames, one for each box of each stretch; faces stand still."""
    made = []
    for k, boxes in enumerate(stretches):
        for track, box in enumerate(boxes):
            n = n_faces[k] if n_faces else len(boxes)
            made.append(still_clip(2, start=2 * k, track_id=track, n_tracks_in_video=n, box_xyxy=(box, box)))
    return made


def test_faces_are_linked_by_place_not_by_size() -> None:
    assert link_faces(_clips([RIGHT, LEFT], [LEFT, RIGHT], [RIGHT, LEFT])) == [0, 1, 1, 0, 0, 1]


def test_face_that_comes_back_is_its_old_track_and_a_new_one_is_new() -> None:
    assert link_faces(_clips([RIGHT, LEFT], [RIGHT], [LEFT, FAR], n_faces=[2, 2, 2])) == [0, 1, 0, 1, 2]


def test_lone_face_is_one_track_across_cuts() -> None:
    assert link_faces(_clips([LEFT], [RIGHT], [FAR])) == [0, 0, 0]


def test_lone_face_is_not_linked_where_another_was_in_the_picture() -> None:
    assert link_faces(_clips([LEFT], [RIGHT], n_faces=[1, 2])) == [0, 1]
    assert link_faces([]) == []


# ---- the picture -----------------------------------------------------------------------------------------------------


def _picture(*, n_tracks: int, n_clips: int, name: str = "a.mp4") -> Image.Image:
    face = io.BytesIO()
    Image.new("RGB", (16, 16), "grey").save(face, "PNG")
    rng = np.random.default_rng(0)

    def clip(track: int, k: int) -> ScoredClip:
        return ScoredClip(
            track=track, first_frame=60 * k, last_frame=60 * k + 59, start_s=2.4 * k, end_s=2.4 * k + 2.36,
            box_xyxy=(0, 0, 9, 9), p_fake=float(rng.uniform()), face=face.getvalue(),
        )  # fmt: skip

    tracks = tuple(ScoredTrack(t, tuple(clip(t, k) for k in range(n_clips))) for t in range(n_tracks))
    outcome = Outcome(status=Status.PARTIAL, code=Code.E_TRUNCATED, stage=Stage.DECODE)
    score = VideoScore(path=Path(name), sha256=None, outcome=outcome, tracks=tracks)
    return Image.open(io.BytesIO(draw_timeline(score, name)))


def test_picture_grows_with_its_tracks_up_to_four() -> None:
    sizes = [_picture(n_tracks=n, n_clips=3).size for n in (1, 2, 4, 9)]
    assert sizes[0][1] < sizes[1][1] < sizes[2][1] == sizes[3][1]
    assert {size[0] for size in sizes} == {1500}


@pytest.mark.parametrize("name", ["$x_1^$.mp4", "視頻.mp4", "a" * 300, "<b>&[red].mp4"])
def test_picture_takes_any_name(name: str) -> None:
    assert _picture(n_tracks=1, n_clips=60, name=name).width == 1500
