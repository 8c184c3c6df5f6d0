"""Sample videos for `lps-prep demo` and the tests: made on the spot, offline, the same bytes every time.

A real video is one portrait that moves, turns and zooms under changing light over a drifting backdrop. Its fake is
made of the same frames, noise included, with the face forged in each (`forge_face`): the two differ in nothing else, so
that neither motion nor encoding gives the label away.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from lps.manifests.arrays import Floats
from lps.manifests.errors import UnreadableError
from lps.pipeline.faces.detector import Image
from lps.pipeline.tools.demo_faces import PORTRAITS, FloatImage, Portrait, PortraitName, forge_face, load_portrait

N_PAIRS = 8
"""Each a real video and its fake: enough for a 6:2:2 split to have both labels everywhere."""
TOO_SHORT_FRAMES = 24
"""Fewer than one clip of 60."""
RATES = (Fraction(25), Fraction(30), Fraction(30_000, 1001))
"""Frames per second, in turn: PAL, 30, and NTSC, whose timestamps are not round."""
LENGTHS = (72, 80, 96)
"""Frames, in turn: all hold one clip of 60, with room for its start to vary."""

FACE_FRACTION = (0.40, 0.46)
"""Brow to chin over the frame height (of at most 360): 144 to 166 px, as in a news interview."""
NOISE_SIGMA = 1.6
"""Noise of the sensor, in grey levels: enough that frames are never equal, little enough for small files."""
X264 = {
    "preset": "veryfast",
    "crf": "21",
    # One thread of every kind: the bytes must not depend on how many cores there are. No macroblock tree: its code for
    # AVX-512 reads memory that nothing was written to where a row is not a multiple of 8 macroblocks (128 px).
    "x264-params": "threads=1:lookahead-threads=1:sliced-threads=0:mbtree=0",
}

_SCENE, _NOISE, _FORGERY = range(3)  # streams of random numbers: forging leaves scene and noise as they are


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoShape:
    """Size and rate of one video."""

    n_frames: int
    width: int
    height: int
    fps: Fraction

    def __post_init__(self) -> None:
        if self.n_frames < 1 or self.fps <= 0:
            raise ValueError(f"a video needs frames and a rate: {self.n_frames = }, {self.fps = }")
        if min(self.width, self.height) < 32 or self.width % 2 or self.height % 2:
            raise ValueError(f"width and height must be even and at least 32: {self.width} x {self.height}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """Bounds of what a scene does; each quantity wanders smoothly between plus and minus its bound."""

    x: float = 0.06
    """Share of the frame width."""
    y: float = 0.03
    """Share of the frame height."""
    zoom: float = 0.06
    roll_deg: float = 7.0
    yaw_deg: float = 16.0
    """A flat portrait looks cut out of card beyond this."""
    pitch_deg: float = 8.0
    exposure: float = 0.12
    """Relative brightness."""
    warmth: float = 0.06
    """Red up and blue down, or the reverse."""
    sidelight: float = 0.12
    """Brightness of the right edge against the left."""
    backdrop: float = 0.10
    """Shift of the backdrop, of the frame width."""
    backdrop_deg: float = 4.0


MOTION = Motion()


def make_demo_videos(out: Path, *, seed: int = 0, on_video: Callable[[str], None] | None = None) -> None:
    """Write a source tree for `--dataset folder`: 8 real videos, their 8 fakes, and three that must fail.

    `real/face_NN.mp4` and `fake/blend/face_NN.mp4` are a pair (72 to 96 frames of 640x360, H.264, 25 to 30 fps).
    `real/no_face.mp4` shows a moving texture, `real/too_short.mp4` is too short for a clip, and
    `fake/blend/corrupt.mp4` lost its second half and with it its index. The files are a function of `seed` and of
    the installed versions of the encoder, OpenCV and NumPy. Takes some 15 s on one core.

    Args:
        out: folder of the tree; made if missing, files of these names are overwritten.
        seed: 0 or more; another seed gives other scenes of the same two people.
        on_video: called with each file's path under `out` ("real/face_00.mp4") once it is written.

    Raises:
        UnreadableError: `out` cannot be written.
        ValueError: `seed` is negative.
    """
    report = on_video or (lambda name: None)

    def write(name: str, content: bytes) -> None:
        _write(out / name, content)
        report(name)

    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(N_PAIRS + 2)]
    for i in range(N_PAIRS):
        shape = VideoShape(n_frames=LENGTHS[i % len(LENGTHS)], width=640, height=360, fps=RATES[i % len(RATES)])
        portrait = load_portrait(PORTRAITS[i % 2], mirrored=i % 4 >= 2)
        shots = list(_face_shots(shape, portrait, seeds[i]))  # some 60 MB, and a third less work than twice
        write(f"real/face_{i:02d}.mp4", _encode((image for image, _ in shots), shape))
        fake = _encode(_forged(shots, seeds[i]), shape)
        write(f"fake/blend/face_{i:02d}.mp4", fake)
    write("fake/blend/corrupt.mp4", fake[: len(fake) // 2])
    texture = VideoShape(n_frames=LENGTHS[1], width=640, height=360, fps=RATES[0])
    write("real/no_face.mp4", _encode(_texture_frames(texture, seeds[-2]), texture))
    short = VideoShape(n_frames=TOO_SHORT_FRAMES, width=640, height=360, fps=RATES[0])
    shots = list(_face_shots(short, load_portrait(PORTRAITS[0]), seeds[-1]))
    write("real/too_short.mp4", _encode((image for image, _ in shots), short))


def make_face_video(
    path: Path,
    *,
    n_frames: int = 72,
    width: int = 640,
    height: int = 360,
    fps: Fraction | int = 25,
    seed: int = 0,
    fake: bool = False,
    portrait: PortraitName = "astronaut",
    mirrored: bool = False,
) -> None:
    """Write one MP4 (H.264) of a moving portrait, its face forged frame by frame if `fake`.

    With otherwise equal arguments the fake is the pair of the real: the same scene but for the face. The face, brow
    to chin, takes 0.37 to 0.49 of the frame height, but no more than 176 px.

    Args:
        path: file to write; folders are made, an existing file is replaced.
        n_frames: at least 1.
        width: even, in pixels, at least 32.
        height: even, in pixels, at least 32.
        fps: frames per second; the rate is constant.
        seed: 0 or more; chooses motion, light, backdrop and noise.
        fake: forge the face.
        portrait: "astronaut" or "hopper".
        mirrored: swap left and right of the portrait.

    Raises:
        UnreadableError: `path` cannot be written.
        ValueError: an argument outside its bounds.
    """
    shape = VideoShape(n_frames=n_frames, width=width, height=height, fps=Fraction(fps))
    shots = _face_shots(shape, load_portrait(portrait, mirrored=mirrored), seed)
    _write(path, _encode(_forged(shots, seed) if fake else (image for image, _ in shots), shape))


def make_texture_video(
    path: Path, *, n_frames: int = 72, width: int = 640, height: int = 360, fps: Fraction | int = 25, seed: int = 0
) -> None:
    """Write one MP4 (H.264) of a drifting texture without a face. Arguments and errors as `make_face_video`."""
    shape = VideoShape(n_frames=n_frames, width=width, height=height, fps=Fraction(fps))
    _write(path, _encode(_texture_frames(shape, seed), shape))


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise UnreadableError(f"cannot write {path}: {error.strerror or error}") from error


def _encode(frames: Iterable[Image], shape: VideoShape) -> bytes:
    """Return `frames`, RGB of that shape, as MP4 bytes without times, versions or anything else of the run."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=shape.fps, options={**X264, "flags": "+bitexact"})
        stream.width, stream.height, stream.pix_fmt = shape.width, shape.height, "yuv420p"
        stream.codec_context.thread_count = 1
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def _face_shots(shape: VideoShape, portrait: Portrait, seed: int) -> Iterator[tuple[Image, Floats]]:
    """Yield the frames of a moving portrait, (height, width, 3) RGB, each with its outline of the face, (n, 2)."""
    scene = np.random.default_rng([seed, _SCENE])
    backdrops = _backdrops(shape, scene)
    homographies = _homographies(shape, portrait, scene)
    size = (shape.width, shape.height)
    shots = zip(backdrops, homographies, _lights(shape, scene), _noises(shape, seed), strict=True)
    for backdrop, homography, light, noise in shots:
        # Replicated at the border: the bust continues below the edge of its picture.
        person = cv2.warpPerspective(portrait.rgba, homography, size, borderMode=cv2.BORDER_REPLICATE)
        alpha = person[..., 3:].astype(np.float32) / 255
        frame = _developed(backdrop + alpha * (person[..., :3] - backdrop), light, noise)
        yield frame, cv2.perspectiveTransform(portrait.face[None], homography)[0].astype(np.float64)


