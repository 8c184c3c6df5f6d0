"""Clips of a finished data set as files for other tools: pictures, videos, or what DeepfakeBench trains on.

A clip is made by itself, from its bytes in the shard, and appears whole: which clips are there already is seen from
their names, and a convert that was killed goes on with the others. The same data set gives the same files.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import av

from lps.manifests.arrays import Floats
from lps.manifests.canonical import canonical_json, file_sha256
from lps.manifests.columns import split_path
from lps.manifests.environment import write_atomically
from lps.manifests.errors import UnreadableError, first_line
from lps.manifests.index import JsonRecord, read_index, read_rule, split_sets
from lps.manifests.names import ConvertKind, label_name
from lps.manifests.pages.pictures import shard_uris
from lps.manifests.records import Note
from lps.manifests.schemas import Row
from lps.manifests.storage import Store, open_store
from lps.pipeline.clips.encode import encode_image
from lps.pipeline.config.params import Params
from lps.pipeline.tools.convert_clips import (
    Choice,
    ChosenClip,
    StoredClip,
    choose_clips,
    decode_image,
    picture_names,
    read_images,
    read_landmarks,
    stored_clips,
)
from lps.pipeline.tools.convert_deepfakebench import (
    IMAGES,
    LISTS,
    bench_labels,
    bench_lists,
    bench_path,
    label_lines,
    landmark_files,
)
from lps.pipeline.tools.convert_mp4 import encode_mp4
from lps.pipeline.tools.convert_target import (
    begin_target,
    clean_target,
    finish_target,
    held_target,
    refuse_inside,
    reopen_target,
    write_errors,
    write_file,
    write_folder,
)

CLIPS_JSONL = "clips.jsonl"
LABELS_YAML = "label_dict.yaml"
ROWS_AT_A_TIME = 512
"""Rows of the manifest, 10 kB each as Parquet and 50 kB as Python has them, that are held."""
MAX_THREADS = 8
"""Encoding is a matter of the CPUs; an object store answers slowly, but many at once."""
_PNG = Params(codec="png")
_WRITERS = {"frames": ("pillow",), "mp4": ("av", "pillow"), "deepfakebench": ("pillow",)}
"""Packages whose version may change the bytes."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertRequest:
    """What is asked."""

    out: str
    """The data set, a path or fsspec URL."""
    target: Path
    kind: ConvertKind
    split_set: str | None = None
    """None: the one that the shards were made for."""
    limit: int | None = None
    """Clips of each split and label, at most."""


