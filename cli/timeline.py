"""The picture of a scored video: p(fake) over its seconds, a line for each face, and some of the faces below.

Tracks are told apart by marker and number as well as by colour (Okabe and Ito, 2008), so that the picture also reads
without colour, and in print.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lps.cli.scoring import THRESHOLD, ScoredClip, ScoredTrack, VideoScore, called

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN, CHART_IN, ROW_IN = 10.0, 3.6, 1.55
DPI = 150
N_FACES = 8
"""Of each track, evenly over its clips."""
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
    dashes: str


LOOKS = (
    Look("#0072B2", "o", "-"),
    Look("#D55E00", "s", "--"),
    Look("#009E73", "^", "-."),
    Look("#CC79A7", "D", ":"),
)
"""Of the tracks with the highest scores, in order of their numbers; what is left is thin and grey."""


def draw_timeline(score: VideoScore, name: str) -> bytes:
    """Return the PNG of a video with at least one track; `name` is its title."""
    from matplotlib.figure import Figure

    ranked = sorted(score.tracks, key=lambda track: -track.p_fake)
    named = sorted(ranked[: len(LOOKS)], key=lambda track: track.number)
    rest = ranked[len(LOOKS) :]
    height = CHART_IN + ROW_IN * len(named)
    figure = Figure(figsize=(WIDTH_IN, height), dpi=DPI, facecolor="white")
    figure.text(0.075, 1 - 0.34 / height, _cut(name), size=13, weight="bold", color=INK, parse_math=False)
    figure.text(0.075, 1 - 0.62 / height, _verdict(score), size=10, color=INK, parse_math=False)
    chart = figure.add_axes((0.075, 1 - (CHART_IN - 0.62) / height, 0.905, (CHART_IN - 1.4) / height))
    _draw_chart(chart, score, named, rest)
    for row, (track, look) in enumerate(zip(named, LOOKS, strict=False)):
        _draw_faces(figure, track, look, bottom=1 - (CHART_IN + ROW_IN * (row + 1)) / height, scale=1 / height)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # names may be in any script
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _cut(name: str) -> str:
    return name if len(name) <= MAX_TITLE else f"{name[: MAX_TITLE - 1]}…"


def _verdict(score: VideoScore) -> str:
    worst = score.worst
    if worst is None:
        raise ValueError("a timeline needs a track")
    others = f", the highest of {len(score.tracks)} tracks (track {worst.number})" if len(score.tracks) > 1 else ""
    fault = f" · {score.outcome.code}" if score.outcome.code else ""
    return f"p(fake) {worst.p_fake:.3f}: called {called(worst.p_fake)}{others} · {_count(len(score.clips))}{fault}"


def _count(n_clips: int) -> str:
    return f"{n_clips} clip" + ("" if n_clips == 1 else "s")


# ---- the chart -------------------------------------------------------------------------------------------------------


def _draw_chart(axes: "Axes", score: VideoScore, named: Sequence[ScoredTrack], rest: Sequence[ScoredTrack]) -> None:
    clips = score.clips
    end = max(score.outcome.header.duration_s or 0.0, max(clip.end_s for clip in clips))
    begin = min(0.0, clips[0].start_s)
    gaps = _gaps(clips, begin, end)
    for k, (left, right) in enumerate(gaps):
        label = "no face judged" if k == 0 else None
        axes.axvspan(left, right, facecolor="#F1F1EE", edgecolor=GRID, hatch="////", linewidth=0, label=label)
    axes.axhline(THRESHOLD, color=INK, linewidth=1.2, linestyle=(0, (6, 3)), zorder=1.5)
    for text, place, side in (("fake", THRESHOLD + 0.015, "bottom"), ("real", THRESHOLD - 0.02, "top")):
        axes.text(end, place, f"called {text} ", size=8, color=DIM, ha="right", va=side)
    for k, track in enumerate(rest):
        label = f"{len(rest)} more, all lower" if k == 0 else None
        _draw_track(axes, track, Look(REST, "", "-"), label)
    for track, look in zip(named, LOOKS, strict=False):
        _draw_track(axes, track, look, f"track {track.number}: mean {track.p_fake:.3f}")
    axes.set(xlim=(begin, max(end, begin + 0.1)), ylim=(-0.03, 1.03), yticks=(0, 0.25, 0.5, 0.75, 1))
    axes.set_xlabel("seconds", color=INK)
    axes.set_ylabel("p(fake) of each clip", color=INK)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    n_columns = len(named) + bool(rest) + bool(gaps)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=n_columns, frameon=False, fontsize=9,
                borderaxespad=0.2, handlelength=2.4)  # fmt: skip


def _gaps(clips: Sequence[ScoredClip], begin: float, end: float) -> list[tuple[float, float]]:
    """Return the stretches of the video that no clip covers."""
    gaps, reached = [], begin
    for clip in sorted(clips, key=lambda clip: clip.start_s):
        if clip.start_s - reached > GAP_S:
            gaps.append((reached, clip.start_s))
        reached = max(reached, clip.end_s)
    return [*gaps, (reached, end)] if end - reached > GAP_S else gaps


def _draw_track(axes: "Axes", track: ScoredTrack, look: Look, label: str | None) -> None:
    middles = [(clip.start_s + clip.end_s) / 2 for clip in track.clips]
    scores = [clip.p_fake for clip in track.clips]
    thick = 3.0 if look.marker else 1.2
    starts, ends = [clip.start_s for clip in track.clips], [clip.end_s for clip in track.clips]
    axes.hlines(scores, starts, ends, colors=look.colour, linewidth=thick, zorder=2)
    size = 7.0 if len(scores) <= MANY_CLIPS else 3.5
    axes.plot(
        middles, scores, color=look.colour, linestyle=look.dashes, linewidth=1.0, marker=look.marker, markersize=size,
        markeredgecolor="white", markeredgewidth=0.7, label=label, zorder=3, clip_on=False,
    )  # fmt: skip


# ---- the faces -------------------------------------------------------------------------------------------------------


def _draw_faces(figure: "Figure", track: ScoredTrack, look: Look, *, bottom: float, scale: float) -> None:
    """Draw a row of faces of a track; `scale` is one inch of height as a share of the figure."""
    side = (0.98 - 0.075 - 0.1) / N_FACES
    tall = side * WIDTH_IN * scale
    figure.text(
        0.075, bottom + tall * 0.62 + 0.32 * scale, f"track {track.number}", size=10, weight="bold", color=look.colour
    )
    figure.text(0.075, bottom + tall * 0.42 + 0.32 * scale, f"mean {track.p_fake:.3f}", size=9, color=INK)
    figure.text(0.075, bottom + tall * 0.25 + 0.32 * scale, _count(len(track.clips)), size=9, color=INK)
    for k, clip in enumerate(_spread(track.clips)):
        axes = figure.add_axes((0.175 + k * side, bottom + 0.32 * scale, side * 0.94, tall * 0.94))
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
