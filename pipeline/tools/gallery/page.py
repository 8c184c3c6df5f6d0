"""The gallery as a page, with its pictures beside it or within it. What is written last is the page."""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from lps.manifests.canonical import visible
from lps.manifests.codes import code_link, meaning_of
from lps.manifests.errors import RefusedError, UnreadableError
from lps.manifests.index import read_index
from lps.manifests.names import label_name
from lps.manifests.pages.html import render_page
from lps.manifests.pages.pictures import READERS, shard_uris
from lps.manifests.schemas import Row
from lps.manifests.storage import Store, open_store
from lps.pipeline.tools.gallery.animation import Animation, animate
from lps.pipeline.tools.gallery.choice import Chosen, choose
from lps.pipeline.tools.gallery.first_frame import first_frame

MAX_REJECTS = 60
DECODERS = 2
"""First frames of rejects decoded at a time, each in a process of its own."""
PICTURE = re.compile(r"[0-9a-f]{32}\.(?:webp|jpg)")
"""Names of pictures beside a page: digests of what they hold, so that an older page never shows those of a newer."""

OnProgress = Callable[[int, int], None]
"""Takes how many clips and rejects are drawn, and of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryRequest:
    """What a gallery is made of."""

    out: str
    """The data set, a folder or an fsspec URL."""
    page: Path
    """File of the page. Its pictures lie in a folder beside it that has its name and `_files`."""
    n_clips: int = 200
    keys: tuple[str, ...] = ()
    """Clips (sample keys) and videos (ids in hex) that come first."""
    source: str | None = None
    """Root of the source videos; without it rejects have no picture."""
    self_contained: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What became of a request."""

    n_clips: int
    n_unread: int
    """Clips of these without a picture, since their frames could not be read."""
    n_rejects: int
    n_absent: int
    """Keys asked for that are not on the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryTile:
    """A clip or a reject."""

    key: str
    label: str
    method: str
    dataset: str
    split: str
    uri: str
    lines: tuple[str, ...]
    code: str = ""
    still: str = ""
    """Address of a picture; empty where there is none."""
    moving: str = ""
    original: str = ""
    """Key of the clip of its original, where that is on the page."""
    video_anchor: str = ""
    """The id of its video in hex, where nothing before it on the page has it; so with the clip's."""
    clip_anchor: str = ""

    @property
    def search(self) -> str:
        """What the page's search looks in."""
        words = (self.key, self.label, self.method, self.dataset, self.split, self.uri, self.code, *self.lines)
        return " ".join(word for word in words if word).lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class PartView:
    """Clips of a split and label, or rejects of a code."""

    id: str
    title: str
    said: str
    tiles: tuple[GalleryTile, ...]
    link: str = ""
    """Where docs/codes.md says what to do about the code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceView:
    """Something that can be filtered by."""

    name: str
    title: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryView:
    """All that the template prints."""

    name: str
    said: tuple[str, ...]
    warnings: tuple[str, ...]
    choices: tuple[ChoiceView, ...]
    parts: tuple[PartView, ...]
    rejects: tuple[PartView, ...]
    self_contained: bool
    made_by: str
    policy: str
    style: Markup
    script: Markup


class _Pictures:
    """Turns pictures into addresses: of files that it writes beside the page, or data URIs."""

    def __init__(self, request: GalleryRequest) -> None:
        self.folder = f"{request.page.stem}_files"
        self._store = None if request.self_contained else open_store(str(request.page.parent))
        self.names: set[str] = set()

    def address(self, data: bytes, kind: str) -> str:
        """Keep a picture; `kind` is `webp` or `jpeg`. Raises UnreadableError where it cannot be written."""
        if self._store is None:
            return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
        name = f"{hashlib.sha256(data).hexdigest()[:32]}.{'jpg' if kind == 'jpeg' else kind}"
        if name not in self.names:
            self._store.publish(f"{self.folder}/{name}", data)
            self.names.add(name)
        return f"{quote(self.folder, safe='')}/{name}"

    def sweep(self, page: Path) -> None:
        """Delete the pictures of an older page of this name."""
        folder = page.parent / self.folder
        for path in folder.iterdir() if folder.is_dir() else ():
            if PICTURE.fullmatch(path.name) and path.name not in self.names:
                path.unlink(missing_ok=True)


def make_gallery(request: GalleryRequest, on_progress: OnProgress = lambda _done, _total: None) -> Made:
    """Write the gallery of a data set: its pictures, then its page; only then are pictures of an older one deleted.

    A clip whose frames cannot be read is shown without a picture, and the page says so.

    Raises:
        RefusedError: the page would lie in the data set.
        UnreadableError: the data set is not complete or not readable, or something cannot be written.
    """
    out = open_store(request.out)
    index = read_index(out).values
    if out.relative(str(request.page.absolute())) is not None:
        raise RefusedError(f"{request.page} lies in {request.out}; a gallery does not belong into the data set")
    chosen = choose(out, request.n_clips, MAX_REJECTS, request.keys)
    pictures = _Pictures(request)
    drawn = _drawn(out, request, chosen, pictures, on_progress)
    clips = _clip_tiles(chosen, drawn)
    taken = {tile.video_anchor for tile in clips}  # a video may have clips and a code
    rejects = tuple(_reject_tile(row, drawn, taken) for row in chosen.rejects)
    n_unread = sum(not tile.still for tile in clips)
    text = render_page(__package__, _view(request, index, chosen, (clips, rejects)))
    open_store(str(request.page.parent)).publish(request.page.name, text.encode())
    pictures.sweep(request.page)
    anchors = {tile.key for tile in (*clips, *rejects)}
    anchors |= {anchor for tile in clips for anchor in (tile.video_anchor, tile.clip_anchor)}
    n_absent = sum(visible(key) not in anchors for key in request.keys)
    return Made(n_clips=len(clips), n_unread=n_unread, n_rejects=len(rejects), n_absent=n_absent)


def _drawn(
    out: Store, request: GalleryRequest, chosen: Chosen, pictures: _Pictures, on_progress: OnProgress
) -> dict[str, tuple[str, str]]:
    """Return the addresses of the still and the moving picture by key; what cannot be read has none."""
    shards = shard_uris(out) if chosen.clips else {}
    rejects = chosen.rejects if request.source else []
    found: dict[str, tuple[str, str]] = {}
    total = len(chosen.clips) + len(rejects)
    with ThreadPoolExecutor(READERS) as pool, ThreadPoolExecutor(DECODERS) as decoders:
        stills = decoders.map(lambda row: first_frame(str(request.source), str(row["uri"])), rejects)
        animations = pool.map(lambda row: _animated(out, shards, row), chosen.clips)
        for n, (row, made) in enumerate(zip(chosen.clips, animations, strict=True), 1):
            if made is not None:
                still, moving = pictures.address(made.still, "jpeg"), pictures.address(made.moving, "webp")
                found[str(row["sample_key"])] = (still, moving)
            on_progress(n, total)
        for n, (row, frame) in enumerate(zip(rejects, stills, strict=True), len(chosen.clips) + 1):
            if frame is not None:
                found[bytes(row["video_id"]).hex()] = (pictures.address(frame, "jpeg"), "")
            on_progress(n, total)
    return found


def _animated(out: Store, shards: Mapping[str, str], row: Row) -> Animation | None:
    try:
        return animate(out, shards[str(row["shard_id"])], row)
    except (KeyError, UnreadableError):
        return None


def _clip_tiles(chosen: Chosen, drawn: Mapping[str, tuple[str, str]]) -> tuple[GalleryTile, ...]:
    first_of: dict[str, str] = {}
    for row in chosen.clips:
        for name in ("video_id", "clip_id"):
            first_of.setdefault(bytes(row[name]).hex(), str(row["sample_key"]))
    tiles = []
    for row in chosen.clips:
        key, video_id, clip_id = str(row["sample_key"]), bytes(row["video_id"]).hex(), bytes(row["clip_id"]).hex()
        still, moving = drawn.get(key, ("", ""))
        pair_id = str(row["pair_id"] or "")
        shares = " · shares the cut of its original" if row["pair_mode"] == "shared" and pair_id != video_id else ""
        tiles.append(
            GalleryTile(
                key=visible(key),
                label=label_name(row["label"]),
                method=visible(str(row["method"] or "")),
                dataset=visible(str(row["dataset"])),
                split=visible(str(row["split"])),
                uri=visible(chosen.uris.get(row["video_id"], video_id)),
                lines=(f"at {row['pts_start_s']:.2f} s", f"det {row['det_rate']:.0%}{shares}"),
                still=still,
                moving=moving,
                original=visible(first_of.get(pair_id, "")) if pair_id != video_id else "",
                video_anchor=video_id if first_of[video_id] == key else "",
                clip_anchor=clip_id if first_of[clip_id] == key else "",
            )
        )
    return tuple(tiles)


def _reject_tile(row: Row, drawn: Mapping[str, tuple[str, str]], taken: Set[str]) -> GalleryTile:
    video_id = bytes(row["video_id"]).hex()
    return GalleryTile(
        key=video_id,
        label=label_name(row["label"]),
        method=visible(str(row["method"] or "")),
        dataset=visible(str(row["dataset"])),
        split="",
        uri=visible(str(row["uri"])),
        code=visible(str(row["error_code"])),
        lines=tuple(visible(str(row[name])) for name in ("status", "error_stage", "error_detail") if row[name]),
        still=drawn.get(video_id, ("", ""))[0],
        video_anchor="" if video_id in taken else video_id,
    )


def _view(
    request: GalleryRequest, index: Row, chosen: Chosen, tiles: tuple[tuple[GalleryTile, ...], tuple[GalleryTile, ...]]
) -> GalleryView:
    clips, rejects = tiles
    script = _resource("gallery.js")
    warnings = []
    if index.get("leaky"):
        warnings.append("Leaky split: its parts share people or sources, so results on it say little.")
    if n_unread := sum(not clip.still for clip in clips):
        warnings.append(f"{n_unread} clips have no readable frame: check the data set with lps-audit.")
    n = sum(chosen.n_by_split.values())
    return GalleryView(
        name=", ".join(chosen.datasets) or "no videos",
        said=(
            f"{len(clips):,} of {n:,} clips and {len(rejects):,} of {sum(chosen.n_by_code.values()):,} videos with a "
            f"code, chosen in turn of every split, label, method and data set. Split set "
            f"'{index.get('split_set')}', parameters {str(index.get('params_sha256'))[:12]}.",
        ),
        warnings=tuple(warnings),
        choices=tuple(_choice(name, title, [*clips, *rejects]) for name, title in CHOICES.items()),
        parts=_parts(clips, chosen),
        rejects=_reject_parts(rejects, chosen),
        self_contained=request.self_contained,
        made_by=f"Made by lps-prep {version('lps-prep')}",
        policy=_policy(script, self_contained=request.self_contained),
        style=Markup(_resource("gallery.css")),
        script=Markup(script),
    )


CHOICES = {"split": "Split", "label": "Label", "method": "Method", "dataset": "Data set"}


def _choice(name: str, title: str, tiles: Sequence[GalleryTile]) -> ChoiceView:
    return ChoiceView(name=name, title=title, values=tuple(sorted({getattr(tile, name) for tile in tiles} - {""})))


def _parts(clips: Sequence[GalleryTile], chosen: Chosen) -> tuple[PartView, ...]:
    found = []
    for number, ((split, label), n) in enumerate(chosen.n_by_split.items(), 1):
        tiles = tuple(clip for clip in clips if (clip.split, clip.label) == (visible(split), label))
        said = f"{n:,} clips; {len(tiles)} shown"
        if tiles:
            found.append(PartView(id=f"part-{number}", title=f"{split} · {label}", said=said, tiles=tiles))
    return tuple(found)


def _reject_parts(rejects: Sequence[GalleryTile], chosen: Chosen) -> tuple[PartView, ...]:
    found = []
    for number, (code, n) in enumerate(chosen.n_by_code.items(), 1):
        tiles = tuple(reject for reject in rejects if reject.code == visible(code))
        said = f"{meaning_of(code)}; {n:,} videos, {len(tiles)} shown"
        found.append(PartView(id=f"code-{number}", title=code, said=said, tiles=tiles, link=code_link(code)))
    return tuple(found)


def _policy(script: str, *, self_contained: bool) -> str:
    """Return the page's Content-Security-Policy: its own script by digest, its own pictures, nothing else."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    images = "data:" if self_contained else "'self' file:"
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src {images}; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