@dataclass(frozen=True, slots=True)
class Converting:
    """How far a convert is; the first one tells what was done before."""

    n_done: int
    n_clips: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What a convert made."""

    n_clips: int
    n_made: int
    """Clips that were not there before."""
    lists: tuple[str, ...] = ()
    """Names of the lists for DeepfakeBench."""


ConvertEvent = Converting | Note
OnEvent = Callable[[ConvertEvent], None]


def convert_clips(request: ConvertRequest, on_event: OnEvent) -> Converted:
    """Write the clips of a data set into the folder `target`, or finish what was begun.

    Raises:
        RefusedError: the folder lies in the data set, holds something else or another convert, or another process
            writes it.
        UnreadableError: the data set cannot be read, has no such split set or no clip, or the folder cannot be written.
        IntegrityError: bytes of a shard are not those of the manifest, or the manifest contradicts itself.
    """
    out, root = open_store(request.out), request.target.expanduser().absolute()
    refuse_inside(root, out)
    asked = _asked(out, read_index(out), request)
    choice = choose_clips(out, asked["split_set"], request.limit, labelled=request.kind == "deepfakebench")
    if choice.n_unlabelled:
        on_event(Note(f"left out, for they have no label: {choice.n_unlabelled} clips"))
    paths = [_path_of(request.kind, clip) for clip in choice.clips]
    with held_target(root):
        begin_target(root, asked)
        places = [*paths, *(_landmarks_of(clip) for clip in choice.clips if request.kind == "deepfakebench")]
        clean_target(root, {"", LISTS, *(place.rpartition("/")[0] for place in places)})
        left = {clip.key for clip, path in zip(choice.clips, paths, strict=True) if not (root / path).exists()}
        if left:
            reopen_target(root, asked)
        n_made = _make_all(_Work(out, root, request.kind, asked, frozenset(left)), choice.clips, on_event)
        lists = bench_lists(choice.clips) if request.kind == "deepfakebench" else {}
        tables = [CLIPS_JSONL, *_write_lists(root, choice.clips, lists)]
        finish_target(root, asked | _facts(out, root, asked["split_set"], choice, tables))
    return Converted(n_clips=len(choice.clips), n_made=n_made, lists=tuple(f"{LISTS}/{name}.json" for name in lists))


def _asked(out: Store, index: JsonRecord, request: ConvertRequest) -> dict[str, Any]:
    """Return what decides the files, as the target records it. Raises UnreadableError for an unknown split set."""
    name = request.split_set or str(index.values["split_set"])
    if split_path(name) not in index.values["manifests"]:
        known = ", ".join(split_sets(index.values)) or "none"
        raise UnreadableError(f"{out.url} has no split set '{name}'; it has: {known}")
    return {
        "schema": "lps.convert",
        "schema_version": "1.0",
        "to": request.kind,
        "split_set": name,
        "limit": request.limit,
        "index_sha256": index.sha256,
        "writers": {package: version(package) for package in _WRITERS[request.kind]},
    }


def _path_of(kind: ConvertKind, clip: ChosenClip) -> str:
    if kind == "deepfakebench":
        return f"{IMAGES}/{bench_path(clip)}"
    path = f"{clip.split}/{label_name(clip.label)}/{clip.key}"
    return f"{path}.mp4" if kind == "mp4" else path


def _landmarks_of(clip: ChosenClip) -> str:
    return f"{IMAGES}/{bench_path(clip, 'landmarks')}"


@dataclass(frozen=True, slots=True)
class _Work:
    """What is the same for all clips."""

    out: Store
    root: Path
    kind: ConvertKind
    asked: Mapping[str, Any]
    left: frozenset[str]
    """Keys of the clips that are not there yet."""


def _make_all(work: _Work, chosen: Sequence[ChosenClip], on_event: OnEvent) -> int:
    """Make what is left of the clips, in order, and write the table of all. Return how many it made something of."""
    uris, n_done = shard_uris(work.out), len(chosen) - len(work.left)
    n_made = n_without = n_wide = 0
    on_event(Converting(n_done, len(chosen)))
    with (
        write_errors(work.root),
        write_atomically(work.root / CLIPS_JSONL) as path,
        path.open("wb") as table,
        _threads() as pool,
    ):
        for some in _batches(chosen, ROWS_AT_A_TIME):
            clips = stored_clips(work.out, some, uris)
            landmarks = read_landmarks(work.out, some) if work.kind == "deepfakebench" else [None] * len(some)
            absent = _absent_landmarks(work, some, landmarks)
            made = pool.map(partial(_make_one, work), clips, absent)
            for clip, points, is_new in zip(clips, landmarks, made, strict=True):
                table.write(canonical_json(_record(work.kind, clip, has_landmarks=points is not None)) + b"\n")
                n_made += is_new
                n_without += points is None
                n_wide += clip.inner_px < clip.out_size
                if clip.chosen.key in work.left:
                    n_done += 1
                    on_event(Converting(n_done, len(chosen)))
    if work.kind == "deepfakebench" and 0 < n_without < len(chosen):
        on_event(Note(f"without landmarks, as not every frame has 68: {n_without} of {len(chosen)} clips"))
    if n_wide:
        on_event(
            Note(
                f"with a margin around the aligned face, which is the middle inner_px of out_size ({CLIPS_JSONL}): "
                f"{n_wide} of {len(chosen)} clips"
            )
        )
    return n_made


def _absent_landmarks(
    work: _Work, chosen: Sequence[ChosenClip], landmarks: Sequence[Floats | None]
) -> list[Floats | None]:
    """Return the landmarks that are still to be written, None for clips without any and for those that have them."""
    found = [
        points if points is not None and not (work.root / _landmarks_of(clip)).exists() else None
        for clip, points in zip(chosen, landmarks, strict=True)
    ]
    if any(points is not None and clip.key not in work.left for clip, points in zip(chosen, found, strict=True)):
        reopen_target(work.root, work.asked)
    return found


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Give threads. Where the work ends early, what waits for one of them is not done."""
    pool = ThreadPoolExecutor(min(MAX_THREADS, len(os.sched_getaffinity(0))))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(items: Iterable[T], n: int) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, n)):
        yield some


