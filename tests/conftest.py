"""Fixtures that tests of all parts share."""

import logging
import os
import signal
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before NumPy and torch are imported: processes side by side, each with a thread a core, wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import av
import cv2
import numpy as np
import pytest
import torch
from av.video.stream import VideoStream
from filelock import FileLock
from hypothesis import settings
from numpy.typing import NDArray

from lps.pipeline.sources.adapters import SourceFile, SourceListing, SourceOptions, list_videos
from lps.pipeline.tools.demo_videos import make_demo_videos

# A shell ignores Ctrl-C for what it starts in the background, and children inherit that; programs are tested without.
signal.signal(signal.SIGINT, signal.default_int_handler)
REPOSITORY = Path(__file__).resolve().parents[1]
OBJECT_STORE_BYTES = 100 << 20

settings.register_profile("untimed", deadline=None)  # no test depends on how busy the machine is
settings.load_profile("untimed")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores, four at most: tests of the job wait for clusters to start."""
    return min(4, len(os.sched_getaffinity(0)) + 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first: at the end, quick ones keep every process busy until the last file."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Return a function that finds a file of the shared folder by its path there.

    A test that needs a file which is not there skips; with LPS_REQUIRE_MEDIA=1 it fails.
    """
    root = Path(os.environ.get("LPS_SHARED_DIR", REPOSITORY.parent / "shared"))

    def find(path: str) -> Path:
        found = root / path
        if not found.exists():
            give_up = pytest.fail if os.environ.get("LPS_REQUIRE_MEDIA") == "1" else pytest.skip
            give_up(f"no {path} in LPS_SHARED_DIR")
        return found

    return find


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Return a function that lets another make the folder of a name, once for all processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        with FileLock(base / f"{name}.lock"):
            if not (base / name).exists():
                make(base / f"{name}.part")
                (base / f"{name}.part").rename(base / name)
        return base / name

    return folder


@pytest.fixture(scope="session")
def demo_videos(made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """Return the source tree of the demo. Tests only read it."""
    return made_once("demo_videos", make_demo_videos)


def connect(address: str) -> None:
    """Connect this process to a Ray cluster for all its runs to come: they share workers, and what these loaded."""
    import ray

    if not ray.is_initialized():
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)


@pytest.fixture(scope="session")
def cluster_address() -> Iterator[str]:
    """Address of a Ray cluster that lives as long as the session; starting one takes seconds."""
    import ray
    from ray.cluster_utils import Cluster

    # Ray turns tokens on when a process first starts a private cluster, and that process cannot join this one any more.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    head = {"num_cpus": 4, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    cluster: Any = Cluster(initialize_head=True, head_node_args=head)
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def joined(cluster_address: str) -> None:
    """Let what this process runs on Ray run on the cluster of the session, not on a private one."""
    connect(cluster_address)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Keep torch to one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def list_tree() -> Callable[..., SourceListing]:
    """Return a function that lists a source tree given as a mapping from path to content."""

    def listing(
        dataset: str, tree: Mapping[str, bytes], *, splits: Mapping[str, bytes] | None = None, table: str = ""
    ) -> SourceListing:
        def read(path: str) -> bytes:
            if path not in tree:
                raise FileNotFoundError(2, "No such file", path)
            return tree[path]

        files = [SourceFile(path=path, n_bytes=len(data)) for path, data in tree.items()]
        given = splits.get if splits is not None else None
        return list_videos(dataset, files, SourceOptions(read_bytes=read, splits_dir_read=given, table_path=table))

    return listing


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    """Return a function that encodes (H, W, 3) RGB frames, all of one even size, into a file."""

    def write(
        path: Path,
        frames: Iterable[NDArray[np.uint8]],
        *,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        rate: Fraction | int = 25,
        pts: Sequence[int] | None = None,
        time_base: Fraction = Fraction(1, 1000),
        pixel_aspect: Fraction | None = None,
        options: Mapping[str, str] | None = None,
        container: Mapping[str, str] | None = None,
    ) -> Path:
        with av.open(str(path), "w", options=dict(container or {})) as sink:
            stream = sink.add_stream(codec, rate=rate, options={"threads": "1", **(options or {})})
            assert isinstance(stream, VideoStream)  # mypy
            stream.pix_fmt = pix_fmt
            if pts is not None:
                stream.codec_context.time_base = time_base
            if pixel_aspect is not None:
                stream.codec_context.sample_aspect_ratio = pixel_aspect
            for k, image in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                if k == 0:
                    stream.width, stream.height = frame.width, frame.height
                if pts is not None:
                    frame.pts, frame.time_base = pts[k], time_base
                sink.mux(stream.encode(frame))
            sink.mux(stream.encode(None))
        return path

    return write


@pytest.fixture(scope="session")
def scene() -> Callable[..., list[NDArray[np.uint8]]]:
    """Return a function that films a pan over a random landscape: no two frames alike, neighbours nearly so."""

    def film(
        n: int, width: int = 96, height: int = 64, *, seed: int = 0, speed: float = 1.0
    ) -> list[NDArray[np.uint8]]:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(20, 236, (16, 24, 3)).astype(np.uint8)
        wide = cv2.resize(coarse, (width * 2, height * 2), interpolation=cv2.INTER_CUBIC)
        shifts = [np.array([[1, 0, -k * speed], [0, 1, -k * speed / 2]]) for k in range(n)]
        frames = [cv2.warpAffine(wide, shift, (width, height), borderMode=cv2.BORDER_WRAP) for shift in shifts]
        return [np.asarray(frame, np.uint8) for frame in frames]

    return film


@pytest.fixture(scope="session")
def set_display_matrix() -> Callable[[Path, Sequence[int]], None]:
    """Return a function that overwrites the display matrix (nine numbers) of the only track of an MP4 file."""

    def overwrite(path: Path, matrix: Sequence[int]) -> None:
        data = bytearray(path.read_bytes())
        at = data.index(b"tkhd") + 4 + 40  # version 0: 24 bytes of times, ids and duration, 16 of layer and volume
        assert struct.unpack(">9i", data[at : at + 36])[8] == 1 << 30
        data[at : at + 36] = struct.pack(">9i", *matrix)
        path.write_bytes(bytes(data))

    return overwrite
