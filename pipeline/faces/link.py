"""Which clips of a video show the same face: boxes that overlap from clip to clip are one track."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from lps.manifests.records import Clip
from lps.pipeline.faces.track import MIN_IOU, box_iou

Box = tuple[float, float, float, float]


def with_faces(clips: Sequence[Clip]) -> tuple[Clip, ...]:
    """Return the clips of a video, in any order, with `face_id`."""
    order = sorted(range(len(clips)), key=lambda k: clips[k].frame_idx[0])
    numbers = dict(zip(order, link_faces([clips[k] for k in order]), strict=True))
    return tuple(replace(clip, face_id=numbers[k]) for k, clip in enumerate(clips))


def link_faces(clips: Sequence[Clip]) -> list[int]:
    """Return the number of the track of every clip; `clips` are in time order, those of one stretch together.

    Nobody is recognised: a face is the one whose box it overlaps when it comes (back) into sight. Where only one face
    is in the picture before and after, it is the same one, wherever it is, so that such a video is one track.
    """
    tracks: list[int] = []
    last: dict[int, Box] = {}
    alone: int | None = None
    for _, stretch in groupby(clips, key=lambda clip: clip.frame_idx[0]):
        faces = list(stretch)
        found = _overlapping([face.box_xyxy[0] for face in faces], last)
        single = faces[0].n_tracks_in_video == 1
        if single and alone is not None:
            found = {0: alone}
        for k, face in enumerate(faces):
            number = found.get(k, len(last))
            last[number] = face.box_xyxy[-1]
            tracks.append(number)
        alone = tracks[-1] if single else None
    return tracks


def _overlapping(boxes: Sequence[Box], last: Mapping[int, Box]) -> dict[int, int]:
    """Match boxes to those of tracks, the best overlap first."""
    overlaps = [(box_iou(box, old), k, number) for k, box in enumerate(boxes) for number, old in last.items()]
    found: dict[int, int] = {}
    for overlap, k, number in sorted(overlaps, key=lambda each: (-each[0], *each[1:])):
        if overlap >= MIN_IOU and k not in found and number not in found.values():
            found[k] = number
    return found
