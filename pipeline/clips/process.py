"""One video in, its row and its clips out. The only place that turns a fault of one video into a row."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from lps.manifests.codes import PairFallback
from lps.manifests.errors import VideoFault
from lps.manifests.records import Header, OriginalWindows, VideoResult
from lps.pipeline.clips.share import SharedWork, Unpaired, as_fallback
from lps.pipeline.clips.video_work import VideoWork
from lps.pipeline.config.params import ALL_CLIPS, Params
from lps.pipeline.faces.track import DetectFaces
from lps.pipeline.video.container import VideoFile
from lps.pipeline.video.damage import PacketScan
from lps.pipeline.video.images import read_source
from lps.pipeline.video.window import Cursor, WindowError

T = TypeVar("T")


def process_video(
    path: Path,
    video_id: bytes,
    detect: DetectFaces,
    params: Params,
    *,
    spool: str | None = None,
    share: OriginalWindows | PairFallback | None = None,
    keep_windows: bool = False,
) -> VideoResult:
    """Decode `path`, follow its faces and return its clips. Faults of the content come back as the outcome.

    With `spool` memory does not grow with the video: images of clips lie in files without names in that folder,
    SPOOL_BYTES a file, and are views of these. `share` is what the original of a fake gave, or why there is nothing to
    share; with `keep_windows` the result has what the fakes of this original need. Raises UnreadableError where images
    cannot be written.
    """
    try:
        file = read_source(path, params)
    except VideoFault as fault:
        file = VideoFile(Header(), PacketScan(), fault.with_traceback(None))

    def share_with(original: OriginalWindows, cursor: Cursor | None) -> VideoResult | Unpaired:
        work = SharedWork(path, video_id, detect, params, file, spool=spool, cursor=cursor, original=original)
        return work.shared_result()

    def find(cursor: Cursor | None) -> VideoResult:
        work = VideoWork(path, video_id, detect, params, file, spool=spool, cursor=cursor)
        work.windows = [] if keep_windows else None
        return work.result()

    why = Unpaired(share) if isinstance(share, PairFallback) else None
    if isinstance(share, OriginalWindows):
        original = share
        shared = _with_cursor(file, params, lambda cursor: share_with(original, cursor))
        if isinstance(shared, VideoResult):
            return shared
        why = shared
    result = _with_cursor(file, params, find)
    return result if why is None else replace(result, clips=tuple(as_fallback(clip, why) for clip in result.clips))


def may_leave_out(file: VideoFile, params: Params) -> bool:
    """Return whether frames that no clip needs are left out, as far as the packets tell."""
    wanted = params.decode.scan == "window" and params.clips != ALL_CLIPS
    return wanted and file.scan.windows(params.max_step) is not None


def _with_cursor(file: VideoFile, params: Params, work: Callable[[Cursor | None], T]) -> T:
    """Do what `work` does with a cursor, where frames may be left out; else, and where that fails, without."""
    if may_leave_out(file, params):
        with suppress(WindowError):  # whatever it was, decoding from the start names it
            return work(Cursor())
    return work(None)
