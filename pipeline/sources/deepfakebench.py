"""Frames that DeepfakeBench extracted, or `lps-prep convert` wrote for it: its lists say what they are.

    [**/]dataset_json/<name>.json    [**/]<as the lists have it>/frames/<video>/000.png

Labels and splits are those of the lists; a video of several splits is in one (see `split_lists`). Paths of the lists
begin where they were made: one folder of theirs and one of the source, the same for all, are found out to be the same.
Data sets and methods have our names, and names of videos give sequences and persons as in the releases. Clips of ours
are tied to their video and its original, as `clips.jsonl` beside the lists has it. Masks are no inputs, and landmarks
belong to their frames.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.manifests.sequences.names import is_sequence
from lps.pipeline.sources.shared.bench_lists import BenchVideo, parse_bench_list
from lps.pipeline.sources.shared.bench_names import FFPP as FFPP_FOLDER
from lps.pipeline.sources.shared.bench_names import class_of_label, our_names
from lps.pipeline.sources.shared.grammars import CELEBDF, DFD, FFPP, with_keys
from lps.pipeline.sources.shared.layout import SourceLayout
from lps.pipeline.sources.shared.split_lists import one_split, several_splits
from lps.pipeline.sources.shared.types import (
    NOT_A_VIDEO,
    SourceFile,
    SourceListing,
    SourceOptions,
    foreign,
    listed_code,
    make_listing,
    orphans,
    parse_text,
    parts_of,
    read_source,
    unresolved_note,
)

ID = "deepfakebench"
_LIST = re.compile(r"(?P<above>(?:.*/)?)dataset_json/[^/]+\.json")
_GRAMMARS = {"ffpp": FFPP, "dfd": DFD, "celebdf1": replace(CELEBDF, prefix="celebdf1/id"), "celebdf2": CELEBDF}
_INSIDE = frozenset({"original_sequences", "manipulated_sequences"})
"""Folders of FaceForensics++: two videos of one name differ in what lies below them."""

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Listed:
    """A video of the lists, and all its splits."""

    video: BenchVideo
    splits: frozenset[str]


@dataclass(frozen=True, slots=True)
class _ClipFacts:
    """What `clips.jsonl` says of a clip of ours."""

    dataset: str
    method: str | None
    compression: str | None
    original: bytes | None
    """Id of the video that its own, a fake, was made from."""


def list_deepfakebench(files: Sequence[SourceFile], options: SourceOptions) -> SourceListing:
    """List the videos of all lists below the source.

    Raises UnreadableError where there are none, they are malformed, or none of their frames is there.
    """
    paths = [file.path for file in files if _LIST.fullmatch(file.path)]
    listed, clips = _read_lists(paths, options), _read_clips(paths, files, options)
    sequences = {file.path: file for file in files if is_sequence(file.path)}
    roots = _roots(listed, sequences)
    rows: dict[str, SourceVideo] = {}
    for each in listed:
        if each.video.folder:
            uri = roots.uri_of(each.video.folder)
            rows[uri] = _row(uri, each, clips.get(each.video.name), sequences.get(uri))
    splits_of = {roots.uri_of(each.video.folder): each.splits for each in listed if each.video.folder}
    videos = [*_with_originals(rows.values(), listed, roots, clips), *_others(files, rows)]
    n_bare = sum(not each.video.folder for each in listed)
    notes = [f"{ID}: {note}" for note in several_splits(splits_of)]
    notes += [f"{ID}: {n_bare} listed videos are left out: no frames, or in several folders"] if n_bare else []
    return make_listing(ID, videos, [*notes, *unresolved_note(ID, orphans(videos))])


def _read_lists(paths: Sequence[str], options: SourceOptions) -> list[_Listed]:
    """Return each video once: lists of methods share their reals."""
    if not paths:
        raise UnreadableError("not DeepfakeBench: the source has no dataset_json/*.json; give the folder above it")
    found: dict[tuple[str, str | None, str, str], BenchVideo] = {}
    splits: dict[tuple[str, str | None, str, str], set[str]] = defaultdict(set)
    for path in paths:
        for video in parse_bench_list(path, read_source(options, path)).videos:
            if class_of_label(video.label) is None:
                raise UnreadableError(
                    f"{path}: label {video.label!r} says neither real nor fake; rename it so that it does"
                )
            key = (video.label, video.compression, video.name, video.folder)
            found.setdefault(key, video)
            splits[key].add(video.split)
    return [_Listed(video, frozenset(splits[key])) for key, video in found.items()]


def _read_clips(paths: Sequence[str], files: Sequence[SourceFile], options: SourceOptions) -> dict[str, _ClipFacts]:
    """Read `clips.jsonl` beside the folders of lists, if there is one: sample key -> facts."""
    above = {match["above"] for path in paths if (match := _LIST.fullmatch(path))}
    present = {file.path for file in files}
    found = {}
    for path in sorted(f"{folder}clips.jsonl" for folder in above):
        if path not in present:
            continue
        for number, line in enumerate(parse_text(path, read_source(options, path)).splitlines(), start=1):
            try:
                row = json.loads(line)
                original = row.get("original_video_id")
                found[str(row["sample_key"])] = _ClipFacts(
                    str(row["dataset"]),
                    row["method"],
                    row["compression"],
                    bytes.fromhex(original) if original else None,
                )
            except (ValueError, KeyError, TypeError, AttributeError) as e:
                raise UnreadableError(f"{path}, line {number}: is no line of `lps-prep convert`; restore it") from e
    return found


@dataclass(frozen=True, slots=True)
class _Roots:
    """A folder of the lists' paths, and the folder of the source that is the same one."""

    listed: Parts
    source: Parts

    def uri_of(self, folder: str) -> str:
        """Return where a listed folder of frames is in the source, whether it is there or not."""
        parts = tuple(parts_of(folder))
        is_below = parts[: len(self.listed)] == self.listed
        inside = (*self.source, *parts[len(self.listed) :]) if is_below else parts
        return "/".join(part for part in inside if part != "..") + "/"


