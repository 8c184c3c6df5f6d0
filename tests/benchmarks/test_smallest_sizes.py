"""Every benchmark runs through at its smallest size: what `make bench` starts is never broken."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SMALLEST = {
    "damage": ["--frames", "20", "--positions", "2", "--codings", "1"],
    "landmarks": ["--limit", "1", "--localizers", "mtcnn"],
    "manifests": ["--n", "200"],
    "model": ["--batch", "32:1", "--calls", "1"],
    "prep": ["--limit", "1", "--copies", "1", "--localizers", "mtcnn", "--workers", "1"],
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
