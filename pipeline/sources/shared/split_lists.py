"""Split lists of DeepfakeBench over the videos of a source: each listed video gets its split, and no other has one.

A listed video is found by its label, compression and name (of the file without its ending), or by the id in the name of
a clip of ours. A label that DeepfakeBench does not publish is compared by its class, real or fake. Labels of a list are
never trusted: where one contradicts the source, the video is left out with E_LABEL_CONFLICT.

Its own lists have videos in several splits: `rearrange.py` makes val a copy of test (Celeb-DF, DFDCP) or of train
(DFDC), leaves the test videos of Celeb-DF in train, and has DFD and UADFV in all three. Hence test counts before train,
and train before val.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lps.manifests.codes import Code
from lps.manifests.errors import RefusedError
from lps.manifests.names import label_name
from lps.manifests.records import SourceVideo
from lps.manifests.storage import open_store
from lps.pipeline.sources.shared.bench_lists import BenchList, parse_bench_list
from lps.pipeline.sources.shared.bench_names import PUBLISHED_LABELS, bench_name, class_of_label
from lps.pipeline.sources.shared.types import SourceListing, stem_of

PRECEDENCE = ("test", "train", "val")
N_SHOWN = 8
"""Names in a note."""


def read_split_lists(locations: Iterable[str]) -> list[BenchList]:
    """Read lists, each a path or fsspec URL. Raises UnreadableError where one cannot be read or is none."""
    found = []
    for location in locations:
        folder, slash, name = location.rpartition("/")
        found.append(parse_bench_list(location, open_store(folder or slash or ".").read(name)))
    return found


def list_digests(lists: Iterable[BenchList]) -> tuple[tuple[str, str], ...]:
    """Return name and sha256 of each list, as `SplitParams.lists` has them."""
    return tuple((each.name, each.sha256) for each in lists)


def with_listed_splits(listing: SourceListing, lists: Sequence[BenchList]) -> SourceListing:
    """Replace the published split of every video by that of some lists, and note what does not go together.

    Raises RefusedError where they have none of the videos.
    """
    videos = listing.videos
    known, found = _Known.of(videos), _SplitsFound()
    entries = _entries(lists, known.by_id)
    for entry in entries:
        found.add(entry, known.match(entry))
    found.settle()
    names = ", ".join(each.name for each in lists)
    if not found.splits:
        some = _some(sorted({f"{entry.name} of {entry.label}" for entry in entries}))
        raise RefusedError(f"split list {names}: none of its {len(entries)} videos is here ({some}); give another list")
    result = tuple(
        found.described(place, video) if place in known.inputs else replace(video, official_split=None)
        for place, video in enumerate(videos)
    )
    absent = [videos[k].uri for k in sorted(known.inputs) if k not in found.splits and k not in found.conflicts]
    n_nameless = sum(each.n_nameless for each in lists)
    notes = [f"split list {names}: {note}" for note in found.notes(videos, absent, n_nameless)]
    return SourceListing(videos=result, notes=(*listing.notes, *notes))


@dataclass(frozen=True, slots=True)
class _ListedVideo:
    """A video of the lists."""

    name: str
    label: str
    compression: str | None
    video_id: bytes | None
    """Id of a video that is here."""
    splits: frozenset[str]

    @property
    def shown(self) -> str:
        return f"{self.name} of {self.label}" + (f", {self.compression}" if self.compression else "")


def _entries(lists: Sequence[BenchList], ids: Collection[bytes]) -> list[_ListedVideo]:
    """Return each video of the lists once: several clips of ours are one, where their video is here by its id."""
    splits: dict[tuple[str, str, str | None, bytes | None], set[str]] = defaultdict(set)
    for video in (video for each in lists for video in each.videos):
        video_id = video.video_id if video.video_id in ids else None
        name = video_id.hex() if video_id else video.name
        splits[name, video.label, video.compression, video_id].add(video.split)
    return [_ListedVideo(*key, frozenset(found)) for key, found in splits.items()]


@dataclass(frozen=True, slots=True)
class _Match:
    """The videos that an entry means."""

    places: tuple[int, ...] = ()
    conflicts: tuple[int, ...] = ()
    """Those that it would mean, but for its label."""


@dataclass(frozen=True, slots=True)
class _Known:
    """The inputs of a source, as lists may name them."""

    videos: Sequence[SourceVideo]
    inputs: frozenset[int]
    by_id: dict[bytes, int]
    by_name: dict[str, list[int]]
    labels: frozenset[str]

    @classmethod
    def of(cls, videos: Sequence[SourceVideo]) -> "_Known":
        """Index the videos that are inputs, faulty ones too."""
        inputs = frozenset(k for k, video in enumerate(videos) if _is_input(video))
        by_name: dict[str, list[int]] = defaultdict(list)
        for k in sorted(inputs):
            by_name[stem_of(videos[k].uri)].append(k)
        labels = frozenset(label for k in inputs for label in _labels_of(videos[k]))
        return cls(videos, inputs, {videos[k].video_id: k for k in inputs}, by_name, labels)

    def match(self, entry: _ListedVideo) -> _Match:
        """Find the videos of an entry."""
        if entry.video_id is not None:
            return self._checked([self.by_id[entry.video_id]], entry)
        named = [
            k
            for k in self.by_name.get(entry.name, ())
            if entry.compression is None or self.videos[k].compression in (None, entry.compression)
        ]
        if entry.label in self.labels or entry.label in PUBLISHED_LABELS:
            return self._labelled(named, entry)
        return self._checked(named, entry)

    def _labelled(self, named: Sequence[int], entry: _ListedVideo) -> _Match:
        """Match by the label's own words; a video of the other class in the same data set is a conflict."""
        same = tuple(k for k in named if entry.label in _labels_of(self.videos[k]))
        if same:
            return _Match(same)
        of_data_set = [k for k in named if entry.label in _labels_of(replace(self.videos[k], label=None))]
        return _Match((), self._checked(of_data_set, entry).conflicts)

    def _checked(self, named: Sequence[int], entry: _ListedVideo) -> _Match:
        label = class_of_label(entry.label)
        agree = tuple(k for k in named if label is None or self.videos[k].label in (None, label))
        return _Match(agree, () if agree else tuple(named))