def _make_one(work: _Work, clip: StoredClip, landmarks: Floats | None) -> bool:
    """Write what is not there: the landmarks, and then the clip, with which it is complete. Runs in threads."""
    if landmarks is not None:
        write_folder(work.root / _landmarks_of(clip.chosen), landmark_files(landmarks))
    if clip.chosen.key not in work.left:
        return landmarks is not None
    images, path = read_images(work.out, clip), work.root / _path_of(work.kind, clip.chosen)
    if work.kind == "mp4":
        write_file(path, as_mp4(images, clip))
    elif work.kind == "frames":
        write_folder(path, as_stored(images, clip))
    else:
        write_folder(path, as_png(images, clip))
    return True


def as_stored(images: Sequence[bytes], clip: StoredClip) -> dict[str, bytes]:
    """Return the files of a clip's pictures: the stored bytes of JPEG and PNG as they are, WebP as PNG."""
    if clip.codec not in ("jpg", "png"):
        return as_png(images, clip)
    return dict(zip(picture_names(len(images), clip.codec), images, strict=True))


def as_png(images: Sequence[bytes], clip: StoredClip) -> dict[str, bytes]:
    """Return the files of a clip's pictures as PNG: stored bytes where they are PNG, else the same pixels."""
    is_png = clip.codec == "png"
    found = [image if is_png else encode_image(decode_image(image, clip), _PNG) for image in images]
    return dict(zip(picture_names(len(images), "png"), found, strict=True))


def as_mp4(images: Sequence[bytes], clip: StoredClip) -> bytes:
    """Return a clip as an MP4 file. Raises UnreadableError where its images or time stamps make none."""
    pictures = [decode_image(image, clip) for image in images]
    try:
        return encode_mp4(pictures, clip.pts_ticks, clip.tick, clip.fps)
    except (ValueError, av.FFmpegError) as e:
        raise UnreadableError(f"cannot make a video of sample {clip.chosen.key}: {first_line(e)}") from e


def _record(kind: ConvertKind, clip: StoredClip, *, has_landmarks: bool) -> Row:
    """Return the line of a clip in the table."""
    chosen = clip.chosen
    more = {"landmarks": _landmarks_of(chosen) if has_landmarks else None} if kind == "deepfakebench" else {}
    return more | {
        "clip_id": clip.clip_id.hex(),
        "video_id": chosen.video_id.hex(),
        "original_video_id": chosen.original_video_id.hex() if chosen.original_video_id else None,
        "sample_key": chosen.key,
        "path": _path_of(kind, chosen),
        "dataset": chosen.dataset,
        "split": chosen.split,
        "label": chosen.label,
        "method": chosen.method,
        "compression": chosen.compression,
        "frame_idx": list(clip.frame_idx),
        "pts_s": clip.pts_s,
        "out_size": clip.out_size,
        "inner_px": clip.inner_px,
    }


def _write_lists(root: Path, clips: Sequence[ChosenClip], lists: Mapping[str, Any]) -> list[str]:
    """Write the lists for DeepfakeBench and the labels that they use; return their names."""
    files = {f"{LISTS}/{name}.json": canonical_json(found) + b"\n" for name, found in lists.items()}
    if files:
        files[LABELS_YAML] = label_lines(bench_labels(clips)).encode()
    for name, data in files.items():
        write_file(root / name, data)
    return list(files)


def _facts(out: Store, root: Path, split_set: str, choice: Choice, tables: Sequence[str]) -> Row:
    """Return what the marker says besides what was asked."""
    with write_errors(root):
        digests = {name: file_sha256(root / name) for name in tables}
    return {
        "n_clips": dict(Counter(f"{clip.split}/{label_name(clip.label)}" for clip in choice.clips)),
        "n_unlabelled_left_out": choice.n_unlabelled,
        "leaky": bool(read_rule(out, split_set).get("leaky")),
        "tables": digests,
    }
