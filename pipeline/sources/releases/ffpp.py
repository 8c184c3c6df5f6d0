"""FaceForensics++ and the DeepFakeDetection set (`dfd`) that is published in the same tree.

    original_sequences/{youtube,actors}/{raw|c0,c23,c40}/videos/*.mp4
    manipulated_sequences/<method>/{raw|c0,c23,c40}/videos/*.mp4

A fake is named `<target>_<donor>`: the target gives body and background, the donor the face or its expression. Copies
of one video at several compressions have equal keys, so no split tears them apart. `raw` and `c0` mean the same.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.releases.ffpp_lists import Lists, read_lists, with_lists
from lps.pipeline.sources.shared.grammars import DFD, FFPP, NameGrammar, with_keys
from lps.pipeline.sources.shared.layout import SourceLayout
from lps.pipeline.sources.shared.types import (
    SourceFile,
    SourceListing,
    SourceOptions,
    flag_duplicates,
    foreign,
    is_hidden,
    listed_code,
    make_listing,
    orphans,
    stem_of,
    unresolved_note,
)

_REAL = "original_sequences"
_FAKE = "manipulated_sequences"
_PATH = re.compile(
    r"(?P<place>(?:original|manipulated)_sequences/[^/]+)/(?P<quality>raw|c0|c23|c40)/videos/(?P<stem>[^/]+)\.(?i:mp4)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """One folder of the published tree."""

    dataset: str
    names: NameGrammar
    n_published: int
    method: str | None = None

    @property
    def label(self) -> int:
        return 0 if self.method is None else 1

    @property
    def grammar(self) -> re.Pattern[str]:
        return self.names.real if self.method is None else self.names.fake


_METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
_YOUTUBE = f"{_REAL}/youtube"
_ACTORS = f"{_REAL}/actors"
_PLACES: dict[str, _Place] = {
    _YOUTUBE: _Place(dataset="ffpp", names=FFPP, n_published=1000),
    _ACTORS: _Place(dataset="dfd", names=DFD, n_published=363),
    **{f"{_FAKE}/{m}": _Place(dataset="ffpp", names=FFPP, n_published=1000, method=m) for m in _METHODS},
    f"{_FAKE}/DeepFakeDetection": _Place(dataset="dfd", names=DFD, n_published=3068, method="DeepFakeDetection"),
}

RealPaths = dict[tuple[str, str, str], str]
"""Path of a real video by data set, compression and stem."""


def list_ffpp(files: Sequence[SourceFile], options: SourceOptions) -> SourceListing:
    """List a FaceForensics++ tree; it may be partial. Published lists are optional, and come with notes."""
    if not any(file.path.startswith((f"{_REAL}/", f"{_FAKE}/")) for file in files):
        raise UnreadableError(f"not FaceForensics++: the source has neither {_REAL}/ nor {_FAKE}/")
    lists = read_lists(files, options)
    reals = _index_reals(files)
    videos = flag_duplicates((_video(file, lists, reals) for file in files), _name)
    notes = [*lists.notes, *_count_notes(videos), *unresolved_note("ffpp", orphans(videos))]
    return make_listing("ffpp", videos, notes)


def _index_reals(files: Sequence[SourceFile]) -> RealPaths:
    reals: RealPaths = {}
    for file in files:
        match = _PATH.fullmatch(file.path)
        place = _PLACES.get(match["place"]) if match else None
        if match and place and place.label == 0:
            reals.setdefault((place.dataset, _compression(match["quality"]), match["stem"]), file.used_path)
    return reals


def _compression(quality: str) -> str:
    return "c0" if quality == "raw" else quality


def _video(file: SourceFile, lists: Lists, reals: RealPaths) -> SourceVideo:
    parts = file.path.split("/")
    if is_hidden(file.path):
        return foreign("ffpp", file, "hidden file")
    if parts[0] == _FAKE and "masks" in parts[:-1]:
        return replace(foreign("ffpp", file, "mask"), code=Code.S_MASK)
    match = _PATH.fullmatch(file.path)
    if match is None:
        return foreign("ffpp", file, "outside the published layout")
    place = _PLACES.get(match["place"])
    if place is None:
        return foreign("ffpp", file, "not a published folder")
    video = SourceVideo(
        uri=file.path,
        dataset=place.dataset,
        label=place.label,
        label_source="folder",
        method=place.method,
        compression=_compression(match["quality"]),
        code=listed_code(file),
    )
    name = place.grammar.fullmatch(match["stem"])
    if name is None:
        return replace(video, code=Code.E_NAME_GRAMMAR, detail=f"expected {place.grammar.pattern}")
    return _with_provenance(video, place.names, name.groupdict(), lists, reals)


def _with_provenance(
    video: SourceVideo, names: NameGrammar, parts: dict[str, str], lists: Lists, reals: RealPaths
) -> SourceVideo:
    if video.label == 1:
        original = (video.dataset, video.compression or "", names.original_of(parts))
        video = replace(video, original_uri=reals.get(original))
    if names is FFPP:
        video = with_lists(video, [parts[role] for role in ("target", "donor") if role in parts], lists)
    return with_keys(video, names, parts)


def _is_named(video: SourceVideo) -> bool:
    """Tell whether a row is a video of the published layout with a valid name."""
    return bool(video.target_keys)


def _place_of(video: SourceVideo) -> str:
    return "/".join(video.uri.split("/")[:2])


def _name(video: SourceVideo) -> tuple[str, str | None, str]:
    """Return what must be unique; `raw` and `c0` copies of a video collide here."""
    return _place_of(video), video.compression, stem_of(video.uri)


def _count_notes(videos: Sequence[SourceVideo]) -> list[str]:
    """Compare what is there with what is published, for each folder and compression that has any video."""
    found = Counter((_place_of(v), v.compression or "") for v in videos if _is_named(v) and v.code != Code.E_DUP_NAME)
    # A fake needs its reals: their absence is worth a line, that of another method is not.
    expected = {*found, *((_real_place(place), compression) for place, compression in found)}
    counts = [(place, compression, found[place, compression]) for place, compression in expected]
    return [
        f"ffpp: {n} of {_PLACES[place].n_published} {place.split('/')[1]} videos found at {compression}"
        for place, compression, n in sorted(counts)
        if n != _PLACES[place].n_published
    ]


def _real_place(place: str) -> str:
    return _ACTORS if _PLACES[place].dataset == "dfd" else _YOUTUBE


LAYOUT = SourceLayout(
    id="ffpp",
    title="FaceForensics++",
    adapter=list_ffpp,
    tree=(
        "original_sequences/{youtube,actors}/{raw,c0,c23,c40}/videos/*.mp4\n"
        "manipulated_sequences/<method>/{raw,c0,c23,c40}/videos/*.mp4\n"
        "dataset/splits/{train,val,test}.json, dataset/conversion_dict.json (or in --splits-dir)"
    ),
    counts="1,000 real, 5,000 fake (FaceShifter among them); DeepFakeDetection: 363 real, 3,068 fake",
    labels="the folder",
    splits="train 720, val 140, test 140 sequences; none for DeepFakeDetection",
    leakage="sequences by file name; 7 YouTube videos are in two parts of the official split; same videos: ffpp-flat; "
    "fakes of the same sequences: df40, deeperforensics",
    page="https://github.com/ondyari/FaceForensics",
    sign=re.compile(rf"(?:{_REAL}|{_FAKE})/[^/]+/(?:raw|c0|c23|c40)/videos/[^/]+\.(?i:mp4)"),
)
