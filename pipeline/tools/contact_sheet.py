"""The picture of a contact sheet: rows of face clips, then rows of videos that ended with a code. Opens no files.

Text is set in the font that comes with Pillow, cut to the width it has and never drawn over anything. Labels are told
by a word and by a colour; the two colours stay apart for colour-blind readers (Okabe and Ito, 2008).
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

from PIL import Image, ImageDraw, ImageFont

FACE_PX = 120
"""Side of a clip's middle frame."""
SIDE_PX = 59
"""Side of its first and last frame, which stand beside the middle one."""
SEAM = 2
TILE_WIDTH = FACE_PX + SEAM + SIDE_PX
TILE_GAP = 14
MARGIN = 28
MIN_WIDTH = 760
"""Least width of the page: headings need it even where there is one tile."""

TITLE_SIZE, HEADING_SIZE, ROW_SIZE, TEXT_SIZE = 24, 18, 16, 12
TITLE_HEIGHT, SECTION_HEIGHT, ROW_HEADING_HEIGHT, LINE_HEIGHT = 38, 66, 30, 16
ROW_SPACE = 22
BAR = 3
"""Thickness of the bar in the label's colour at each tile."""
PAD = 8
PILL_PAD = 7
CAPTION_LINES = 3
REJECT_LINES = 8
CLIP_HEIGHT = FACE_PX + BAR + 5 + CAPTION_LINES * LINE_HEIGHT
REJECT_HEIGHT = 2 * PAD + REJECT_LINES * LINE_HEIGHT

PAPER, CARD, RULE = "#FFFFFF", "#F4F4F2", "#D5D5D0"
INK, DIM, ALARM = "#1A1A1A", "#5E5E5E", "#B00020"
LABEL_COLOURS = {"real": "#0072B2", "fake": "#D55E00", "unknown": "#6B6B6B"}
FONT_EXTRAS = "…·"
"""What the font has besides printable ASCII."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetClip:
    """One clip, as it is captioned."""

    sample_key: str
    label: str
    method: str
    """Name of the manipulation; the label's where there is none."""
    uri: str
    """Path of its video, relative to the source root."""
    video_id: str
    """Hex."""
    det_rate: float
    """Detected frames / frames asked about."""
    start_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetReject:
    """One video that ended with a code."""

    uri: str
    label: str
    status: str
    code: str
    stage: str | None
    n_frames_decoded: int | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetRow:
    """One row: the clips of one split and label, or the videos of one code."""

    title: str
    """Name of the split, or the code."""
    counts: tuple[tuple[str, int], ...]
    """(label, how many clips or videos there are in all), without zeros."""
    note: str
    tiles: tuple[SheetClip | SheetReject, ...]
    """Those that are shown, at least one."""

    @property
    def section(self) -> str:
        """The heading that this row belongs under."""
        return "Clips" if isinstance(self.tiles[0], SheetClip) else "Videos without clips, or with fewer, by code"

    @property
    def height(self) -> int:
        """Pixels from this row's heading to the next row's."""
        tile = CLIP_HEIGHT if isinstance(self.tiles[0], SheetClip) else REJECT_HEIGHT
        return ROW_HEADING_HEIGHT + tile + ROW_SPACE


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetHeading:
    """What stands above the rows."""

    title: str
    lines: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def height(self) -> int:
        """Pixels of the heading, the page's margin included."""
        return MARGIN + TITLE_HEIGHT + LINE_HEIGHT * (len(self.lines) + len(self.warnings))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where everything is."""

    heading: SheetHeading
    rows: tuple[SheetRow, ...]

    @property
    def width(self) -> int:
        """Width of the page, pixels."""
        n = max((len(row.tiles) for row in self.rows), default=0)
        return max(MIN_WIDTH, 2 * MARGIN + n * (TILE_WIDTH + TILE_GAP) - TILE_GAP)

    @property
    def tops(self) -> tuple[int, ...]:
        """Top of each row's heading, then the end of the last row."""
        steps = [row.height for row in self.rows]
        gaps = [SECTION_HEIGHT if self.opens_section(i) else 0 for i in range(len(self.rows))] + [0]
        ends = accumulate(steps, initial=self.heading.height)
        return tuple(end + gap for end, gap in zip(ends, accumulate(gaps), strict=True))

    @property
    def height(self) -> int:
        """Height of the page, pixels."""
        return self.tops[-1] + MARGIN

    def opens_section(self, row: int) -> bool:
        """Return whether this row is the first of its section."""
        return row == 0 or self.rows[row].section != self.rows[row - 1].section

    def tile(self, row: int, column: int) -> tuple[int, int]:
        """Return the left and top edge of a tile; the first pixel of a clip's middle frame."""
        return MARGIN + column * (TILE_WIDTH + TILE_GAP), self.tops[row] + ROW_HEADING_HEIGHT


