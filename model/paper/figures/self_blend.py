"""Figure of self-blends: frames of real clips, the mask, and what training sees of them as fakes."""

from pathlib import Path

from lps.manifests.arrays import MIN_MARGIN, square_of
from lps.manifests.errors import RefusedError
from lps.model.data.changes.augment import Draws
from lps.model.data.changes.face_region import points_in
from lps.model.data.changes.self_blend import blend_draws, blend_mask, draw_blend
from lps.model.data.clip_decoder import ReadOptions
from lps.model.data.clip_reader import ClipReader, WorkOptions, require_margin
from lps.model.data.epoch_plan import PlanOptions
from lps.model.data.fakes.self_blends import NO_LANDMARKS, landmarks_of, with_self_blends
from lps.model.data.sources import Sources, open_split
from lps.model.paper.figures.clips import some_of_each
from lps.model.paper.figures.style import FAKE, REAL, figure, picture

N_FRAMES = 12
STRIDE = 2
"""Frames of a clip, and every how many one is shown."""


def draw_self_blends(sources: Sources, out: Path, n_clips: int, seed: int, margin: float = MIN_MARGIN) -> int:
    """Write OUT/self-blend.png: real frames, mask and blend of some clips, before any augmentation; returns how many.

    Frames are cut with the `margin`. Raises RefusedError where no clip can be shown or one does not store so much, and
    as `open_split` does.
    """
    data = open_split(sources, sources.split)
    data = some_of_each(data.select(data.labels == 0, data.left_out), n_clips, seed)
    if not len(data):
        raise RefusedError(f"{sources.shown} has no real clips to show")
    landmarks = landmarks_of(sources, data)
    require_margin(data, margin)
    clips = data.samples.select(["key", "clip_id", "side_px", "inner_px"]).to_pylist()
    points = {
        clip["key"]: points_in(
            landmarks.get(clip["clip_id"], NO_LANDMARKS), square_of(clip["side_px"], clip["inner_px"], margin)
        )
        for clip in clips
    }
    plan = PlanOptions(batch_size=2, sampling="pairs", shuffle=False, seed=seed)
    read, work = ReadOptions(n_frames=N_FRAMES, margin=margin), WorkOptions(max_bad_share=1.0)
    with ClipReader(with_self_blends(data, landmarks), read, plan, work) as reader:
        pairs = [batch for batch in reader.epoch(0) if len(batch) == 2]
    if not pairs:
        raise RefusedError("no clip could be read")
    shown = range(0, N_FRAMES, STRIDE)
    with figure(out / "self-blend.png", 1.1 * len(shown) + 0.3, 3.3 * len(pairs) + 0.4) as drawn:
        grid = {"wspace": 0.04, "hspace": 0.06}
        axes = drawn.subplots(3 * len(pairs), len(shown), squeeze=False, gridspec_kw=grid)
        for row, batch in zip(axes.reshape(len(pairs), 3, -1), pairs, strict=True):
            real, blended = batch.frames.numpy()
            blend = draw_blend(blend_draws(Draws(seed, 0, batch.keys[0])), N_FRAMES)
            mask = blend_mask(real.shape[1], points[batch.keys[0]], blend)
            for (top, middle, bottom), k in zip(row.T, shown, strict=True):
                picture(top, real[k])
                picture(middle, mask, 0.0, 1.0)
                picture(bottom, blended[k])
            row[0][0].set_ylabel("real", color=REAL)
            row[1][0].set_ylabel(f"mask: {blend.region}", fontsize=8)
            row[2][0].set_ylabel("self-blend", color=FAKE)
    return len(pairs)
