"""Celeb-DF v1, v2 and Celeb-DF++: folders give the label, file names the people, a list the test videos.

    Celeb-real/idA_NNNN.mp4    YouTube-real/NNNNN.mp4    List_of_testing_videos.txt
    Celeb-synthesis/idA_idB_NNNN.mp4                                                    v1 and v2
    Celeb-synthesis/{FaceSwap,FaceReenact}/<method>/idA_idB_NNNN.mp4                    Celeb-DF++
    Celeb-synthesis/TalkingFace/<method>/idA_NNNN_test_<reference>.mp4                  Celeb-DF++

`idA` is the person in the original video `idA_NNNN`, `idB` the one whose face is swapped in or who drives it; a talking
face has no such donor. The list of v2 writes **1 for real and 0 for fake**, and has no header: its first line is a
video. In the other lists the digit is the label that most of its lines have by their folders.

Celeb-DF++ is made from the videos of v2 and has its fakes as `FaceSwap/Celeb-DF` (README of OUC-VAS/Celeb-DF-PP), so
their people have the same keys. That the numbers of v1 mean the same people is published nowhere.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from lps.manifests.codes import Code
from lps.manifests.errors import UnreadableError
from lps.manifests.records import SourceVideo
from lps.pipeline.sources.shared.grammars import CELEBDF, with_keys
from lps.pipeline.sources.shared.layout import SourceLayout
from lps.pipeline.sources.shared.tree import (
    ABSENT,
    Folders,
    Name,
    Parts,
    PlacedVideo,
    ReleaseFolder,
    ReleaseTree,
    place_of,
    read_tree,
)
from lps.pipeline.sources.shared.types import (
    SourceFile,
    SourceListing,
    SourceOptions,
    make_listing,
    orphans,
    parse_text,
    read_list,
    unresolved_note,
)

TEST_LIST = "List_of_testing_videos.txt"
_LINE = re.compile(r"(?P<digit>[01])\s+(?P<path>\S+)")
_YOUTUBE = re.compile(r"[0-9]{5}")
_TALKING = re.compile(r"(?P<target>id[0-9]+)_(?P<number>[0-9]{4})_test_.+")

_REALS = ("celeb-real", "youtube-real")
_SYNTHESIS = "celeb-synthesis"
_OLD_METHOD = "celeb_synthesis"
_METHODS = {
    "FaceSwap": ("BlendFace", "GHOST", "HifiFace", "InSwapper", "MobileFaceSwap", "SimSwap", "UniFace"),
    "FaceReenact": ("DaGAN", "FSRT", "HyperReenact", "LIA", "LivePortrait", "MCNET", "TPSMM"),
    "TalkingFace": ("AniTalker", "EchoMimic", "EDTalk", "FLOAT", "IP_LAP", "Real3DPortrait", "SadTalker"),
}
_N_PP_FAKES = 53_196


def _folders(n_celeb: int, n_youtube: int, n_fake: int | None) -> dict[str, ReleaseFolder]:
    """Return the table of an edition; without `n_fake` its fakes lie in folders by method."""
    table = {
        _REALS[0]: ReleaseFolder(label=0, names=CELEBDF.real, n_published=n_celeb),
        _REALS[1]: ReleaseFolder(label=0, names=_YOUTUBE, n_published=n_youtube),
    }
    fake = ReleaseFolder(label=1, names=CELEBDF.fake, method=_OLD_METHOD, n_published=n_fake)
    if n_fake is not None:
        return table | {_SYNTHESIS: fake}
    old = f"{_SYNTHESIS}/faceswap/celeb-df"
    table |= {old: replace(fake, n_published=5639), f"{old}-v2": replace(fake, same_as=old)}
    for family, methods in _METHODS.items():
        names = _TALKING if family == "TalkingFace" else CELEBDF.fake
        for method in methods:
            table[f"{_SYNTHESIS}/{family}/{method}".lower()] = ReleaseFolder(label=1, names=names, method=method)
    return table


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edition:
    """One release of the three."""

    id: str
    dataset: str
    title: str
    folders: Folders
    prefix: str
    """Prefix of its persons' keys."""
    n_listed: int | None
    real_digit: str | None
    """How its list writes `real`; None where that is to be found out."""
    lists: tuple[str, ...] = (TEST_LIST,)
    """Names of the list in the user's folder."""


