"""Small data sets for tests of the reader: shards and manifests written here, nothing decoded or detected for them."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import Thread
from types import MappingProxyType, ModuleType
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from lps.manifests.arrays import margin_side, square_of, template_name
from lps.manifests.canonical import digest16, pretty_json, sha256_hex
from lps.manifests.schemas import SCHEMA_VERSION, TABLES, Row, read_table, table_bytes
from lps.model.data.shard_cache import ShardCache

Members = dict[str, bytes]
Spoil = Callable[[Members], object]
"""Changes the members of a sample in the tar, while manifests go on to describe the unspoiled one."""
NOTHING: Mapping[str, Spoil] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One sample to be written."""

    video: str
    label: int | None = 0
    n_frames: int = 3
    start_frame: int = 0
    original: str | None = None
    content: str | None = None
    """What its file holds; None is its name, so that no two are copies."""
    px: int = 32
    margin: float = 1.0
    """What lies around the inner square of `px` is of one colour in each frame."""
    codec: str = "jpg"
    split: str = "train"
    compression: str | None = None
    target_keys: tuple[str, ...] = ()
    hashes: tuple[bytes, ...] = ()
    """PDQ of its three frames."""
    dataset: str = "test"

    track: int = 0
    face: int | None = 0
    """None as an older version left it."""
    pair_mode: str | None = None

    @property
    def video_id(self) -> bytes:
        return digest16("test", self.video)

    @property
    def source_sha256(self) -> bytes:
        return bytes.fromhex(sha256_hex((self.content or self.video).encode()))

    @property
    def clip_id(self) -> bytes:
        return digest16("clip", self.video, str(self.start_frame), *([str(self.track)] if self.track else []))

    @property
    def key(self) -> str:
        return f"{self.video_id.hex()}-{self.track:02d}-{self.start_frame:06d}"

    def frames(self) -> list[NDArray[np.uint8]]:
        """Return pictures that differ between clips and frames, smooth enough for JPEG."""
        rng = np.random.default_rng(list(digest16(self.video, str(self.start_frame))))
        coarse = rng.integers(40, 216, (self.n_frames, 4, 4, 3)).astype(np.uint8)
        inner = [cv2.resize(c, (self.px, self.px), interpolation=cv2.INTER_LINEAR) for c in coarse]
        return [self._surrounded(face, 20 * (k + 1)) for k, face in enumerate(inner)]

    def _surrounded(self, face: cv2.typing.MatLike, colour: int) -> NDArray[np.uint8]:
        """Return the inner square with its surroundings."""
        square = square_of(margin_side(self.px, self.margin), self.px)
        wide = np.full((square.stored_px, square.stored_px, 3), colour % 256, np.uint8)
        wide[square.first_px : square.end_px, square.first_px : square.end_px] = face
        return wide

    def members(self) -> Members:
        """Return the sample's files by extension."""
        found = {}
        for k, frame in enumerate(self.frames()):
            _, data = cv2.imencode(f".{self.codec}", frame[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
            found[f"{k:02d}.{self.codec}"] = data.tobytes()
        facts = {
            "clip_id": self.clip_id.hex(),
            "video_id": self.video_id.hex(),
            "dataset": self.dataset,
            "method": "swap" if self.label else None,
            "label": self.label,
            "track_id": self.track,
            "face_id": self.face,
            "pts_s": [(self.start_frame + k) / 25 for k in range(self.n_frames)],
        }
        if self.margin != 1:
            facts["inner_px"] = self.px
        if self.label is not None:
            found["cls"] = str(self.label).encode()
        found["json"] = json.dumps(facts).encode()
        return found


@dataclass(frozen=True, slots=True)
class SplitSet:
    """A split set besides that of the shards."""

    splits: Mapping[str, str]
    """Name of the video -> split."""
    leaky: bool = False


@dataclass(frozen=True, slots=True)
class Maker:
    """Writes data sets and shards below one folder."""

    root: Path
    made: list[Path] = field(default_factory=list)

    def data_set(
        self,
        shards: Sequence[Sequence[Spec]],
        *,
        spoil: Mapping[str, Spoil] = NOTHING,
        split_sets: Mapping[str, SplitSet] | None = None,
    ) -> Path:
        """Write a data set and return its folder; `spoil` goes by the name of the video."""
        out = self.root / f"data-{len(self.made)}"
        self.made.append(out)
        clip_rows, shard_rows = [], []
        for number, specs in enumerate(shards):
            shard_id = f"{specs[0].split}-{number:06d}"
            path = out / f"shards/{specs[0].split}/{shard_id}.tar"
            for spec, start, n_bytes, members in write_tar(path, specs, spoil):
                clip_rows.append(_clip_row(spec, shard_id, start, n_bytes, members))
            shard_rows.append(_shard_row(path, out, shard_id, specs))
        specs = [spec for shard in shards for spec in shard]
        sets = {"group": SplitSet({spec.video: spec.split for spec in specs}), **(split_sets or {})}
        _write_manifests(out, specs, clip_rows, shard_rows, sets)
        return out

    def shards(self, shards: Sequence[Sequence[Spec]], *, spoil: Mapping[str, Spoil] = NOTHING) -> str:
        """Write shards without manifests and return their pattern."""
        out = self.root / f"shards-{len(self.made)}"
        self.made.append(out)
        for number, specs in enumerate(shards):
            write_tar(out / f"train-{number:06d}.tar", specs, spoil)
        return f"{out}/train-{{000000..{len(shards) - 1:06d}}}.tar"

    def rewrite_shard_size(self, out: Path, n_bytes: int) -> None:
        """Let the manifest of shards claim another size for all of them."""
        path = out / "manifests/shards.parquet"
        rows = [{**row, "bytes": n_bytes} for row in read_table("shards", path.read_bytes()).to_pylist()]
        path.write_bytes(table_bytes("shards", rows, {}))


@pytest.fixture(scope="session")
def plain_form() -> ModuleType:
    """Return `benchmarks/plain_form.py`, which is no module of the package."""
    spec = spec_from_file_location("plain_form", Path(__file__).resolve().parents[2] / "benchmarks" / "plain_form.py")
    assert spec is not None  # mypy
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    """Return a writer of data sets below the test's folder."""
    return Maker(tmp_path)


@pytest.fixture(scope="session")
def maker() -> type[Maker]:
    """Return the class of such writers, for data sets that tests share."""
    return Maker


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    """Return an empty cache that does not wait between attempts."""
    return ShardCache(tmp_path / "cache", retry_delays_s=(0.0, 0.0))


@pytest.fixture(scope="session")
def spec() -> type[Spec]:
    """Return the class of samples to be written."""
    return Spec


@pytest.fixture(scope="session")
def split_set() -> type[SplitSet]:
    """Return the class of further split sets."""
    return SplitSet


@pytest.fixture(scope="session")
def many() -> Callable[..., list[list[Spec]]]:
    """Return a function that specifies shards of the given sizes; every `real_every`th sample is real, else fake.

    A fake `fN` is made from the real `r0`, `r1`, ... before it.
    """

    def specify(*sizes: int, real_every: int = 2, n_frames: int = 3) -> list[list[Spec]]:
        shards: list[list[Spec]] = []
        number = 0
        for size in sizes:
            shards.append([])
            for _ in range(size):
                group, within = divmod(number, real_every)
                real = within == 0
                name = f"r{group}" if real else f"f{number}"
                original = None if real else f"r{group}"
                shards[-1].append(Spec(video=name, label=int(not real), original=original, n_frames=n_frames))
                number += 1
        return shards

    return specify


def write_tar(path: Path, specs: Sequence[Spec], spoil: Mapping[str, Spoil]) -> list[tuple[Spec, int, int, list[Row]]]:
    """Write a shard and return where each sample and its members lie in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    places = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for spec in sorted(specs, key=lambda each: each.key):
            start = tar.offset
            rows: list[Row] = []
            members = spec.members()
            if spec.video in spoil:
                spoil[spec.video](members)
            for ext, data in sorted(members.items()):
                info = tarfile.TarInfo(ext.removeprefix("=") if ext.startswith("=") else f"{spec.key}.{ext}")
                info.size = len(data)
                place = {"ext": ext, "offset": tar.offset + tarfile.BLOCKSIZE, "nbytes": len(data)}
                rows.append({**place, "sha256": bytes.fromhex(sha256_hex(data))})
                tar.addfile(info, io.BytesIO(data))
            places.append((spec, start, tar.offset - start, rows))
    return places


def _clip_row(spec: Spec, shard_id: str, start: int, n_bytes: int, members: list[Row]) -> Row:
    return _filled(
        "clips",
        clip_id=spec.clip_id,
        video_id=spec.video_id,
        dataset=spec.dataset,
        method="swap" if spec.label else None,
        label=spec.label,
        split=spec.split,
        shard_id=shard_id,
        sample_key=spec.key,
        tar_offset=start,
        tar_nbytes=n_bytes,
        members=members,
        track_id=spec.track,
        face_id=spec.face,
        n_frames=spec.n_frames,
        frame_idx=list(range(spec.start_frame, spec.start_frame + spec.n_frames)),
        out_size=margin_side(spec.px, spec.margin),
        align_template=template_name(spec.px, 0.85, spec.margin),
        pair_mode=spec.pair_mode,
        pts_start_s=spec.start_frame / 25,
    )


def _shard_row(path: Path, out: Path, shard_id: str, specs: Sequence[Spec]) -> Row:
    data = path.read_bytes()
    return _filled(
        "shards",
        shard_id=shard_id,
        uri=path.relative_to(out).as_posix(),
        split=specs[0].split,
        bytes=len(data),
        sha256=bytes.fromhex(sha256_hex(data)),
        n_samples=len(specs),
    )


def _write_manifests(
    out: Path, specs: Sequence[Spec], clips: list[Row], shards: list[Row], sets: Mapping[str, SplitSet]
) -> None:
    videos = {
        spec.video_id: _filled(
            "videos",
            video_id=spec.video_id,
            uri=spec.video,
            dataset=spec.dataset,
            label=spec.label,
            target_keys=list(spec.target_keys),
            phash=list(spec.hashes) or None,
            phash_quality=[90] * len(spec.hashes) or None,
            original_video_id=digest16("test", spec.original) if spec.original else None,
            sha256=spec.source_sha256,
            compression=spec.compression,
            status="ok",
        )
        for spec in specs
    }
    files = {
        "manifests/videos.parquet": table_bytes("videos", list(videos.values()), {}),
        "manifests/clips.parquet": table_bytes("clips", clips, {}),
        "manifests/shards.parquet": table_bytes("shards", shards, {}),
    }
    people = {spec.video: spec.original or spec.video for spec in specs}
    for name, chosen in sets.items():
        rows = [
            _filled("splits", video_id=digest16("test", v), split=s, group_id=digest16("test", people.get(v, v)))
            for v, s in sorted(chosen.splits.items())
        ]
        files[f"manifests/splits/{name}.parquet"] = table_bytes("splits", rows, {})
        files[f"manifests/splits/{name}.json"] = pretty_json({"leaky": chosen.leaky})
    index = {
        "schema": "lps.dataset",
        "schema_version": SCHEMA_VERSION,
        "split_set": "group",
        "leaky": sets["group"].leaky,
        "manifests": {path: {"sha256": sha256_hex(data), "bytes": len(data)} for path, data in files.items()},
    }
    for path, data in {**files, "index.json": pretty_json(index)}.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(data)


def _filled(table: str, **known: object) -> Row:
    """Return a row with something in every column that must not be null."""
    row: Row = {}
    for column in TABLES[table]:
        row[column.name] = known.get(column.name) if column.nullable or column.name in known else _blank(column.type)
    return row


def _blank(kind: pa.DataType) -> object:
    if pa.types.is_fixed_size_binary(kind):
        return bytes(kind.byte_width)
    if pa.types.is_list(kind):
        return []
    return "" if pa.types.is_string(kind) else kind.to_pandas_dtype()(0)


# ---- a web server --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class WebServer:
    """Serves a folder on the loopback, and breaks off as told."""

    url: str
    root: Path
    break_after_bytes: list[int] = field(default_factory=list)
    """Each answer with a body takes the next one, and ends after so many bytes; when none are left, answers are whole.
    """
    on_break: Callable[[], object] = int
    """Called after each break."""
    ranges: bool = True
    requests: list[str] = field(default_factory=list)
    """`GET path range` of every request."""
    status: int = 200


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebServer]:
    """Start a server of the test's folder."""
    state = WebServer("", tmp_path)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            _answer(self, state, body=True)

        def do_HEAD(self) -> None:
            _answer(self, state, body=False)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name of the base class
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def _answer(handler: BaseHTTPRequestHandler, state: WebServer, *, body: bool) -> None:
    asked = handler.headers.get("Range") or ""
    path = handler.path.partition("?")[0]
    state.requests.append(f"{handler.command} {path} {asked}".strip())
    file = state.root / path.lstrip("/")
    if state.status != 200 or not file.is_file():
        handler.send_error(state.status if state.status != 200 else 404)
        return
    data = file.read_bytes()
    start, stop = 0, len(data)
    if asked and state.ranges:
        low, _, high = asked.removeprefix("bytes=").partition("-")
        start, stop = int(low), min(stop, int(high) + 1) if high else stop
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
    else:
        handler.send_response(200)
    if state.ranges:
        handler.send_header("Accept-Ranges", "bytes")
    handler.send_header("ETag", f'"{sha256_hex(data)[:16]}"')
    handler.send_header("Content-Length", str(stop - start))
    handler.end_headers()
    if body:
        sent = data[start:stop]
        broken = bool(state.break_after_bytes)
        if broken:
            sent = sent[: state.break_after_bytes.pop(0)]
        handler.wfile.write(sent)
        if broken:
            state.on_break()


# ---- training ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run of `lps-train` ended, by rank."""

    codes: list[int]
    stdout: list[str]
    stderr: list[str]

    @property
    def code(self) -> int:
        return self.codes[0]

    @property
    def last_line(self) -> str:
        """What it said last."""
        return self.stderr[0].splitlines()[-1]


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs `lps-train` in processes of their own; see forked_runs.py."""

    server: "subprocess.Popen[str]"
    folder: Path

    def __call__(
        self,
        *args: object,
        ranks: int = 1,
        kill: tuple[str, str, int] | None = None,
        signum: int = signal.SIGKILL,
        max_bytes: int = 0,
        seconds: int = 0,
    ) -> Ended:
        """`kill` is (`self` or `outside`, kind of event or `save`, number of it), by a signal."""
        options = {"ranks": ranks, "kill": kill, "signum": signum, "max_bytes": max_bytes, "seconds": seconds}
        request = {"args": [str(arg) for arg in args], **options}
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps({**request, "folder": str(self.folder)}) + "\n")
        self.server.stdin.flush()
        answer = self.server.stdout.readline()
        assert answer, "the server of runs ended"
        return Ended(**json.loads(answer))


@pytest.fixture(scope="session")
def lps_train(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """Return a function that runs `lps-train` with the given arguments."""
    command = [sys.executable, str(Path(__file__).with_name("forked_runs.py"))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(command, **pipes) as server:  # type: ignore[call-overload]
        yield Runner(server, tmp_path_factory.mktemp("said"))
        server.stdin.close()


TINY = {
    "net": "width = 4\nn_blocks = 4\nblock_frames = 2",
    "pretrain": "n_slots = 32\nmin_context = 2",
    "run": 'workers = 0\nthreads = 1\ndevice = "cpu"\nlog_steps = 1\ncheckpoint_steps = 2',
    "train": "epochs = 2\nbatch_size = 4",
}


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that writes a settings file of a tiny network, with further or other lines of some tables."""
    folder = tmp_path_factory.mktemp("settings")

    def write(train: str = "", top: str = "", **tables: str) -> Path:
        text = "" if "image_px" in top else "image_px = 32\n"
        text += f"{top}\n"
        for name in {**TINY, **tables}:
            new = tables.get(name, train if name == "train" else "").splitlines()
            names = {line.split()[0] for line in new}
            kept = [line for line in TINY.get(name, "").splitlines() if line.split()[0] not in names]
            text += "\n".join([f"[{name}]", *kept, *new]) + "\n"
        path = folder / f"{sha256_hex(text.encode())[:16]}.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope="session")
def family() -> Callable[..., list[Spec]]:
    """Return a function that specifies n clips, real and fake in turns, each fake made from the real before it."""

    def specify(name: str, n: int, split: str = "train", **known: Any) -> list[Spec]:
        return [
            Spec(video=f"{name}{'rf'[k % 2]}{k // 2}", label=k % 2, original=f"{name}r{k // 2}" if k % 2 else None,
                 split=split, **{"n_frames": 8, **known})
            for k in range(n)
        ]  # fmt: skip

    return specify


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory, family: Callable[..., list[Spec]]) -> Path:
    """Return a data set of 13 clips to train on and 6 to validate with. Tests only read it."""
    shards = [family("a", 6, "train"), family("b", 7, "train"), family("v", 6, "val")]
    return Maker(tmp_path_factory.mktemp("tiny")).data_set(shards)
