"""Faces with and without alignment (Figure 7): the same frame of a video as it was filmed, cropped, and aligned."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lps.manifests.arrays import Floats, Pixels, inner_side, is_cropped
from lps.manifests.columns import read_columns, read_rows
from lps.manifests.errors import IntegrityError, RefusedError
from lps.manifests.schemas import BOX_UNITS, Row
from lps.manifests.storage import Store, open_store
from lps.model.data.clip_data import ClipData, spread_clips
from lps.model.data.clip_decoder import ReadOptions
from lps.model.data.clip_reader import ClipReader, WorkOptions
from lps.model.data.epoch_plan import evaluation_plan
from lps.model.paper.figures.clips import open_whole, some_of_each
from lps.model.paper.figures.features import chosen
from lps.model.paper.figures.style import COLOURS, FAKE, REAL, figure, picture

ROW_COLUMNS = (
    *("sample_key", "video_id", "label", "method", "track_id", "frame_idx", "n_frames", "out_size"),
    *("box_xyxy", "lmk5", "align_M", "align_template"),
)


@dataclass(frozen=True, slots=True)
class Original:
    """The whole frame that a face comes from."""

    image: Pixels
    """(H, W, 3) RGB."""
    pixel_height: float
    """Height of a stored pixel, in its widths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One frame of one clip."""

    row: Row
    """Row of the manifest of clips."""
    place: int
    """Index of the frame within the clip."""
    aligned: Pixels
    """(H, H, 3) RGB, as are the others."""
    unaligned: Pixels | None = None
    original: Original | None = None

    @property
    def frame_index(self) -> int:
        """Number of the frame in its video."""
        return int(self.row["frame_idx"][self.place])

    @property
    def side_px(self) -> int:
        """Side of the face: of the inner square, where more is stored around it."""
        return inner_side(str(self.row["align_template"]), int(self.row["out_size"]))

    @property
    def box_xyxy(self) -> Floats:
        """The detector's box, (4,), source px."""
        return np.array(self.row["box_xyxy"][self.place], np.float64) / BOX_UNITS

    @property
    def points(self) -> Floats:
        """Eyes, nose and mouth corners, (5, 2), source px."""
        return np.array(self.row["lmk5"][self.place], np.float64).reshape(5, 2) / BOX_UNITS

    @property
    def outline(self) -> Floats:
        """The corners of the aligned face in its frame, (4, 2), source px."""
        matrix = np.array(self.row["align_M"][self.place], np.float64).reshape(2, 3)
        side = float(self.side_px)
        corners = np.array([[0, 0], [side, 0], [side, side], [0, side]])
        return np.asarray(np.linalg.solve(matrix[:, :2], (corners - matrix[:, 2]).T).T, np.float64)


@dataclass(frozen=True, slots=True)
class ClipSet:
    """The labelled clips of a data set, all aligned or all not."""

    store: Store
    data: ClipData

    def rows(self, keys: Sequence[str]) -> list[Row]:
        """Return the manifest rows of some clips."""
        every = read_columns(self.store, "clips", ("sample_key",))["sample_key"]
        places = pc.index_in(pa.array(list(keys), pa.string()), value_set=every.combine_chunks()).to_pylist()
        return read_rows(self.store, "clips", ROW_COLUMNS, places)

    def image(self, row: Row, place: int) -> Pixels:
        """Return one frame of a clip. Raises as the reader does, and IntegrityError for a clip that is not whole."""
        read = ReadOptions(n_frames=row["n_frames"], train=False)
        one = chosen(self.data, [row["sample_key"]])
        with ClipReader(one, read, evaluation_plan(1), WorkOptions(max_bad_share=1.0)) as reader:
            for batch in reader.epoch(0):
                return np.asarray(batch.frames[0, place].numpy(), np.uint8)
            raise IntegrityError(f"{reader.bad_samples[0]}; look at the data set with lps-audit")


def open_clips(location: str, *, aligned: bool) -> ClipSet:
    """Open a data set of clips that are aligned, or that are not. Raises RefusedError for the other kind."""
    store = open_store(location)
    templates = set(read_columns(store, "clips", ("align_template",))["align_template"].to_pylist())
    if templates and aligned == any(map(is_cropped, templates)):
        raise RefusedError(
            f"the clips of {store.url} are {'not ' if aligned else ''}aligned; --data takes aligned ones, --unaligned "
            "those of lps-prep run --no-align"
        )
    return ClipSet(store, open_whole(location))