V1 = _Edition(
    id="celebdf-v1",
    dataset="celebdf1",
    title="Celeb-DF (v1)",
    folders=_folders(158, 250, 795),
    prefix="celebdf1/id",
    n_listed=None,
    real_digit=None,
)
V2 = _Edition(
    id="celebdf",
    dataset="celebdf2",
    title="Celeb-DF",
    folders=_folders(590, 300, 5639),
    prefix=CELEBDF.prefix,
    n_listed=518,
    real_digit="1",
    lists=(TEST_LIST, "celeb_df_v2_list_of_testing_videos.txt"),
)
PP = _Edition(
    id="celebdf-pp",
    dataset="celebdfpp",
    title="Celeb-DF++",
    folders=_folders(590, 300, None),
    prefix=CELEBDF.prefix,
    n_listed=5418,
    real_digit=None,
)


@dataclass(frozen=True, slots=True)
class _TestList:
    """The lines of the test list."""

    path_of: Mapping[Name, str]
    digits_of: Mapping[Name, frozenset[str]]
    """Two where the list contradicts itself."""
    real_digit: str

    def agrees(self, name: Name, label: int) -> bool:
        """Tell whether the list gives a video this label, and no other."""
        return {int(digit != self.real_digit) for digit in self.digits_of[name]} == {label}


def list_celebdf(edition: _Edition, files: Sequence[SourceFile], options: SourceOptions) -> SourceListing:
    """List a tree of one edition; it may be partial. Videos of the test list are `test`, the others `train`."""
    tree = read_tree(files, edition.folders, id=edition.id, dataset=edition.dataset, title=edition.title)
    listed, notes = _read_test_list(edition, files, options)

    def described(video: SourceVideo, placed: PlacedVideo, parts: Parts) -> SourceVideo:
        return _described(edition, tree, listed, video, placed, parts)

    videos = tree.rows(described)
    videos += tree.missing(listed.path_of.values(), described, "the test list") if listed else ()
    notes = [*notes, *tree.count_notes(videos), *_method_notes(edition, tree, videos)]
    return make_listing(edition.id, videos, [*notes, *unresolved_note(edition.id, orphans(videos))])


def _described(
    edition: _Edition,
    tree: ReleaseTree,
    listed: _TestList | None,
    video: SourceVideo,
    placed: PlacedVideo,
    parts: Parts,
) -> SourceVideo:
    if "target" in parts:  # not in YouTube-real: nobody published who these people are
        if video.label == 1:
            video = replace(video, original_uri=tree.uris.get((_REALS[0], CELEBDF.original_of(parts))))
        video = with_keys(video, replace(CELEBDF, prefix=edition.prefix), parts)
    if listed is None:
        return video
    is_test = placed.name in listed.path_of
    video = replace(video, official_split="test" if is_test else "train")
    if is_test and not listed.agrees(placed.name, video.label or 0):
        return replace(video, code=Code.E_LABEL_CONFLICT, detail="the test list and the folder disagree")
    return video


def _read_test_list(
    edition: _Edition, files: Sequence[SourceFile], options: SourceOptions
) -> tuple[_TestList | None, list[str]]:
    """Read the list from the user's folder or the tree; without one, no video has an official split."""
    in_tree = sorted(
        (file.path for file in files if file.path.rpartition("/")[2].lower() == TEST_LIST.lower()),
        key=lambda path: (path.count("/"), path),
    )
    found = read_list(options, edition.lists, in_tree, frozenset(in_tree))
    if found is None:
        return None, [f"{edition.id}: official split unknown: no {TEST_LIST}"]
    path, data = found
    path_of: dict[Name, str] = {}
    digits_of: dict[Name, frozenset[str]] = {}
    for number, line in enumerate(parse_text(path, data).splitlines(), start=1):
        if line.strip():
            name, digit, listed = _parse_line(edition, f"{path}, line {number}", line.strip())
            path_of.setdefault(name, listed)
            digits_of[name] = digits_of.get(name, frozenset[str]()) | {digit}
    n = edition.n_listed
    notes = [] if n in (None, len(path_of)) else [f"{edition.id}: {path} names {len(path_of)} videos, published {n}"]
    return _TestList(path_of, digits_of, edition.real_digit or _majority(edition, digits_of)), notes


