"""Self-blends among the samples: each real clip once more, as a fake that is made of it while it is read."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lps.manifests.arrays import Floats
from lps.manifests.storage import open_store
from lps.model.data.clip_data import SELF_BLEND_COLUMNS, ClipData
from lps.model.data.fakes.landmarks import clip_landmarks
from lps.model.data.sources import Sources

NO_LANDMARKS: Floats = np.empty((0, 2))
FACE_XY = pa.list_(pa.float32())


def landmarks_of(sources: Sources, data: ClipData) -> dict[bytes, Floats]:
    """Return the landmarks of the real clips by id; plain shards know none. Raises as `clip_landmarks` does."""
    real = data.samples.filter(pc.equal(data.samples["label"], 0))["clip_id"].combine_chunks()
    found: dict[bytes, Floats] = {}
    for place in sources.places:
        found |= clip_landmarks(open_store(place), real)
    return found


def with_self_blends(data: ClipData, landmarks: Mapping[bytes, Floats]) -> ClipData:
    """Return the samples with a self-blend, label 1, after each real one.

    `landmarks` are those of `landmarks_of`; a clip without has the face of the template.
    """
    rows = np.repeat(np.arange(len(data)), 1 + (data.labels == 0))
    blend = np.diff(rows, prepend=-1) == 0
    samples = data.samples.take(pa.array(rows))
    label = pc.if_else(pa.array(blend), pa.scalar(1, pa.int8()), samples["label"])
    faces: list[Any] = [
        landmarks.get(clip_id, NO_LANDMARKS).ravel() if is_blend else []
        for clip_id, is_blend in zip(samples["clip_id"].to_pylist(), blend, strict=True)
    ]
    samples = samples.set_column(samples.column_names.index("label"), samples.schema.field("label"), label)
    for name, column in zip(SELF_BLEND_COLUMNS, (pa.array(blend), pa.array(faces, FACE_XY)), strict=True):
        samples = samples.append_column(name, column)
    return replace(data, samples=samples)


def said_of_blends(data: ClipData) -> str:
    """Say how many self-blends there are, and what their masks are drawn from."""
    blends = data.samples.filter(pa.array(data.self_blends))
    counts = Counter(pc.list_value_length(blends["face_xy"]).to_pylist())
    names = {136: "68 landmarks", 10: "five landmarks", 0: "the template of aligned faces"}
    masks = ", ".join(f"{counts[n]} by {name}" for n, name in names.items() if counts[n])
    return f"{len(blends)} real clips are made into self-blends while they are read; masks: {masks}"
