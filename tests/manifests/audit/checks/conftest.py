"""A data set as four tables in memory: large enough for the statistics, cheap enough to be spoilt once per test."""

import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from lps.manifests.audit.checks import bias as audit_bias
from lps.manifests.audit.checks import leakage as audit_leakage
from lps.manifests.audit.core.database import alias_table
from lps.manifests.audit.core.types import AuditContext, CheckEntry, CheckResult
from lps.manifests.canonical import digest16
from lps.manifests.schemas import TABLES, Row
from lps.manifests.storage import Store

LIMITS = {**audit_leakage.LIMITS, **audit_bias.LIMITS}
N_PAIRS = 160
METHODS = ("Deepfakes", "FaceSwap")


@dataclass(slots=True, kw_only=True)
class World:
    """Rows of a data set. Tests change them, then open it."""

    videos: list[Row] = field(default_factory=list)
    clips: list[Row] = field(default_factory=list)
    shards: list[Row] = field(default_factory=list)
    splits: list[Row] = field(default_factory=list)
    rule: Any = field(default_factory=lambda: {"rule": "group", "ratios": [0.5, 0.25, 0.25]})
    limits: dict[str, float] = field(default_factory=dict)

    def video(self, name: str) -> Row:
        """Return the row of a video by its file stem, as `Deepfakes/000_001` or `real/000`."""
        return next(row for row in self.videos if row["uri"] == f"{name}.mp4")

    def clip(self, name: str) -> Row:
        """Return the clip of a video."""
        return next(row for row in self.clips if row["video_id"] == self.video(name)["video_id"])

    def placed(self, split: str, label: int) -> list[str]:
        """Return the names of the videos of one class in a split, sorted."""
        ids = {row["video_id"] for row in self.splits if row["split"] == split}
        found = [row for row in self.videos if row["video_id"] in ids and row["label"] == label]
        return sorted(row["uri"].removesuffix(".mp4") for row in found)

    def move(self, name: str, split: str) -> None:
        """Put a video into another split of the audited set; its shard stays."""
        video_id = self.video(name)["video_id"]
        next(row for row in self.splits if row["video_id"] == video_id)["split"] = split

    def add(self, name: str, split: str, label: int | None = 0, **columns: object) -> Row:
        """Add a video with one clip that nothing ties to others."""
        number = len(self.videos)
        video = {**_video(f"{name}.mp4", label, traits=Random(number)), **columns}
        self.videos.append(video)
        self.splits.append(_split(video["video_id"], split, f"video/{video['video_id'].hex()}"))
        self.clips.append(_clip(video, split))
        return video

    def drop_clips(self, name: str) -> None:
        """Take the clips from a video, whatever its status says."""
        video = self.video(name)
        video["n_clips"] = 0
        self.clips = [row for row in self.clips if row["video_id"] != video["video_id"]]

    def each(self, label: int) -> list[Row]:
        """Return the videos of one class."""
        return [row for row in self.videos if row["label"] == label]


@pytest.fixture
def world() -> World:
    """Return 320 real videos in pairs, and two fakes of each; pairs are divided 2:1:1, and nothing is wrong."""
    made: World = pickle.loads(_pickled_world())
    return made


@cache
def _pickled_world() -> bytes:
    made = World()
    for pair in range(N_PAIRS):
        split = ("train", "val", "train", "test")[pair % 4]
        names = (f"{2 * pair:03d}", f"{2 * pair + 1:03d}")
        rows = [_sequence(name) for name in names]
        rows += [_fake(method, a, b) for method in METHODS for a, b in (names, names[::-1])]
        for row in rows:
            made.videos.append(row)
            made.splits.append(_split(row["video_id"], split, f"ffpp/seq/{names[0]}"))
            made.clips.append(_clip(row, split))
    for split in ("train", "val", "test"):
        made.shards.append(_shard(f"{split}-000000", split, [c for c in made.clips if c["split"] == split]))
    return pickle.dumps(made)


def _sequence(name: str) -> Row:
    keys = {"target_keys": [f"ffpp/seq/{name}"], "source_keys": [f"yt/{name}"], "identity_keys": [f"who/{name}"]}
    return {**_video(f"real/{name}.mp4", 0, traits=Random(name)), **keys}


def _fake(method: str, target: str, donor: str) -> Row:
    """Return a fake that looks and measures as its target does, but for its size in bytes."""
    keys = {
        "method": method,
        "original_video_id": digest16("ffpp", f"real/{target}.mp4"),
        "target_keys": [f"ffpp/seq/{target}"],
        "donor_keys": [f"ffpp/seq/{donor}"],
        "source_keys": [f"yt/{target}", f"yt/{donor}"],
        "identity_keys": [f"who/{target}", f"who/{donor}"],
    }
    return {**_video(f"{method}/{target}_{donor}.mp4", 1, traits=Random(target)), **keys}


