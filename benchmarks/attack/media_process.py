"""Reads videos as the product does, and as somebody else would, in forks of a process that has everything imported.

One JSON request a line on stdin, one JSON answer a line on stdout. Every fork has the limits of a worker: memory as
`limit_memory` sets it, and an alarm for its deadline.
"""

import hashlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from lps.manifests.errors import LpsError, VideoFault
from lps.manifests.storage import Store
from lps.pipeline.clips.process import process_video
from lps.pipeline.config.params import Params
from lps.pipeline.faces.detector import Faces
from lps.pipeline.video.container import ANY_TEXT, scan_packets
from lps.pipeline.video.decode import DecodeStats, decode
from lps.pipeline.video.frame import Frame
from lps.pipeline.video.memory import limit_memory
from lps.pipeline.video.probe import probe_file
from lps.pipeline.video.source_reader import SourceReader, SourceRef
from lps.pipeline.video.window import Cursor, WindowError, decode_windows

PARAMS = Params(clip_frames=10, block_frames=5, out_px=64, localizer="mtcnn", max_outside_share=1.0)
MEMORY_BYTES = 1 << 30
MAX_DECODED = 400
"""Frames after which a mutant that goes on for ever is left."""


class MediaRequest(TypedDict):
    """What to do (`product` or `other`), with which file, and for how long."""

    what: str
    path: str
    seconds: int


class MediaAnswer(TypedDict):
    """How it ended: exit code, below 0 for a signal; what it found; the last words on stderr; seconds, peak MB."""

    code: int
    found: dict[str, Any]
    stderr: str
    seconds: float
    peak_mb: float


def picture(native: VideoFrame) -> str:
    """Return the digest of a decoded picture's planes, as FFmpeg packs them."""
    odd = native.width % 2 or native.height % 2  # PyAV gives no array of such a picture with halved colours
    data = _planes(native) if odd and native.format.is_planar else native.to_ndarray().tobytes()
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _planes(native: VideoFrame) -> bytes:
    """Return the pixels of all planes without what fills their lines."""
    wide = 1 + (native.format.components[0].bits > 8)  # bytes of a pixel
    lines = [(np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size), plane) for plane in native.planes]
    return b"".join(rows[: plane.height, : plane.width * wide].tobytes() for rows, plane in lines)


def one_face(images: NDArray[np.uint8], *, dense: bool) -> list[Faces]:
    """Find a face in the middle of every image: whether it is one does not matter here."""
    h, w = images.shape[1:3]
    side = 0.4 * min(h, w)  # as it comes out in a crop of 2.5 times its side, too
    corner = np.array([(w - side) / 2, (h - side) / 2])
    box = np.array([[*corner, *(corner + side)]])
    points = corner + side * np.array([[[0.3, 0.36], [0.7, 0.36], [0.5, 0.58], [0.34, 0.78], [0.66, 0.78]]])
    return [Faces(box, np.ones(1), points)] * len(images)


def product(path: Path) -> dict[str, Any]:
    """Probe, decode whole and in windows, and process a video, as a worker does; return all that is said."""
    limit_memory(MEMORY_BYTES)
    found: dict[str, Any] = {
        "code": None,
        "frames": [],
        "windows": [],
        "clips": [],
        "status": "",
        "result": None,
        "damage": False,
    }
    probe = probe_file(SourceReader(Store(str(path.parent))), SourceRef(path.name), PARAMS.limits)
    if probe.code is not None:
        return {**found, "code": str(probe.code)}
    found["container"] = probe.header.container
    try:
        scan, stats = scan_packets(path, PARAMS.limits), DecodeStats()
        for frame in decode(path, PARAMS, stats, scan):
            found["frames"].append(_seen(frame))
            if len(found["frames"]) == MAX_DECODED:
                break
        few = len(found["frames"]) < min(scan.n_frames, MAX_DECODED)  # a packet gave no picture, and no error
        found["damage"] = bool(few or stats.n_errors or stats.ended_by_error or scan.lost_before or scan.doubts)
        found["windows"] = _windows(path, scan)
    except VideoFault as fault:
        found["code"] = str(fault.code)
    result = process_video(path, bytes(16), one_face, PARAMS)
    found["status"], found["result"] = str(result.outcome.status), result.outcome.code and str(result.outcome.code)
    found["clips"] = [[list(clip.frame_idx), list(clip.pts_ticks)] for clip in result.clips]
    return found


