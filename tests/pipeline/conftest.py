"""What the scenarios share: short videos, a Ray cluster, and the data set of a run that nothing disturbs."""

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import pytest
import ray
from click.testing import CliRunner

from lps.cli.prep.main import main
from lps.manifests.codes import Status
from lps.manifests.records import Outcome, VideoResult
from lps.manifests.splits.records import SplitParams
from lps.pipeline.config.params import Params
from lps.pipeline.job.events import OnEvent, PrepEvent
from lps.pipeline.job.finalize import Summary
from lps.pipeline.job.plan import Plan
from lps.pipeline.job.request import PrepRequest, RunOptions
from lps.pipeline.job.run import plan_job, run_job
from lps.pipeline.job.shards import ShardJob, ShardVideo
from lps.pipeline.tools.demo_videos import make_face_video, make_texture_video
from tests.builders import folder_video, still_clip
from tests.conftest import connect

E = TypeVar("E", bound=PrepEvent)
Ended = subprocess.CompletedProcess[str]
Digests = dict[str, str]
"""Path of a file of a data set -> its SHA-256."""

N_PAIRS = 4
PARAMS = Params(localizer="mtcnn", clip_frames=10, block_frames=5)


@dataclass(frozen=True, slots=True)
class Result:
    """What one run gave."""

    summary: Summary
    events: list[PrepEvent]

    def of(self, kind: type[E]) -> list[E]:
        """Return all events of this kind."""
        return [event for event in self.events if isinstance(event, kind)]


@dataclass(frozen=True, slots=True)
class Scenario:
    """How the scenarios make their data sets: the same sources and parameters but for what a test changes."""

    source: str
    address: str | None
    """Address of the shared cluster; None for a private one."""

    def request(self, out: Path | str, **changes: Any) -> PrepRequest:
        """Return the request of a data set at `out`. Three clips at most go into a shard."""
        made = PrepRequest(
            source=self.source,
            out=str(out),
            dataset="folder",
            params=PARAMS,
            split=SplitParams(rule="group", ratios=(0.6, 0.2, 0.2)),
            shard_mb=1,
        )
        return replace(made, **changes)

    def run(
        self,
        request: PrepRequest,
        on_event: OnEvent = lambda event: None,
        **options: Any,
    ) -> Result:
        """Run the job. `options` are those of RunOptions, `on_event` is called besides the recording."""
        events: list[PrepEvent] = []

        def record(event: PrepEvent) -> None:
            events.append(event)
            on_event(event)

        chosen = RunOptions(**{"workers": 2, "address": self.address, **options})
        if chosen.address is not None and chosen.address == self.address:
            self.connect()
        else:
            ray.shutdown()  # this process would stay connected as it is
        return Result(run_job(request, chosen, record), events)

    def plan(self, request: PrepRequest) -> Plan:
        """Make the plan only."""
        self.connect()
        return plan_job(request, RunOptions(workers=2, address=self.address), lambda event: None)

    def connect(self) -> None:
        """Connect this process to the shared cluster, so that all its runs there share workers."""
        if self.address is not None:
            connect(self.address)


def make_sources(root: Path) -> None:
    """Make four real faces, their fakes, a video without a face, and one too short for a clip."""
    for i in range(N_PAIRS):
        for folder, fake in (("real", False), ("fake/blend", True)):
            make_face_video(root / folder / f"face_{i}.mp4", n_frames=24 + i, width=320, height=240, seed=i, fake=fake)
    make_texture_video(root / "real/no_face.mp4", n_frames=24, width=320, height=240)
    make_face_video(root / "real/too_short.mp4", n_frames=2, width=320, height=240, seed=9)


