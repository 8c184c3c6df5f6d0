"""Where the benchmarks of lps-prep find videos and weights: options that they share."""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lps.manifests.errors import UnreadableError
from lps.pipeline.faces.localizers import weight_digests
from lps.pipeline.sources.shared.types import VIDEO_SUFFIXES
from lps.pipeline.tools.demo_videos import make_demo_videos

MEDIA_VARIABLE = "LPS_MEDIA_DIR"
LOCALIZERS = ("retinaface-mobilenet", "mtcnn")


def add_media_options(parser: argparse.ArgumentParser) -> None:
    """Add `--media`, `--weights-dir` and `--localizers`."""
    given = os.environ.get(MEDIA_VARIABLE)
    parser.add_argument(
        "--media", type=Path, default=Path(given) if given else None, metavar="DIR",
        help=f"folder of videos, or OUT/videos of `lps-prep demo OUT`; default {MEDIA_VARIABLE}, else such made anew",
    )  # fmt: skip
    parser.add_argument(
        "--weights-dir", type=Path, metavar="DIR", help="as of lps-prep; a localizer without weights is left out"
    )
    parser.add_argument("--localizers", nargs="+", choices=LOCALIZERS, default=LOCALIZERS)


@contextmanager
def videos(media: Path | None, names: Sequence[str]) -> Iterator[list[Path]]:
    """Give the files of `media` that `names` (names or patterns) stand for, else the faces of the demo's videos.

    A folder that holds none of them is another's: every video below it is given.
    """
    if media is not None and (faces := _demo_faces(media)):
        yield faces
        return
    if media is not None:
        found = {name: sorted(media.glob(name)) for name in names}
        if not any(found.values()):
            found = {"video": sorted(path for path in media.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)}
        if missing := [name for name, paths in found.items() if not paths]:
            sys.exit(
                f"no {', '.join(missing)} in {media}; leave --media and {MEDIA_VARIABLE} out for the demo's videos"
            )
        yield [path for paths in found.values() for path in paths]
        return
    with tempfile.TemporaryDirectory(prefix="lps-videos-") as folder:
        make_demo_videos(Path(folder))
        yield _demo_faces(Path(folder))


def _demo_faces(folder: Path) -> list[Path]:
    return sorted(folder.glob("real/face_*"))


def usable(localizers: Sequence[str], weights_dir: Path | None) -> list[str]:
    """Return the localizers whose weights are here; name the others on the standard error."""
    here = []
    for name in localizers:
        try:
            weight_digests(name, weights_dir)
        except UnreadableError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
        else:
            here.append(name)
    return here