def _roots(listed: Sequence[_Listed], sequences: Iterable[str]) -> _Roots:
    """Find the pair of folders by which most listed frames are there; of several, that which says most of a path."""
    by_name: dict[str, list[Parts]] = defaultdict(list)
    for path in sequences:
        parts = tuple(parts_of(path))
        by_name[parts[-1]].append(parts)
    votes: Counter[_Roots] = Counter()
    for each in listed:
        parts = tuple(parts_of(each.video.folder))
        for there in by_name.get(parts[-1], ()) if parts else ():
            n = _n_shared(parts, there)
            if len(parts) - n <= _end_of_root(parts, each.video):
                votes[_Roots(parts[: len(parts) - n], there[: len(there) - n])] += 1
    if not votes:
        some = ", ".join(each.video.folder for each in listed[:3])
        raise UnreadableError(f"not DeepfakeBench: the source has none of the frames that its lists name ({some})")
    return max(votes, key=lambda roots: (votes[roots], -len(roots.listed), roots.source))


def _n_shared(a: Parts, b: Parts) -> int:
    """Count the equal parts at the ends of two paths."""
    n = 0
    while n < min(len(a), len(b)) and a[-1 - n] == b[-1 - n]:
        n += 1
    return n


def _end_of_root(parts: Parts, video: BenchVideo) -> int:
    """Return how many parts of a listed path may be above the source: what names the method may not."""
    for k, part in enumerate(parts):
        if part in _INSIDE:
            return k
        if part in (video.data_set, FFPP_FOLDER):
            return k + 1
    return len(parts) - 1


def _row(uri: str, listed: _Listed, clip: _ClipFacts | None, file: SourceFile | None) -> SourceVideo:
    video, label = listed.video, class_of_label(listed.video.label)
    dataset, method = (clip.dataset, clip.method) if clip else our_names(video.data_set, video.label)
    row = SourceVideo(
        uri=uri,
        dataset=dataset,
        label=label,
        label_source="list",
        method=method if label else None,
        compression=clip.compression if clip else video.compression,
        official_split=one_split(listed.splits),
        code=Code.E_MISSING_FILE if file is None else listed_code(file),
        detail="" if file else "named by a list",
    )
    if video.video_id is not None:
        tied = clip.original if clip and clip.original else video.video_id
        return replace(row, target_keys=(f"lps/video/{tied.hex()}",))
    names = _GRAMMARS.get(dataset)
    match = (names.fake if label else names.real).fullmatch(video.name) if names else None
    return with_keys(row, names, match.groupdict()) if names and match else row


def _with_originals(
    rows: Iterable[SourceVideo], listed: Sequence[_Listed], roots: _Roots, clips: Mapping[str, _ClipFacts]
) -> Iterator[SourceVideo]:
    """Yield the rows, fakes with the one real video that they were made from, if it is there."""
    by_uri = {roots.uri_of(each.video.folder): each.video for each in listed if each.video.folder}
    rows = list(rows)
    reals: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for row in rows:
        if row.label == 0 and row.code is None:
            video = by_uri[row.uri]
            reals[(video.video_id,) if video.video_id else (row.dataset, row.compression, video.name)].append(row.uri)
    for row in rows:
        originals = reals.get(_original_of(row, by_uri[row.uri], clips), []) if row.label else []
        yield replace(row, original_uri=originals[0]) if len(originals) == 1 else row


def _original_of(row: SourceVideo, video: BenchVideo, clips: Mapping[str, _ClipFacts]) -> tuple[object, ...]:
    if video.video_id is not None:
        clip = clips.get(video.name)
        return (clip.original if clip else None,)
    names = _GRAMMARS.get(row.dataset)
    match = names.fake.fullmatch(video.name) if names else None
    return (row.dataset, row.compression, names.original_of(match.groupdict())) if names and match else ()


def _others(files: Sequence[SourceFile], rows: Mapping[str, SourceVideo]) -> Iterator[SourceVideo]:
    """Yield the rows of what no list names. Landmarks have none: there is a file a frame."""
    for file in files:
        above = file.path.rstrip("/").split("/")[:-1]
        if is_sequence(file.path) and file.path not in rows:
            row = foreign(ID, file, "in no list of DeepfakeBench")
            yield replace(row, code=Code.S_MASK, detail="mask") if "masks" in above and not file.code else row
        elif not is_sequence(file.path) and not ("landmarks" in above and file.path.endswith(".npy")):
            yield foreign(ID, file, NOT_A_VIDEO)


LAYOUT = SourceLayout(
    id=ID,
    title="frames and lists of DeepfakeBench",
    adapter=list_deepfakebench,
    tree="dataset_json/<name>.json\nrgb/<data set>/**/frames/<video>/000.png",
    counts="what its lists name",
    labels="the lists",
    splits="the lists; of several splits test counts before train, train before val",
    leakage="sequences and persons by name, as in ffpp and celebdf; clips of ours by their video and its original",
    page="https://github.com/SCLBD/DeepfakeBench",
    sign=re.compile(r"(?:.*/)?frames/[^/]+/[0-9]+\.png"),
    sign_files=_LIST,
    has_sequences=True,
)
