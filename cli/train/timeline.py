"""The picture of a scored video: p(fake) over its seconds, a line for each face, and some of the faces below.

Tracks are told apart by marker and number as well as by colour (Okabe and Ito, 2008), so that the picture also reads
without colour, and in print.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any

from lps.cli.train.scoring import ScoredClip, ScoredTrack, VideoScore

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN, HEAD_IN, CHART_IN, ROW_IN, FOOT_IN = 10.0, 1.05, 2.7, 1.36, 0.08
"""Sizes on paper: title to legend, chart with its scale, and a row of faces."""
LEFT_IN, CHART_RIGHT_IN, FACES_LEFT_IN, FACE_IN, SEAM_IN = 0.75, 9.4, 1.75, 0.96, 0.05
DPI = 150
N_FACES = 8
"""Faces of each track, evenly over its clips."""
FACE_PX = 192
GAP_S = 0.25
"""Stretches without a clip are marked from this length on; clips that follow each other are one frame apart."""
MANY_CLIPS = 40
"""Beyond them markers are small."""
MAX_TITLE = 80
INK, DIM, GRID, REST = "#1A1A1A", "#5E5E5E", "#D5D5D0", "#9A9A9A"


@dataclass(frozen=True, slots=True)
class Look:
    """How a track is drawn."""

    colour: str
    marker: str
    glyph: str
    """The marker, as a character."""
    dashes: str


LOOKS = (
    Look("#0072B2", "o", "●", "-"),
    Look("#D55E00", "s", "■", "--"),
    Look("#009E73", "^", "▲", "-."),
    Look("#CC79A7", "D", "◆", ":"),
)
"""Looks of the tracks with the highest scores, in order of their numbers; what is left is thin and grey."""


@dataclass(frozen=True, slots=True)
class Page:
    """A figure measured in inches from its top left corner."""

    figure: "Figure"
    height: float

    def write(self, text: str, x: float, y: float, **look: Any) -> None:
        """Write a line of text with its foot at a place."""
        self.figure.text(x / WIDTH_IN, 1 - y / self.height, text, **{"color": INK, "parse_math": False, **look})

    def axes(self, x: float, y: float, width: float, height: float) -> "Axes":
        """Return new axes with their upper left corner at a place."""
        bottom = 1 - (y + height) / self.height
        return self.figure.add_axes((x / WIDTH_IN, bottom, width / WIDTH_IN, height / self.height))


def draw_timeline(score: VideoScore, name: str) -> bytes:
    """Return the PNG of a video with at least one track; `name` is its title."""
    from matplotlib.figure import Figure

    ranked = sorted(score.tracks, key=lambda track: -track.p_fake)
    named = sorted(ranked[: len(LOOKS)], key=lambda track: track.number)
    rest = ranked[len(LOOKS) :]
    height = HEAD_IN + CHART_IN + ROW_IN * len(named) + FOOT_IN
    figure = Figure(figsize=(WIDTH_IN, height), dpi=DPI, facecolor="white")
    page = Page(figure, height)
    page.write(_cut(name), LEFT_IN, 0.36, size=13, weight="bold")
    page.write(_verdict(score), LEFT_IN, 0.62, size=10)
    chart = page.axes(LEFT_IN, HEAD_IN, CHART_RIGHT_IN - LEFT_IN, CHART_IN - 0.6)
    _draw_chart(chart, score, named, rest)
    for row, (track, look) in enumerate(zip(named, LOOKS, strict=False)):
        highest = track is ranked[0] and len(ranked) > 1
        _draw_faces(page, track, look, top=HEAD_IN + CHART_IN + ROW_IN * row, highest=highest)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # names may be in any script
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _cut(name: str) -> str:
    return name if len(name) <= MAX_TITLE else f"{name[: MAX_TITLE - 1]}…"


def _verdict(score: VideoScore) -> str:
    worst, p_fake = score.worst, score.p_fake
    if worst is None or p_fake is None:
        raise ValueError("a timeline needs a track")
    highest = f", the highest of {len(score.tracks)} tracks (track {worst.number})" if len(score.tracks) > 1 else ""
    others = highest if score.rule == "max" else ", the mean of all clips"
    fault = f" · {score.outcome.code}" if score.outcome.code else ""
    return f"p(fake) {p_fake:.3f}: called {score.called}{others} · {_count(len(score.clips))}{fault}"


def _count(n_clips: int) -> str:
    return f"{n_clips} clip" + ("" if n_clips == 1 else "s")


def _draw_chart(axes: "Axes", score: VideoScore, named: Sequence[ScoredTrack], rest: Sequence[ScoredTrack]) -> None:
    clips = score.clips
    end = max(score.outcome.header.duration_s or 0.0, max(clip.end_s for clip in clips))
    begin = min(0.0, clips[0].start_s)
    gaps = _gaps(clips, begin, end)
    for k, (left, right) in enumerate(gaps):
        label = "no face scored" if k == 0 else None
        axes.axvspan(left, right, facecolor="#F1F1EE", edgecolor=GRID, hatch="////", linewidth=0, label=label)
    axes.axhline(score.threshold, color=INK, linewidth=1.2, linestyle=(0, (6, 3)), zorder=1.5)
    for text, place, side in (("▲ fake", score.threshold + 0.02, "bottom"), ("▼ real", score.threshold - 0.03, "top")):
        axes.text(1.008, place, text, size=8.5, color=DIM, va=side, transform=axes.get_yaxis_transform())
    for k, track in enumerate(rest):
        label = f"{len(rest)} more, lower" if k == 0 else None
        _draw_track(axes, track, Look(REST, "", "", "-"), label)
    for track, look in zip(named, LOOKS, strict=False):
        _draw_track(axes, track, look, f"track {track.number}: {track.p_fake:.3f}")
    axes.set(xlim=(begin, max(end, begin + 0.1)), ylim=(-0.03, 1.03), yticks=(0, 0.25, 0.5, 0.75, 1))
    axes.set_xlabel("seconds", color=INK)
    axes.set_ylabel("p(fake) of each clip", color=INK)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    n_columns = len(named) + bool(rest) + bool(gaps)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=n_columns, frameon=False, fontsize=9,
                borderpad=0.2, borderaxespad=0.2, handlelength=2.4, columnspacing=1.4)  # fmt: skip


def _gaps(clips: Sequence[ScoredClip], begin: float, end: float) -> list[tuple[float, float]]:
    """Return the stretches of the video that no clip covers."""
    gaps, reached = [], begin
    for clip in sorted(clips, key=lambda clip: clip.start_s):
        if clip.start_s - reached > GAP_S:
            gaps.append((reached, clip.start_s))
        reached = max(reached, clip.end_s)
    return [*gaps, (reached, end)] if end - reached > GAP_S else gaps


def _draw_track(axes: "Axes", track: ScoredTrack, look: Look, label: str | None) -> None:
    scores = [clip.p_fake for clip in track.clips]
    starts, ends = [clip.start_s for clip in track.clips], [clip.end_s for clip in track.clips]
    thick = 3.0 if look.marker else 1.2
    axes.hlines(scores, starts, ends, colors=look.colour, linewidth=thick, zorder=2)
    middles, heights = [], []
    for k, clip in enumerate(track.clips):
        if k and clip.start_s - ends[k - 1] > GAP_S:  # no line across what nobody saw
            middles.append(nan)
            heights.append(nan)
        middles.append((clip.start_s + clip.end_s) / 2)
        heights.append(clip.p_fake)
    size = 7.0 if len(scores) <= MANY_CLIPS else 3.5
    axes.plot(
        middles, heights, color=look.colour, linestyle=look.dashes, linewidth=1.0, marker=look.marker, markersize=size,
        markeredgecolor="white", markeredgewidth=0.7, label=label, zorder=3, clip_on=False,
    )  # fmt: skip


def _draw_faces(page: Page, track: ScoredTrack, look: Look, *, top: float, highest: bool) -> None:
    page.write(f"{look.glyph} track {track.number}", LEFT_IN, top + 0.36, size=10, weight="bold", color=look.colour)
    page.write(f"mean {track.p_fake:.3f}", LEFT_IN, top + 0.56, size=9)
    page.write(_count(len(track.clips)), LEFT_IN, top + 0.74, size=9)
    if highest:
        page.write("the highest", LEFT_IN, top + 0.92, size=9)
    for k, clip in enumerate(_spread(track.clips)):
        axes = page.axes(FACES_LEFT_IN + k * (FACE_IN + SEAM_IN), top, FACE_IN, FACE_IN)
        axes.imshow(_image(clip.face))
        axes.set(xticks=(), yticks=())
        for spine in axes.spines.values():
            spine.set(color=look.colour, linewidth=2.0)
        axes.set_xlabel(f"{(clip.start_s + clip.end_s) / 2:.1f} s · {clip.p_fake:.2f}", size=8, color=INK, labelpad=3)


def _spread(clips: Sequence[ScoredClip]) -> list[ScoredClip]:
    """Return at most N_FACES of the clips, evenly spaced, the first and the last among them."""
    if len(clips) <= N_FACES:
        return list(clips)
    return [clips[k * (len(clips) - 1) // (N_FACES - 1)] for k in range(N_FACES)]


def _image(data: bytes) -> Any:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB").resize((FACE_PX, FACE_PX), Image.Resampling.LANCZOS)
