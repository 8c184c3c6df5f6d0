"""Where clips of a video begin and which frames its hashes are of: by its id, its length and the seed alone."""

from lps.manifests.canonical import digest16
from lps.pipeline.config.params import ALL_CLIPS, Params


def hash_places(n_frames: int, fps: float | None) -> frozenset[int]:
    """Return the frames whose hashes tell copies of a video: at 0, 1 and 2 seconds, in short ones closer together.

    They are near the start, where decoding is cheap, and the same in a copy of another frame rate or without its end.
    """
    second = round(min(fps or 25, 60))  # where no rate is named, or nonsense is
    step = max(1, min(second, (n_frames - 1) // 2))
    return frozenset({0, step, 2 * step})


def start_seed(video_id: bytes, params: Params) -> int:
    """Return the 64-bit number that decides where this video's clips begin: of its id and the seed, nothing else."""
    return int.from_bytes(digest16("start", str(params.seed), video_id.hex())[:8], "big")


def start_frames(video_id: bytes, n_frames: int, params: Params) -> frozenset[int]:
    """Return the frames from which clips are looked for: one in each of `clips` equal parts, seeded within it."""
    n_clips = params.clips
    if n_clips == ALL_CLIPS:
        return frozenset({0})
    seed = start_seed(video_id, params)
    part = n_frames // n_clips
    if part < params.clip_frames:  # too short to hold them apart: one after the other from the first frame
        return frozenset(k * params.clip_frames for k in range(max(1, min(n_clips, n_frames // params.clip_frames))))
    slack = part - params.clip_frames + 1
    return frozenset(k * part + seed % slack for k in range(n_clips))
