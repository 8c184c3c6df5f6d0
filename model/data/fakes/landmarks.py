"""Landmarks of clips from the manifest, as the masks of self-blends need them: one set a clip, in the inner square."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lps.manifests.arrays import Floats, inner_sides
from lps.manifests.columns import BATCH_ROWS, column_batches, list_array
from lps.manifests.errors import IntegrityError
from lps.manifests.schemas import BOX_UNITS
from lps.manifests.storage import Store

COLUMNS = ("clip_id", "lmk5", "lmk68", "align_M", "align_template", "out_size")


def clip_landmarks(store: Store, clip_ids: pa.Array) -> dict[bytes, Floats]:
    """Return the landmarks of clips by id: (68, 2) where the manifest has so many, else (5, 2), in shares of the side
    of the inner square, which is the stored frame where there is no margin.

    Each is the median over the frames of a clip, in which an aligned face stands nearly still: a mask that followed
    every frame would jitter. A clip of which none are known is left out. Raises UnreadableError, and IntegrityError for
    a row that contradicts itself.
    """
    found: dict[bytes, Floats] = {}
    for table in column_batches(store, "clips", COLUMNS, BATCH_ROWS):
        wanted = table.filter(pc.is_in(table["clip_id"], value_set=clip_ids))
        stored = np.asarray(wanted["out_size"].to_numpy(), np.int64)
        ids, sides = wanted["clip_id"].to_pylist(), inner_sides(wanted["align_template"], stored).tolist()
        for k, (clip_id, side) in enumerate(zip(ids, sides, strict=True)):
            dense = list_array(wanted["lmk68"][k])
            points = list_array(wanted["lmk5"][k]) if dense is None else dense
            maps = list_array(wanted["align_M"][k])
            if points is None or not len(points):
                continue
            if maps is None or len(points) != len(maps):
                raise IntegrityError(f"{store.url}: landmarks and transforms of clip {clip_id.hex()} do not fit")
            found[clip_id] = _in_frame(points.astype(np.float64) / BOX_UNITS, maps.astype(np.float64)) / side
    return found


def _in_frame(points: Floats, maps: Floats) -> Floats:
    """Return the median over frames of points (n, 2 k), source px, taken to the frame by 2x3 matrices (n, 6)."""
    xy, matrix = points.reshape(len(points), -1, 2), maps.reshape(-1, 2, 3)
    moved = xy @ matrix[:, :, :2].transpose(0, 2, 1) + matrix[:, None, :, 2]
    return np.asarray(np.median(moved, axis=0), np.float64)