def _parse_line(edition: _Edition, where: str, line: str) -> tuple[Name, str, str]:
    match = _LINE.fullmatch(line)
    placed = place_of(match["path"], edition.folders) if match else None
    if match is None or placed is None or not edition.folders[placed.folder].names.fullmatch(placed.stem):
        raise UnreadableError(f"{where}: expected '<1 real, 0 fake> <folder>/<name>.mp4', found {line[:80]!r}")
    return placed.name, match["digit"], match["path"]


def _majority(edition: _Edition, digits_of: Mapping[Name, frozenset[str]]) -> str:
    """Return the digit that most lines of real videos have, and most lines of fakes have not."""
    votes = Counter[str]()
    for (folder, _), digits in digits_of.items():
        for digit in digits:
            votes[digit if edition.folders[folder].label == 0 else str(1 - int(digit))] += 1
    return max("10", key=lambda digit: votes[digit])


def _method_notes(edition: _Edition, tree: ReleaseTree, videos: Sequence[SourceVideo]) -> list[str]:
    """Tell of Celeb-DF++ which methods are not there, and how many fakes there are."""
    if edition is not PP:
        return []
    found = Counter(tree.placed[v.uri].folder for v in videos if v.uri in tree.placed and v.code not in ABSENT)
    n_fakes = sum(n for folder, n in found.items() if folder not in _REALS)
    absent = [method for _, methods in _METHODS.items() for method in methods if not _n_of(method, found)]
    notes = [f"{edition.id}: {n_fakes} of {_N_PP_FAKES} fakes found"] if n_fakes != _N_PP_FAKES else []
    return [*notes, f"{edition.id}: no videos of {', '.join(absent)}"] if absent else notes


def _n_of(method: str, found: Mapping[str, int]) -> int:
    return sum(n for folder, n in found.items() if folder.endswith(f"/{method.lower()}"))


_OLD_SIGN = re.compile(r"(?:.*/)?(?:celeb-real|celeb-synthesis|youtube-real)/(?:videos/)?[^/]+\.mp4", re.IGNORECASE)
_PP_SIGN = re.compile(
    rf"(?:.*/)?celeb-synthesis/(?:videos/)?(?:{'|'.join(_METHODS)})/[^/]+/(?:videos/)?[^/]+\.mp4", re.IGNORECASE
)
_PAGE = "https://github.com/yuezunli/celeb-deepfakeforensics"
_OLD_TREE = (
    "Celeb-real/idA_NNNN.mp4\nYouTube-real/NNNNN.mp4\nCeleb-synthesis/idA_idB_NNNN.mp4\nList_of_testing_videos.txt"
)

LAYOUT_V1 = SourceLayout(
    id=V1.id,
    title="Celeb-DF v1",
    adapter=partial(list_celebdf, V1),
    tree=_OLD_TREE,
    counts="408 real, 795 fake",
    labels="the folder",
    splits="a test list",
    leakage="persons by file name; an early release of celebdf, whose numbers of persons may be others: do not mix",
    page=_PAGE,
    sign=_OLD_SIGN,
    n_most=1203,
)
LAYOUT_V2 = SourceLayout(
    id=V2.id,
    title="Celeb-DF (v2)",
    adapter=partial(list_celebdf, V2),
    tree=_OLD_TREE,
    counts="890 real, 5,639 fake",
    labels="the folder",
    splits="a test list (518 videos)",
    leakage="persons by file name, in the test list and in the rest; its videos are in celebdf-pp; same people: df40",
    page=_PAGE,
    sign=_OLD_SIGN,
)
LAYOUT_PP = SourceLayout(
    id=PP.id,
    title="Celeb-DF++",
    adapter=partial(list_celebdf, PP),
    tree=(
        "Celeb-real/idA_NNNN.mp4\nYouTube-real/NNNNN.mp4\nCeleb-synthesis/FaceSwap/<method>/idA_idB_NNNN.mp4\n"
        "Celeb-synthesis/FaceReenact/<method>/idA_idB_NNNN.mp4\n"
        "Celeb-synthesis/TalkingFace/<method>/idA_NNNN_test_<reference>.mp4\nList_of_testing_videos.txt"
    ),
    counts="890 real, 53,196 fake by 22 methods",
    labels="the folder",
    splits="a test list (5,418 videos)",
    leakage="persons by file name, with the keys of celebdf; it contains the videos of celebdf; same people: df40",
    page="https://github.com/OUC-VAS/Celeb-DF-PP",
    sign=_PP_SIGN,
    also=_OLD_SIGN,
    beats=(V1.id, V2.id),
)
