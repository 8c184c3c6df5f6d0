"""Any folder of frames: `real/**` and `fake/**`, in which the videos are folders of images.

    real/**/<video>/000.png    fake/<method>/**/<video>/000.png

* The images that lie directly in a folder are one video, in the order of the numbers in their names: png, jpg, webp or
  bmp. What the folder is called, and where it lies, means what name and place of a file mean in `folder`.
* Video files are no inputs here: `--dataset folder` reads these.
"""

import re
from collections.abc import Sequence

from lps.manifests.sequences.names import is_sequence
from lps.pipeline.sources.folder import TwoFolders, list_two_folders
from lps.pipeline.sources.shared.layout import SourceLayout
from lps.pipeline.sources.shared.types import VIDEO_SUFFIXES, SourceFile, SourceListing, SourceOptions

_IMAGE = r"[^/.][^/]*\.(?:png|jpe?g|webp|bmp)"
FRAMES = TwoFolders("frames", lambda file: is_sequence(file.path) and file.is_video, "no folder of images")


def list_frames(files: Sequence[SourceFile], _options: SourceOptions) -> SourceListing:
    """List a tree of `real/` and `fake/` (in any case); without either, raise UnreadableError."""
    return list_two_folders(files, FRAMES)


LAYOUT = SourceLayout(
    id=FRAMES.id,
    title="any folder of frames",
    adapter=list_frames,
    tree="real/**/<video>/000.png\nfake/<method>/**/<video>/000.png",
    counts="your own",
    labels="the folder",
    splits="none",
    leakage="a fake is tied to the real video of its name; persons are not known",
    page="",
    sign=re.compile(rf"(?:real|fake)/(?:.+/)?[^/.][^/]*/{_IMAGE}", re.IGNORECASE),
    without=re.compile(rf"(?:real|fake)/.*(?:{'|'.join(map(re.escape, sorted(VIDEO_SUFFIXES)))})", re.IGNORECASE),
    has_sequences=True,
)
