"""Every benchmark runs through at its smallest size: what `make bench` starts is never broken."""

import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

from lps.pipeline.tools.demo_videos import make_texture_video

ROOT = Path(__file__).resolve().parents[2]

SMALLEST = {
    "damage": ["--frames", "20", "--positions", "2", "--codings", "1"],
    "duplicates": ["--limit", "2", "--frames", "70"],
    "detectors": ["--device", "cpu", "--smoke"],
    "gpu": ["--device", "cpu", "--smoke"],
    "landmarks": ["--limit", "1", "--localizers", "mtcnn"],
    "load": ["--smoke", "--workers", "1"],
    "manifests": ["--n", "200"],
    "mix": ["--n", "200,400"],
    "model": ["--batch", "32:1", "--calls", "1"],
    "pairs": ["--limit", "1"],
    "prep": ["--limit", "1", "--copies", "1,2", "--localizers", "mtcnn", "--workers", "1", "--field-frames", "2"],
    "runtimes": ["--limit", "1", "--localizers", "mtcnn", "--runtimes", "torch", "onnxruntime"],
    "scale": ["--n", "4,8", "--workers", "1"],
    "shortcuts": ["--n", "200", "--max-clips", "200"],
    "train": ["--clips", "16", "--passes", "1", "--workers", "1", "--batch", "2", "--parts", "readers"],
}


def test_every_benchmark_is_started_by_make() -> None:
    [line] = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("BENCHMARKS :=")]
    assert set(line.split()[2:]) == set(SMALLEST)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_smallest_size_runs_through(name: str, tmp_path: Path, demo_videos: Path) -> None:
    script = ROOT / f"benchmarks/{name}.py"
    env = {**os.environ, "LPS_MEDIA_DIR": str(demo_videos)}
    ran = subprocess.run(
        [sys.executable, script, *SMALLEST[name]], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["detectors", "gpu"])
def test_without_a_gpu_its_benchmarks_are_not_run_and_that_is_said(name: str) -> None:
    command = [sys.executable, str(ROOT / f"benchmarks/{name}.py")]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    [line] = ran.stdout.splitlines()
    assert line.startswith("not run: there is no CUDA device here")


def loaded(name: str) -> ModuleType:
    """Import a benchmark, which belongs to no package."""
    spec = spec_from_file_location(name, ROOT / f"benchmarks/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_does_not_grow_costs_nothing_a_video(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    growth = loaded("scale").growth
    assert growth([10, 1010], [1.0, 3.0], "s") == ("2.000 ms", f"{3 + 0.002 * (12_000_000 - 1010):,.0f}")
    assert growth([10, 1010], [3.0, 2.0], "MB") == ("0.000 kB", "2")


def test_processes_that_have_ended_count() -> None:
    processes = loaded("processes").Processes()
    processes.start()
    try:
        before = processes.cpu_seconds()
        burn = "import time\nwhile time.process_time() < 2: pass"
        subprocess.run([sys.executable, "-c", burn], check=True)
        assert processes.cpu_seconds() - before > 0.5  # of 2; the last look may be half a second old
    finally:
        processes.end()


def test_long_videos_have_the_size_length_and_key_frames_of_the_data_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = loaded("sources")
    form = sources.Form(name="small", width=128, height=72, n_frames=20, rate=25)
    monkeypatch.setattr(sources, "SCENES", ((form, sources.Scene("short.mp4", top=16)),))
    monkeypatch.setattr(sources, "CLIPS", ("short.mp4",))
    clip = tmp_path / "short.mp4"
    make_texture_video(clip, n_frames=7, width=64, height=64)
    [path] = sources.long_videos([clip], tmp_path / "made")
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert {(frame.width, frame.height) for frame in frames} == {(128, 72)}
    assert [frame.key_frame for frame in frames] == [True] + 19 * [False]
    ways = [frame.to_ndarray(format="gray").astype(int) for frame in frames]
    assert np.abs(ways[7] - ways[5]).mean() < np.abs(ways[7] - ways[4]).mean()  # 6 is the last one of the clip
    path.write_bytes(b"kept")
    assert sources.long_videos([clip], tmp_path / "made") == [path]
    assert path.read_bytes() == b"kept"
    other = tmp_path / "other.mp4"
    assert sources.long_videos([other], tmp_path / "made") == [other]


def test_any_folder_of_videos_can_be_given(tmp_path: Path) -> None:
    media = loaded("media")
    with pytest.raises(SystemExit, match="^no video in "), media.videos(tmp_path, ["man_*"]):
        pass
    (tmp_path / "mine").mkdir()
    for name in ("mine/b.MOV", "mine/a.mp4", "notes.txt"):
        (tmp_path / name).touch()
    with media.videos(tmp_path, ["man_*"]) as found:
        assert found == [tmp_path / "mine/a.mp4", tmp_path / "mine/b.MOV"]
    (tmp_path / "man_1.mp4").touch()
    with media.videos(tmp_path, ["man_*"]) as found:
        assert found == [tmp_path / "man_1.mp4"]
    with pytest.raises(SystemExit, match="^no woman_1.mp4 in "), media.videos(tmp_path, ["man_*", "woman_1.mp4"]):
        pass