def _forged(shots: Iterable[tuple[Image, Floats]], seed: int) -> Iterator[Image]:
    rng = np.random.default_rng([seed, _FORGERY])
    return (forge_face(image, face, rng) for image, face in shots)


def _texture_frames(shape: VideoShape, seed: int) -> Iterator[Image]:
    """Yield the frames (height, width, 3) RGB of a drifting texture."""
    scene = np.random.default_rng([seed, _SCENE])
    for backdrop, light, noise in zip(
        _backdrops(shape, scene), _lights(shape, scene), _noises(shape, seed), strict=True
    ):
        yield _developed(backdrop, light, noise)


def _developed(frame: FloatImage, light: FloatImage, noise: FloatImage) -> Image:
    lit: FloatImage = frame * light + noise
    return np.clip(np.rint(lit), 0, 255).astype(np.uint8)


def _wander(shape: VideoShape, rng: np.random.Generator) -> Floats:
    """Draw a smooth path (n_frames,) within -1 to 1: a slow sway (2 to 6 s) with a quicker, smaller one on it."""
    seconds = np.arange(shape.n_frames) / float(shape.fps)
    phases = 2 * np.pi * (rng.uniform((0.16, 0.5), (0.45, 1.0)) * seconds[:, None] + rng.uniform(0, 1, 2))
    return np.asarray(np.sin(phases) @ (0.75, 0.25), np.float64)