def alignment_examples(aligned: ClipSet, unaligned: ClipSet | None, n_each: int, seed: int = 0) -> list[Example]:
    """Return a frame of at most `n_each` real and fake videos, with its crop where a data set of crops is given.

    It is the middle one of the clip, or of the frames that both data sets have of the face. Raises RefusedError where
    they have none in common.
    """
    data = aligned.data
    if unaligned is not None:
        both = pc.is_in(data.samples["video_id"], value_set=unaligned.data.samples["video_id"].combine_chunks())
        data = data.select(np.asarray(both.to_numpy(zero_copy_only=False), bool), data.left_out)
    picked = some_of_each(spread_clips(data, 1), n_each, seed) if len(data) else data
    found = []
    for row in sorted(aligned.rows(picked.samples["key"].to_pylist()), key=lambda r: (r["label"], r["sample_key"])):
        if unaligned is None:
            place = len(row["frame_idx"]) // 2
            found.append(Example(row=row, place=place, aligned=aligned.image(row, place)))
            continue
        match = _counterpart(row, unaligned)
        if match is not None:
            place, other, other_place = match
            crop = unaligned.image(other, other_place)
            found.append(Example(row=row, place=place, aligned=aligned.image(row, place), unaligned=crop))
    if not found:
        raise RefusedError(
            f"{aligned.store.url} and {unaligned.store.url if unaligned else 'itself'} have no frame of a face in "
            "common; prepare the same videos with the same --seed"
        )
    return found


def _counterpart(row: Row, unaligned: ClipSet) -> tuple[int, Row, int] | None:
    """Return the middle frame that clips of the same face have in both data sets: place, other clip, place there."""
    samples = unaligned.data.samples
    same = samples.filter(pc.equal(samples["video_id"], pa.scalar(row["video_id"], pa.binary(16))))
    for other in unaligned.rows(same["key"].to_pylist()):
        common = sorted({*row["frame_idx"]} & {*other["frame_idx"]})
        if common and other["track_id"] == row["track_id"]:
            frame = common[len(common) // 2]
            return row["frame_idx"].index(frame), other, other["frame_idx"].index(frame)
    return None


def draw_alignment(examples: Sequence[Example], out: Path) -> None:
    """Write OUT/align.png: a column an example; the frame where there is one, the crop, the aligned face."""
    rows: list[str] = [
        *(["frame"] if any(each.original for each in examples) else []),
        *(["box only"] if any(each.unaligned is not None for each in examples) else []),
        "aligned",
    ]
    heights = [max(_shape(each.original) for each in examples) if name == "frame" else 1.0 for name in rows]
    with figure(out / "align.png", 1.45 * len(examples) + 0.4, 1.5 * sum(heights) + 0.3) as drawn:
        grid = {"hspace": 0.05, "wspace": 0.05, "height_ratios": heights}
        axes = drawn.subplots(len(rows), len(examples), squeeze=False, gridspec_kw=grid)
        for column, each in zip(axes.T, examples, strict=True):
            kind = (each.row["method"] or "fake") if each.row["label"] else "real"
            column[0].set_title(kind, fontsize=8, color=FAKE if each.row["label"] else REAL)
            for ax, name in zip(column, rows, strict=True):
                image = {"box only": each.unaligned, "aligned": each.aligned}.get(name)
                if image is not None:
                    picture(ax, image)
                elif name == "frame" and each.original is not None:
                    _draw_frame(ax, each, each.original)
                else:
                    ax.axis("off")
        for ax, name in zip(axes[:, 0], rows, strict=True):
            ax.set_ylabel(name)


def _shape(original: Original | None) -> float:
    """Return the height of a frame as shown, in its widths."""
    if original is None:
        return 0.0
    height, width = original.image.shape[:2]
    return float(height * original.pixel_height / width)


def _draw_frame(ax: Any, example: Example, original: Original) -> None:
    """Show the frame with the detector's box, the points, and the outline of the aligned face."""
    picture(ax, original.image)
    ax.set_aspect(original.pixel_height, anchor="S")
    x0, y0, x1, y1 = example.box_xyxy
    ax.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], "--", color=COLOURS[4], linewidth=0.9)
    outline = np.vstack([example.outline, example.outline[:1]])
    ax.plot(outline[:, 0], outline[:, 1], "-", color=COLOURS[5], linewidth=1.1)
    ax.plot(*example.points.T, ".", color="#ffffff", markersize=1.5)
    height, width = original.image.shape[:2]
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
