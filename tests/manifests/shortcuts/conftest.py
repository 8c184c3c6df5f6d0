"""A data set of drawn clips, made of rows and one file of pictures: nothing tells the label until a test plants it."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image

from lps.manifests.audit.core.types import AuditContext
from lps.manifests.canonical import digest16
from lps.manifests.schemas import TABLES, Row
from lps.manifests.storage import Store

N_PEOPLE = 40
SIDE_PX = 72
N_PICTURES = 2

Picture = NDArray[np.float64]
"""(SIDE_PX, SIDE_PX, 3), 0 to 255."""


@dataclass(slots=True, kw_only=True)
class Drawn:
    """One person's real and fake video, as drawn, each with a clip of two pictures."""

    videos: list[Row] = field(default_factory=list)
    clips: list[Row] = field(default_factory=list)
    pictures: list[list[Picture]] = field(default_factory=list)
    """Of each clip."""
    groups: list[str] = field(default_factory=list)
    """Name of the group of each video."""

    def fakes(self) -> list[int]:
        """Return the numbers of the fake videos, which are those of their clips."""
        return [k for k, row in enumerate(self.videos) if row["label"] == 1]


@pytest.fixture
def drawn() -> Drawn:
    """Return real and fake videos of N_PEOPLE people, two of each class, in which chance alone tells the classes."""
    made = Drawn()
    for person in range(N_PEOPLE):
        for number in range(4):
            label = number % 2
            rng = np.random.default_rng([person, number])
            name = f"{Random(f'{person} {number}').getrandbits(40):010x}"
            video = _video(f"{'fake' if label else 'real'}/{name}.mp4", label, rng)
            made.videos.append(video)
            made.clips.append(_clip(video, rng))
            made.groups.append(f"person {person}")
            made.pictures.append([_picture(rng, person) for _ in range(N_PICTURES)])
    return made


def _video(uri: str, label: int, rng: np.random.Generator) -> Row:
    n_frames, fps = int(rng.integers(200, 400)), int(rng.choice([24, 25, 30]))
    return {
        "video_id": digest16("drawn", uri),
        "uri": uri,
        "label": label,
        "bytes": int(rng.integers(100_000, 900_000)),
        "container": "mov",
        "codec": str(rng.choice(["h264", "vp9"])),
        "pix_fmt": "yuv420p",
        "width": 640,
        "height": 480,
        "rotation": 0,
        "fps_num": fps,
        "fps_den": 1,
        "n_frames_decoded": n_frames,
        "duration_s": n_frames / fps,
        "bitrate_bps": int(rng.integers(400_000, 900_000)),
        "has_audio": False,
        "face_px_median": float(rng.uniform(80, 160)),
        "n_clips": 1,
    }


def _clip(video: Row, rng: np.random.Generator) -> Row:
    side, middle = video["face_px_median"], rng.uniform(150, 300, 2)
    centres = middle + rng.normal(0, 1, (N_PICTURES, 2))
    points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]) - 0.5
    return {
        "video_id": video["video_id"],
        "label": video["label"],
        "shard_id": "train-000000",
        "sample_key": f"{video['video_id'].hex()}-00-000000",
        "image_codec": "png",
        "box_xyxy": [[int(8 * v) for v in (*(c - side / 2), *(c + side / 2))] for c in centres],
        "lmk5": [
            [int(8 * v) for v in (points * side + c + rng.normal(0, 0.02 * side, (5, 2))).ravel()] for c in centres
        ],
        "box_side_med": side,
        "iod_med": 0.4 * side,
        "det_rate": 1.0,
    }


def _picture(rng: np.random.Generator, person: int) -> Picture:
    """Draw a face's colour, which is the person's, and grain."""
    colour = np.random.default_rng(person).uniform(60, 200, 3)
    return np.asarray(colour + rng.normal(0, 12, (SIDE_PX, SIDE_PX, 3)), np.float64)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[Drawn], AuditContext]]:
    """Return a function that writes the pictures and opens the rows for auditing until the test ends."""
    connections: list[duckdb.DuckDBPyConnection] = []

    def open_it(made: Drawn) -> AuditContext:
        shard = _write_pictures(made, tmp_path)
        splits = [
            {"video_id": v["video_id"], "split": "train", "excluded": False, "group_id": digest16(group)}
            for v, group in zip(made.videos, made.groups, strict=True)
        ]
        db = duckdb.connect(config={"threads": "1"})
        connections.append(db)
        tables = {"videos": made.videos, "clips": made.clips, "shards": [shard], "splits": splits}
        for name, rows in tables.items():
            db.register(f"{name}_rows", _table(name, rows))
            db.execute(f"CREATE TABLE {name} AS SELECT * FROM {name}_rows")
        listed = {f"manifests/{name}.parquet": {"sha256": name} for name in ("videos", "clips", "shards")}
        index = {"manifests": {**listed, "manifests/splits/group.parquet": {"sha256": "splits"}}}
        limits = {"b14_warn_auc": 0.6, "b14_max_clips": 4000.0}
        return AuditContext(store=Store(str(tmp_path)), index=index, plan={}, db=db, split_set="group", limits=limits)

    yield open_it
    for db in connections:
        db.close()


def _write_pictures(made: Drawn, folder: Path) -> Row:
    """Write all pictures one after the other, as a tar has them but for its headers; in the order of the keys."""
    path = folder / "shards/train/train-000000.tar"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as sink:
        for k in sorted(range(len(made.clips)), key=lambda k: str(made.clips[k]["sample_key"])):
            members: list[dict[str, Any]] = []
            made.clips[k].update(tar_offset=sink.tell(), members=members)
            for number, picture in enumerate(made.pictures[k]):
                data = io.BytesIO()
                Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(data, "png", compress_level=0)
                place = {"offset": sink.tell(), "nbytes": data.tell(), "sha256": bytes(32)}
                members.append({"ext": f"{number:02d}.png", **place})
                sink.write(data.getvalue())
    return {"shard_id": "train-000000", "uri": "shards/train/train-000000.tar"}


def _table(name: str, rows: list[Row]) -> pa.Table:
    return pa.table({item.name: pa.array([row.get(item.name) for row in rows], item.type) for item in TABLES[name]})
