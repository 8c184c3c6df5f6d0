"""Videos as the data sets have them: 300 frames of 1080p and 500 of 720p, H.264 with a key frame every 250 frames.

They are made of short clips of one face each, which go on forwards and backwards, and kept in a folder: to make them
takes minutes.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import av
from av.video.frame import PictureType, VideoFrame

DEFAULT_FOLDER = Path(tempfile.gettempdir()) / "lps-benchmark-sources"
KEY_FRAMES = 250
"""Distance, the default of x264 and so of most videos on the web."""
CODING = {"preset": "medium", "crf": "23", "g": str(KEY_FRAMES), "keyint_min": str(KEY_FRAMES), "sc_threshold": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """Size and length of the videos of a data set."""

    name: str
    width: int
    height: int
    n_frames: int
    rate: int


DFDC = Form(name="1080p", width=1920, height=1080, n_frames=300, rate=30)
FFPP = Form(name="720p", width=1280, height=720, n_frames=500, rate=25)


@dataclass(frozen=True, slots=True)
class Scene:
    """A clip with one face, and where in it a picture of 16:9 begins that is as wide as it."""

    clip: str
    top: int = 0


SOFA = Scene("man_sofa_gestures_1920x1080.mp4")
CAR = Scene("woman_in_car_short_24f_1920x1080.mp4")
GARDEN = Scene("woman_small_face_hevc_1080x1920.mp4", top=480)
ROOM = Scene("woman_slow_zoom_1280x720.mp4")
SPEECH = Scene("man_speech_editlist_1280x720.mp4")
SCENES: tuple[tuple[Form, Scene], ...] = (
    *((DFDC, SOFA), (FFPP, ROOM), (DFDC, GARDEN), (FFPP, SPEECH)),
    *((DFDC, CAR), (FFPP, SOFA), (DFDC, ROOM), (FFPP, GARDEN)),
)
CLIPS = tuple(sorted({scene.clip for _, scene in SCENES}))


def add_sources_option(parser: argparse.ArgumentParser) -> None:
    """Add `--sources`."""
    parser.add_argument(
        "--sources", type=Path, default=DEFAULT_FOLDER, metavar="DIR",
        help="where the videos that are made of --media lie, or are made; default %(default)s",
    )  # fmt: skip


def long_videos(clips: list[Path], folder: Path) -> list[Path]:
    """Return the videos made of `clips`, and make those that `folder` lacks; `clips` as they are if they are others."""
    by_name = {path.name: path for path in clips}
    if not set(CLIPS) <= set(by_name):
        return clips
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for form, scene in SCENES:
        path = folder / f"{form.name}_{scene.clip.split('.')[0]}.mp4"
        if not path.exists():
            print(f"makes {path}", file=sys.stderr)
            part = path.with_suffix(".part")
            _encode(part, form, scene, by_name[scene.clip])
            part.rename(path)
        made.append(path)
    return made


def _encode(path: Path, form: Form, scene: Scene, clip: Path) -> None:
    with av.open(path, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=form.rate, options=CODING)
        stream.width, stream.height, stream.pix_fmt = form.width, form.height, "yuv420p"
        for number, frame in enumerate(islice(_to_and_fro(_pictures(form, scene, clip)), form.n_frames)):
            frame.pts, frame.time_base = number, Fraction(1, form.rate)
            frame.pict_type = PictureType.NONE  # else a key frame of the clip becomes one here
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _pictures(form: Form, scene: Scene, clip: Path) -> list[VideoFrame]:
    """Return as many frames of the clip, cropped and in the size of `form`, as going back and forth once needs."""
    with av.open(clip) as container:
        stream = container.streams.video[0]
        width = stream.width
        height = width * 9 // 32 * 2  # even, for chroma
        graph = av.filter.Graph()
        steps = [
            graph.add_buffer(template=stream),
            graph.add("crop", f"{width}:{height}:0:{scene.top}"),
            graph.add("scale", f"{form.width}:{form.height}:flags=bicubic"),
            graph.add("format", "yuv420p"),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*steps).configure()
        pictures = []
        for frame in islice(container.decode(stream), form.n_frames // 2 + 1):
            graph.push(frame)
            pictures.append(graph.vpull())
    return pictures


def _to_and_fro(pictures: list[VideoFrame]) -> Iterator[VideoFrame]:
    return cycle([*pictures, *pictures[-2:0:-1]])