@cache
def font(size: int) -> Font:
    """Return the font that comes with Pillow, in pixels."""
    return ImageFont.load_default(size=size)


def printable(text: str) -> str:
    """Return `text` on one line; characters that the font lacks become escapes, so that names stay distinct."""
    line = " ".join(text.split())
    return "".join(c if (c.isascii() and c.isprintable()) or c in FONT_EXTRAS else _escape(c) for c in line)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def ellipsized(text: str, size: int, width: float, *, keep_end: bool = False) -> str:
    """Return `text` cut to `width` pixels at its end, or at its start with `keep_end`; empty where … does not fit."""
    line, measure = printable(text), font(size).getlength
    if measure(line) <= width:
        return line
    if measure("…") > width:
        return ""

    def cut(n: int) -> str:
        return "…" + line[len(line) - n :].lstrip() if keep_end else line[:n].rstrip() + "…"

    return cut(max(0, bisect_right(range(len(line)), width, key=lambda n: measure(cut(n))) - 1))


def pill_width(text: str) -> float:
    """Return the width of a short text on its bar, pixels."""
    return font(TEXT_SIZE).getlength(text) + 2 * PILL_PAD


def wrapped(text: str, size: int, width: float, max_lines: int) -> list[str]:
    """Return `text` in lines of at most `width` pixels, broken at spaces where there are any; the last one is cut."""
    rest, measure = printable(text), font(size).getlength
    lines: list[str] = []
    while measure(rest) > width and len(lines) < max_lines - 1:
        n = max(1, bisect_right(range(len(rest)), width, key=lambda n: measure(rest[:n])) - 1)  # noqa: B023
        space = rest.rfind(" ", 1, n + 1)
        n = space if space > 0 else n
        lines.append(rest[:n])
        rest = rest[n:].lstrip()
    return [*lines, ellipsized(rest, size, width)] if rest else lines


ClipPictures = Sequence[Image.Image]
"""Middle, first and last frame of a clip, at the sizes in which they are shown."""


def draw_sheet(layout: Layout, frames: Mapping[str, ClipPictures]) -> Image.Image:
    """Return the page. `frames` holds the pictures of every clip by its sample key."""
    page = Image.new("RGB", (layout.width, layout.height), PAPER)
    pen = _Pen(draw=ImageDraw.Draw(page), right=layout.width - MARGIN)
    _draw_heading(pen, layout.heading)
    for i, row in enumerate(layout.rows):
        if layout.opens_section(i):
            top = layout.tops[i] - SECTION_HEIGHT + 16
            pen.draw.line([(MARGIN, top), (pen.right - 1, top)], fill=RULE)
            pen.text(MARGIN, top + 12, row.section, size=HEADING_SIZE)
        _draw_row_heading(pen, layout.tops[i], row)
        for column, tile in enumerate(row.tiles):
            x, y = layout.tile(i, column)
            if isinstance(tile, SheetClip):
                _draw_clip(page, pen, x, y, tile, frames[tile.sample_key])
            else:
                _draw_reject(pen, x, y, tile)
    return page


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pen:
    """Draws text that stays left of the page's right margin, or of a nearer edge."""

    draw: ImageDraw.ImageDraw
    right: int

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int,
        fill: str = INK,
        width: float | None = None,
        keep_end: bool = False,
    ) -> float:
        """Write one line, cut to `width` or to the page, and return where it ends."""
        line = ellipsized(text, size, self.right - x if width is None else width, keep_end=keep_end)
        self.draw.text((x, y), line, font=font(size), fill=fill)
        return x + font(size).getlength(line)

    def pill(self, x: float, y: float, text: str, fill: str) -> float:
        """Write a short text, white on a bar, and return where the bar ends."""
        end = x + pill_width(text)
        self.draw.rounded_rectangle([x, y, end, y + 19], radius=3, fill=fill)
        self.draw.text((x + PILL_PAD, y + 3), text, font=font(TEXT_SIZE), fill=PAPER)
        return end