def _homographies(shape: VideoShape, portrait: Portrait, rng: np.random.Generator) -> Floats:
    """Draw the way of the portrait: (n_frames, 3, 3), from pixels of the portrait to pixels of the frame."""
    size = rng.uniform(*FACE_FRACTION) * min(shape.height, 360) / portrait.face_height
    scales = size * (1 + MOTION.zoom * _wander(shape, rng))
    pitches, yaws, rolls = (
        np.deg2rad(bound) * _wander(shape, rng) for bound in (MOTION.pitch_deg, MOTION.yaw_deg, MOTION.roll_deg)
    )
    middle_x, middle_y = portrait.face_centre
    # The face sits a little below the middle, so that hair and hat stay in the frame; in a high frame low enough for
    # the bust to reach the bottom.
    bust = 0.8 * size * (portrait.rgba.shape[0] - middle_y)
    xs = 0.5 * shape.width + MOTION.x * shape.width * _wander(shape, rng)
    ys = max(0.57 * shape.height, shape.height - bust) + MOTION.y * shape.height * _wander(shape, rng)
    focal = 1.8 * shape.width  # a portrait lens: mild perspective
    to_origin = np.array([[1, 0, -middle_x], [0, 1, -middle_y], [0, 0, 1]])
    out = np.empty((shape.n_frames, 3, 3))
    for i, scale in enumerate(scales):
        # The portrait is the plane z = 0 of a scene: columns x and y of the rotation, then the division by depth.
        turned = _rotation(pitches[i], yaws[i], rolls[i])[:, :2] * scale
        projected = np.column_stack([turned / [[1], [1], [focal]], (0, 0, 1)])
        out[i] = np.array([[1, 0, xs[i]], [0, 1, ys[i]], [0, 0, 1]]) @ projected @ to_origin
    return out


