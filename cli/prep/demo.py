"""The demo: sample videos, then the main job on them."""

import shlex
from pathlib import Path

from lps.cli.common import echo
from lps.cli.prep.progress import PrepProgress, print_summary
from lps.manifests.splits.records import SplitParams
from lps.manifests.storage import open_store
from lps.pipeline.config.params import Params
from lps.pipeline.job.plan import refuse_other_writer
from lps.pipeline.job.request import PrepRequest, RunOptions
from lps.pipeline.job.run import run_job
from lps.pipeline.tools.demo_videos import make_demo_videos
from lps.pipeline.tools.preview import draw_preview

SHARD_MB = 6
SETTINGS = f"[run]\nshard_mb = {SHARD_MB}  # so small that a few sample videos fill more than one shard\n"


def run_demo(out: Path, *, workers: int | None, seed: int) -> None:
    """Make sample videos in OUT/videos, the data set in OUT/dataset and the contact sheet OUT/preview.png.

    OUT/params.toml has what the printed `lps-prep run`, which makes or resumes the same data set, needs besides.
    """
    videos, dataset, sheet = out / "videos", out / "dataset", out / "preview.png"
    settings = out / "params.toml"
    refuse_other_writer(open_store(str(dataset)))
    echo(f"1. sample videos in {videos}: portraits moved, turned and lit; fakes by self-blending", err=True)
    # always made anew: half a set from an interrupted demo would otherwise be taken for all of it
    make_demo_videos(videos, seed=seed, on_video=lambda name: echo(f"   {name}", err=True))
    open_store(str(out)).publish(settings.name, SETTINGS.encode())
    echo(f"2. {_run_line(videos, dataset, settings, seed)}", err=True)
    request = PrepRequest(
        source=str(videos),
        out=str(dataset),
        dataset="folder",
        params=Params(localizer="mtcnn", seed=seed),
        split=SplitParams(seed=seed),
        shard_mb=SHARD_MB,
    )
    with PrepProgress() as progress:
        summary = run_job(request, RunOptions(workers=workers), progress.on_event)
    draw_preview(str(dataset), sheet, per_row=8)
    print_summary(summary, str(dataset))
    echo(
        f"\nThree of the sample videos are made to fail; their codes are above. What to do next:\n"
        f"  look at {sheet}\n"
        f"  lps-prep status {dataset}\n"
        f"  lps-prep run YOUR_VIDEOS OUT --dataset folder --localizer mtcnn     (real/ and fake/ below YOUR_VIDEOS)\n"
        f"  lps-prep run --help"
    )


def _run_line(videos: Path, dataset: Path, settings: Path, seed: int) -> str:
    """Return the command that makes this data set, as a shell takes it."""
    words = ["lps-prep", "run", videos, dataset, "--dataset", "folder", "--localizer", "mtcnn"]
    words += ["--seed", seed] if seed else []
    return shlex.join(map(str, [*words, "--params", settings]))