@pytest.fixture(scope="session")
def scenario_source(made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """Return the folder of the sources. Tests only read it."""
    return made_once("scenario_source", make_sources)


@pytest.fixture(scope="session")
def scenario(scenario_source: Path, cluster_address: str) -> Scenario:
    """Runs on the shared cluster."""
    return Scenario(str(scenario_source), cluster_address)


@pytest.fixture(scope="session")
def private(scenario_source: Path) -> Scenario:
    """Runs that each start a cluster of their own, as `lps-prep run` does."""
    return Scenario(str(scenario_source), None)


@pytest.fixture
def command(scenario: Scenario, tmp_path: Path) -> Callable[..., Ended]:
    """Return a function that runs `lps-prep run` to `out` from the shared sources.

    Its data set is that of `Scenario.request`. `settings` are lines of the table [run] of the settings file. It runs in
    this process, on the shared cluster; with variables to be added to its environment in a process of its own, and
    with `private` there on a cluster of its own, too.
    """

    def run(
        out: Path | str,
        *options: str,
        source: str = scenario.source,
        settings: str = "",
        private: bool = False,
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> Ended:
        params = f"clip_frames = {PARAMS.clip_frames}\nblock_frames = {PARAMS.block_frames}\n"
        file = tmp_path / "settings.toml"
        file.write_text(f"{params}[split]\nratios = [0.6, 0.2, 0.2]\n[run]\nshard_mb = 1\n{settings}\n")
        line = ["run", source, str(out), "--localizer", PARAMS.localizer, "--params", str(file), "--workers", "1"]
        line += [*options] if private else [*options, "--address", str(scenario.address)]
        if not private and not env:
            scenario.connect()
            ended = CliRunner().invoke(main, line, prog_name="lps-prep", catch_exceptions=False)
            return subprocess.CompletedProcess(line, ended.exit_code, ended.stdout, ended.stderr)
        program = str(Path(sys.executable).parent / "lps-prep")
        # A private cluster starts as it does for a user, whatever the shared one needs.
        ours = {name: value for name, value in os.environ.items() if not (private and name == "RAY_AUTH_MODE")}
        return subprocess.run(
            [program, *line], capture_output=True, text=True, timeout=300, check=False, env={**ours, **env}
        )

    return run


@pytest.fixture(scope="session")
def assert_one_line() -> Callable[[Ended, int, str], None]:
    """Return a check that a command ended with an exit code and one line that holds a text, without a traceback."""

    def check(ended: Ended, code: int, text: str) -> None:
        lines = [line for line in ended.stderr.splitlines() if line.startswith("lps-prep: ")]
        assert ended.returncode == code, ended.stderr
        assert len(lines) == 1, ended.stderr
        assert text in lines[0]
        assert ended.stderr.splitlines()[-1] == lines[0]
        assert "Traceback" not in ended.stderr

    return check


@pytest.fixture(scope="session")
def digests() -> Callable[[Path], Digests]:
    """Return a function that digests every file of a data set that must be a pure function of its inputs."""

    def digest(out: Path) -> Digests:
        files = sorted(path for path in out.rglob("*") if path.is_file())
        names = {path.relative_to(out).as_posix(): path for path in files}
        return {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in names.items()
            if not name.startswith("runs/")
        }

    return digest


@pytest.fixture(scope="session")
def undisturbed_out(scenario: Scenario, made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """Return the data set of a run with one worker and nothing in its way. Tests only read it."""
    return made_once("undisturbed_out", lambda out: scenario.run(scenario.request(out), workers=1))


@pytest.fixture(scope="session")
def undisturbed(undisturbed_out: Path, digests: Callable[[Path], Digests]) -> Digests:
    """Return the digests of that data set."""
    return digests(undisturbed_out)


@pytest.fixture
def shard() -> tuple[ShardJob, Params, list[VideoResult]]:
    """Return a shard of one video with one clip, its parameters and its results; the images are noise."""
    source = folder_video("real/a.mp4", 0)
    video = ShardVideo(source=source, n_bytes=1, sha256=bytes(32), original_video_id=None)
    job = ShardJob(shard_id="train-000000", split="train", plan_sha256="0" * 64, videos=(video,))
    n = PARAMS.clip_frames
    clip = still_clip(n, frames=tuple(random.Random(k).randbytes(4096) for k in range(n)))
    outcome = Outcome(status=Status.OK, n_frames_decoded=n)
    return job, PARAMS, [VideoResult(video_id=source.video_id, outcome=outcome, clips=(clip,))]