def _is_input(video: SourceVideo) -> bool:
    return video.code is None or (video.code.startswith("E_") and video.code != Code.E_DUP_NAME)


def _labels_of(video: SourceVideo) -> tuple[str, ...]:
    """Return what DeepfakeBench may call the label of a video; where that is unknown, of both classes."""
    labels = (0, 1) if video.label is None else (video.label,)
    return tuple(bench_name(video.dataset, video.method, label).label for label in labels)


@dataclass(slots=True)
class _SplitsFound:
    """What becomes of the entries."""

    splits: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    conflicts: dict[int, str] = field(default_factory=dict)
    """Place of a video -> label of the list."""
    contradicted: list[tuple[_ListedVideo, tuple[int, ...]]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)
    """Labels that say no class."""

    def add(self, entry: _ListedVideo, match: _Match) -> None:
        """Take what an entry means."""
        if class_of_label(entry.label) is None:
            self.unread.add(entry.label)
        if len(match.places) > 1:
            self.unclear.append(entry.shown)
        elif match.places:
            self.splits[match.places[0]] |= entry.splits
        elif match.conflicts:
            self.contradicted.append((entry, match.conflicts))
        else:
            self.absent.append(entry.shown)

    def settle(self) -> None:
        """Call a video contradicted unless another entry means it: a real video and its fake may have one name."""
        for entry, places in self.contradicted:
            open_places = [place for place in places if place not in self.splits]
            self.conflicts |= dict.fromkeys(open_places, entry.label)
            if not open_places:
                self.absent.append(entry.shown)

    def described(self, place: int, video: SourceVideo) -> SourceVideo:
        """Return a video as the lists have it."""
        found = self.splits.get(place, set())
        video = replace(video, official_split=one_split(found))
        if place not in self.conflicts or video.code is not None:
            return video
        detail = f"{label_name(video.label)} in the source, {self.conflicts[place]} in the split list"
        return replace(video, official_split=None, code=Code.E_LABEL_CONFLICT, detail=detail)

    def notes(self, videos: Sequence[SourceVideo], absent: Sequence[str], n_nameless: int) -> Iterator[str]:
        """Yield what does not go together."""
        yield from several_splits({videos[place].uri: found for place, found in self.splits.items()})
        if self.absent:
            yield f"{len(self.absent)} of its videos are not here: {_some(sorted(self.absent))}"
        if absent:
            yield f"{len(absent)} videos are not in it and are left out: {_some(sorted(absent))}"
        if self.conflicts:
            uris = [f"{videos[k].uri} ({label})" for k, label in self.conflicts.items()]
            yield f"{len(self.conflicts)} videos have the other label here and are left out: {_some(sorted(uris))}"
        if self.unclear:
            yield f"{len(self.unclear)} of its videos could be several here and are left out: {_some(self.unclear)}"
        if self.unread:
            yield f"labels that say neither real nor fake are not compared: {_some(sorted(self.unread))}"
        if n_nameless:
            yield f"{n_nameless} of its videos have no name and are left out"


def one_split(splits: Collection[str]) -> str | None:
    """Return the split that counts of several; None of none."""
    return next((split for split in PRECEDENCE if split in splits), None)


def several_splits(splits_of: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Yield the note on videos, by uri, that are in several splits, if there are any."""
    several = {uri: "+".join(sorted(splits)) for uri, splits in splits_of.items() if len(splits) > 1}
    if several:
        counts = ", ".join(f"{n} in {splits}" for splits, n in sorted(Counter(several.values()).items()))
        order = "test counts before train, train before val"
        yield f"videos in several splits: {counts}; {order} ({_some(sorted(several))})"


def _some(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - N_SHOWN} more" if len(names) > N_SHOWN else ""
    return ", ".join(names[:N_SHOWN]) + more
