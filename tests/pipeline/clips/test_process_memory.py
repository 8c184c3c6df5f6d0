"""Memory: one video takes what one run of frames takes, however long the video is."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lps.pipeline.tools.demo_faces import load_portrait

pytestmark = pytest.mark.slow

Image = NDArray[np.uint8]

SECONDS_CODED = 10
RATE = 25

MEASURE = """
import sys
from pathlib import Path
import numpy as np
from lps.manifests.canonical import digest16
from lps.pipeline.faces.detector import Faces, no_faces
from lps.pipeline.config.params import DecodeParams, Params
from lps.pipeline.clips.process import process_video

def fake(in_crops):
    def face(x, y, side):
        box = np.array([[x - side / 2, y - side / 2, x + side / 2, y + side / 2]])
        return Faces(box, np.array([0.9]), np.full((1, 5, 2), x))

    def ask(images, *, dense):
        one = (face(160, 160, 145) if in_crops else no_faces()) if dense else face(200, 150, 80)
        return [one for _ in images]

    return ask

def mtcnn():
    import torch
    from lps.pipeline.faces.localizers import load_localizer

    torch.set_num_threads(1)
    return load_localizer("mtcnn", weights_dir=None, device="cpu", batch_size=1).detect

asks = {
    "mtcnn": mtcnn,
    "sees nothing": lambda: lambda images, *, dense: [no_faces() for _ in images],
    "loses the face": lambda: fake(in_crops=False),
    "gives landmarks of no face": lambda: fake(in_crops=True),
}
params = Params(localizer="mtcnn", decode=DecodeParams(scan="whole"))
outcome = process_video(Path(sys.argv[1]), digest16("a"), asks[sys.argv[2]](), params).outcome
# VmHWM begins anew with this program; ru_maxrss would begin with the peak of the process that started it.
peak = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(outcome.n_frames_decoded, outcome.code, peak)
"""


def still() -> Image:
    """Return one 1920x1080 picture: a person before a texture."""
    coarse = np.random.default_rng(0).integers(30, 220, (27, 48, 3)).astype(np.uint8)
    picture = np.asarray(cv2.resize(coarse, (1920, 1080), interpolation=cv2.INTER_CUBIC), np.uint8)
    person = load_portrait("astronaut").rgba
    height, width = person.shape[:2]
    alpha = person[..., 3:] / 255
    place = picture[1080 - height :, 600 : 600 + width]
    place[:] = np.round(place + alpha * (person[..., :3].astype(np.float64) - place))
    return picture


def repeat(source: Path, target: Path, times: int) -> None:
    """Write the packets of `source` several times after each other, without coding them again."""
    with av.open(str(source)) as coded:
        packets = [packet for packet in coded.demux(video=0) if packet.size]
        with av.open(str(target), "w") as sink:
            stream = sink.add_stream_from_template(coded.streams.video[0])
            base = packets[0].time_base
            starts = [(packet.pts or 0, packet.dts or 0) for packet in packets]
            for k in range(times):
                shift = round(k * SECONDS_CODED / Fraction(base))
                for packet, (pts, dts) in zip(packets, starts, strict=True):
                    packet.stream, packet.time_base = stream, base
                    packet.pts, packet.dts = pts + shift, dts + shift
                    sink.mux(packet)


@pytest.fixture(scope="module")
def lengths(write_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A video of 60 s and the same of 240 s."""
    folder = tmp_path_factory.mktemp("long")
    options = {"preset": "ultrafast", "g": "50", "bf": "0"}
    coded = write_video(folder / "coded.mp4", [still()] * (SECONDS_CODED * RATE), options=options)
    paths = folder / "60.mp4", folder / "240.mp4"
    for path, times in zip(paths, (6, 24), strict=True):
        repeat(coded, path, times)
    yield paths
    for path in paths:
        path.unlink()


def measured(path: Path, detector: str) -> tuple[int, str, int]:
    """Return frames, code and peak KiB of a process that does nothing but this video."""
    command = [sys.executable, "-c", MEASURE, str(path), detector]
    frames, code, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return int(frames), code, int(peak)


def test_peak_memory_does_not_grow_with_the_length(lengths: tuple[Path, Path]) -> None:
    (short_frames, short_code, short_peak), (long_frames, long_code, long_peak) = (
        measured(path, "mtcnn") for path in lengths
    )
    assert (short_frames, long_frames) == (60 * RATE, 240 * RATE)
    assert short_code == long_code == "None"
    print(f"\n{short_peak} KiB for 60 s, {long_peak} KiB for 240 s")  # noqa: T201  shown by -s
    assert long_peak < 1.05 * short_peak


@pytest.mark.parametrize(
    ("detector", "expected"),
    [("sees nothing", "E_NO_FACE"), ("loses the face", "E_TRACK_GAP"), ("gives landmarks of no face", "E_LANDMARK")],
)
def test_runs_that_are_given_up_are_freed(lengths: tuple[Path, Path], detector: str, expected: str) -> None:
    """All 25 runs of 60 frames, 180 MiB each, are tried; two may be alive at a time, and the interpreter."""
    _, code, peak = measured(lengths[0], detector)
    assert code == expected
    print(f"\n{detector}: {peak} KiB")  # noqa: T201  shown by -s
    assert peak < 600 * 1024