def _draw_heading(pen: _Pen, heading: SheetHeading) -> None:
    pen.text(MARGIN, MARGIN - 4, heading.title, size=TITLE_SIZE)
    y = MARGIN + TITLE_HEIGHT - 4
    for line in heading.lines:
        pen.text(MARGIN, y, line, size=TEXT_SIZE, fill=DIM)
        y += LINE_HEIGHT
    for line in heading.warnings:
        pen.text(MARGIN, y, line, size=TEXT_SIZE, fill=ALARM)
        y += LINE_HEIGHT


def _draw_row_heading(pen: _Pen, y: int, row: SheetRow) -> None:
    pills = [(f"{n:,} {label}", LABEL_COLOURS[label]) for label, n in row.counts]
    taken = sum(pill_width(text) + 6 for text, _ in pills)
    x = pen.text(MARGIN, y, row.title, size=ROW_SIZE, width=pen.right - MARGIN - taken - 10) + 10
    for text, fill in pills:
        x = pen.pill(x, y, text, fill) + 6
    pen.text(x + 4, y + 3, row.note, size=TEXT_SIZE, fill=DIM)


def _draw_clip(page: Image.Image, pen: _Pen, x: int, y: int, tile: SheetClip, frames: ClipPictures) -> None:
    middle, first, last = frames
    side = x + FACE_PX + SEAM
    page.paste(middle, (x, y))
    page.paste(first, (side, y))
    page.paste(last, (side, y + FACE_PX - SIDE_PX))
    y += FACE_PX
    pen.draw.rectangle([x, y, x + TILE_WIDTH - 1, y + BAR - 1], fill=LABEL_COLOURS[tile.label])
    y += BAR + 5
    rate = f"det {tile.det_rate:.0%}"
    rate_width = font(TEXT_SIZE).getlength(rate)
    pen.text(x, y, tile.method, size=TEXT_SIZE, width=TILE_WIDTH - rate_width - 8)
    pen.text(x + TILE_WIDTH - rate_width, y, rate, size=TEXT_SIZE)
    pen.text(x, y + LINE_HEIGHT, tile.uri, size=TEXT_SIZE, fill=DIM, width=TILE_WIDTH, keep_end=True)
    place = f"{tile.video_id[:12]} · from {tile.start_s:.1f} s"
    pen.text(x, y + 2 * LINE_HEIGHT, place, size=TEXT_SIZE, fill=DIM, width=TILE_WIDTH)


def _draw_reject(pen: _Pen, x: int, y: int, tile: SheetReject) -> None:
    pen.draw.rectangle([x, y, x + TILE_WIDTH - 1, y + REJECT_HEIGHT - 1], fill=CARD)
    pen.draw.rectangle([x, y, x + BAR - 1, y + REJECT_HEIGHT - 1], fill=LABEL_COLOURS[tile.label])
    x, y, width = x + BAR + PAD, y + PAD, TILE_WIDTH - BAR - 2 * PAD
    folder, _, name = tile.uri.rpartition("/")
    n = tile.n_frames_decoded
    lines = [
        (name, TEXT_SIZE, INK, True),
        (f"{folder}/" if folder else "", TEXT_SIZE, DIM, True),
        (tile.code, TEXT_SIZE, INK, False),
        (f"{tile.label}, {tile.status}" + (f" at {tile.stage}" if tile.stage else ""), TEXT_SIZE, INK, False),
        ("no frames decoded" if not n else f"{n:,} frames decoded", TEXT_SIZE, INK, False),
    ]
    details = wrapped(tile.detail, TEXT_SIZE, width, REJECT_LINES - len(lines))
    for text, size, fill, keep_end in [*lines, *((line, TEXT_SIZE, DIM, False) for line in details)]:
        pen.text(x, y, text, size=size, fill=fill, width=width, keep_end=keep_end)
        y += LINE_HEIGHT
