"""Any folder of videos: `real/**` and `fake/**`.

* `fake/<method>/...` names the method; a fake directly below `fake/` has method `fake`.
* A fake belongs to the real video of the same place and name: below `fake/`, else below its method's folder, else of
  the same file name anywhere. Suffixes do not count, so `fake/swap/a.mp4` belongs to `real/a.mov`.
* A fake of no such name is tied by the grammar of its name, as that of `000_001.mp4` to the target `000` and the donor
  `001`, where a real video has the name of an original by it: names of other origin only look like it.
* Where several reals fit equally well, the fake has no `original_uri` but the keys of all of them: groups stay safe.
* What libav opens is a video, whatever its name. All other files are foreign: they get a row, and are skipped.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from sys import intern

from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.shared.grammars import GRAMMARS, NameGrammar, with_keys
from lps.pipeline.sources.shared.layout import SourceLayout
from lps.pipeline.sources.shared.types import (
    DEFAULT_METHOD,
    NOT_A_VIDEO,
    SourceFile,
    SourceListing,
    SourceOptions,
    foreign,
    listed_code,
    make_listing,
    parts_of,
    stem_of,
    unresolved_note,
)


@dataclass(frozen=True, slots=True)
class TwoFolders:
    """A layout of the folders `real/` and `fake/`."""

    id: str
    """Name of the data set of its videos, and first part of their keys."""
    is_input: Callable[[SourceFile], bool]
    other: str
    """What the row of a file says that is no input."""


@dataclass(frozen=True, slots=True)
class _Reals:
    """Paths of the real videos, by place below `real/` and by bare name, both without suffix."""

    id: str
    by_place: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    by_stem: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def list_folder(files: Sequence[SourceFile], _options: SourceOptions) -> SourceListing:
    """List a tree of `real/` and `fake/` (in any case); without either, raise UnreadableError."""
    return list_two_folders(files, FOLDER)


def list_two_folders(files: Sequence[SourceFile], layout: TwoFolders) -> SourceListing:
    """List the inputs of a layout below `real/` and `fake/`; without either, raise UnreadableError."""
    id = layout.id
    if not any(_side(file.path) for file in files):
        raise UnreadableError("the source has neither a real/ nor a fake/ folder: put the videos below these two")
    reals = _index_reals(files, layout)
    videos = [_video(file, reals, layout) for file in files]
    ambiguous = sum(len(video.target_keys) > 1 for video in videos)
    notes = [f"{id}: {ambiguous} fakes have more than one real of their name: no original set"] if ambiguous else []
    for names in GRAMMARS:
        n_tied = sum(bool(_originals_by(names, video, reals)) for video in videos)
        if n_tied:
            videos = [_named(names, video, reals) for video in videos]
            notes.append(f"{id}: {n_tied} fakes tied to their originals by the names of {names.title}")
    notes += unresolved_note(id, _n_untied(videos))
    for label, side in enumerate(("real", "fake")):
        if not any(video.label == label for video in videos):
            notes.append(f"{id}: no {side} videos")
    return make_listing(id, videos, notes)


def _side(path: str) -> str | None:
    """Return `real` or `fake` for files below these folders."""
    top, slash, _ = path.partition("/")
    return top.lower() if slash and top.lower() in ("real", "fake") else None


def _place(path: str, depth: int) -> str:
    """Return `path` without its first `depth` folders and without suffix."""
    *folders, _ = parts_of(path)
    return "/".join([*folders, stem_of(path)][depth:]) or "."


def _index_reals(files: Sequence[SourceFile], layout: TwoFolders) -> _Reals:
    reals = _Reals(layout.id)
    for file in files:
        if _side(file.path) == "real" and layout.is_input(file):
            for named in (reals.by_place[_place(file.path, 1)], reals.by_stem[stem_of(file.path)]):
                if not file.same_as or file.used_path not in named:
                    named.append(file.used_path)
    return reals


def _video(file: SourceFile, reals: _Reals, layout: TwoFolders) -> SourceVideo:
    side = _side(file.path)
    if side is None:
        return foreign(layout.id, file, "outside real/ and fake/")
    if not layout.is_input(file):
        return foreign(layout.id, file, layout.other)
    if len(parts_of(file.path)) == 1:  # real/ itself, as a folder of images
        return foreign(reals.id, file, "images beside folders of images")
    return _real(file, reals) if side == "real" else _fake(file, reals)


def _real(file: SourceFile, reals: _Reals) -> SourceVideo:
    return SourceVideo(
        uri=file.path,
        dataset=reals.id,
        label=0,
        label_source="folder",
        target_keys=(f"{reals.id}/{_place(file.path, 1)}",),
        code=listed_code(file),
    )


def _fake(file: SourceFile, reals: _Reals) -> SourceVideo:
    parts = parts_of(file.path)
    has_method = len(parts) > 2
    below_method = _place(file.path, 2 if has_method else 1)
    candidates = (
        reals.by_place.get(_place(file.path, 1))
        or reals.by_place.get(below_method)
        or reals.by_stem.get(stem_of(file.path))
        or []
    )
    exact = [path for path in candidates if path.endswith(f"/{parts[-1]}")]
    best = exact if len(exact) == 1 else candidates
    places = {_place(path, 1) for path in best} or {below_method}
    return SourceVideo(
        uri=file.path,
        dataset=reals.id,
        label=1,
        label_source="folder",
        method=intern(parts[1]) if has_method else DEFAULT_METHOD,
        original_uri=best[0] if len(best) == 1 else None,
        target_keys=tuple(sorted(f"{reals.id}/{place}" for place in places)),
        code=listed_code(file),
    )


def _originals_by(names: NameGrammar, video: SourceVideo, reals: _Reals) -> list[str]:
    """Return the real videos that the name of a fake without an original says it was made from."""
    if video.label != 1 or video.original_uri is not None:
        return []
    name = names.fake.fullmatch(stem_of(video.uri))
    return reals.by_stem.get(names.original_of(name.groupdict()), []) if name else []


def _named(names: NameGrammar, video: SourceVideo, reals: _Reals) -> SourceVideo:
    """Tie a video by its name, if that follows the grammar."""
    grammar = names.fake if video.label == 1 else names.real
    name = grammar.fullmatch(stem_of(video.uri))
    if name is None or video.label is None:
        return video
    originals = _originals_by(names, video, reals)
    if originals:
        keys = {*video.target_keys, *(f"{reals.id}/{_place(path, 1)}" for path in originals)}
        original = originals[0] if len(originals) == 1 else None
        video = replace(video, original_uri=original, target_keys=tuple(sorted(keys)))
    return with_keys(video, names, name.groupdict())


def _n_untied(videos: Sequence[SourceVideo]) -> int:
    """Count the usable fakes that have no original, nor a key of a real video."""
    real = {key for video in videos if video.label == 0 for key in (*video.target_keys, *video.identity_keys)}
    return sum(
        video.label == 1
        and video.code is None
        and video.original_uri is None
        and real.isdisjoint((*video.target_keys, *video.donor_keys, *video.identity_keys))
        for video in videos
    )


FOLDER = TwoFolders("folder", lambda file: file.is_video, NOT_A_VIDEO)
LAYOUT = SourceLayout(
    id="folder",
    title="any folder of videos",
    adapter=list_folder,
    tree="real/**\nfake/<method>/**",
    counts="your own",
    labels="the folder",
    splits="none",
    leakage="a fake is tied to the real video of its name; persons are not known",
    page="",
    sign=re.compile(r"(?:real|fake)/.+", re.IGNORECASE),
)
