"""Videos that crash, hang or fill the memory of their worker end as rows; their shard mates do not notice."""

import os
import signal
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner
from ray import cloudpickle

from lps.cli.prep.main import check_summary, main
from lps.manifests.errors import TooManyFailedError
from lps.manifests.index import committed_shards
from lps.manifests.records import VideoResult
from lps.manifests.schemas import Row
from lps.manifests.storage import Store
from lps.pipeline.config.params import Params
from lps.pipeline.faces.track import DetectFaces
from lps.pipeline.job.events import JobCharged, JobQuarantined, VideoDone
from lps.pipeline.job.shards import ShardVideo
from lps.pipeline.job.tasks import process_source
from lps.pipeline.video.source_reader import SourceReader
from tests.builders import manifest_rows

if TYPE_CHECKING:
    from tests.pipeline.conftest import Digests, Result, Scenario

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests

pytestmark = pytest.mark.slow


def crash() -> None:
    """Die as by a fault of a native library."""
    os.kill(os.getpid(), signal.SIGSEGV)


def hang() -> None:
    """Never return."""
    while True:
        time.sleep(1)


def hoard() -> None:
    """Allocate far more memory than allowed. It is not touched: without a limit this must not fill the machine."""
    held = [np.empty(64 << 20, np.uint8) for _ in range(256)]
    raise AssertionError(f"nothing stopped {len(held)} allocations")


POISON: dict[str, tuple[Callable[[], None], str]] = {
    "real/face_0.mp4": (crash, "E_WORKER_LOST"),
    "fake/blend/face_1.mp4": (hoard, "E_OOM"),
    "real/too_short.mp4": (hang, "E_TIMEOUT"),
}
CODES = {uri: code for uri, (_, code) in POISON.items()}


def process_poisoned(source: SourceReader, video: ShardVideo, detect: DetectFaces, params: Params) -> VideoResult:
    """Process a video as ever, unless it is poison."""
    if video.source.uri in POISON:
        POISON[video.source.uri][0]()
    return process_source(source, video, detect, params)


@pytest.fixture(scope="module")
def poisoned(scenario: "Scenario", tmp_path_factory: pytest.TempPathFactory) -> "tuple[Path, Result]":
    """Return the data set and the result of a run over poison."""
    out = tmp_path_factory.mktemp("poisoned") / "out"
    scenario.plan(scenario.request(out))
    # By frames: the video that hangs has two and must end soon, all others have time.
    result = scenario.run(
        scenario.request(out),
        process=process_poisoned,
        detectors=1,  # a worker that is lost takes no localizer along
        memory_mb=1024,
        deadline_seconds=1.0,
        deadline_seconds_per_frame=5.0,
    )
    return out, result


def clip_facts(out: Path, without: set[bytes]) -> dict[str, Row]:
    """Return sample key -> its row but for its place in the tar, leaving out the clips of some videos."""
    found = {}
    for row in manifest_rows(out, "clips"):
        if row["video_id"] not in without:
            members = [{key: value for key, value in member.items() if key != "offset"} for member in row["members"]]
            found[row["sample_key"]] = {**row, "tar_offset": None, "members": members}
    return found


def sample_bytes(out: Path, keys: set[str]) -> dict[str, bytes]:
    """Return member name -> bytes of these samples in all tars."""
    found = {}
    for path in sorted(out.glob("shards/*/*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if member.name.split(".")[0] in keys and file is not None:
                    found[member.name] = file.read()
    return found


def test_every_poison_is_charged_twice_and_ends_as_its_code(poisoned: "tuple[Path, Result]") -> None:
    out, result = poisoned
    ended = {row["uri"]: (row["status"], row["error_code"], row["n_clips"]) for row in manifest_rows(out, "videos")}
    assert {uri: ended[uri] for uri in POISON} == {uri: ("failed", code, 0) for uri, code in CODES.items()}
    assert sorted(event.code for event in result.of(JobCharged)) == sorted(CODES.values())
    assert sorted(event.code for event in result.of(JobQuarantined)) == sorted(CODES.values())


def test_shard_mates_are_as_if_nothing_had_happened(poisoned: "tuple[Path, Result]", undisturbed_out: Path) -> None:
    out, _ = poisoned
    ids = {row["video_id"] for row in manifest_rows(out, "videos") if row["uri"] in POISON}
    facts = clip_facts(out, ids)
    assert len(facts) == 6
    assert facts == clip_facts(undisturbed_out, ids)
    samples = sample_bytes(out, set(facts))
    assert len(samples) == 6 * 12  # ten frames, the class and the facts
    assert samples == sample_bytes(undisturbed_out, set(facts))
    untouched = [row for row in manifest_rows(out, "videos") if row["uri"] not in POISON]
    assert untouched == [row for row in manifest_rows(undisturbed_out, "videos") if row["uri"] not in POISON]


def test_the_share_of_quarantined_videos_decides_the_exit_code(poisoned: "tuple[Path, Result]") -> None:
    summary = poisoned[1].summary
    assert (summary.n_quarantined, summary.n_selected) == (3, 10)
    check_summary(summary, max_failed_percent=30)
    with pytest.raises(TooManyFailedError, match=r"^3 of 10 videos \(30.0 %\) were quarantined") as caught:
        check_summary(summary, max_failed_percent=29)
    assert caught.value.exit_code == 1


def test_retried_without_poison_the_bytes_are_the_undisturbed_ones(
    poisoned: "tuple[Path, Result]",
    scenario: "Scenario",
    undisturbed: "Digests",
    digests: "Callable[[Path], Digests]",
) -> None:
    out, _ = poisoned
    arguments = ["retry", str(out), *(word for code in sorted(CODES.values()) for word in ("--code", code))]
    before = committed_shards(Store(str(out)))
    asked = CliRunner().invoke(main, arguments)
    reopened = before - committed_shards(Store(str(out)))
    assert asked.exit_code == 0
    assert asked.output.startswith(f"3 videos in {len(reopened)} shards reopened")
    result = scenario.run(scenario.request(out))
    assert digests(out) == undisturbed
    assert {video.video.split("/")[0] for video in result.of(VideoDone)} == reopened