def _video(uri: str, label: int | None, *, traits: Random) -> Row:
    blank: Row = {item.name: None for item in TABLES["videos"]}
    n_frames = traits.randint(200, 400)
    height, fps = traits.choice([480, 720, 1080]), traits.choice([24, 25, 30])
    return {
        **blank,
        "video_id": digest16("ffpp", uri),
        "uri": uri,
        "dataset": "ffpp",
        "root": "source",
        "bytes": traits.randint(1, 2) * 1_000_000,
        "sha256": Random(uri).randbytes(32),
        "label": label,
        "label_source": "folder",
        "compression": "c23",
        "target_keys": [],
        "donor_keys": [],
        "source_keys": [],
        "identity_keys": [],
        "identity_confidence": "published",
        "container": "mov",
        "codec": traits.choice(["h264", "h264", "vp9"]),
        "pix_fmt": "yuv420p",
        "width": height * 16 // 9,
        "height": height,
        "rotation": 0,
        "fps_num": fps,
        "fps_den": 1,
        "is_vfr": False,
        "n_frames_decoded": n_frames,
        "duration_s": n_frames / fps,
        "bitrate_bps": traits.randint(400_000, 900_000),
        "has_audio": False,
        "color_transfer": traits.choice(["bt709", "unknown"]),
        "field_order": "progressive",
        "status": "ok",
        "n_frames_sampled": 20,
        "n_frames_with_face": traits.randint(15, 20),
        "n_tracks": 1,
        "n_clips": 1,
        "phash": [traits.randbytes(32) for _ in range(3)],
        "phash_quality": [90, 90, 90],
    }


def _clip(video: Row, split: str) -> Row:
    fps, n_frames = video["fps_num"], 60
    side = 90.0 + video["n_frames_decoded"] % 40
    traits = Random(video["n_frames_decoded"])
    blank: Row = {item.name: None for item in TABLES["clips"]}
    return {
        **blank,
        "clip_id": digest16(video["uri"], "clip"),
        "video_id": video["video_id"],
        "dataset": video["dataset"],
        "method": video["method"],
        "label": video["label"],
        "split": split,
        "n_tracks_in_video": 1,
        "face_label_certain": True,
        "shard_id": f"{split}-000000",
        "sample_key": f"{video['video_id'].hex()}-00-000010",
        "n_frames": n_frames,
        "pts_start_s": 10 / fps,
        "pts_end_s": (10 + n_frames - 1) / fps,
        "out_size": 224,
        "blur_var_med": traits.uniform(100, 300),
        "luma_mean": traits.uniform(100, 140),
        "luma_std": traits.uniform(30, 50),
        "box_side_med": side,
        "yaw_absmax": traits.uniform(2, 20),
        "jitter_px": traits.uniform(0.2, 0.5),
        "outside_share": max(0.0, traits.uniform(-0.3, 0.1)),
        "det_rate": 1.0,
        "frames_sha256": Random(f"frames {video['uri']}").randbytes(32),
    }


def _split(video_id: bytes, split: str, anchor: str) -> Row:
    blank: Row = {item.name: None for item in TABLES["splits"]}
    return {
        **blank,
        "video_id": video_id,
        "split": split,
        "excluded": False,
        "group_id": digest16(anchor),
        "group_anchor": anchor,
    }


def _shard(name: str, split: str, clips: list[Row]) -> Row:
    blank: Row = {item.name: None for item in TABLES["shards"]}
    n_fake = sum(row["label"] for row in clips)
    counts = {"n_samples": len(clips), "n_real": len(clips) - n_fake, "n_fake": n_fake}
    return {**blank, "shard_id": name, "uri": f"shards/{split}/{name}.tar", "split": split, **counts}


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[World], AuditContext]]:
    """Return a function that opens a world for auditing until the test ends."""
    connections: list[duckdb.DuckDBPyConnection] = []

    def open_it(world: World) -> AuditContext:
        db = duckdb.connect(config={"threads": "1"})
        connections.append(db)
        for name in ("videos", "clips", "shards", "splits"):
            db.register(f"{name}_rows", _table(name, getattr(world, name)))
            db.execute(f"CREATE TABLE {name} AS SELECT * FROM {name}_rows")
        limits = {**LIMITS, **world.limits}
        for limit, value in limits.items():
            db.execute(f"SET VARIABLE {limit} = {value!r}::DOUBLE")
        alias_table(db, world.rule if isinstance(world.rule, dict) else {})
        record = tmp_path / "manifests/splits/group.json"
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(world.rule))
        return AuditContext(store=Store(str(tmp_path)), index={}, plan={}, db=db, split_set="group", limits=limits)

    yield open_it
    for db in connections:
        db.close()


def _table(name: str, rows: list[Row]) -> pa.Table:
    """Build a table with the columns of the schema, and any that the rows have besides."""
    columns = {item.name: pa.array([row[item.name] for row in rows], item.type) for item in TABLES[name]}
    extra = {key for row in rows for key in row} - set(columns)
    return pa.table({**columns, **{key: pa.array([row.get(key) for row in rows]) for key in sorted(extra)}})


@pytest.fixture
def leakage_of(opened: Callable[[World], AuditContext]) -> Callable[[World], Mapping[str, CheckResult]]:
    """Return a function that runs every check of leakage on a world."""
    return lambda world: Results(opened(world), audit_leakage.CHECKS)


@pytest.fixture
def bias_of(opened: Callable[[World], AuditContext]) -> Callable[[World], Mapping[str, CheckResult]]:
    """Return a function that runs every check of bias on a world that needs no shards."""
    return lambda world: Results(opened(world), tuple(e for e in audit_bias.CHECKS if e.spec.id != "B14"))


class Results(Mapping[str, CheckResult]):
    """The results of checks, each run when a test first asks for it."""

    def __init__(self, ctx: AuditContext, entries: tuple[CheckEntry, ...]) -> None:
        self._ctx = ctx
        self._entries = {entry.spec.id: entry for entry in entries}
        self._found: dict[str, CheckResult] = {}

    def __getitem__(self, check: str) -> CheckResult:
        if check not in self._found:
            self._found[check] = self._entries[check].run(self._ctx)
        return self._found[check]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
