"""The first frame of a source video, decoded in a process of its own: a file that crashes a decoder spoils no page.

Run as `python -m lps.pipeline.tools.gallery.first_frame SOURCE URI`, it writes the frame as JPEG to stdout.
"""

import io
import subprocess
import sys
from pathlib import Path

from PIL import Image

from lps.manifests.errors import LpsError, VideoFault
from lps.manifests.pages.pictures import DECODE_ERRORS, JPEG_QUALITY, MAX_FRAME_PX

BOX_PX = (224, 126)
"""The frame is shrunk to fit into this."""
SECONDS = 60
"""Longest time for one video, copying it included."""
MEMORY_BYTES = 2 << 30


def first_frame(source: str, uri: str) -> bytes | None:
    """Return the first frame of a video as JPEG; None where there is none, or it takes longer than SECONDS."""
    command = [sys.executable, "-m", __name__, source, uri]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=True)
        with Image.open(io.BytesIO(done.stdout), formats=("JPEG",)) as image:
            image.load()
    except (subprocess.SubprocessError, *DECODE_ERRORS):
        return None
    return done.stdout


def _decoded(source: str, uri: str) -> bytes | None:
    """Decode here: the limits of a run hold, and a limit of memory. Raises VideoFault, UnreadableError."""
    from lps.manifests.storage import open_store
    from lps.pipeline.config.params import Params
    from lps.pipeline.video.decode import DecodeStats
    from lps.pipeline.video.images import decode_source
    from lps.pipeline.video.memory import limit_memory
    from lps.pipeline.video.source_reader import SourceReader, SourceRef

    limit_memory(MEMORY_BYTES)
    params = Params()
    with SourceReader(open_store(source)).local(SourceRef(uri), keep=False, limits=params.limits) as path:
        if not path.is_dir() and Path(path).stat().st_size > params.limits.max_bytes:
            return None
        frame = next(iter(decode_source(path, params, DecodeStats())), None)
        if frame is None or max(frame.size) > MAX_FRAME_PX:
            return None
        image = Image.fromarray(frame.rgb())
    image.thumbnail(BOX_PX)
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return sink.getvalue()


if __name__ == "__main__":
    try:
        picture = _decoded(*sys.argv[1:3])
    except (VideoFault, LpsError, OSError, MemoryError):
        sys.exit(1)
    sys.exit(1 if picture is None else not sys.stdout.buffer.write(picture))
