"""The frames that faces were cut from, out of the source videos: for the figure of alignment."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from lps.manifests.arrays import square_of
from lps.manifests.columns import read_columns
from lps.manifests.errors import RefusedError, UnreadableError, VideoFault
from lps.manifests.index import PLAN_JSON, read_plan
from lps.manifests.sequences.folder import source_sha256
from lps.manifests.storage import Store, open_store
from lps.model.paper.figures.align import Example, Original
from lps.pipeline.config.params import Params, params_from_record
from lps.pipeline.faces.align import crop_matrix, warp
from lps.pipeline.video.decode import DecodeStats
from lps.pipeline.video.frame import Frame
from lps.pipeline.video.images import decode_source
from lps.pipeline.video.source_reader import SourceReader, SourceRef


def with_originals(examples: Iterable[Example], data: str, source: str) -> list[Example]:
    """Return the examples with the frames of their videos, and with the box's crop where they have none.

    `data` is the data set, `source` the root of the videos that it was made from. Raises UnreadableError for a video
    that is missing or does not decode, RefusedError for one that is not the file of that time.
    """
    store, videos = open_store(data), open_store(source)
    plan = read_plan(store)
    if plan is None:
        raise UnreadableError(f"{store.url} has no {PLAN_JSON}; how its faces were cut is not known")
    params = params_from_record(plan.values.get("params", {}))
    rows = read_columns(store, "videos", ("video_id", "uri", "sha256")).to_pylist()
    known = {row["video_id"]: (row["uri"], row["sha256"]) for row in rows}
    found = []
    for example in examples:
        uri, sha256 = known[example.row["video_id"]]
        frame = _frame(videos, uri, sha256, example.frame_index, params)
        width, height = frame.aspect_xy
        crop = example.unaligned
        if crop is None:  # as `lps-prep run --no-align` makes it
            side = example.side_px
            crop = warp(frame.rgb(), crop_matrix(example.box_xyxy, frame.aspect_xy, side), square_of(side, side))
        found.append(replace(example, unaligned=crop, original=Original(np.asarray(frame.rgb()), height / width)))
    return found


def _frame(videos: Store, uri: str, sha256: bytes | None, index: int, params: Params) -> Frame:
    name = videos.join(uri)
    try:
        with SourceReader(videos).local(SourceRef(uri)) as path:
            if sha256 is not None and path.exists() and source_sha256(path) != sha256.hex():
                raise RefusedError(f"{name} is not the file that the data set was made from; give its source folder")
            for frame in decode_source(path, params, DecodeStats()):
                if frame.index == index:
                    return frame
    except VideoFault as e:
        raise UnreadableError(f"cannot read {name}: {e}; --source is the folder that lps-prep run was given") from e
    raise UnreadableError(f"{name} has no frame {index}; is it the video that the data set was made from?")
