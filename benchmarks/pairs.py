"""What it saves, and what it changes, that fakes take windows and transforms of their originals.

    python benchmarks/pairs.py                 two families made by lps-prep's sample videos
    python benchmarks/pairs.py --pairs DIR     families made of DIR/real/NAME.mp4 and DIR/fake/NAME.mp4

A family is one original and its fake, coded in four ways. All of it happens in one process without Ray: calls are
pictures that the detector is shown, CPU seconds those of `process_video`. How far transforms differ is measured
on the same frames: between the original's matrices, which a shared fake has, and those that its own detection gives.
Copies of the fakes that are shifted by a frame or by two px must not be shared; copies that are not, must.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from lps.manifests.codes import PairFallback
from lps.manifests.names import LOCALIZERS
from lps.manifests.records import Clip, VideoResult
from lps.pipeline.clips.process import process_video
from lps.pipeline.config.params import PairParams, Params
from lps.pipeline.faces.detector import Faces
from lps.pipeline.faces.localizers import load_localizer
from lps.pipeline.tools.demo_videos import make_face_video

RGB = NDArray[np.uint8]
MOST_CALLS, MOST_CPU = 0.35, {"mtcnn": 0.75}
"""Bars, in shares of what the same videos take without pairing."""


@dataclass(frozen=True, slots=True)
class Coding:
    """How a copy of a video is coded."""

    name: str
    codec: str
    options: Mapping[str, str]
    bit_rate: int | None = None


CODINGS = (
    Coding("h264 crf 23", "libx264", {"crf": "23", "preset": "fast"}),
    Coding("h264 crf 32", "libx264", {"crf": "32", "preset": "veryfast"}),
    Coding("h264 crf 27, short GOP", "libx264", {"crf": "27", "preset": "fast", "g": "12", "bf": "0"}),
    Coding("mpeg4", "mpeg4", {}, 800_000),
)
SHIFTS: dict[str, Callable[[list[RGB]], list[RGB]]] = {
    "not shifted": lambda frames: frames,
    "a frame early": lambda frames: [*frames[1:], frames[-1]],
    "a frame late": lambda frames: [frames[0], *frames[:-1]],
    "2 px to the right": lambda frames: [np.roll(frame, 2, axis=1) for frame in frames],
    "2 px down": lambda frames: [np.roll(frame, 2, axis=0) for frame in frames],
}


class Detector:
    """Counts the pictures that a localizer is shown."""

    def __init__(self, name: str, weights_dir: Path | None) -> None:
        self.n_calls = 0
        self._localizer = load_localizer(name, weights_dir=weights_dir, device="cpu", batch_size=1)

    def __call__(self, images: RGB, *, dense: bool) -> list[Faces]:
        """Find the faces of (B, H, W, 3) RGB images."""
        self.n_calls += len(images)
        return self._localizer.detect(images, dense=dense)


@dataclass(slots=True)
class Cost:
    """What some videos took."""

    n_videos: int = 0
    n_calls: int = 0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Family:
    """One original, its fake and the folder of copies of that."""

    real: Path
    fake: Path
    copies: Path


def main() -> None:
    """Measure and print. Ends with 1 where a bar is missed with families of `--pairs`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, help="folder with real/NAME.mp4 and fake/NAME.mp4")
    parser.add_argument("--limit", type=int, help="families at most")
    parser.add_argument("--localizers", nargs="+", choices=LOCALIZERS, default=["mtcnn"])
    parser.add_argument("--weights-dir", type=Path)
    args = parser.parse_args()
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="lps-pairs-") as scratch:
        families = list(_families(args.pairs, Path(scratch)))[: args.limit]
        for family in families:
            _write_copies(family)
        missed = []
        for name in args.localizers:
            detector = Detector(name, args.weights_dir)
            missed += _measure_costs(families, detector, Params(localizer=name), console)
        _measure_shifts(families, detector, Params(localizer=name), console)
    if missed and args.pairs:
        sys.exit(f"missed: {', '.join(missed)}")


def _families(pairs: Path | None, scratch: Path) -> Iterator[Family]:
    if pairs is None:
        for seed in range(2):
            for label in ("real", "fake"):
                path = scratch / "made" / label / f"{seed}.mp4"
                make_face_video(path, seed=seed, fake=label == "fake", width=480, height=272)
        pairs = scratch / "made"
    for real in sorted((pairs / "real").glob("*.mp4")):
        yield Family(real, pairs / "fake" / real.name, scratch / "copies" / real.stem)


def _write_copies(family: Family) -> None:
    family.copies.mkdir(parents=True)
    with av.open(str(family.fake)) as source:
        rate = source.streams.video[0].average_rate
        frames = [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in source.decode(video=0)]
    for coding in CODINGS[:2]:
        for name, shift in SHIFTS.items():
            _write(_copy(family, coding, name), shift(frames), rate, coding)
    for coding in CODINGS[2:]:
        _write(_copy(family, coding), frames, rate, coding)


def _copy(family: Family, coding: Coding, shift: str = "not shifted") -> Path:
    return family.copies / f"{coding.name}, {shift}.mp4"