def _rotation(pitch: float, yaw: float, roll: float) -> Floats:
    """Return the (3, 3) rotation: pitch about x, then yaw about y, then roll in the picture plane; radians."""
    (cp, sp), (cy, sy), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (pitch, yaw, roll))
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    in_plane = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(in_plane @ about_y @ about_x, np.float64)


def _backdrops(shape: VideoShape, rng: np.random.Generator) -> Iterator[FloatImage]:
    """Return the frames (height, width, 3), 0 to 255, of a texture that drifts and turns a little."""
    texture = _texture(shape, rng)
    middle = texture.shape[0] / 2
    # Mirrored at its edges, should it ever drift that far: never a black border.
    return (
        cv2.warpAffine(texture, matrix, (shape.width, shape.height), borderMode=cv2.BORDER_REFLECT_101).astype(
            np.float32
        )
        for matrix in _drift(shape, middle, rng)
    )


def _drift(shape: VideoShape, middle: float, rng: np.random.Generator) -> Floats:
    """Draw the way of the backdrop: (n_frames, 2, 3), from pixels of the texture to pixels of the frame."""
    angles = np.deg2rad(MOTION.backdrop_deg * _wander(shape, rng))
    x = shape.width * (0.5 + MOTION.backdrop * _wander(shape, rng))
    y = shape.height / 2 + shape.width * MOTION.backdrop * _wander(shape, rng)
    cos, sin = np.cos(angles), np.sin(angles)
    rows = [[cos, sin, x - middle * (cos + sin)], [-sin, cos, y - middle * (cos - sin)]]
    return np.moveaxis(np.array(rows, np.float64), -1, 0)


def _texture(shape: VideoShape, rng: np.random.Generator) -> Image:
    """Draw a square RGB texture with room to drift: fractal noise between two colours."""
    side = int(1.5 * max(shape.width, shape.height))
    level = np.zeros((side, side), np.float32)
    for octave in range(6):
        cells = 4 * 2**octave
        grid = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        level += cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC) * np.float32(0.62**octave)
    level = (level - level.min()) / np.ptp(level)
    # Muted, as of a painted backdrop: two greys, each with a tint of its own.
    dark, bright = rng.uniform(30, 90) + rng.uniform(-25, 25, 3), rng.uniform(130, 190) + rng.uniform(-25, 25, 3)
    colours: Floats = dark + level[..., None].astype(np.float64) * (bright - dark)
    return np.rint(colours).astype(np.uint8)


def _lights(shape: VideoShape, rng: np.random.Generator) -> Iterator[FloatImage]:
    """Return what each frame is multiplied by, (1, width, 3): exposure, colour temperature, light from a side."""
    exposure, warmth, side = (_wander(shape, rng) for _ in range(3))
    across = np.linspace(-0.5, 0.5, shape.width)[None, :, None]
    gains = (1 + MOTION.exposure * exposure)[:, None] * (1 + MOTION.warmth * warmth[:, None] * np.array([1, 0, -1]))
    return (
        (gain * (1 + MOTION.sidelight * s * across)).astype(np.float32) for gain, s in zip(gains, side, strict=True)
    )


def _noises(shape: VideoShape, seed: int) -> Iterator[FloatImage]:
    """Return the sensor noise of each frame, (height, width, 3): windows of one field, which is 10 times quicker."""
    rng = np.random.default_rng([seed, _NOISE])
    room = 64
    field = rng.standard_normal((shape.height + room, shape.width + room, 3), np.float32) * np.float32(NOISE_SIGMA)
    corners = rng.integers(0, room + 1, (shape.n_frames, 2))
    return (field[y : y + shape.height, x : x + shape.width] for y, x in corners)
