"""The sample videos: what is in the tree, that a face is where one should be, and that the bytes never change."""

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

import av
import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN

from lps.manifests.errors import UnreadableError
from lps.pipeline.faces.detector import Image
from lps.pipeline.tools.demo_faces import PORTRAITS, PortraitName, forge_face, load_portrait
from lps.pipeline.tools.demo_videos import LENGTHS, RATES, make_face_video, make_texture_video

pytestmark = pytest.mark.slow

STEMS = [f"face_{i:02d}" for i in range(8)]


@pytest.fixture(scope="module")
def mtcnn() -> Iterator[MTCNN]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield MTCNN(keep_all=True, device="cpu")
    torch.set_num_threads(threads)


def decoded(path: Path) -> Image:
    """All frames, (n, height, width, 3) RGB."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def flicker(frames: Image) -> float:
    """Mean absolute second difference in time over the middle of the frame: smooth motion has little of it."""
    _, height, width, _ = frames.shape
    face = frames[:, height // 3 : height * 4 // 5, width // 3 : width * 2 // 3].astype(np.float64)
    return float(np.abs(np.diff(face, n=2, axis=0)).mean())


def test_the_tree_has_pairs_and_three_that_must_fail(demo_videos: Path) -> None:
    pairs = {f"{folder}/{stem}.mp4" for folder in ("real", "fake/blend") for stem in STEMS}
    found = {path.relative_to(demo_videos).as_posix() for path in demo_videos.rglob("*") if path.is_file()}
    assert found == pairs | {"real/no_face.mp4", "real/too_short.mp4", "fake/blend/corrupt.mp4"}


@pytest.mark.parametrize("stem", STEMS)
def test_a_pair_holds_a_face_throughout_and_differs_only_there(demo_videos: Path, mtcnn: MTCNN, stem: str) -> None:
    real, fake = decoded(demo_videos / f"real/{stem}.mp4"), decoded(demo_videos / f"fake/blend/{stem}.mp4")
    assert real.shape == fake.shape
    assert len(real) in LENGTHS
    assert real.shape[1:] == (360, 640, 3)
    for frames in (real, fake):
        for image in frames[:: len(frames) // 3]:
            boxes, scores = mtcnn.detect(image)
            assert boxes is not None
            assert scores[0] > 0.99
            assert 140 < boxes[0][3] - boxes[0][1] < 215
        # Neither end of a warp shows: the sides above the shoulders belong to the backdrop, which is never black.
        assert frames[:, :180, [0, -1]].mean(axis=-1).min() > 8
    sides = np.abs(real[:, :, [0, 20, 620, 639]].astype(int) - fake[:, :, [0, 20, 620, 639]])
    assert sides.mean() < 1.5  # what the encoder makes of it
    assert flicker(fake) > 1.5 * flicker(real)


def test_only_the_texture_has_no_face(demo_videos: Path, mtcnn: MTCNN) -> None:
    texture, short = decoded(demo_videos / "real/no_face.mp4"), decoded(demo_videos / "real/too_short.mp4")
    assert len(texture) >= 60
    assert len(short) == 24
    assert all(mtcnn.detect(image)[0] is None for image in texture[::10])
    assert np.abs(np.diff(texture.astype(int), axis=0)).mean(axis=(1, 2, 3)).min() > 0.5
    assert all(mtcnn.detect(image)[0] is not None for image in short[::8])


def test_the_corrupt_video_cannot_be_opened(demo_videos: Path) -> None:
    with pytest.raises(av.error.InvalidDataError):
        decoded(demo_videos / "fake/blend/corrupt.mp4")


def test_portraits_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a portrait went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    load_portrait.cache_clear()
    for name in PORTRAITS:
        plain, mirrored = load_portrait(name), load_portrait(name, mirrored=True)
        assert plain.rgba.shape[2] == 4
        assert np.array_equal(plain.rgba[:, ::-1], mirrored.rgba)
        assert mirrored.face[0, 0] == plain.rgba.shape[1] - 1 - plain.face[0, 0]


@pytest.mark.parametrize("fps", [*RATES, 12])
def test_a_face_video_has_the_asked_size_rate_and_length(tmp_path: Path, fps: Fraction | int) -> None:
    path = tmp_path / "deep" / "face.mp4"
    make_face_video(path, n_frames=5, width=320, height=240, fps=fps, portrait="hopper")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == fps
        frames = list(container.decode(stream))
    assert [round(f.time or 0.0, 6) for f in frames] == [round(float(i / Fraction(fps)), 6) for i in range(5)]
    assert {(f.width, f.height) for f in frames} == {(320, 240)}


def test_seed_portrait_and_forgery_each_change_the_video(tmp_path: Path) -> None:
    def digest(*, seed: int = 0, fake: bool = False, portrait: PortraitName = "astronaut", flip: bool = False) -> str:
        path = tmp_path / "face.mp4"
        make_face_video(path, n_frames=3, width=160, height=120, seed=seed, fake=fake, portrait=portrait, mirrored=flip)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    variants = [digest(), digest(seed=1), digest(fake=True), digest(portrait="hopper"), digest(flip=True)]
    assert len(set(variants)) == 5
    assert digest(fake=True) == variants[2]


def test_bytes_do_not_depend_on_what_memory_held_before(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from lps.pipeline.tools.demo_videos import make_face_video;"
        "make_face_video(Path(sys.argv[1]), n_frames=3, width=160, height=120, fake=True)"
    )
    for fill in ("0", "85", "170", "255"):  # glibc fills what it hands out with the complement of this
        environment = {**os.environ, "MALLOC_PERTURB_": fill}
        subprocess.run([sys.executable, "-c", script, str(tmp_path / fill)], env=environment, check=True)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_a_face_outside_the_frame_is_left_alone() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    face = np.array([[0.0, 0.0], [40.0, 0.0], [20.0, 50.0]])
    inside = forge_face(frame, face, np.random.default_rng(1))
    assert (inside != frame).any()
    assert inside.dtype == np.uint8
    partly = forge_face(frame, face + (70, 0), np.random.default_rng(1))
    assert np.array_equal(partly[:, :50], frame[:, :50])
    assert np.array_equal(forge_face(frame, face + (500, 0), np.random.default_rng(1)), frame)


@pytest.mark.parametrize(
    ("n_frames", "width", "height", "fps"), [(0, 64, 64, 25), (1, 63, 64, 25), (1, 64, 16, 25), (1, 64, 64, 0)]
)
def test_impossible_sizes_are_refused(tmp_path: Path, n_frames: int, width: int, height: int, fps: int) -> None:
    with pytest.raises(ValueError, match=r"a video needs|must be even"):
        make_texture_video(tmp_path / "a.mp4", n_frames=n_frames, width=width, height=height, fps=fps)


def test_bad_names_seeds_and_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose from astronaut, hopper"):
        make_face_video(tmp_path / "a.mp4", portrait="nobody")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="non-negative"):
        make_texture_video(tmp_path / "a.mp4", n_frames=1, seed=-1)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnreadableError, match="cannot write"):
        make_texture_video(tmp_path / "file" / "a.mp4", n_frames=1, width=64, height=64)