def _seen(frame: Frame) -> list[Any]:
    return [frame.index, frame.pts_ticks, picture(frame.native), frame.breaks, frame.spoiled]


def _windows(path: Path, scan: Any) -> list[list[Any]]:
    """Return the frames of two windows, from one pass; none where they are not offered, or are taken back."""
    index = scan.windows(PARAMS.max_step)
    if index is None or len(index) < 8:
        return []
    places = [(len(index) // 5, len(index) // 5 + 3), (len(index) * 2 // 3, len(index) * 2 // 3 + 3)]
    cursor, seen = Cursor(places[0][0]), []
    try:
        for frame in decode_windows(path, PARAMS, DecodeStats(), scan, cursor):
            seen.append(_seen(frame))
            if frame.index == places[0][1] - 1:
                del places[0]
                if not places:
                    break
                cursor.frame = places[0][0]
    except WindowError:
        return []
    return seen


def other(path: Path, *, hold: bool = False) -> dict[str, Any]:
    """Decode a video from its first packet to its last with nothing but libav: (time stamp, picture) of each frame.

    With `hold` no frame is let go, so that the decoder never gets a buffer that has an older picture in it.
    """
    limit_memory(MEMORY_BYTES)
    frames: list[list[Any]] = []
    held: list[VideoFrame] = []
    complaints = 0
    with av.open(f"file:{path}", **ANY_TEXT) as container:
        stream = next(s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic)
        stream.codec_context.thread_count = 1
        packets = container.demux(stream)
        while len(frames) < MAX_DECODED and complaints < 200:
            try:
                packet = next(packets, None)
            except (
                av.FFmpegError,
                EOFError,
                OSError,
                IndexError,
            ):  # the last for a packet of a stream that begins late
                complaints += 1
                break
            if packet is None:
                break
            try:
                decoded = packet.decode()
            except (av.FFmpegError, EOFError):  # the ffmpeg program, too, goes on with the next packet
                complaints += 1
                continue
            frames += [[frame.pts, picture(frame)] for frame in decoded]
            held += decoded if hold else []
    return {"frames": frames, "complaints": complaints}


WORK: dict[str, Callable[[Path], dict[str, Any]]] = {
    "product": product,
    "other": other,
    "other, held": partial(other, hold=True),
}


def run(asked: MediaRequest) -> MediaAnswer:
    """Do it in a fork."""
    found, said, started = os.memfd_create("found"), os.memfd_create("said"), time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.dup2(said, 2)
            os.dup2(said, 1)
            signal.alarm(asked["seconds"])
            os.write(found, json.dumps(WORK[asked["what"]](Path(asked["path"]))).encode())
            code = 0
        except MemoryError:
            code = 12
        except LpsError as e:
            code = 3
            sys.stderr.write(f"{type(e).__name__}: {e}")
        except Exception:  # noqa: BLE001  what the product does not name is a finding
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status, used = os.wait4(pid, 0)
    answer = _content(found)
    return MediaAnswer(
        code=os.waitstatus_to_exitcode(status),
        found=json.loads(answer) if answer else {},
        stderr=_content(said)[-2000:],
        seconds=round(time.monotonic() - started, 3),
        peak_mb=round(used.ru_maxrss / 1024, 1),
    )


def _content(file: int) -> str:
    os.lseek(file, 0, os.SEEK_SET)
    with os.fdopen(file, "rb") as whole:
        return whole.read().decode(errors="backslashreplace")


def warm_up(paths: Sequence[str]) -> None:
    """Import what is imported late, in the course of work that every fork does."""
    for path in paths:
        product(Path(path))
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    warm_up(sys.argv[1:])
    for line in sys.stdin:
        answers.write(json.dumps(run(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
