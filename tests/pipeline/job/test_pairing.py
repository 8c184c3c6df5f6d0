"""Fakes that take windows of their originals: same bytes after any disturbance, no fault of one costs another."""

import csv
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import ray
from click.testing import CliRunner
from ray import cloudpickle
from ray.exceptions import OwnerDiedError

from lps.cli.audit.main import main as audit
from lps.cli.prep.main import main
from lps.manifests.audit.core.database import open_dataset
from lps.manifests.errors import RefusedError
from lps.manifests.records import VideoResult
from lps.manifests.schemas import Row
from lps.manifests.splits.records import SplitParams
from lps.pipeline.config.params import PairParams, Params
from lps.pipeline.faces.track import DetectFaces
from lps.pipeline.job.events import JobCharged, JobQuarantined, JobRetried, ShardCommitted, VideoDone
from lps.pipeline.job.pool import Job, VideoJob
from lps.pipeline.job.shard_work import ShardScheduler
from lps.pipeline.job.shards import ShardVideo
from lps.pipeline.job.tasks import process_source
from lps.pipeline.tools.demo_videos import make_face_video, make_texture_video
from lps.pipeline.tools.recheck import CHECKS, LIMITS
from lps.pipeline.video.source_reader import SourceReader
from tests.builders import manifest_rows
from tests.pipeline.job.test_driver_killed import run_until

if TYPE_CHECKING:
    from lps.pipeline.job.request import PrepRequest
    from tests.pipeline.conftest import Digests, Result, Scenario

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests

pytestmark = pytest.mark.slow

COLUMNS = ("uri", "label", "method", "original", "split")
TABLE: tuple[tuple[str, ...], ...] = (
    ("a.mp4", "real", "", "", "train"),
    ("a1.mp4", "fake", "one", "a.mp4", "train"),
    ("a2.mp4", "fake", "two", "a.mp4", "train"),
    ("a3.mp4", "fake", "two", "a.mp4", "val"),
    ("b.mp4", "real", "", "", "train"),
    ("b1.mp4", "fake", "one", "b.mp4", "train"),
    ("none.mp4", "real", "", "", "train"),
    ("none1.mp4", "fake", "one", "none.mp4", "train"),
    ("c.mp4", "real", "", "", "val"),
    ("c1.mp4", "fake", "one", "c.mp4", "val"),
    ("large1.mp4", "fake", "two", "c.mp4", "val"),
    ("x.mp4", "", "", "y.mp4", "test"),
    ("y.mp4", "", "", "x.mp4", "test"),
    ("z.mp4", "", "", "y.mp4", "test"),
)
"""Families, one torn by the list of splits, one without a face in its original; a circle, and its tail."""
MODES = {
    "a.mp4": ("own", None),
    "a1.mp4": ("shared", None),
    "a2.mp4": ("shared", None),
    "a3.mp4": ("fallback", "P_ORIGINAL_ELSEWHERE"),
    "b.mp4": ("own", None),
    "b1.mp4": ("shared", None),
    "none1.mp4": ("fallback", "P_ORIGINAL_FAILED"),
    "c.mp4": ("own", None),
    "c1.mp4": ("shared", None),
    "large1.mp4": ("fallback", "P_SIZE"),
    "x.mp4": ("fallback", "P_ORIGINAL_ELSEWHERE"),
    "y.mp4": ("fallback", "P_ORIGINAL_ELSEWHERE"),
    "z.mp4": ("fallback", "P_ORIGINAL_ELSEWHERE"),
}
COUNTED = {"shared": 4, "P_ORIGINAL_ELSEWHERE": 4, "P_ORIGINAL_FAILED": 1, "P_SIZE": 1}


def make_families(root: Path) -> None:
    """Make the videos of TABLE, and the table."""
    face = partial(make_face_video, height=240)
    for seed, name in enumerate("abc"):
        face(root / f"{name}.mp4", n_frames=24, width=320, seed=seed)
        face(root / f"{name}1.mp4", n_frames=24, width=320, seed=seed, fake=True)
    shutil.copyfile(root / "a1.mp4", root / "a2.mp4")  # a file twice, under two methods
    face(root / "a3.mp4", n_frames=25, width=320, fake=True)
    make_texture_video(root / "none.mp4", n_frames=24, width=320, height=240)
    face(root / "none1.mp4", n_frames=24, width=320, seed=3, fake=True)
    face(root / "large1.mp4", n_frames=24, width=360, seed=2, fake=True)
    for seed, name in enumerate("xyz", start=4):
        face(root / f"{name}.mp4", n_frames=24, width=320, seed=seed)
    write_table(root / "table.csv", TABLE)