def _write(path: Path, frames: Sequence[RGB], rate: object, coding: Coding) -> None:
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream(coding.codec, rate=rate, options=dict(coding.options))  # type: ignore[call-overload]
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if coding.bit_rate:
            stream.bit_rate = coding.bit_rate
        for frame in frames:
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        sink.mux(stream.encode())


def _measure_costs(families: Sequence[Family], detector: Detector, params: Params, console: Console) -> list[str]:
    """Print what families cost with and without pairing and how far transforms differ. Return the bars missed."""
    own, paired = Cost(), Cost()
    modes: Counter[str] = Counter()
    distances: list[float] = []
    for family in families:
        copies = [_copy(family, coding) for coding in CODINGS]
        for path in (family.real, *copies):
            _timed(own, detector, path, params)
        original = _timed(paired, detector, family.real, params, keep_windows=True)
        for path in copies:
            fake = _timed(paired, detector, path, params, share=original.windows)
            modes.update(clip.pair_fallback or clip.pair_mode for clip in fake.clips)
            if fake.clips and fake.clips[0].pair_mode == "shared":
                # with the id of the original it is looked for from the same frame on
                alone = process_video(path, original.video_id, detector, params)
                distances += [d for a, b in zip(fake.clips, alone.clips, strict=False) for d in _distances(a, b)]
    calls, cpu = paired.n_calls / max(own.n_calls, 1), paired.cpu_s / own.cpu_s
    table = Table(title=f"{len(families)} families of 1 original and {len(CODINGS)} fakes, {params.localizer}")
    for column in ("", "detector calls a video", "CPU ms a video"):
        table.add_column(column, justify="right" if column else "left")
    for name, cost in (("each on its own", own), ("fakes like their originals", paired)):
        table.add_row(name, f"{cost.n_calls / cost.n_videos:.1f}", f"{1000 * cost.cpu_s / cost.n_videos:.0f}")
    table.add_row("share", f"{calls:.2f}", f"{cpu:.2f}")
    console.print(table)
    console.print(f"fakes: {', '.join(f'{n} {name}' for name, n in modes.most_common())}")
    if distances:
        mean, p95 = float(np.mean(distances)), float(np.quantile(distances, 0.95))
        console.print(f"matrices of shared fakes against their own: mean {mean:.2f}, 95 % below {p95:.2f} output px")
    bars = {"calls": (calls, MOST_CALLS), "CPU": (cpu, MOST_CPU.get(params.localizer, 1.0))}
    return [f"{params.localizer} {name} {found:.2f} > {most}" for name, (found, most) in bars.items() if found > most]


def _timed(cost: Cost, detector: Detector, path: Path, params: Params, **how: object) -> VideoResult:
    video_id = path.stem.encode().ljust(16, b"0")[-16:]
    calls, started = detector.n_calls, time.process_time()
    result = process_video(path, video_id, detector, params, **how)  # type: ignore[arg-type]
    cost.cpu_s += time.process_time() - started
    cost.n_calls += detector.n_calls - calls
    cost.n_videos += 1
    return result


def _distances(shared: Clip, own: Clip) -> Iterator[float]:
    """Yield, for each frame of both, how far the fake's own points are moved by one matrix and by the other."""
    places = {frame: k for k, frame in enumerate(own.frame_idx)}
    for frame, row in zip(shared.frame_idx, shared.align_M, strict=True):
        if (k := places.get(frame)) is None:
            continue
        points = np.concatenate([np.array(own.lmk5[k]).reshape(5, 2), np.ones((5, 1))], axis=1)
        change = np.array(row).reshape(2, 3) - np.array(own.align_M[k]).reshape(2, 3)
        yield float(np.hypot(*(points @ change.T).T).mean())


def _measure_shifts(families: Sequence[Family], detector: Detector, params: Params, console: Console) -> None:
    """Print how many copies are seen not to line up, by how they are shifted."""
    strict = replace(params, pair=PairParams(max_face_px=1e6))  # the background alone decides
    table = Table(title="Copies of the fakes that are not shared, by the background alone")
    for column in ("copies", *(coding.name for coding in CODINGS[:2]), "codes"):
        table.add_column(column)
    originals = [process_video(f.real, b"0" * 16, detector, strict, keep_windows=True) for f in families]
    for shift in SHIFTS:
        cells, codes = [], Counter[str]()
        for coding in CODINGS[:2]:
            found = [
                _fallback(process_video(_copy(f, coding, shift), b"1" * 16, detector, strict, share=original.windows))
                for f, original in zip(families, originals, strict=True)
            ]
            codes.update(code for code in found if code)
            cells.append(f"{sum(code is not None for code in found)} of {len(found)}")
        table.add_row(shift, *cells, ", ".join(f"{n} {code}" for code, n in codes.most_common()))
    console.print(table)


def _fallback(result: VideoResult) -> PairFallback | None:
    return result.clips[0].pair_fallback if result.clips else PairFallback.P_NO_FACE


if __name__ == "__main__":
    main()