def write_table(path: Path, rows: tuple[tuple[str, ...], ...]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


@pytest.fixture(scope="module")
def families(scenario: "Scenario", tmp_path_factory: pytest.TempPathFactory) -> "Scenario":
    """Runs over the families on the shared cluster."""
    root = tmp_path_factory.mktemp("families")
    make_families(root)
    return replace(scenario, source=str(root / "table.csv"))


def request(families: "Scenario", out: Path, mode: str = "original", **changes: Any) -> "PrepRequest":
    made = families.request(out, dataset="table", split=SplitParams(rule="official"))
    pair = PairParams(mode=mode)  # type: ignore[arg-type]
    return replace(made, params=replace(made.params, pair=pair), **changes)


@pytest.fixture(scope="module")
def paired_out(families: "Scenario", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data set of a run with one worker and nothing in its way. Tests only read it."""
    out = tmp_path_factory.mktemp("paired") / "out"
    assert families.run(request(families, out), workers=1).summary.paired == COUNTED
    return out


@pytest.fixture(scope="module")
def paired(paired_out: Path, digests: "Callable[[Path], Digests]") -> "Digests":
    return digests(paired_out)


def modes(out: Path) -> dict[str, tuple[str, str | None]]:
    """Return uri -> how its clips are paired; each video has one at most here."""
    uris = {row["video_id"]: row["uri"] for row in manifest_rows(out, "videos")}
    return {uris[row["video_id"]]: (row["pair_mode"], row["pair_fallback"]) for row in manifest_rows(out, "clips")}


def clip_facts(out: Path, *but: str, without: tuple[str, ...] = ("tar_offset", "members")) -> dict[str, Row]:
    """Return sample key -> its row, but for some columns, leaving out the clips of the videos `but`."""
    ids = {row["video_id"] for row in manifest_rows(out, "videos") if row["uri"] in but}
    return {
        row["sample_key"]: {name: value for name, value in row.items() if name not in without}
        for row in manifest_rows(out, "clips")
        if row["video_id"] not in ids
    }


def test_every_fake_is_paired_as_the_table_says(paired_out: Path) -> None:
    assert modes(paired_out) == MODES
    rows = {row["uri"]: row for row in manifest_rows(paired_out, "videos")}
    clips = {row["video_id"]: row for row in manifest_rows(paired_out, "clips")}
    for fake in ("a1.mp4", "a2.mp4"):
        ours, theirs = (clips[rows[uri]["video_id"]] for uri in (fake, "a.mp4"))
        same = ("frame_idx", "box_xyxy", "lmk5", "align_M", "start_seed", "shard_id", "pair_id")
        assert [ours[name] for name in same] == [theirs[name] for name in same]
        assert ours["pair_id"] == rows["a.mp4"]["video_id"].hex()
    assert len({clip["shard_id"] for clip in clips.values() if clip["split"] == "train"}) > 1
    assert clips[rows["x.mp4"]["video_id"]]["pair_id"] == rows["y.mp4"]["video_id"].hex()


def test_the_audit_finds_pairs_as_they_are_and_makes_them_again(families: "Scenario", paired_out: Path) -> None:
    limits = {**LIMITS, "r1_sample_videos": len(TABLE)}
    with open_dataset(str(paired_out), None, str(Path(families.source).parent), limits) as ctx:
        found = {entry.spec.id: entry.run(ctx) for entry in CHECKS}
    assert {name: (str(result.state), result.offenders) for name, result in found.items()} == {
        "C2": ("pass", ()),
        "R1": ("pass", ()),
    }
    assert found["R1"].n_checked == len(TABLE)
    shown = CliRunner().invoke(audit, ["check", str(paired_out), "--checks", "C7", "--json"])
    (c7,) = json.loads(shown.stdout)["checks"]
    assert c7["state"] == "pass"


def test_status_and_the_end_of_a_run_count_the_pairs(families: "Scenario", paired_out: Path) -> None:
    assert families.run(request(families, paired_out)).summary.paired == COUNTED  # of a run that is over already
    found = json.loads(CliRunner().invoke(main, ["status", str(paired_out), "--json"]).stdout)
    assert found["pairs"] == [{"pairing": how, "videos": n} for how, n in COUNTED.items()]
    shown = CliRunner().invoke(main, ["status", str(paired_out)]).stdout
    assert "4 of 10 fakes of a known original share its window and cut" in shown
    assert "1 fell back on their own, P_SIZE: size, rotation or pixel aspect differ" in shown


def test_three_workers_give_the_bytes_of_one(
    families: "Scenario", tmp_path: Path, paired: "Digests", digests: "Callable[[Path], Digests]"
) -> None:
    families.run(request(families, tmp_path / "out"), workers=3, detectors=2)
    assert digests(tmp_path / "out") == paired


def test_a_killed_run_is_resumed_to_the_same_bytes(
    families: "Scenario", tmp_path: Path, paired: "Digests", digests: "Callable[[Path], Digests]"
) -> None:
    out = tmp_path / "out"
    run_until(request(families, out), "video", 5, tmp_path)  # in the middle of a shard
    assert not (out / "index.json").exists()
    families.run(request(families, out), workers=3)
    assert digests(out) == paired


POISON = ("a1.mp4", "c.mp4")


def process_poisoned(source: SourceReader, video: ShardVideo, detect: DetectFaces, params: Params) -> VideoResult:
    """Process a video as ever, unless it is poison."""
    if video.source.uri in POISON:
        os.kill(os.getpid(), signal.SIGSEGV)
    return process_source(source, video, detect, params)


@pytest.fixture(scope="module")
def poisoned(families: "Scenario", tmp_path_factory: pytest.TempPathFactory) -> "tuple[Path, Result]":
    """Return the data set and the result of a run in which a fake and an original kill their workers."""
    out = tmp_path_factory.mktemp("poisoned") / "out"
    # a worker that is lost takes no localizer along
    return out, families.run(request(families, out), process=process_poisoned, detectors=1)


def test_a_crash_of_one_leaves_its_family_as_it_is(poisoned: "tuple[Path, Result]", paired_out: Path) -> None:
    out, result = poisoned
    ended = {row["uri"]: row["error_code"] for row in manifest_rows(out, "videos")}
    assert {uri: ended[uri] for uri in POISON} == dict.fromkeys(POISON, "E_WORKER_LOST")
    assert len(result.of(JobCharged)) == len(result.of(JobQuarantined)) == 2
    orphans = ("c1.mp4", "large1.mp4")
    gone = {uri: mode for uri, mode in MODES.items() if uri not in POISON}
    assert modes(out) == gone | dict.fromkeys(orphans, ("fallback", "P_ORIGINAL_FAILED"))
    assert clip_facts(out, *POISON, *orphans) == clip_facts(paired_out, *POISON, *orphans)


def test_an_original_that_is_retried_brings_its_fakes_along(
    poisoned: "tuple[Path, Result]",
    families: "Scenario",
    paired: "Digests",
    digests: "Callable[[Path], Digests]",
    tmp_path: Path,
) -> None:
    out = shutil.copytree(poisoned[0], tmp_path / "out")
    asked = CliRunner().invoke(main, ["retry", str(out), "--code", "E_WORKER_LOST"])
    assert asked.output.startswith("2 videos in 2 shards reopened")
    result = families.run(request(families, out))
    assert digests(out) == paired
    assert len(result.of(ShardCommitted)) == 2


def await_loss(ref: Any) -> None:
    """Return once an object is gone."""
    while True:
        try:
            ray.get(ref)
        except OwnerDiedError:
            return


def test_windows_that_are_lost_are_made_again(
    families: "Scenario",
    tmp_path: Path,
    paired: "Digests",
    digests: "Callable[[Path], Digests]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost: list[str] = []
    process_job = ShardScheduler.process_job

    class Owner:
        def put(self) -> list[Any]:
            return [ray.put(bytes(1 << 20))]

    def losing(self: ShardScheduler, key: VideoJob, video: ShardVideo, windows: Any = None) -> Job:
        if isinstance(windows, ray.ObjectRef) and video.source.uri not in lost and len(lost) < 2:
            lost.append(video.source.uri)
            owner = ray.remote(num_cpus=0)(Owner).remote()
            (windows,) = ray.get(owner.put.remote())
            ray.kill(owner)  # takes along what it put
            await_loss(windows)
        return process_job(self, key, video, windows)

    monkeypatch.setattr(ShardScheduler, "process_job", losing)
    result = families.run(request(families, tmp_path / "out"))
    assert digests(tmp_path / "out") == paired
    assert len(lost) == 2
    assert {event.cause for event in result.of(JobRetried)} == {"results lost"}
    assert result.of(JobCharged) == []
    assert len(result.of(VideoDone)) > len(TABLE)


def test_without_a_known_original_clips_are_those_of_none(
    families: "Scenario", tmp_path: Path, digests: "Callable[[Path], Digests]"
) -> None:
    table = Path(families.source).parent / "strangers.csv"
    write_table(table, (("b.mp4", "real", "", "", "train"), ("c1.mp4", "fake", "one", "", "train")))
    found = []
    for mode in ("none", "original"):
        out = tmp_path / mode
        families.run(request(families, out, mode, source=str(table)))
        assert {row["pair_id"] for row in manifest_rows(out, "clips")} == {None}
        found.append(clip_facts(out, without=("tar_offset", "tar_nbytes", "members", "params_sha256", "clip_id")))
    assert len(found[0]) == 2
    assert found[0] == found[1]


def test_a_run_without_pairing_is_refused(
    families: "Scenario", paired_out: Path, paired: "Digests", digests: "Callable[[Path], Digests]"
) -> None:
    with pytest.raises(RefusedError, match=r'params\.pair\.mode was "original", now "none"'):
        families.run(request(families, paired_out, "none"))
    assert digests(paired_out) == paired
